"""`prepare era5` on bad input: one sentence, exit status 2, nothing left behind, no traceback."""

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner, Result
from raw_files import DATA, GAUSSIAN, MEMBERS, on_levels, saved, surface, times

from sciml_dchag.cli import console, main


@pytest.fixture(autouse=True)
def _wide_console(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep sentences on one line, whatever the terminal that the tests run in."""
    monkeypatch.setattr(console.out, "_width", 400)
    monkeypatch.setattr(console.err, "_width", 400)


def prepare(folder: Path, *arguments: str) -> Result:
    sources = sorted(str(path) for path in folder.iterdir())
    store = str(folder / "out.zarr")
    return CliRunner().invoke(main, ["prepare", "era5", *sources, store, *arguments])


def refused(result: Result) -> str:
    """The one line that says why; asserts that there is one, and nothing else of an error."""
    lines = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    assert result.exit_code == 2 and len(lines) == 1, result.output
    assert "Traceback" not in result.output
    return lines[0]


def cut(path: Path, part: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])


def truncated(folder: Path) -> None:
    saved(surface(), folder / "a.nc")
    cut(folder / "a.nc", 0.6)


def truncated_classic(folder: Path) -> None:
    saved(surface(), folder / "a.nc", format="NETCDF3_64BIT")
    cut(folder / "a.nc", 0.6)


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


def pascal_called_hectopascal(folder: Path) -> None:
    levels = on_levels([50000, 85000])
    levels["level"].attrs["units"] = "hPa"
    saved(levels, folder / "a.nc")


def on_two_levels(folder: Path) -> None:
    saved(on_levels([500, 850]), folder / "a.nc")


def one_surface_field(folder: Path) -> None:
    saved(surface(), folder / "a.nc")


def gaussian_called_regular(folder: Path) -> None:
    with xr.open_dataset(GAUSSIAN) as raw:
        even = np.linspace(*raw["latitude"].values[[0, -1]], 32)
        saved(raw.assign_coords(latitude=even), folder / "a.nc")


def members(folder: Path) -> None:
    (folder / "a.grib").write_bytes(MEMBERS.read_bytes())


CASES: list[tuple[Callable[[Path], None], str, tuple[str, ...]]] = [
    (truncated, "t2m", ("a.nc cannot be read", "truncated", "download it again")),
    (truncated_classic, "t2m", ("a.nc cannot be read", "truncated", "download it again")),
    (truncated_grib, "t850", ("a.grib cannot be read", "download it again")),
    (no_data, "t2m", ("a.nc cannot be read", "neither NetCDF nor GRIB")),
    (one_surface_field, "t2m,u10", ("lack the variable 'u10'", "hold t2m", "add its file")),
    (on_two_levels, "z500,z300", ("lack z at 300 hPa", "hold it at 500, 850", "add that level")),
    (one_surface_field, "t3m", ("t3m", "t2m")),
    (two_grids, "t2m,u10", ("b.nc has a grid of 3 x 8", "a.nc one of 5 x 8", "one grid at a time")),
    (overlap, "t2m", ("a.nc and", "both hold t2m at 2001-01-01T18:00", "remove it from one")),
    (gap, "t2m", ("After 2001-01-01T12:00 the next time comes 12 h later", "6 h is asked")),
    (
        holes,
        "t2m",
        ("t2m has", "missing values in 4 times", "at 2001-01-01T12:00", "--allow-missing"),
    ),
    (celsius, "t2m", ("a.nc has t2m in 'degC' where 'K' is needed", "convert it")),
    (celsius_called_kelvin, "t2m", ("t2m has a mean of", "K")),
    (pascal_called_hectopascal, "z500", ("level 85000 labelled hPa", "only Pa can be", "correct")),
    (gaussian_called_regular, "t500", ("a.nc", "Gaussian grid labelled regular")),
    (members, "z500", ("a.grib holds 2 ensemble members of z", "one is needed")),
]


@pytest.mark.parametrize(("make", "channels", "words"), CASES, ids=[c[0].__name__ for c in CASES])
def test_bad_input_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, make: Callable[[Path], None], channels: str, words: tuple[str, ...]
) -> None:
    if make in (truncated_grib, members):
        pytest.importorskip("cfgrib")
    make(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    message = refused(
        prepare(tmp_path, "--channels", channels, "--grid", "4x8", "--step-hours", "6")
    )
    for word in words:
        assert word in message, message
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_missing_values_are_kept_where_it_is_allowed(tmp_path: Path) -> None:
    holes(tmp_path)
    result = prepare(tmp_path, "--channels", "t2m", "--grid", "native", "--allow-missing")
    assert result.exit_code == 0, result.output
    with xr.open_zarr(tmp_path / "out.zarr") as store:
        assert int(store["state"].isnull().sum()) == 2


def test_winds_stored_upside_down_are_warned_of(tmp_path: Path) -> None:
    """The files have neither time nor level: the warning comes, then what they lack is named."""
    winds = "era5_uv850_2025-12-01T00_2p5deg_rows_flipped.nc"
    vorticity = "era5_vo850_2025-12-01T00_2p5deg.nc"
    for name in (winds, vorticity):
        (tmp_path / name).write_bytes((DATA / name).read_bytes())
    result = prepare(tmp_path, "--channels", "u850,v850")
    assert "winds' rows run against" in result.output and winds in result.output
    assert "do not say on which level u is" in refused(result)
    complete = xr.merge([xr.open_dataset(DATA / name) for name in (winds, vorticity)])
    complete = complete.assign_coords(level=850, time=np.datetime64("2025-12-01", "ns"))
    for name in (winds, vorticity):
        (tmp_path / name).unlink()
    saved(complete.load(), tmp_path / "whole.nc")
    result = prepare(tmp_path, "--channels", "u850,v850")
    assert result.exit_code == 0 and "winds' rows run against" in result.output, result.output
    assert (tmp_path / "out.zarr").is_dir()


def test_an_output_that_exists_is_kept(tmp_path: Path) -> None:
    one_surface_field(tmp_path)
    assert prepare(tmp_path, "--channels", "t2m", "--grid", "native").exit_code == 0
    written = (tmp_path / "out.zarr" / "zarr.json").read_bytes()
    again = CliRunner().invoke(
        main, ["prepare", "era5", str(tmp_path / "a.nc"), str(tmp_path / "out.zarr")]
    )
    assert "out.zarr exists" in refused(again) and "--overwrite" in again.output
    assert (tmp_path / "out.zarr" / "zarr.json").read_bytes() == written


def test_no_source_at_all(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["prepare", "era5", "gone*.nc", str(tmp_path / "out.zarr")])
    assert "There is no file 'gone*.nc': check the path or the pattern" in refused(result)


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as Linux does")
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    """The kernel refuses to let files grow (EFBIG), which stands for a full disk (ENOSPC)."""
    script = textwrap.dedent(f"""
        import resource, sys
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, 1 << 18))
        from sciml_dchag.cli import main
        sys.argv[1:] = ["prepare", "era5", "sample:era5_msl", {str(tmp_path / "out.zarr")!r},
                        "--channels", "msl"]
        main()
        """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "No room to write" in done.stderr and "make room" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sciml_dchag", "prepare", "era5", "gone.nc", "out.zarr", "--debug"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode != 0 and "Traceback" in done.stderr
