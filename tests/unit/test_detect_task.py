"""`task.kind: detect` end to end: training, scores, and the command that finds objects in a store."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml
from click.testing import CliRunner, Result

import sciml_dchag as sd
from sciml_dchag.cli import main
from sciml_dchag.pipeline import train
from sciml_dchag.tasks import recipe_from_mapping, task_of
from sciml_dchag.training.evaluation import Evaluation
from sciml_dchag.weather.detect.baselines import FinderBaselines
from sciml_dchag.weather.detect.detector import Detector
from sciml_dchag.weather.detect.labels import BoxGrid, Located, ObjectTable
from sciml_dchag.weather.detect.scorer import ObjectSums
from sciml_dchag.weather.detect.training import DetectStore, ObjectSamples
from sciml_dchag.weather.grid import Grid
from sciml_dchag.weather.objects.sphere import distance_km
from sciml_dchag.weather.store.climatology import compute_climatology
from sciml_dchag.weather.store.statistics import compute_statistics
from sciml_dchag.weather.store.store import Store

TRAIN, VALIDATION = ["2001-01-01", "2001-01-08"], ["2001-01-09", "2001-01-10"]
TEST = ["2001-01-11", "2001-01-12"]
GRID = Grid.named("16x32")


def command(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def drawn_lows(times: int = 48) -> tuple[xr.DataArray, pd.DataFrame]:
    """Pressure with a few Gaussian lows at each time, some across Greenwich, and where they are."""
    draw = np.random.default_rng(1)
    start, rows = np.datetime64("2001-01-01", "ns"), []
    values = np.full((times, 1, *GRID.shape), 101500.0)
    for time in range(times):
        for place in range(3):
            latitude = draw.uniform(30, 60) * draw.choice([-1, 1])
            longitude = draw.uniform(-25, 25) + 120 * place
            depth = draw.uniform(25, 50)
            away = distance_km(latitude, longitude, GRID.latitude[:, None], GRID.longitude[None])
            values[time, 0] -= 100 * depth * np.exp(-((away / 900) ** 2) / 2)
            rows.append(
                {"time": start + time * np.timedelta64(6, "h"), "latitude": latitude,
                 "longitude": longitude % 360, "depth (hPa)": depth}
            )  # fmt: skip
    field = xr.DataArray(
        values.astype(np.float32),
        dims=("time", "channel", "latitude", "longitude"),
        coords={
            "time": start + np.arange(times) * np.timedelta64(6, "h"), "channel": ["msl"],
            "latitude": GRID.latitude, "longitude": GRID.longitude,
        },
    )  # fmt: skip
    return field, pd.DataFrame(rows)


def mapping(folder: Path, **sections: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "lows",
        "data": {"store": str(folder / "lows.zarr"), "objects": str(folder / "lows.csv"),
                 "train": TRAIN, "validation": VALIDATION, "test": TEST, "rotate": True,
                 "forcings": ["cos_latitude"]},
        "model": {"embed_dim": 16, "depth": 1, "heads": 2, "patch": 2, "partitions": 2,
                  "pyramid_dim": 16},
        "task": {"kind": "detect", "radius_km": 1500, "attributes": ["depth (hPa)"],
                 "max_objects": 8},
        "training": {"steps": 160, "batch": 4, "warmup_steps": 10, "learning_rate": 5e-3,
                     "validate_every": 160},
        "evaluation": {"within_km": 800},
        **sections,
    }  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, write: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("detect")
    field, lows = drawn_lows()
    path = write(field, folder / "lows.zarr")
    compute_statistics(path, tuple(TRAIN))
    compute_climatology(path, tuple(TRAIN), kind="mean")
    lows.to_csv(folder / "lows.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    train(recipe_from_mapping(mapping(folder)), folder / "run")
    return folder / "run"


def test_a_run_finds_what_it_was_shown_and_is_scored_beside_the_finder(run: Path) -> None:
    done = command("evaluate", run)
    assert done.exit_code == 0, done.output
    found = Evaluation.read(run)
    scores = found.table.set_index(["metric", "object"])
    assert found.baselines == ["finder", "spline_finder"]
    assert scores.loc[("f1", "objects"), "model"] > 0.8
    assert 0.3 < scores.loc[("ap50", "objects"), "model"] <= 1
    assert scores.loc[("place_error", "objects"), "model"] < 400
    assert abs(scores.loc[("bias", "depth (hPa)"), "model"]) < 6
    assert (scores.loc[("precision", "objects"), ["finder", "spline_finder"]] > 0.5).all()
    report = (run / "evaluation" / "report.html").read_text(encoding="utf-8")
    assert "from the validation period" in report and "closed minima" in report.lower()
    boxes = pd.read_csv(run / "evaluation" / "boxes.csv")
    assert boxes["time"].nunique() == 8 and boxes["probability"].between(0, 1).all()
    assert "depth (hPa)" in command("inspect", run).output


def test_predict_writes_a_table_and_a_picture(run: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "found"
    words = ("predict", run, folder / "lows.zarr", out, "--start-time", "2001-01-11",
             "--end-time", "2001-01-11T06", "--score", "0.3")  # fmt: skip
    done = command(*words)
    assert done.exit_code == 0, done.output
    assert {path.name for path in out.iterdir()} == {"boxes.csv", "objects.png"}
    table = pd.read_csv(out / "boxes.csv")
    assert table["probability"].min() >= 0.3 and table["time"].nunique() == 2
    shown = " ".join(command("inspect", out).output.split())
    assert "objects found by a network" in shown
    assert "2, 2001-01-11 00:00:00 to 2001-01-11 06:00:00" in shown
    store = Store.open(folder / "lows.zarr")
    index = int(np.flatnonzero(store.times == np.datetime64("2001-01-11T00"))[0])
    detector = Detector(run, store)
    by_hand = detector.find([index], least_score=0.3)[0]
    most, least = (len(detector.find([index], most_overlap=m)[0]) for m in (1.0, 0.01))
    assert least < most == 8  # task.max_objects
    first = table[table["time"] == "2001-01-11 00:00:00"]
    np.testing.assert_allclose(first["latitude"], by_hand.latitude, atol=1e-3)
    np.testing.assert_allclose(first["depth (hPa)"], by_hand.attributes[:, 0], atol=1e-3)
    again = command(*words)
    assert again.exit_code == 2 and "exists" in again.output
    assert command(*words, "--overwrite").exit_code == 0
    assert "give a multiple" in command(*words, "--overwrite", "--every-hours=5").output
    for option in ("--lead-hours=24", "--members=4", "--tp=2"):
        refused = command(*words, "--overwrite", option)
        assert refused.exit_code == 2 and "has no meaning" in " ".join(refused.output.split())
    same = sd.open(run).find_objects(folder / "lows.zarr", tmp_path / "again", score=0.3)
    assert len(same) > len(table)
    with pytest.raises(ValueError, match="2001-02-01 to None holds none"):
        sd.open(run).find_objects(
            folder / "lows.zarr", tmp_path / "none", period=("2001-02-01", None)
        )
    assert not (tmp_path / "none").exists()


def test_samples_turn_boxes_with_fields(folder: Path) -> None:
    """What lies in the middle of a box is the low, whatever the rotation."""
    opened = DetectStore(recipe_from_mapping(mapping(folder)))
    samples = ObjectSamples(opened, tuple(TRAIN), rotate=True)
    for number in range(6):
        sample = samples[number]
        field = sample.images[0, 0].numpy()
        for box in sample.boxes[0][sample.classes[0] >= 0].numpy():
            row, column = int((box[1] + box[3]) / 2), int((box[0] + box[2]) / 2) % 32
            columns = np.arange(column - 3, column + 4) % 32
            around = field[max(row - 3, 0) : row + 4][:, columns]
            assert field[row, column] <= np.quantile(around, 0.3)
        assert all(
            bool((one == other).all() or one.isnan().any())
            for one, other in zip(sample.tensors, samples[number].tensors, strict=True)
        )
    assert int((samples[0].classes >= 0).sum()) == 3


def test_places_become_boxes_and_come_back() -> None:
    grid = BoxGrid(GRID.latitude, GRID.longitude, 500.0)
    draw = np.random.default_rng(0)
    latitude, longitude = draw.uniform(-89, 89, 50), draw.uniform(0, 360, 50)
    boxes = grid.boxes(latitude, longitude)
    back = grid.places(boxes)
    np.testing.assert_allclose(back[0], latitude, atol=1e-9)
    np.testing.assert_allclose(np.mod(back[1] - longitude + 180, 360), 180, atol=1e-9)
    high = (boxes[:, 3] - boxes[:, 1]) * 11.25 * 111.195
    np.testing.assert_allclose(high, 1000, rtol=1e-3)
    wide = (boxes[:, 2] - boxes[:, 0]) * 11.25 * 111.195 * np.cos(np.deg2rad(latitude))
    np.testing.assert_allclose(wide[abs(latitude) < 80], 1000, rtol=1e-3)
    region = BoxGrid(np.array([40.0, 42.5, 45.0]), np.array([350.0, 352.5, 355.0]), 100.0)
    assert not region.wraps
    inside = region.inside(np.array([41.0, 39.0, 41.0, 60.0]), np.array([353, 349.0, 10, 352]))
    assert inside.tolist() == [True, True, False, False]


def located(places: list[tuple[float, float, float]], scores: list[float]) -> Located:
    values = np.array(places, float).reshape(-1, 3)
    return Located(
        latitude=values[:, 0], longitude=values[:, 1], classes=np.zeros(len(values), np.int64),
        attributes=values[:, 2:], scores=np.array(scores),
    )  # fmt: skip


def test_scores_are_those_by_hand() -> None:
    """Two true lows: one found 1 degree away, 2 hPa too deep, one missed; one false."""
    grid = BoxGrid(GRID.latitude, GRID.longitude, 500.0)
    sums = ObjectSums(grid, ["object"], ["depth (hPa)"], 400.0)
    truth = located([(50, 0.5, 10), (-50, 100, 20)], [1, 1])
    found = located([(51, 359.5, 12), (40, 200, 9), (-50, 100, 20)], [0.9, 0.5, 0.1])
    sums.add(found, truth, 0.3)
    scores = sums.scores()
    assert scores["f1", "objects"] == 0.5 and scores["recall", "objects"] == 0.5
    assert scores["place_error", "objects"] == pytest.approx(float(distance_km(50, 0.5, 51, 359.5)))
    assert scores["bias", "depth (hPa)"] == 2 and scores["count_error", "objects"] == 0
    assert scores["f1_iou50", "objects"] == 0.5
    # By falling probability: found, false, found, of two; 51 recalls at 1, 50 at 2 / 3.
    assert scores["ap50", "objects"] == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_the_finder_on_a_spline_is_nearer(folder: Path) -> None:
    store = Store.open(folder / "lows.zarr")
    baselines = FinderBaselines(store, "msl", ["object"], ["depth (hPa)", "other"])
    opened = DetectStore(recipe_from_mapping(mapping(folder)))
    sums = {
        name: ObjectSums(opened.grid, ["object"], ["depth (hPa)"], 800.0)
        for name in ("finder", "spline_finder")
    }
    for index in range(20):
        for name, found in baselines.find(index).items():
            assert (
                np.isnan(found.attributes[:, 1]).all() and np.isfinite(found.attributes[:, 0]).all()
            )
            sums[name].add(found, opened.objects(store.times[index]), 0.0)
    km = {name: one.scores()["place_error", "objects"] for name, one in sums.items()}
    assert km["spline_finder"] < km["finder"]


def test_check_and_plan_know_the_task(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "lows.yaml"
    path.write_text(yaml.safe_dump(mapping(folder)), encoding="utf-8")
    done = command("check", path)
    assert done.exit_code == 0 and "96 objects at 32 times" in done.output
    assert command("plan", path, "--gpus", "1").exit_code == 0
    for override, said in (
        ("model.patch=1", "must be even"),
        ("model.patch=16", "do not divide"),
        ("data.objects=nothing.csv", "does not exist"),
        ("data.objects=''", "is empty: name a table of objects"),
        ("task.attributes=[colour]", "has no column 'colour'"),
        ("task.max_objects=2", "raise it to 3"),
        ("data.history_hours=[6]", "must all be below 0"),
        ("task.radius_km=0", "from 1 to 5000"),
    ):
        done = command("check", path, "--set", override)
        assert done.exit_code != 0 and said in " ".join(done.output.split()), done.output


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"latitude": 95.0}, "'95.0' as latitude in row 2: it must be from -90 to 90"),
        ({"time": "yesterday noon"}, "has a time that cannot be read"),
        ({"depth (hPa)": -9999}, "has -9999 as depth (hPa) in 1 row(s)"),
        ({"depth (hPa)": "deep"}, "'deep' as depth (hPa) in row 2: it must be a number"),
    ],
)
def test_a_table_that_is_none_is_refused(
    folder: Path, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    table = pd.read_csv(folder / "lows.csv").astype(object)
    for name, value in change.items():
        table.loc[0, name] = value
    table.to_csv(tmp_path / "lows.csv", index=False)
    data = {**mapping(folder)["data"], "objects": str(tmp_path / "lows.csv")}
    with pytest.raises(ValueError, match="data.objects") as caught:
        task_of(recipe_from_mapping(mapping(folder, data=data))).open()
    assert said in str(caught.value)


def test_times_that_the_table_does_not_cover_are_refused(folder: Path, tmp_path: Path) -> None:
    table = pd.read_csv(folder / "lows.csv")
    table[table["time"] < "2001-01-11"].to_csv(tmp_path / "lows.csv", index=False)
    data = {**mapping(folder)["data"], "objects": str(tmp_path / "lows.csv")}
    with pytest.raises(ValueError, match=r"data.test has 2001-01-11.*: shorten the period"):
        task_of(recipe_from_mapping(mapping(folder, data=data))).open()


def test_a_run_is_scored_without_a_finder(run: Path, folder: Path) -> None:
    """The least probability is then the recipe's, too."""
    recipe = mapping(folder, evaluation={"finder_channel": "", "score": 0.4, "within_km": 800})
    found = task_of(recipe_from_mapping(recipe)).evaluate(run)
    assert found.baselines == [] and found.settings["Least probability"] == "0.40"
    assert "from the recipe" in (run / "evaluation" / "report.html").read_text(encoding="utf-8")


