"""`check` fails for what `prepare` refuses before it reads values, case by case."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import xarray as xr
from click.testing import Result

from sciml_dchag.checking import check_recipe
from sciml_dchag.tasks import load_recipe
from sciml_dchag.weather.prepare.recipe import prepare_unless_there

Call = Callable[..., Result]


def field(name: str = "t2m", units: str = "K", count: int = 20, base: float = 280.0) -> xr.Dataset:
    when = np.datetime64("2019-07-01", "ns") + np.arange(count) * np.timedelta64(6, "h")
    values = np.random.default_rng(0).normal(base, 5, (count, 8, 16)).astype(np.float32)
    return xr.Dataset(
        {name: (("time", "latitude", "longitude"), values, {"units": units})},
        coords={
            "time": when,
            "latitude": -78.75 + 22.5 * np.arange(8),
            "longitude": 22.5 * np.arange(16),
        },
    )


def recipe(folder: Path, prepare: dict[str, Any], data: dict[str, Any], kind: str) -> Path:
    settings = {"channels": "t2m", "grid": "native", "climatology": "mean", **prepare}
    periods = {"train": ["2019-07-01", "2019-07-03"], "test": ["2019-07-04", "2019-07-05"], **data}
    forecast = "task: {lead_hours: [6, 6]}\nevaluation: {lead_hours: [6]}\n"
    text = (
        (
            f"name: small\nprepare: {settings!r}\ndata: { ({'store': str(folder / 'a.zarr'), **periods})!r}\n"
            "model: {embed_dim: 16, depth: 1, heads: 2, patch: 2, partitions: 1}\n"
            "training: {steps: 2, batch: 2, warmup_steps: 1}\n"
        )
        .replace("None", "null")
        .replace("(", "[")
        .replace(")", "]")
        .replace("True", "true")
    )
    masked = "task: {kind: masked-weather, mask_ratio: 0.5}\n"
    path = folder / "small.yaml"
    path.write_text(text + (forecast if kind == "forecast" else masked))
    return path


CASES: dict[str, tuple[Callable[[xr.Dataset], xr.Dataset], dict[str, Any], dict[str, Any], str | None]] = {
    "fine": (lambda d: d, {}, {}, None),
    "channels as a list": (lambda d: d, {"channels": ["t2m"]}, {}, None),
    "all channels": (lambda d: d, {"channels": "all"}, {}, None),
    "channel": (lambda d: d, {"channels": "t2m,q500"}, {}, "lack the variable 'q'"),
    "level": (lambda d: d.rename(t2m="t").assign_coords(level=850), {"channels": "t500"}, {}, "lack t at 500 hPa"),
    "model level": (lambda d: d.rename(t2m="t").assign_coords(hybrid=100), {"channels": "t100"}, {}, "lies on hybrid"),
    "units": (lambda d: d.assign(t2m=d["t2m"].assign_attrs(units="degC")), {}, {}, "'degC' where 'K'"),
    "period": (lambda d: d, {"period": ["1999", "2000"]}, {}, "holds none of the 20 times"),
    "training period": (lambda d: d, {}, {"train": ["1999-07-01", "1999-07-03"]}, "holds none of the 20 times"),
    "step": (lambda d: d, {"step_hours": 1}, {}, "the next time comes 6 h later"),
    "gap": (lambda d: d.isel(time=[0, 1, 3, 4, 5, 6, 7, 12, 13, 14, 15]), {"step_hours": 6}, {}, "comes 12 h later"),
    "steps of a forecast": (lambda d: d.expand_dims(step=[1, 2]), {}, {}, "holds 2 values of t2m"),
    "members": (lambda d: d.expand_dims(number=[1, 2]), {}, {}, "2 ensemble members"),
    "region": (lambda d: d.isel(latitude=slice(2, 6)), {"grid": "4x8"}, {}, "cover"),
    "projected": (lambda d: d.rename(latitude="y", longitude="x").drop_vars(["y", "x"]), {}, {}, "without latitude coordinates"),
    "no whole hour": (lambda d: d.assign_coords(time=d["time"] + np.timedelta64(10, "m")), {}, {}, "no whole hour"),
    "hourly climatology": (lambda d: d, {"climatology": "hourly"}, {}, "needs a year"),
    "static": (lambda d: d, {"static": ["lsm"]}, {}, "static field 'lsm' is not in"),
    "values": (lambda d: d - 273.15, {}, {}, "200 to 320 K is believable"),
    "a mark": (lambda d: d.where(d.t2m < 290, -999.0), {}, {}, "outside 150 to 350 K"),
    "missing values": (lambda d: d.where(d.t2m < 290), {}, {}, "missing values"),
    "missing values kept": (lambda d: d.where(d.t2m < 290), {"allow_missing": True}, {}, None),
    "text": (lambda d: d.astype(str), {}, {}, "holds text or objects"),
    "no time": (lambda d: d.isel(time=slice(0, 0)), {}, {}, "holds no time"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore:The training period")
def test_check_and_prepare_agree(case: str, tmp_path: Path) -> None:
    change, prepare, data, refusal = CASES[case]
    change(field()).to_netcdf(tmp_path / "raw.nc")
    for kind in ("forecast", "masked"):
        path = recipe(tmp_path, {"sources": [str(tmp_path / "raw.nc")], **prepare}, data, kind)
        opened = load_recipe(path)
        found = [f.what for f in check_recipe(opened) if f.verdict == "fails"]
        if refusal is None:
            assert not found, found
        else:
            assert any(refusal in what for what in found), found
    settings, store = opened.prepare, opened.data.store  # type: ignore[attr-defined]
    said: list[str] = []
    if refusal is None:
        prepare_unless_there(settings, store, opened.data.train, None, said.append)  # type: ignore[attr-defined]
        assert Path(store).is_dir() and len(said) == 1
        return
    with pytest.raises(ValueError, match=refusal):
        prepare_unless_there(settings, store, opened.data.train, None, said.append)  # type: ignore[attr-defined]
    assert not Path(store).exists()


def test_what_only_training_would_refuse_is_found_too(tmp_path: Path) -> None:
    field().isel(time=[0, 1, 2, 3, 4, 6, 8, 12, 13, 14, 15, 16]).to_netcdf(tmp_path / "raw.nc")
    path = recipe(tmp_path, {"sources": [str(tmp_path / "raw.nc")]}, {}, "forecast")
    found = [f.what for f in check_recipe(load_recipe(path)) if f.verdict == "fails"]
    assert any("are uneven" in what for what in found), found
    path = recipe(
        tmp_path,
        {"sources": [str(tmp_path / "raw.nc")]},
        {"test": ["2019-07-02", "2019-07-05"]},
        "masked",
    )
    found = [f.what for f in check_recipe(load_recipe(path)) if f.verdict == "fails"]
    assert any("data.train and data.test share" in what for what in found), found


def test_statistics_over_all_times_are_said_once(tmp_path: Path, call: Call) -> None:
    field().to_netcdf(tmp_path / "raw.nc")
    arguments = ("prepare", "era5", tmp_path / "raw.nc")
    options = ("--channels", "all", "--grid", "native")
    whole = call(*arguments, tmp_path / "a.zarr", *options)
    assert whole.stdout.count("no training period is given") == 1
    part = call(*arguments, tmp_path / "b.zarr", *options, "--train-start", "2019-07-01")
    assert "no training period" not in part.stdout


@pytest.mark.parametrize("kind", ["forecast", "masked"])
def test_remote_sources_are_opened_too(tmp_path: Path, kind: str) -> None:
    field().to_netcdf(tmp_path / "raw.nc")
    files, url = fsspec.filesystem("memory"), f"memory://checked-{kind}/raw.nc"
    files.put(str(tmp_path / "raw.nc"), url)

    def failures(url: str, channels: str) -> list[str]:
        path = recipe(tmp_path, {"sources": [url], "channels": channels}, {}, kind)
        return [f.what for f in check_recipe(load_recipe(path)) if f.verdict == "fails"]

    assert not failures(url, "t2m")
    assert any("lack the variable 'q'" in what for what in failures(url, "t2m,q500"))
    assert any("cannot be read" in what for what in failures("memory://nothing/raw.nc", "t2m"))
