"""GRIB read message by message: versions, kinds of level, sums, scanning, and speed."""

import time
from pathlib import Path
from typing import Any

import eccodes
import numpy as np
import pytest
from raw_files import read, times

from sciml_dchag.weather.prepare.contents import list_contents

ROWS, COLUMNS = np.arange(80.0, -81.0, -20.0), np.arange(0.0, 360.0, 20.0)


def encoded(handle: int, settings: dict[str, Any], values: np.ndarray) -> bytes:
    """Set keys of a message, in their order, and its values."""
    for key, value in settings.items():
        eccodes.codes_set(handle, key, value)
    eccodes.codes_set_values(handle, values.ravel().astype(float))
    content: bytes = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    return content


def message(when: np.datetime64, values: np.ndarray, **keys: Any) -> bytes:
    """One field of GRIB 1 on 9 x 18 cells; 2 m temperature unless keys say otherwise."""
    handle = eccodes.codes_grib_new_from_samples("regular_ll_sfc_grib1")
    settings = {
        "Ni": COLUMNS.size, "Nj": ROWS.size,
        "latitudeOfFirstGridPointInDegrees": 80.0, "latitudeOfLastGridPointInDegrees": -80.0,
        "longitudeOfFirstGridPointInDegrees": 0.0, "longitudeOfLastGridPointInDegrees": 340.0,
        "iDirectionIncrementInDegrees": 20.0, "jDirectionIncrementInDegrees": 20.0,
        "dataDate": int(str(when)[:10].replace("-", "")), "dataTime": int(str(when)[11:13]) * 100,
        "indicatorOfParameter": 167, "table2Version": 128, "setLocalDefinition": 1,
        "localDefinitionNumber": 1, **keys,
    }  # fmt: skip
    return encoded(handle, settings, values)


