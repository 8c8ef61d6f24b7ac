"""Sources that fail while they are read: damage leaves nothing behind, an interruption resumes."""

from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import xarray as xr
from raw_files import read, saved, surface, times, to_zarr

from sciml_dchag.weather.prepare import reading
from sciml_dchag.weather.prepare.era5 import prepare_era5
from sciml_dchag.weather.store import layout
from sciml_dchag.weather.store.store import Store


@pytest.fixture
def three_times_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "BLOCK_BYTES", 3 * 5 * 8 * 4)


@pytest.mark.usefixtures("three_times_a_block")
def test_a_damaged_chunk_leaves_nothing_behind(tmp_path: Path) -> None:
    encoding = {"t2m": {"chunks": (1, 5, 8)}}
    source = to_zarr(surface(when=times(12)), tmp_path / "source.zarr", encoding=encoding)
    chunk = tmp_path / "source.zarr" / "t2m" / "c" / "11" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:10])
    done: list[int] = []

    def progress(at: int, total: int, what: str) -> None:
        if what == "writing":
            done.append(at)

    with pytest.raises(ValueError, match=r"source.zarr cannot be read .*damaged"):
        prepare_era5(
            [source], tmp_path / "a.zarr", channels="t2m", grid="native", progress=progress
        )
    assert max(done) == 9  # what came before was written
    assert [p.name for p in tmp_path.iterdir()] == ["source.zarr"]


@pytest.mark.usefixtures("three_times_a_block")
@pytest.mark.parametrize("error", [KeyboardInterrupt, ConnectionError, MemoryError])
def test_an_interrupted_reading_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    source = saved(surface(when=times(12)), tmp_path / "source.nc")
    whole = reading.Part.read

    def interrupted(self: reading.Part, first: int, last: int, *judge: Any) -> np.ndarray:
        if first >= 6:
            raise error
        return whole(self, first, last, *judge)

    with monkeypatch.context() as patch:
        patch.setattr(reading.Part, "read", interrupted)
        with pytest.raises(error):
            prepare_era5([source], tmp_path / "a.zarr", channels="t2m", grid="native")
    assert (tmp_path / "a.zarr.partial").exists()
    begun: list[int] = []
    prepare_era5(
        [source], tmp_path / "a.zarr", channels="t2m", grid="native",
        progress=lambda done, total, what: begun.append(done) if what == "writing" else None,
    )  # fmt: skip
    assert begun[0] == 6 and Store.open(tmp_path / "a.zarr").shape == (12, 1, 5, 8)


def test_a_network_that_fails_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an OSError, after which the same command goes on, and no ValueError."""
    content = surface().to_netcdf(engine="h5netcdf")
    fsspec.filesystem("memory").pipe("/network/a.nc", bytes(content))
    state = read(["memory://network/a.nc"], "t2m")

    def fail(self: object) -> None:
        raise TimeoutError("no answer")

    monkeypatch.setattr(xr.Variable, "load", fail)
    with pytest.raises(OSError, match="a.nc cannot be read .no answer.: .*repeat the command"):
        state.compute(scheduler="synchronous")