def test_kinds_are_classes_which_the_finder_must_know(folder: Path, tmp_path: Path) -> None:
    table = pd.read_csv(folder / "lows.csv")
    table["kind"] = np.where(table["latitude"] > 0, "north", "lows")
    table.to_csv(tmp_path / "kinds.csv", index=False)
    read = ObjectTable(str(tmp_path / "kinds.csv"), [])
    assert read.kinds == ("lows", "north")
    found = read.at(np.datetime64("2001-01-01", "ns"))
    assert ((found.classes == 1) == (found.latitude > 0)).all() and len(found) == 3
    assert not len(read.at(np.datetime64("2001-01-01T01", "ns")))
    with pytest.raises(ValueError, match="has the kind 'north', which the classical finder"):
        FinderBaselines(Store.open(folder / "lows.zarr"), "msl", read.kinds, [])


def test_other_objects_are_another_run(run: Path, folder: Path, tmp_path: Path) -> None:
    table = pd.read_csv(folder / "lows.csv")
    table.loc[0, "latitude"] += 1
    table.to_csv(tmp_path / "lows.csv", index=False)
    data = {**mapping(folder)["data"], "objects": str(tmp_path / "lows.csv")}
    with pytest.raises(ValueError, match="had other objects than"):
        task_of(recipe_from_mapping(mapping(folder, data=data))).evaluate(run)
    record = json.loads(next(run.glob("checkpoints/*/checkpoint.json")).read_text())
    assert record["data"]["kinds"] == ["object"]
