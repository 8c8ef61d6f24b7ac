"""A small copy of the demonstration from end to end: what `run` leaves, skips, redoes, refuses."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from click.testing import Result

from sciml_dchag.tasks import load_recipe
from sciml_dchag.training.evaluation import Evaluation
from sciml_dchag.weather.forecast.predict import predict_period
from sciml_dchag.weather.scores.metrics import score
from sciml_dchag.weather.store.store import Store

Call = Callable[..., Result]
Refused = Callable[[Result], str]


def test_a_run_leaves_what_others_rely_on(work: Path) -> None:
    run = work / "runs" / "small"
    assert load_recipe(run / "recipe.yaml") == load_recipe(work / "small.yaml")
    assert (run / "checkpoints" / "step-0000003" / "checkpoint.json").is_file()
    steps = [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3]
    header, *rows = (run / "evaluation" / "scores.csv").read_text().splitlines()
    assert header == (
        "channel,lead_hours,metric,units,perfect,model,persistence,anomaly_persistence,"
        "damped_persistence,climatology,ridge,inverse_model"
    )
    assert len(rows) == 2 * 5
    assert list((run / "evaluation" / "figures").glob("*.png"))
    assert not list(work.rglob("*.partial"))


def test_nothing_but_text_is_printed_where_the_output_is_no_terminal(work: Path) -> None:
    printed = (work / "printed.txt").read_text()
    assert "evaluate: scores beside the baselines" in printed
    assert "\x1b" not in printed and "\r" not in printed


def test_the_report_refers_to_nothing_outside_itself(work: Path) -> None:
    links: list[str] = []

    class Links(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            links.extend(v or "" for k, v in attrs if k in ("src", "href", "srcset", "data"))

    page = (work / "runs" / "small" / "evaluation" / "report.html").read_text()
    Links().feed(page)
    assert links and all(link.startswith(("data:", "#")) for link in links)
    assert "url(http" not in page and "@import" not in page
    assert "Copernicus" in page


def test_forecasts_have_weatherbenchs_layout(work: Path) -> None:
    with xr.open_zarr(work / "runs" / "small" / "forecasts" / "test.zarr") as forecasts:
        field = forecasts["mean_sea_level_pressure"]
        assert field.dims == ("time", "prediction_timedelta", "latitude", "longitude")
        assert field.shape == (28, 2, 32, 64)
        assert field.dtype == np.float32 and field.attrs["units"] == "Pa"
        hours = forecasts["prediction_timedelta"].values / np.timedelta64(1, "h")
        assert hours.tolist() == [6, 12]
        assert "Copernicus" in forecasts.attrs["attribution"]
        assert 9e4 < float(field.mean()) < 1.1e5 and bool(field.notnull().all())


def test_scores_are_those_of_the_forecasts_written(work: Path) -> None:
    """The table against `score` on the forecast store: two ways to the same numbers."""
    run = work / "runs" / "small"
    rows = Evaluation.read(run).table.set_index(["lead_hours", "metric"])["model"]
    with xr.open_zarr(run / "forecasts" / "test.zarr") as written:
        names = {"time": "init_time", "prediction_timedelta": "lead_time"}
        forecast = written.rename(names).isel(init_time=slice(0, 26)).load()
    truth = Store.open(work / "stores" / "msl_forecast.zarr").dataset()["state"]
    truth = truth.sel(channel="msl", drop=True)
    truth = truth.drop_vars([c for c in truth.coords if c not in truth.dims])
    scores = score(forecast, truth.to_dataset(name="mean_sea_level_pressure"), metrics=("rmse",))
    for i, lead in enumerate((6, 12)):
        value = float(scores["mean_sea_level_pressure"].sel(metric="rmse")[i])
        assert rows[lead, "rmse"] == pytest.approx(value, rel=1e-6)


def test_finished_steps_are_skipped_and_changed_ones_redone(
    own_work: Path, call: Call, changed_files: Callable[[Path], Callable[[], set[str]]]
) -> None:
    changes = changed_files(own_work)
    again = call("run", "small.yaml")
    assert again.exit_code == 0
    for step in ("prepare", "train", "predict", "evaluate"):
        assert re.search(f"{step}: .* is there", again.stdout), again.stdout
    assert changes() <= {"runs/small/recipe.yaml"}
    other = call("run", "small.yaml", overrides=("evaluation.lead_hours=[6,24]",))
    assert re.search("train: .* is there", other.stdout)
    assert (
        "evaluate: scores beside" in other.stdout
        and "predict: runs/small/forecasts/test.zarr\n" in other.stdout
    )
    assert ",24," in (own_work / "runs/small/evaluation/scores.csv").read_text()


@pytest.mark.parametrize("command", ["run", "train"])
@pytest.mark.parametrize(
    ("override", "section"),
    [
        ("model.depth=2", "model"),
        ("seed=1", "seed"),
        ("data.rotate=false", "data"),
        ("task.output=direct", "task"),
        ("training.learning_rate=1.0e-5", "training"),
    ],
)
@pytest.mark.usefixtures("work")
def test_another_training_in_the_same_folder_is_refused(
    command: str, override: str, section: str, call: Call, refused: Refused
) -> None:
    message = refused(call(command, "small.yaml", overrides=(override,)))
    assert f"holds a run with other settings in '{section}'" in message


def test_two_runs_are_trained_scored_and_compared(own_work: Path, call: Call) -> None:
    for words in (
        ("train", "small.yaml", "--set", "name=other", "--set", "seed=1"),
        ("evaluate", "runs/other"),
        ("evaluate", "runs/other", "--against", "runs/small"),
    ):
        result = call(*words)
        assert result.exit_code == 0, result.output
    assert "%" in result.stdout
    with (own_work / "runs/other/evaluation/against_small.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "channel",
        "lead_hours",
        "metric",
        "units",
        "run",
        "against",
        "percent",
    ]
    for row in rows:  # the same start from another seed would be no other run
        assert row["run"] != row["against"]


def test_half_the_error_is_minus_fifty_percent(work: Path, tmp_path: Path, call: Call) -> None:
    for name in ("small", "other"):
        shutil.copytree(work / "runs" / "small", tmp_path / name)
    path = tmp_path / "other" / "evaluation" / "scores.csv"
    with path.open() as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "model": repr(2 * float(row["model"]))} for row in rows)
    result = call("evaluate", tmp_path / "small", "--against", tmp_path / "other")
    assert result.exit_code == 0, result.output
    with (tmp_path / "small" / "evaluation" / "against_other.csv").open() as file:
        percent = {
            (r["lead_hours"], r["metric"]): float(r["percent"]) for r in csv.DictReader(file)
        }
    assert percent["6", "rmse"] == pytest.approx(-50) == percent["12", "acc_wb2"]


@pytest.mark.usefixtures("work")
def test_predict_writes_netcdf_and_goes_on_after_an_interruption(
    tmp_path: Path, call: Call, refused: Refused
) -> None:
    options = ["--lead-hours", "6,12", "--batch", "8"]
    run, whole_file, parts_store = "runs/small", tmp_path / "whole.nc", tmp_path / "parts.zarr"
    store = "stores/msl_forecast.zarr"
    options = [*options, "--start-time", "2025-12-25", "--end-time", "2025-12-31"]
    assert call("predict", run, store, whole_file, *options).exit_code == 0

    def stop(done: int, total: int, what: str) -> None:
        if done >= 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_period(Path(run), parts_store, lead_hours=[6, 12], batch=8, progress=stop)
    assert not parts_store.exists()
    other = call("predict", run, store, parts_store, "--lead-hours", "6", *options[2:])
    assert "begun with other settings" in refused(other)
    assert call("predict", run, store, parts_store, *options).exit_code == 0
    with xr.open_dataset(whole_file) as whole, xr.open_zarr(parts_store) as parts:
        for name in whole.data_vars:
            np.testing.assert_array_equal(whole[name].values, parts[name].values)
    assert "exists" in refused(call("predict", run, store, parts_store, *options))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run", "small.yaml", "--set", "training.stepz=1"), "did you mean 'training.steps'"),
        (("run", "absent.yaml"), "There is no recipe"),
        (("run", "small.yaml", "--set", "data.train=[2025-12-01,2025-12-10]"), "statistics"),
        (("train", "small.yaml", "--resume", "never"), "already holds a trained run"),
        (("evaluate", "runs/absent"), "is no run folder"),
        (("evaluate", "runs/small", "--set", "evaluation.lead_hours=[9]"), "do not reach"),
        (("evaluate", "runs/small", "--set", "evaluation.metrics=[rms]"), "unknown metric 'rms'"),
        (("evaluate", "runs/small", "--set", "data.test=[2025-12-20,2025-12-31]"), "share 2025-12-20"),
        (("predict", "runs/small", "stores/msl_forecast.zarr", "forecast.grib"), "must end in .zarr or .nc"),
        (("predict", "runs/absent", "stores/msl_forecast.zarr", "f.zarr"), "There is no checkpoint"),
        (("inspect", "absent.nc"), "There is no file"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("work")
def test_a_wrong_argument_is_one_sentence_and_status_2(
    words: tuple[str, ...], message: str, call: Call, refused: Refused
) -> None:
    assert message in refused(call(*words))


@pytest.mark.parametrize(
    ("channels", "found"), [("t2m,msl", "has 't2m' too"), ("t2m", "lacks 'msl'")]
)
@pytest.mark.usefixtures("work")
def test_a_store_of_other_channels_is_refused(
    channels: str,
    found: str,
    tmp_path: Path,
    series: Callable[..., xr.DataArray],
    write: Callable[..., Path],
    call: Call,
    refused: Refused,
) -> None:
    state = series(times=124, channels=channels, rows=32, start="2025-12-01")
    store = write(state, tmp_path / "other.zarr")
    for words in (
        ("predict", "runs/small", store, tmp_path / "forecasts.zarr"),
        ("evaluate", "runs/small", "--set", f"data.store={store}"),
    ):
        message = refused(call(*words))
        assert "trained on 1 channel(s)" in message and found in message
        assert "use a store prepared with the channels of the run" in message
    assert [path.name for path in tmp_path.iterdir()] == ["other.zarr"]
