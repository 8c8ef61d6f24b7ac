"""`prepare era5` on bad input: one sentence, exit status 2, nothing left behind, no traceback."""

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from click.testing import Result
from raw_files import DATA, GAUSSIAN, MEMBERS, on_levels, saved, surface, times

from sciml_dchag.weather.store.store import Store

Prepare = Callable[..., Result]
Refused = Callable[[Result], str]
WINDS = "era5_uv850_2025-12-01T00_2p5deg_rows_flipped.nc"
VORTICITY = "era5_vo850_2025-12-01T00_2p5deg.nc"


@pytest.fixture
def prepare(tmp_path: Path, call: Callable[..., Result]) -> Prepare:
    """Prepare all files of the folder into its `out.zarr`."""

    def run(channels: str, *options: str) -> Result:
        sources = sorted(path for path in tmp_path.iterdir() if path.suffix != ".zarr")
        store = tmp_path / "out.zarr"
        return call("prepare", "era5", *sources, store, "--channels", channels, *options)

    return run


def shortened(path: str, part: float) -> None:
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: int(part * len(content))])


def one_surface_field(folder: Path) -> None:
    saved(surface(), folder / "a.nc")


def on_two_levels(folder: Path) -> None:
    saved(on_levels([500, 850]), folder / "a.nc")


def truncated(folder: Path) -> None:
    shortened(saved(surface(), folder / "a.nc"), 0.6)


def truncated_classic(folder: Path) -> None:
    shortened(saved(surface(), folder / "a.nc", format="NETCDF3_64BIT"), 0.6)


def truncated_grib(folder: Path) -> None:
    (folder / "a.grib").write_bytes(MEMBERS.read_bytes()[:20000])


def no_data(folder: Path) -> None:
    (folder / "a.nc").write_text("<html>404</html>")


def two_grids(folder: Path) -> None:
    saved(surface(), folder / "a.nc")
    saved(surface("u10", "m/s").isel(latitude=slice(0, 5, 2)), folder / "b.nc")


def overlap(folder: Path) -> None:
    saved(surface(), folder / "a.nc")
    saved(surface(when=times(2, "2001-01-01T18")), folder / "b.nc")


def gap(folder: Path) -> None:
    saved(surface(when=np.delete(times(6), 3)), folder / "a.nc")


def uneven(folder: Path) -> None:
    when = times(4)
    when[2:] += np.timedelta64(1, "h")
    saved(surface(when=when), folder / "a.nc")


def holes(folder: Path) -> None:
    with_holes = surface()
    with_holes["t2m"][2, 1:3, 4] = np.nan
    saved(with_holes, folder / "a.nc")


def celsius(folder: Path) -> None:
    saved(surface(units="degC"), folder / "a.nc")


def celsius_called_kelvin(folder: Path) -> None:
    cold = surface()
    cold["t2m"] = (cold["t2m"] - 273.15).assign_attrs(units="K")
    saved(cold, folder / "a.nc")


def hectopascal_called_pascal(folder: Path) -> None:
    pressure = surface("msl")
    pressure["msl"] = (pressure["msl"] + 733).assign_attrs(units="Pa")
    saved(pressure, folder / "a.nc")


def levels_in_pascal_called_hectopascal(folder: Path) -> None:
    levels = on_levels([50000, 85000])
    levels["level"].attrs["units"] = "hPa"
    saved(levels, folder / "a.nc")


def gaussian_called_regular(folder: Path) -> None:
    with xr.open_dataset(GAUSSIAN) as raw:
        even = np.linspace(*raw["latitude"].values[[0, -1]], 32)
        saved(raw.assign_coords(latitude=even), folder / "a.nc")


def members(folder: Path) -> None:
    (folder / "a.grib").write_bytes(MEMBERS.read_bytes())


