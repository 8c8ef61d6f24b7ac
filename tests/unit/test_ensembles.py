"""Ensembles: what members differ by, how they are written, and their scores."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner
from training_runs import recipe

import sciml_dchag as sd
from sciml_dchag.cli import main
from sciml_dchag.pipeline import train
from sciml_dchag.tasks import task_of
from sciml_dchag.training.evaluation import Evaluation
from sciml_dchag.weather.baselines.climatological_ensemble import ClimatologicalEnsemble
from sciml_dchag.weather.forecast.ensemble import of_hour_and_season
from sciml_dchag.weather.forecast.ensemble_factor import _error_over_spread, calibrated
from sciml_dchag.weather.forecast.forecaster import Forecaster
from sciml_dchag.weather.scores.ensemble import EnsembleSums
from sciml_dchag.weather.store.climatology import compute_climatology
from sciml_dchag.weather.store.store import Store

PERIOD = ("2025-12-28T00", "2025-12-28T06")


@pytest.fixture(scope="module")
def store(msl_store: Path) -> Path:
    compute_climatology(msl_store, ("2025-12-01", "2025-12-24"))
    return msl_store


@pytest.fixture(scope="module")
def runs(store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A forecaster that is rolled out and one that is asked directly, without validation days."""
    folder = tmp_path_factory.mktemp("runs")
    tasks = {"rolled": {"linear_step": True}, "direct": {"lead_hours": [6, 12]}}
    for name, task in tasks.items():
        settings = {"task": task, "data": {"validation": None}, "training": {"steps": 3}}
        train(recipe(store, **settings), folder / name)
    return {name: folder / name for name in tasks}


def forecast(run: Path, store: Path, **options: object) -> np.ndarray:
    made = sd.open(run).forecast(store, leads=[6, 12], period=PERIOD, **options)
    return made["mean_sea_level_pressure"].values


@pytest.mark.parametrize("name", ["rolled", "direct"])
def test_members_lie_on_a_dimension_of_their_own_and_follow_from_the_seed(
    runs: dict[str, Path], store: Path, name: str
) -> None:
    three = sd.open(runs[name]).forecast(store, leads=[6, 12], period=PERIOD, members=3)
    field = three["mean_sea_level_pressure"]
    assert field.dims == ("time", "prediction_timedelta", "number", "latitude", "longitude")
    assert three["number"].values.tolist() == [1, 2, 3]
    assert "3 members, seed 0" in three.attrs["ensemble"]
    single = forecast(runs[name], store)
    errors = field.values - single[:, :, None]
    spread = errors.std(axis=(3, 4))
    assert (spread > 20).all() and (spread < 600).all()  # Pa; no member is the single forecast
    # In batches of another size rounding differs.
    many = forecast(runs[name], store, members=5, batch=3)
    np.testing.assert_allclose(many[:, :, :3], field.values, rtol=0, atol=0.5)
    other = forecast(runs[name], store, members=3, seed=1)
    assert np.abs(other - field.values).max() > 100


def test_written_members_are_those_in_memory(
    runs: dict[str, Path], store: Path, tmp_path: Path
) -> None:
    words = ["predict", str(runs["rolled"]), str(store), "out.zarr", "--lead-hours", "6,12",
             "--start-time", PERIOD[0], "--end-time", PERIOD[1], "--members", "3", "--seed", "2"]  # fmt: skip
    words[3] = str(tmp_path / "out.zarr")
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    expected = forecast(runs["rolled"], store, members=3, seed=2)
    with xr.open_zarr(tmp_path / "out.zarr") as written:
        np.testing.assert_array_equal(written["mean_sea_level_pressure"].values, expected)
    assert CliRunner().invoke(main, ["verify", str(tmp_path / "out.zarr")]).exit_code == 0
    made = sd.predict(
        runs["rolled"], store, leads=[6, 12], period=PERIOD, members=3, seed=2,
        out=tmp_path / "out.nc",
    )  # fmt: skip
    np.testing.assert_array_equal(made["mean_sea_level_pressure"].values, expected)
    made.close()


