"""What a Python caller gives to `prepare` is refused by its kind before work starts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plant_files import scene, write_envi

import sciml_dchag as sd
from sciml_dchag.plants.prepare.images import prepare_plants
from sciml_dchag.weather.prepare.era5 import prepare_era5

PLANTS = [
    ("index", "foo", "'foo': it must be one of ndvi, excess-green, brightness"),
    ("references", "x", "'x': it must be one of column, band"),
    ("response", "y", "'y': it must be one of gaussian, linear"),
    ("nodata", "x", "'x': it must be a number"),
    ("plants", "2", "'2': it must be a whole number"),
    ("bit_depth", 12.5, "12.5: it must be a whole number"),
    ("clip", 3, "3: it must be a list of 2 (a number, a number)"),
    ("quicklooks", "no", "'no': it must be true or false"),
    ("bands", [450, 500], "[450, 500]: it must be text"),
    ("overwrite", "no", "'no': it must be true or false"),
    ("seed", 1.5, "1.5: it must be a whole number"),
    ("seed", -1, "-1: it must be at least 0"),
]
WEATHER = [
    ("method", "x", "'x': it must be one of bilinear, conservative"),
    ("climatology", "x", "'x': it must be one of auto, mean, hourly"),
    ("engine", "x", "'x': it must be one of auto, xesmf, native"),
    ("step_hours", "6", "'6': it must be a whole number"),
    ("period", "2017", "'2017': it must be a list of 2 (text or null, text or null)"),
    ("statistics_period", "2017", "'2017': it must be a list of 2 (text or null, text or null)"),
    ("allow_missing", "yes", "'yes': it must be true or false"),
    ("overwrite", "no", "'no': it must be true or false"),
]


@pytest.mark.parametrize(
    ("prepare", "name", "value", "why"),
    [(sd.plants.prepare, *case) for case in PLANTS]
    + [(sd.weather.prepare, *case) for case in WEATHER],
)
def test_arguments_of_another_kind_are_refused_first(
    prepare: Any, name: str, value: object, why: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError) as refused:
        prepare("there is no such file", tmp_path / "s.zarr", **{name: value})
    assert str(refused.value).removesuffix(".") == f"{name} is {why}"


def test_arguments_are_taken_as_python_has_them(tmp_path: Path) -> None:
    for name in ("a, b", "c"):  # a comma separates nothing in a caller's own text
        noise = np.random.default_rng(0).normal(0, 0.002, scene().shape)
        write_envi(tmp_path / name, (scene() + noise).astype(np.float32))
    knobs: dict[str, Any] = {
        "bands": "native", "quicklooks": False, "split": 1.0, "clip": np.array([0.0, 0.45]),
        "plants": np.int64(1), "scale": np.float32(1),
    }  # fmt: skip
    one = sd.plants.prepare(tmp_path / "a, b.hdr", tmp_path / "one.zarr", **knobs)
    assert one.names == ["a_b"]
    assert float(one.reflectance("a_b").max()) == pytest.approx(0.45)
    assert int(one.plants("a_b").max()) == 1
    assert prepare_plants(str(tmp_path / "c.hdr"), tmp_path / "c.zarr", **knobs).exists()
    both = sd.plants.prepare(tmp_path.glob("*.hdr"), tmp_path / "both.zarr", **knobs)
    assert sorted(both.names) == ["a_b", "c"]
    start = np.datetime64("2025-12-30T00", "ns")
    weather = sd.weather.prepare(
        "sample:era5_msl", tmp_path / "w.zarr", channels="msl", grid="native",
        period=(start, None), step_hours=np.int64(12),
    )  # fmt: skip
    assert [str(t)[:13] for t in weather.times] == [
        f"2025-12-{day}T{hour}" for day in (30, 31) for hour in ("00", "12")
    ]
    with pytest.raises(TypeError, match="unexpected keyword argument 'gird'"):
        prepare_era5("sample:era5_msl", tmp_path / "x.zarr", gird=3)
