"""Names and units that centres write, unknown names, and where data come from."""

from pathlib import Path

import cftime
import numpy as np
import pytest
import xarray as xr
from raw_files import read, saved, surface, times

from sciml_dchag.weather.prepare.contents import list_contents
from sciml_dchag.weather.prepare.era5 import prepare_era5
from sciml_dchag.weather.scores.metrics import score
from sciml_dchag.weather.store.store import Store


@pytest.mark.parametrize(
    ("name", "units", "channel", "factor"),
    [
        ("hus", "1", "q850", 1), ("shum", "grams/kg", "q850", 1e-3), ("QV", "kg kg-1", "q850", 1),
        ("air", "degK", "t850", 1), ("T", "Kelvin", "t850", 1), ("uwnd", "m/s", "u850", 1),
        ("hgt", "m", "z850", 9.80665), ("H", "m", "z850", 9.80665), ("omega", "Pascal/s", "w850", 1),
        ("rhum", "%", "r850", 1), ("RH", "1", "r850", 100), ("slp", "Pascals", "msl", 1),
        ("SLP", "Pa", "msl", 1), ("prmsl", "Pa", "msl", 1), ("psl", "hPa", "msl", 100),
        ("tp", "kg m-2", "tp", 1e-3), ("tp", "kg m**-2", "tp", 1e-3), ("tp", "mm", "tp", 1e-3),
        ("VAR_2T", "K", "t2m", 1), ("T2M", "K", "t2m", 1), ("U10M", "m s-1", "u10", 1),
        ("vwnd", "metre per second", "v850", 1), ("tas", "deg K", "t2m", 1),
    ],
)  # fmt: skip
def test_names_and_units_of_centres(
    tmp_path: Path, name: str, units: str, channel: str, factor: float
) -> None:
    dataset = surface(name, units)
    if channel[-1].isdigit() and channel != "u10":
        dataset = dataset.assign_coords(level=850)
    state = read([saved(dataset, tmp_path / "a.nc")], channel)
    np.testing.assert_allclose(state[:, 0].values, factor * dataset[name].values, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "units"), [("t2m", "degC"), ("t2m", "C"), ("q", "mm"), ("msl", "kPa")]
)
def test_other_scales_are_still_refused(tmp_path: Path, name: str, units: str) -> None:
    channel = "q850" if name == "q" else name
    dataset = surface(name, units).assign_coords(level=850) if name == "q" else surface(name, units)
    with pytest.raises(ValueError, match="is needed: convert it"):
        read([saved(dataset, tmp_path / "a.nc")], channel)


def test_unknown_names_are_listed(tmp_path: Path) -> None:
    other = xr.merge([surface(), surface("swvl1", "m3 m-3"), surface("mystery", "1")])
    file = saved(other, tmp_path / "a.nc")
    with pytest.raises(ValueError, match="and hold t2m and, under names .*swvl1.*mystery.*rename"):
        read([file], "q500")
    assert list_contents([file])["not known"] == ["swvl1", "mystery"]


def test_further_dimensions_are_shown(tmp_path: Path) -> None:
    file = saved(surface().expand_dims(number=[0, 1, 2]), tmp_path / "a.nc")
    assert list_contents([file])["further dimensions"] == {"number": 3}


@pytest.mark.parametrize(
    ("attrs", "title", "attribution"),
    [
        ({"source_id": "SOME-MODEL", "institution_id": "SOME-CENTRE"}, "SOME-MODEL", "SOME-MODEL, SOME-CENTRE"),
        ({"title": "NCEP Reanalysis"}, "NCEP Reanalysis", "NCEP Reanalysis"),
        ({}, "Weather", "origin not stated in the source files"),
        ({"title": "ERA5 hourly"}, "ERA5", "Contains modified Copernicus .* 2001"),
        ({"attribution": "Thanks to all"}, "Weather", "Thanks to all"),
    ],
)  # fmt: skip
def test_title_and_attribution_come_from_the_source(
    tmp_path: Path, attrs: dict[str, str], title: str, attribution: str
) -> None:
    dataset = surface().assign_attrs({**attrs, "license": "CC BY 4.0"})
    file = saved(dataset, tmp_path / "a.nc")
    store = Store.open(prepare_era5([file], tmp_path / "a.zarr", channels="t2m", grid="native"))
    import re

    assert store.attrs["title"].startswith(f"{title}, 1 channel")
    assert re.fullmatch(attribution, store.attribution) and store.attrs["license"] == "CC BY 4.0"
    again = prepare_era5(
        [str(tmp_path / "a.zarr")], tmp_path / "b.zarr", channels=["t2m"], grid="native"
    )
    assert Store.open(again).attribution == store.attribution
    assert Store.open(again).attrs["title"].startswith(f"{title}, 1 channel")


def test_scores_take_units_in_any_spelling_and_times_of_cftime() -> None:
    when = times(3)
    truth = surface("2m_temperature", "Kelvin", when=when)
    forecast = (
        truth.isel(time=[0])
        .rename(time="init_time")
        .expand_dims(lead_time=[np.timedelta64(6, "h")])
    )
    forecast = forecast.assign_coords(lead_time=forecast["lead_time"].astype("timedelta64[ns]"))
    forecast["2m_temperature"].attrs["units"] = "K"
    expected = score(forecast, truth, metrics=["rmse"])
    dates = [cftime.DatetimeProlepticGregorian(2001, 1, 1, 6 * k) for k in range(3)]
    taken = score(forecast, truth.assign_coords(time=dates), metrics=["rmse"])
    xr.testing.assert_equal(taken, expected)
    assert float(expected["2m_temperature"].squeeze()) > 1
    forecast["2m_temperature"].attrs["units"] = "degC"
    with pytest.raises(ValueError, match="'degC' in the forecast and in 'Kelvin'"):
        score(forecast, truth)