def test_what_members_cannot_be_made_of_is_refused(
    runs: dict[str, Path], store: Path, tmp_path: Path
) -> None:
    model = sd.open(runs["rolled"])
    with pytest.raises(ValueError, match="members is 1: it must be at least 2"):
        model.forecast(store, members=1)
    result = CliRunner().invoke(main, ["predict", "a", "b", "c.zarr", "--members", "1"])
    assert result.exit_code == 2 and "--members" in result.output
    state = Store.open(store).dataset()["state"].isel(time=[100]).to_dataset("channel").load()
    moved = store.with_name("moved.zarr")
    store.rename(moved)
    try:
        with pytest.raises(FileNotFoundError, match=r"put the store .* back at"):
            model.forecast(state, leads=[6], members=2)
        found = forecast(runs["rolled"], moved, members=2)  # it is the store of the training
    finally:
        moved.rename(store)
    np.testing.assert_array_equal(found, forecast(runs["rolled"], store, members=2))
    made = model.forecast(state, leads=[6], members=2)
    assert dict(made.sizes)["number"] == 2


def test_check_refuses_ensembles_that_cannot_be_made(store: Path) -> None:
    short = {"train": ["2025-12-01", "2025-12-24"], "validation": None}
    with pytest.raises(ValueError, match=r"evaluation.members is 1: it must be at least 2"):
        recipe(store, evaluation={"members": 1})
    found: list[str] = []

    def attempt(call):  # type: ignore[no-untyped-def]
        try:
            found.append(call())
        except ValueError as error:
            found.append(str(error))
            return False
        return True

    task_of(recipe(store, data=short, evaluation={"members": 4})).check(attempt, found.append)
    assert "4 members, with what is missed on 95 training days" in found
    assert any("data.validation is not: residual fields are added as they are" in f for f in found)
    days = {"train": ["2025-12-01", "2025-12-03"], "validation": None}
    task_of(recipe(store, data=days, evaluation={"members": 4})).check(attempt, found.append)
    assert any("has 11 time(s) with their history and 6 h after them" in text for text in found)


def test_days_are_of_the_same_hour_and_of_the_season_where_there_are_enough() -> None:
    years = np.arange("2001-01-01", "2004-01-01", np.timedelta64(6, "h"), dtype="datetime64[h]")
    found = years[of_hour_and_season(years, np.datetime64("2010-01-10T06"))]
    assert set(found.astype("datetime64[M]").astype(int) % 12 + 1) <= {11, 12, 1, 2}
    assert len(found) > 3 * 80 and ((found - found.astype("datetime64[D]")).astype(int) == 6).all()
    summer = years[of_hour_and_season(years[:40], np.datetime64("2010-07-10T06"))]
    assert len(summer) == 10  # too short a record for a season, so the hour alone counts
    assert len(of_hour_and_season(years[:40], np.datetime64("2010-07-10T03"))) == 40


def test_the_factor_makes_spread_equal_error_on_the_validation_days(
    runs: dict[str, Path], store: Path
) -> None:
    forecaster = Forecaster(runs["rolled"], Store.open(store))
    assert calibrated(forecaster, 4, [6]).factor.tolist() == [1.0]  # no days to choose it on
    forecaster.recipe = forecaster.recipe.replace(data={"validation": ["2025-12-25", "2025-12-27"]})
    ensemble = calibrated(forecaster, 4, [6])
    assert 0.5 < ensemble.factor[0] < 2 and ensemble.factor[0] != 1
    again = _error_over_spread(ensemble.with_factor(ensemble.factor, 10), [6, 12])
    assert again[0] == pytest.approx(1, abs=0.1)