def fields(count: int, base: float = 280.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(base, 5, (count, ROWS.size, COLUMNS.size))


def written(path: Path, messages: list[bytes]) -> str:
    path.write_bytes(b"".join(messages))
    return str(path)


@pytest.mark.parametrize("order", [["0005", "0001"], ["0001", "0005"]])
def test_final_data_come_before_preliminary_ones(tmp_path: Path, order: list[str]) -> None:
    when, values = times(2), fields(2)
    extra = {"0001": 0.0, "0005": 2.0}
    messages = [
        message(t, values[k] + extra[version], experimentVersionNumber=version)
        for k, t in enumerate(when)
        for version in order
    ]
    messages.append(message(times(3)[2], values[0] + 2, experimentVersionNumber="0005"))
    state = read([written(tmp_path / "a.grib", messages)], "t2m")
    np.testing.assert_allclose(state[:2, 0].values, values[:, ::-1], atol=1e-3)
    np.testing.assert_allclose(state[2, 0].values, values[0, ::-1] + 2, atol=1e-3)


def test_one_field_twice_is_refused(tmp_path: Path) -> None:
    values = fields(1)[0]
    twice = [message(times(1)[0], values), message(times(1)[0], values + 1)]
    with pytest.raises(ValueError, match="a.grib holds t2m at 2001-01-01T00:00 twice"):
        read([written(tmp_path / "a.grib", twice)], "t2m")


def test_other_kinds_of_level_beside(tmp_path: Path) -> None:
    when, values = times(1)[0], fields(4, 250)
    temperature = {"indicatorOfParameter": 130}
    messages = [
        message(when, values[0], **temperature, indicatorOfTypeOfLevel=100, level=500),
        message(when, values[1], **temperature, indicatorOfTypeOfLevel=109, level=100),
        message(when, values[2], **temperature, indicatorOfTypeOfLevel=200, level=0),
        message(when, values[3], **temperature, indicatorOfTypeOfLevel=222, level=7),
    ]
    path = written(tmp_path / "a.grib", messages)
    np.testing.assert_allclose(read([path], "t500")[0, 0].values, values[0, ::-1], atol=1e-3)
    with pytest.raises(ValueError, match="lack t at 100 hPa and hold it at 500"):
        read([path], "t100")
    model = written(tmp_path / "model.grib", messages[1:2])
    with pytest.raises(ValueError, match="t of .*model.grib lies on hybrid .model levels."):
        read([model], "t100")
    assert "t lies on hybrid (model levels)" in list_contents([model])["notes"]  # type: ignore[operator]


def test_sums_over_the_hours_that_messages_say(tmp_path: Path) -> None:
    """As ERA5's: forecasts from 06 and 18 UTC, each hour's own sum."""
    rain = np.random.default_rng(0).uniform(0, 1e-3, (24, ROWS.size, COLUMNS.size))
    keys = {"indicatorOfParameter": 228, "timeRangeIndicator": 4}
    messages = [
        message(np.datetime64(f"2001-01-01T{6 + 12 * (k // 12):02d}"), rain[k], **keys,
                P1=k % 12, P2=k % 12 + 1)
        for k in range(24)
    ]  # fmt: skip
    path = written(tmp_path / "tp.grib", messages)
    hourly = read([path], "tp")
    assert str(hourly["time"].values[0])[:13] == "2001-01-01T07" and hourly.shape[0] == 24
    np.testing.assert_allclose(hourly[:, 0].values, rain[:, ::-1], atol=1e-6)
    six = read([path], "tp", step_hours=6)
    expected = rain.reshape(4, 6, ROWS.size, COLUMNS.size).sum(axis=1)[:, ::-1]
    np.testing.assert_allclose(six[:, 0].values, expected, atol=1e-5)


def test_missing_values_and_columns_first(tmp_path: Path) -> None:
    values = fields(1)[0]
    holes = values.copy()
    holes[2, 3] = 9999.0
    first = message(times(1)[0], holes, bitmapPresent=1, missingValue=9999.0)
    state = read([written(tmp_path / "a.grib", [first])], "t2m")
    assert np.isnan(state[0, 0].values[-3, 3]) and np.isnan(state.values).sum() == 1
    turned = message(times(1)[0], values.T, jPointsAreConsecutive=1)
    state = read([written(tmp_path / "b.grib", [turned])], "t2m")
    np.testing.assert_allclose(state[0, 0].values, values[::-1], atol=1e-3)


def test_many_messages_take_seconds(tmp_path: Path) -> None:
    when, values = times(500), fields(1)[0]
    messages = [
        message(t, values, indicatorOfParameter=p, indicatorOfTypeOfLevel=100, level=500)
        for t in when
        for p in (130, 131, 132, 133)
    ]
    path = written(tmp_path / "a.grib", messages)
    began = time.process_time()
    state = read([path], "t500,u500,v500,q500")
    assert state.shape == (500, 4, 9, 18)
    assert state.isel(time=slice(0, 10)).load().shape == (10, 4, 9, 18)
    assert time.process_time() - began < 10  # about 1 s; cfgrib's index of each took a minute


def message2(values: np.ndarray, columns: np.ndarray = COLUMNS, **keys: Any) -> bytes:
    """One field of GRIB 2: temperature at 500 hPa unless keys say otherwise, set in their order."""
    handle = eccodes.codes_grib_new_from_samples("regular_ll_pl_grib2")
    settings = {
        "Ni": columns.size, "Nj": ROWS.size,
        "latitudeOfFirstGridPointInDegrees": 80.0, "latitudeOfLastGridPointInDegrees": -80.0,
        "longitudeOfFirstGridPointInDegrees": columns[0] % 360,
        "longitudeOfLastGridPointInDegrees": columns[-1] % 360,
        "iDirectionIncrementInDegrees": 20.0, "jDirectionIncrementInDegrees": 20.0,
        "dataDate": 20010101, "dataTime": 0, "shortName": "t", "level": 500, **keys,
    }  # fmt: skip
    return encoded(handle, settings, values)


def snake(field: np.ndarray) -> np.ndarray:
    """Every second line backwards, as alternating scanning has them."""
    turned = field.copy()
    turned[1::2] = turned[1::2, ::-1]
    return turned


UP = {
    "latitudeOfFirstGridPointInDegrees": -80.0,
    "latitudeOfLastGridPointInDegrees": 80.0,
    "jScansPositively": 1,
}
ALTERNATING = {"alternativeRowScanning": 1}


@pytest.mark.parametrize("west", [False, True])
@pytest.mark.parametrize("alternating", [False, True])
@pytest.mark.parametrize("by_column", [False, True])
@pytest.mark.parametrize("up", [False, True])
def test_every_order_of_scanning(
    tmp_path: Path, up: bool, by_column: bool, alternating: bool, west: bool
) -> None:
    values = fields(1, 250)[0]
    scanned, columns = values[::-1] if up else values, COLUMNS[::-1] if west else COLUMNS
    scanned = scanned[:, ::-1] if west else scanned
    scanned = scanned.T if by_column else scanned
    keys = {**(UP if up else {}), "jPointsAreConsecutive": int(by_column),
            "iScansNegatively": int(west), **(ALTERNATING if alternating else {})}  # fmt: skip
    content = message2(snake(scanned) if alternating else scanned, columns, **keys)
    state = read([written(tmp_path / "a.grib", [content])], "t500")
    np.testing.assert_array_equal(state["longitude"], COLUMNS)
    np.testing.assert_allclose(state[0, 0].values, values[::-1], atol=0.01)


@pytest.mark.parametrize("columns", [[160.0, 180.0, 200.0, 220.0], [-40.0, -20.0, 0.0, 20.0]])
def test_parts_across_the_date_line_and_greenwich(tmp_path: Path, columns: list[float]) -> None:
    values = fields(1, 250)[0][:, :4]
    content = message2(values, np.array(columns))
    state = read([written(tmp_path / "a.grib", [content])], "t500")
    np.testing.assert_array_equal(state["longitude"], columns)
    np.testing.assert_allclose(state[0, 0].values, values[::-1], atol=0.01)


def test_missing_values_of_complex_packing(tmp_path: Path) -> None:
    """They have no bitmap; NOAA's files have them."""
    values = fields(1, 250)[0]
    handle = eccodes.codes_new_from_message(message2(values))
    eccodes.codes_set(handle, "packingType", "grid_complex_spatial_differencing")
    eccodes.codes_set(handle, "missingValueManagementUsed", 1)
    holes = values.copy()
    holes[2, 3] = eccodes.codes_get(handle, "missingValue")
    eccodes.codes_set_values(handle, holes.ravel())
    content = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    state = read([written(tmp_path / "a.grib", [content])], "t500")[0, 0].values
    assert np.isnan(state[-3, 3]) and np.isnan(state).sum() == 1
    np.testing.assert_allclose(
        np.delete(state, (6 * 18 + 3)), np.delete(values[::-1], 6 * 18 + 3), atol=0.01
    )


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        ({"productDefinitionTemplateNumber": 2, "derivedForecast": 4}, "spread_of_t"),
        ({"productDefinitionTemplateNumber": 2, "derivedForecast": 9}, "largest_of_t"),
        ({"productDefinitionTemplateNumber": 5}, "probability_of_t"),
        ({"productDefinitionTemplateNumber": 6, "percentileValue": 90}, "percentile_of_t"),
    ],
)
def test_what_an_ensemble_says_is_no_state(tmp_path: Path, keys: dict[str, int], name: str) -> None:
    """Winds of a spread are believable winds."""
    content = message2(fields(1, 250)[0], **keys)
    path = written(tmp_path / "a.grib", [content])
    with pytest.raises(
        ValueError, match=f"lack the variable 't' .*names that are not known, {name}"
    ):
        read([path], "t500")
    mean = message2(fields(1, 250)[0], productDefinitionTemplateNumber=2, derivedForecast=0)
    assert read([written(tmp_path / "b.grib", [mean])], "t500").shape == (1, 1, 9, 18)


