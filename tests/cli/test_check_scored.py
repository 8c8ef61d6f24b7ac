"""What `evaluate` would refuse of test data is said by `check`, and by `run` before it begins."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml
from click.testing import Result

from sciml_dchag.checking import Finding, check_recipe
from sciml_dchag.tasks import load_recipe, recipe_from_mapping

Call = Callable[..., Result]
Refused = Callable[[Result], str]

TASKS: dict[str, dict[str, Any]] = {
    "forecast": {"task": {"lead_hours": [6, 6]}, "evaluation": {"lead_hours": [6, 12]}},
    "masked-weather": {"task": {"kind": "masked-weather", "mask_ratio": 0.5}},
    "interpolate": {"task": {"kind": "interpolate", "window_hours": [12]}},
}
NO_PERIOD = "The recipe has no data.test, which `evaluate` and `run` score"


def mapping(folder: Path, kind: str, **data: Any) -> dict[str, Any]:
    """A recipe of twenty times of 2 m temperature, six hours apart, that are not prepared yet."""
    when = np.datetime64("2019-07-01", "ns") + np.arange(20) * np.timedelta64(6, "h")
    values = np.random.default_rng(0).normal(280, 5, (20, 8, 16)).astype(np.float32)
    coords = {
        "time": when, "latitude": -78.75 + 22.5 * np.arange(8), "longitude": 22.5 * np.arange(16),
    }  # fmt: skip
    fields = {"t2m": (("time", "latitude", "longitude"), values, {"units": "K"})}
    xr.Dataset(fields, coords).to_netcdf(folder / "raw.nc")
    return {
        "name": "small",
        "prepare": {
            "sources": [str(folder / "raw.nc")], "channels": "t2m", "grid": "native",
            "climatology": "mean",
        },
        "data": {"store": str(folder / "s.zarr"), "train": ["2019-07-01", "2019-07-03"], **data},
        "model": {"embed_dim": 16, "depth": 1, "heads": 2, "patch": 2, "partitions": 1},
        "training": {"steps": 2, "batch": 2, "warmup_steps": 1},
        **TASKS[kind],
    }  # fmt: skip


def found(settings: dict[str, Any], verdict: str) -> list[str]:
    findings: list[Finding] = check_recipe(recipe_from_mapping(settings))
    return [finding.what for finding in findings if finding.verdict == verdict]


@pytest.mark.parametrize("kind", TASKS)
def test_check_says_what_will_be_scored(kind: str, tmp_path: Path) -> None:
    settings = mapping(tmp_path, kind, test=["2019-07-04", "2019-07-05"])
    assert not found(settings, "fails")
    first = {"forecast": "6 time(s) to score from, 2019-07-04T00:00 to 2019-07-05T06:00",
             "masked-weather": "8 time(s) to score from, 2019-07-04T00:00 to 2019-07-05T18:00",
             "interpolate": "4 time(s) to score from, 2019-07-04T00:00 to 2019-07-04T18:00"}  # fmt: skip
    assert first[kind] in found(settings, "ok")


@pytest.mark.parametrize("kind", TASKS)
def test_no_test_period_is_noted_and_refused_by_run(
    kind: str, tmp_path: Path, call: Call, refused: Refused
) -> None:
    settings = mapping(tmp_path, kind)
    assert not found(settings, "fails")
    (said,) = (note for note in found(settings, "note") if "data.test" in note)
    assert said.startswith(NO_PERIOD) and said.endswith("`train` goes without.")
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(settings))
    assert NO_PERIOD in refused(call("run", tmp_path / "small.yaml", "--runs", tmp_path / "runs"))
    assert not (tmp_path / "s.zarr").exists()  # refused before anything is prepared


@pytest.mark.parametrize(
    ("kind", "evaluation", "test", "why"),
    [
        ("forecast", {}, ["2019-07-05T12", "2019-07-05T18"], "is shorter than the longest lead"),
        ("interpolate", {}, ["2019-07-05T06", "2019-07-05T18"], "has no window of 12 h"),
        ("interpolate", {"every_hours": 7}, ["2019-07-04", "2019-07-05"], "every_hours is 7 and"),
        ("masked-weather", {"every_hours": 7}, ["2019-07-04", "2019-07-05"], "every_hours is 7"),
    ],
)
def test_a_test_period_without_anything_to_score_fails(
    kind: str, evaluation: dict[str, Any], test: list[str], why: str, tmp_path: Path
) -> None:
    settings = mapping(tmp_path, kind, test=test)
    settings["evaluation"] = settings.get("evaluation", {}) | evaluation
    (said,) = found(settings, "fails")
    assert why in said


def test_a_store_that_is_there_is_checked_too(own_work: Path, call: Call, refused: Refused) -> None:
    settings = yaml.safe_load(Path("small.yaml").read_text())
    settings["data"]["test"] = ["2025-12-31T12", "2025-12-31T18"]
    Path("short.yaml").write_text(yaml.safe_dump(settings))
    shutil.rmtree("runs")
    (said,) = found(settings, "fails")
    assert "is shorter than the longest lead time of 12 h" in said
    assert said in refused(call("run", "short.yaml"))
    assert not list(own_work.glob("runs/*/checkpoints/*"))  # refused before training
    assert any("time(s) to score from" in f.what for f in check_recipe(load_recipe("small.yaml")))