def test_evaluate_scores_ensembles_beside_single_forecasts(
    runs: dict[str, Path], store: Path
) -> None:
    run = runs["rolled"]
    settings = recipe(
        store, task={"linear_step": True}, data={"validation": None},
        evaluation={"members": 4, "metrics": ["rmse"], "lead_hours": [6, 12], "initial_every_hours": 24},
    )  # fmt: skip
    table = sd.evaluate(run, settings).table
    read = Evaluation.read(run)
    assert read.table.shape == table.shape and "Spread over error" in read.labels.values()
    rows = table.set_index(["metric", "lead_hours"])
    assert list(dict.fromkeys(table["metric"])) == [
        "rmse", "crps", "ensemble_mean_rmse", "spread", "spread_over_error", "brier_low",
        "brier_high",
    ]  # fmt: skip
    for lead in (6, 12):
        crps = rows.loc["crps", lead]
        assert 0 < crps["model"] < crps["deterministic"] < crps["persistence"]
        assert crps["model"] < crps["climatological_ensemble"] < 1000
        assert (
            rows.loc["ensemble_mean_rmse", lead]["deterministic"] == rows.loc["rmse", lead]["model"]
        )
        assert 0.5 < rows.loc["spread_over_error", lead]["model"] < 2
        assert 0 < rows.loc["brier_high", lead]["model"] < 0.25
    assert "Ensembles: 4 members, seed 0" in " ".join(read.notes)
    for name in ("crps_by_lead", "spread_by_lead", "rank_histogram"):
        assert (run / "evaluation" / "figures" / f"{name}.png").is_file()
    assert "rank_histogram.csv" in str(read.tables)
    assert "Climatological ensemble" in (run / "evaluation" / "report.html").read_text()


def test_the_climatological_ensemble_is_of_the_training_period_and_the_hour(store: Path) -> None:
    opened = Store.open(store)
    period = ("2025-12-01", "2025-12-24")
    ensemble = ClimatologicalEnsemble(opened, period, [0], (0.1, 0.9))
    time = np.datetime64("2025-12-30T18")
    chosen = opened.times[ensemble.indices(time)]
    assert len(chosen) == ensemble.members == 24 and chosen.max() < np.datetime64("2025-12-25")
    assert set(chosen.astype("datetime64[h]").astype(int) % 24) == {18}
    members, quantiles = ensemble.at(time)
    expected = np.sort(opened.read(ensemble.indices(time), [0]), axis=0)
    np.testing.assert_array_equal(members, expected)
    assert quantiles.shape == (2, 1, 32, 64) and (quantiles[0] < quantiles[1]).all()
    with pytest.raises(ValueError, match="no state at the hour"):
        ensemble.indices(np.datetime64("2025-12-30T03"))


def test_ensembles_of_the_right_spread_have_flat_ranks_and_a_ratio_of_one() -> None:
    generator = np.random.default_rng(0)
    latitude = np.array([-60.0, 0.0, 60.0])
    sums = EnsembleSums(1, 9, latitude)
    none = np.zeros((2, 1, 3, 500))
    for _ in range(20):
        members = generator.normal(size=(10, 1, 3, 500))
        sums.update(members[:9], members[9], none)
    np.testing.assert_allclose(sums.rank_fractions()[0], 0.1, atol=0.01)
    found = sums.result()
    assert found["spread_over_error"][0] == pytest.approx(1, abs=0.02)
    # Two normal numbers are 2 / sqrt(pi) apart in the mean, of which the score is half.
    assert found["crps"][0] == pytest.approx(1 / np.sqrt(np.pi), abs=0.01)
    single = EnsembleSums(1, 2, latitude)
    single.update(np.repeat(members[:1], 2, axis=0), members[9], none)
    weights = single.weights_H / single.weights_H.sum() / 500
    mae = (np.abs(members[0, 0] - members[9, 0]) * weights).sum()
    assert single.result()["crps"][0] == pytest.approx(mae)