CASES: list[tuple[Callable[[Path], None], str, tuple[str, ...]]] = [
    (truncated, "t2m", ("a.nc cannot be read", "truncated", "download it again")),
    (truncated_classic, "t2m", ("a.nc cannot be read", "truncated", "download it again")),
    (truncated_grib, "t850", ("a.grib cannot be read", "truncated", "download it again")),
    (no_data, "t2m", ("a.nc cannot be read", "neither NetCDF nor GRIB", "download it again")),
    (one_surface_field, "t2m,u10", ("lack the variable 'u10'", "hold t2m", "add its file")),
    (one_surface_field, "t3m", ("'t3m' is unknown", "did you mean 't2m'")),
    (on_two_levels, "z500,z300", ("lack z at 300 hPa", "hold it at 500, 850", "add that level")),
    (two_grids, "t2m,u10", ("b.nc has a grid of 3 x 8", "a.nc one of 5 x 8", "one grid at a time")),
    (overlap, "t2m", ("a.nc and", "b.nc", "both hold t2m at 2001-01-01T18:00", "remove it from one")),
    (gap, "t2m", ("After 2001-01-01T12:00 the next time comes 12 h later where 6 h", "add what is")),
    (uneven, "t2m", ("After 2001-01-01T06:00 the next time comes 7 h later where 6 h", "add what is")),
    (holes, "t2m", ("t2m has 2 missing values in 4 times", "at 2001-01-01T12:00", "--allow-missing")),
    (celsius, "t2m", ("a.nc has t2m in 'degC' where 'K' is needed", "convert it")),
    (celsius_called_kelvin, "t2m", ("t2m has a mean of", "K is believable", "convert it to K")),
    (hectopascal_called_pascal, "msl", ("msl has a mean of 101", "is believable", "convert it to Pa")),
    (levels_in_pascal_called_hectopascal, "z500",
     ("a.nc has level 85000 labelled hPa", "only Pa can be", "correct")),
    (gaussian_called_regular, "t500", ("a.nc", "Gaussian grid labelled regular", "true latitudes")),
    (members, "z500", ("a.grib holds 2 ensemble members of z", "one is needed")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "channels", "words"), CASES, ids=[case[0].__name__ for case in CASES]
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    make: Callable[[Path], None],
    channels: str,
    words: tuple[str, ...],
    tmp_path: Path,
    prepare: Prepare,
    refused: Refused,
) -> None:
    make(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    message = refused(prepare(channels, "--grid", "native", "--step-hours", "6"))
    for word in words:
        assert word in message, message
    assert message[-1] in ".?" and ". " not in message
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("gone*.nc", "out.zarr"), "There is no file 'gone*.nc': check the path or the pattern."),
        (("gone.nc", "out.zarr"), "There is no file 'gone.nc': check the path or the pattern."),
        (
            ("sample:era5_msl", "out.zarr", "--channels", "msl", "--grid", "5.6"),
            'did you mean "5.625"?',
        ),
    ],
)
def test_a_wrong_argument_is_one_sentence(
    words: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: Callable[..., Result],
    refused: Refused,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(call("prepare", "era5", *words))
    assert not list(tmp_path.iterdir())


def test_missing_values_are_kept_where_it_is_allowed(tmp_path: Path, prepare: Prepare) -> None:
    holes(tmp_path)
    result = prepare("t2m", "--grid", "native", "--allow-missing")
    assert result.exit_code == 0, result.output
    assert int(np.isnan(Store.open(tmp_path / "out.zarr").read(slice(None))).sum()) == 2


def test_winds_stored_upside_down_are_warned_of(tmp_path: Path, prepare: Prepare) -> None:
    with xr.open_dataset(DATA / WINDS) as winds, xr.open_dataset(DATA / VORTICITY) as vorticity:
        complete = xr.merge([winds, vorticity]).load()
    complete = complete.assign_coords(level=850, time=np.datetime64("2025-12-01", "ns"))
    saved(complete, tmp_path / "whole.nc")
    result = prepare("u850,v850")
    assert result.exit_code == 0 and (tmp_path / "out.zarr").is_dir()
    warnings = [line for line in result.stderr.splitlines() if line.startswith("Warning: ")]
    upside_down = [line for line in warnings if "winds' rows run against" in line]
    assert len(upside_down) == 1 and "whole.nc" in upside_down[0] and "flip" in upside_down[0]


def test_winds_stored_upside_down_in_a_file_without_level_or_time(
    tmp_path: Path, prepare: Prepare, refused: Refused
) -> None:
    """The warning comes even where the file is refused."""
    for name in (WINDS, VORTICITY):
        (tmp_path / name).write_bytes((DATA / name).read_bytes())
    result = prepare("u850,v850")
    assert "do not say on which level u is" in refused(result)
    assert "winds' rows run against" in result.stderr and WINDS in result.stderr
    assert not (tmp_path / "out.zarr").exists()


def test_an_output_that_exists_is_kept(tmp_path: Path, prepare: Prepare, refused: Refused) -> None:
    one_surface_field(tmp_path)
    assert prepare("t2m", "--grid", "native").exit_code == 0
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "out.zarr").rglob("*")}
    message = refused(prepare("t2m", "--grid", "native"))
    assert "out.zarr exists" in message and "--overwrite" in message
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out.zarr").rglob("*")} == files


def in_a_process(folder: Path, *words: str, most_bytes: int | None = None) -> tuple[int, str]:
    """Exit status and what is said of errors when a shell calls `prepare era5`."""

    def limit() -> None:
        if most_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

    done = subprocess.run(
        [sys.executable, "-m", "sciml_dchag", "prepare", "era5", *words],
        cwd=folder, preexec_fn=limit, capture_output=True, text=True,
    )  # fmt: skip
    return done.returncode, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as Linux does")
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    """The kernel refuses to let files grow (EFBIG), which stands for a full disk (ENOSPC)."""
    words = ("sample:era5_msl", "out.zarr", "--channels", "msl")
    status, errors = in_a_process(tmp_path, *words, most_bytes=1 << 18)
    assert status == 2, errors
    said = "No room to write out.zarr (file too large): nothing is left behind; make room"
    assert f"Error: {said}" in errors and "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    status, errors = in_a_process(tmp_path, "gone.nc", "out.zarr", "--debug")
    assert status == 2 and "Traceback" in errors
    assert errors.splitlines()[-1].startswith("Error: There is no file 'gone.nc'")
