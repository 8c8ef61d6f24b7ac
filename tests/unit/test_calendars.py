"""Times in all units and calendars that centres write, and files of other kinds."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from raw_files import read, saved, surface, times

from sciml_dchag.weather.prepare.contents import list_contents
from sciml_dchag.weather.prepare.layouts import open_raw


def timed(values: list[float], **attrs: str) -> xr.Dataset:
    when = ("time", np.array(values, np.float64), attrs)
    return surface(when=times(len(values))).assign_coords(time=when)


@pytest.mark.parametrize(
    ("values", "attrs", "expected"),
    [
        ([0, 1, 2], {"units": "months since 1990-01-01"}, ["1990-01-01", "1990-02-01", "1990-03-01"]),
        ([0, 1, 2], {"units": "years since 1990-01-01"}, ["1990-01-01", "1991-01-01", "1992-01-01"]),
        ([58, 59], {"units": "days since 2001-01-01", "calendar": "noleap"}, ["2001-02-28", "2001-03-01"]),
        ([58, 59], {"units": "days since 2000-01-01", "calendar": "365_day"}, ["2000-02-28", "2000-03-01"]),
        ([27, 30], {"units": "days since 2001-01-01", "calendar": "360_day"}, ["2001-01-28", "2001-02-01"]),
        ([0.2499999, 0.5000001], {"units": "days since 2001-01-01"}, ["2001-01-01T06", "2001-01-01T12"]),
        ([885000.0001, 885005.9999], {"units": "hours since 1900-1-1"}, ["2000-12-17T00", "2000-12-17T06"]),
    ],
)  # fmt: skip
def test_times_that_have_a_date(
    tmp_path: Path, values: list[float], attrs: dict[str, str], expected: list[str]
) -> None:
    state = read([saved(timed(values, **attrs), tmp_path / "a.nc")], "t2m")
    assert state["time"].values.tolist() == np.array(expected, "datetime64[ns]").tolist()


def test_dates_that_only_their_calendar_has_are_left_out(tmp_path: Path) -> None:
    file = saved(
        timed([57, 58, 59, 60], units="days since 2001-01-01", calendar="360_day"),
        tmp_path / "a.nc",
    )
    with pytest.warns(UserWarning, match="2 times on dates such as 30 February"):
        state = read([file], "t2m")
    assert [str(t)[:10] for t in state["time"].values] == ["2001-02-28", "2001-03-01"]
    other = saved(
        timed([417, 418, 419], units="days since 2001-01-01", calendar="360_day"),
        tmp_path / "b.nc",
    )
    with pytest.warns(UserWarning, match="a.nc and 1 more .* 4 times on dates") as said:
        read([file, other], "t2m")
    assert len(said) == 1  # of all files


@pytest.mark.parametrize(
    ("values", "attrs", "message"),
    [
        ([0.5, 1], {"units": "months since 1990-01-01"}, "have no length"),
        ([0, 1], {"units": "months since 1990-01-15"}, "have no length"),
        ([0, 1], {"units": "days since 1990-01-01", "calendar": "none"}, "calendar 'none', which is unknown"),
        ([152000, 152001], {"units": "days since 1850-01-01", "calendar": "proleptic_gregorian"}, "the year 2266"),
        ([0, 1], {"units": "days since 0850-01-01", "calendar": "standard"}, "0850-01-01.* from 1678"),
    ],
)  # fmt: skip
def test_times_that_have_none_are_named(
    tmp_path: Path, values: list[float], attrs: dict[str, str], message: str
) -> None:
    file = saved(timed(values, **attrs), tmp_path / "a.nc")
    with pytest.raises(ValueError, match=message) as refused:
        read([file], "t2m")
    assert "download" not in str(refused.value) and "\n" not in str(refused.value)


def test_a_file_of_no_time(tmp_path: Path) -> None:
    file = saved(surface().isel(time=slice(0, 0)), tmp_path / "empty.nc")
    with pytest.raises(ValueError, match="empty.nc holds no time"):
        read([file], "t2m")
    whole = saved(surface(), tmp_path / "whole.nc")
    contents = list_contents([file, whole])  # goes on past an odd file, and names it
    assert contents["variables"] == ["t2m"] and "empty.nc holds no time" in str(
        contents["not read"]
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (gzip.compress(b"CDF\x01", mtime=0), "compressed by gzip"),
        (b"MATLAB 5.0 MAT-file, Platform: GLNXA64", "MATLAB"),
        (b"\x0e\x03\x13\x01\0\0\0\0", "HDF4"),
        (b'{"version": 1, "refs": {}}', "kerchunk"),
        (b"HTUE85 KWBE 021200\r\r\nGRIB\0\0\0\x01", "21 bytes of a bulletin.s header"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"BUFR\0\0", "BUFR"),
        (b"\0" * 257 + b"ustar", "a tar archive"),
    ],
)
def test_files_of_other_kinds_are_called_what_they_are(
    tmp_path: Path, content: bytes, words: str
) -> None:
    (tmp_path / "other").write_bytes(content)
    with pytest.raises(ValueError, match=f"other cannot be read, because .*{words}") as refused:
        open_raw(str(tmp_path / "other"))
    assert "\n" not in str(refused.value)
    # A page that a server sent instead of the file is the one case in which that helps.
    assert ("download it again." in str(refused.value)) == (words == "a web page")
