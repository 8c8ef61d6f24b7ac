"""`objects` on stores and forecasts, and `evaluation.objects` of a recipe."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import Result

from sciml_dchag.training.evaluation import Evaluation

Call = Callable[..., Result]
STORE = "stores/msl_forecast.zarr"


def test_a_table_and_a_picture_of_a_store(own_work: Path, call: Call) -> None:
    words = ("objects", STORE, "out/objects.csv", "--kind", "lows", "--kind", "highs",
             "--start-time", "2025-12-30", "--end-time", "2025-12-30")  # fmt: skip
    result = call(*words, "--picture", "out/first.png")
    assert result.exit_code == 0, result.output
    table = pd.read_csv("out/objects.csv", parse_dates=["time"])
    assert list(table) == ["kind", "time", "latitude", "longitude", "value (hPa)", "depth (hPa)"]
    assert table["time"].nunique() == 4 and set(table["kind"]) == {"lows", "highs"}
    assert table["value (hPa)"].between(930, 1060).all() and (table["depth (hPa)"] >= 4).all()
    assert table["latitude"].abs().between(20, 75).all()
    assert (own_work / "out/first.png").stat().st_size > 20_000
    assert sorted(p.name for p in (own_work / "out").iterdir()) == ["first.png", "objects.csv"]
    before = (own_work / "out/objects.csv").read_bytes()
    assert "--overwrite" in call(*words).stderr
    assert (own_work / "out/objects.csv").read_bytes() == before
    assert call(*words, "--overwrite", "--min-depth", "8").exit_code == 0
    assert 0 < len(pd.read_csv("out/objects.csv")) < len(table)


def test_forecasts_have_lead_times(own_work: Path, call: Call) -> None:
    ends = ("--start-time", "2025-12-30T00", "--end-time", "2025-12-30T06")
    for name in ("f.zarr", "f.nc"):
        made = call("predict", "runs/small", STORE, name, "--lead-hours", "6,12", *ends)
        assert made.exit_code == 0, made.output
        result = call("objects", name, f"{name}.csv")
        assert result.exit_code == 0, result.output
    table = pd.read_csv("f.zarr.csv")
    assert list(table)[:2] == ["time", "lead_hours"] and set(table["lead_hours"]) == {6, 12}
    pd.testing.assert_frame_equal(table, pd.read_csv("f.nc.csv"))
    by_name = call("objects", "f.nc", "g.csv", "--channel", "mean_sea_level_pressure")
    assert by_name.exit_code == 0
    assert Path("g.csv").read_bytes() == Path("f.nc.csv").read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((STORE, "a.csv", "--channel", "t2m"), "t2m"),
        ((STORE, "a.txt"), "must end in .csv"),
        ((STORE, "a.csv", "--picture", "a.jpg"), "must end in .png"),
        (("nothing.zarr", "a.csv"), "does not exist"),
        (("small.yaml", "a.csv"), "neither a weather store nor forecasts"),
        ((STORE, "a.csv", "--band", "60", "20"), "--band"),
        ((STORE, "a.csv", "--min-depth", "-1"), "--min-depth"),
        ((STORE, "a.csv", "--start-time", "2031"), "holds none of the"),
    ],
)
def test_wrong_inputs_are_refused_in_a_sentence(
    work: Path, call: Call, refused: Callable[[Result], str], words: tuple[str, ...], said: str
) -> None:
    assert said in refused(call("objects", *words))


def test_no_lows_of_temperature(
    simulated_store: Path, tmp_path: Path, call: Call, refused: Callable[[Result], str]
) -> None:
    out = tmp_path / "a.csv"
    assert "pressure" in refused(call("objects", simulated_store, out, "--channel", "t2m"))
    made = call("objects", simulated_store, out, "--channel", "z500", "--min-depth", "100")
    assert made.exit_code == 0, made.output
    assert "depth (m2 s-2)" in pd.read_csv(out)


def test_an_evaluation_scores_lows_beside_every_baseline(own_work: Path, call: Call) -> None:
    path = own_work / "runs/small/recipe.yaml"
    recipe = yaml.safe_load(path.read_text())
    recipe["evaluation"]["objects"] = "lows,highs"
    path.write_text(yaml.safe_dump(recipe))
    assert call("check", path).exit_code == 0
    result = call("evaluate", "runs/small")
    assert result.exit_code == 0, result.output
    folder = own_work / "runs/small/evaluation"
    table = pd.read_csv(folder / "objects.csv")
    evaluation = Evaluation.read(own_work / "runs/small")
    assert set(table["forecast"]) == {"model", *evaluation.baselines}
    assert len(table) == 2 * 2 * (1 + len(evaluation.baselines))
    counted = table["found"] + table["missed"]
    assert (counted == table["true"]).all()
    assert table.groupby(["kind", "lead_hours"])["true"].nunique().eq(1).all()
    rows = table[(table["kind"] == "lows") & (table["forecast"] == "persistence")]
    f1 = rows.set_index("lead_hours")["f1"]
    assert 0.2 < f1[12] < f1[6] < 0.95
    np.testing.assert_array_equal(table["units"], "hPa")
    page = (folder / "report.html").read_text()
    assert "objects.csv" in page and "Lows of msl: F1 of the model" in page
    assert (folder / "figures/objects_by_lead.png").is_file()


def test_check_refuses_objects_of_what_is_not_scored(work: Path, call: Call) -> None:
    result = call("check", "small.yaml", overrides=("evaluation.objects=lows",))
    assert result.exit_code == 0, result.output
    for settings, said in (
        (("evaluation.objects=lows", "evaluation.objects_channel=z500"), "which is not scored"),
        (("evaluation.objects=troughs",), "evaluation.objects"),
    ):
        result = call("check", "small.yaml", overrides=settings)
        assert result.exit_code != 0 and said in result.output + result.stderr