def test_sums_whose_steps_are_in_minutes(tmp_path: Path) -> None:
    rain = np.random.default_rng(0).uniform(0, 1e-3, (2, ROWS.size, COLUMNS.size))
    keys = {
        "productDefinitionTemplateNumber": 8,
        "shortName": "tp",
        "typeOfLevel": "surface",
        "level": 0,
    }
    sums = [
        message2(rain[k], **keys, stepUnits="m", stepRange=f"{360 * k}-{360 * k + 360}")
        for k in range(2)
    ]
    six = read([written(tmp_path / "a.grib", sums)], "tp", step_hours=6)
    np.testing.assert_allclose(six[:, 0].values, rain[:, ::-1], atol=1e-5)
    half = message2(rain[0], **keys, stepUnits="m", stepRange="0-30")
    with pytest.raises(ValueError, match="tp_over_30_minutes"):
        read([written(tmp_path / "b.grib", [half])], "tp")


@pytest.mark.parametrize(
    ("sample", "kind"),
    [
        ("reduced_gg_pl_32_grib2", "reduced_gg"),
        ("sh_pl_grib2", "sh"),
        ("rotated_ll_pl_grib2", "rotated_ll"),
    ],
)
def test_other_grids_are_refused_by_name(tmp_path: Path, sample: str, kind: str) -> None:
    handle = eccodes.codes_grib_new_from_samples(sample)
    content = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    with pytest.raises(
        ValueError, match=f"lies on a grid of the kind {kind}: only rows of latitude"
    ):
        read([written(tmp_path / "a.grib", [content])], "t1000")
