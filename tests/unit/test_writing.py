"""Writing stores by blocks: resuming, clusters, full disks, refusals, memory."""

import json
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import dask.array
import numpy as np
import pytest
import xarray as xr

from sciml_dchag.files.zarr_groups import partial_path
from sciml_dchag.weather.store import layout
from sciml_dchag.weather.store.store import Store

Series = Callable[..., xr.DataArray]
Write = Callable[..., Path]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of three times for the states of `series` (2 channels on 4 x 8)."""
    monkeypatch.setattr(layout, "BLOCK_BYTES", 3 * 2 * 4 * 8 * 4)


@pytest.mark.usefixtures("small_blocks")
def test_resumes_after_an_error_and_equals_an_uninterrupted_run(
    tmp_path: Path, series: Series, write: Write
) -> None:
    state, path = series(times=10), tmp_path / "a.zarr"
    seen: list[int] = []

    def fail_late(block: np.ndarray, times: np.ndarray, channels: object) -> None:
        if times[0] >= state["time"].values[6]:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write(state, path, check=fail_late)
    assert not path.exists() and partial_path(path).exists()
    with pytest.raises(FileNotFoundError, match="was begun"):
        Store.open(path)
    with pytest.raises(ValueError, match=r"half written \(6 of 10 times\)"):
        Store.open(partial_path(path))
    with pytest.raises(ValueError, match="other settings"):
        write(state, path, attrs={"title": "another"})

    write(state, path, check=lambda block, times, channels: seen.append(len(times)))
    assert seen == [3, 1]  # the first six times were not computed again
    np.testing.assert_array_equal(Store.open(path).read(slice(None)), state.values)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zarr"]


def test_resumes_after_a_kill(tmp_path: Path, simulated_state: xr.DataArray) -> None:
    """A real process, killed in the middle without a chance to clean up."""
    script = textwrap.dedent(f"""
        import sys, time
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        from conftest import store_attrs, unpacked_simulation
        from sciml_dchag.weather.store import layout
        from sciml_dchag.weather.store.writing import write_store
        layout.BLOCK_BYTES = 2 * 80 * 32 * 64 * 4
        state = unpacked_simulation()
        def pace(done, total, what):
            print(done, flush=True)
            time.sleep(0.5 if len(sys.argv) > 1 else 0)
        write_store(state, {str(tmp_path / "a.zarr")!r}, attrs=store_attrs(state), progress=pace)
        """)
    process = subprocess.Popen(
        [sys.executable, "-c", script, "slowly"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    while process.stdout.readline().strip() != "4":
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not (tmp_path / "a.zarr").exists()
    again = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert again.stdout.split()[0] in ("4", "6")  # it went on, whichever block was under way
    store = Store.open(tmp_path / "a.zarr")
    np.testing.assert_array_equal(store.read(slice(None)), simulated_state.values)


@pytest.mark.usefixtures("small_blocks")
def test_a_cluster_of_two_processes_writes_the_same(
    tmp_path: Path, series: Series, write: Write
) -> None:
    from distributed import LocalCluster

    state = series(times=8)
    lazy = state.copy(data=dask.array.from_array(state.values, chunks=(1, -1, -1, -1)) * 2)
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        write(lazy, tmp_path / "cluster.zarr", scheduler=cluster.scheduler_address)
    store = Store.open(tmp_path / "cluster.zarr")
    np.testing.assert_array_equal(store.read(slice(None)), state.values * 2)


def test_a_scheduler_that_does_not_answer_is_named(
    tmp_path: Path, series: Series, write: Write
) -> None:
    import dask

    with (
        dask.config.set({"distributed.comm.timeouts.connect": "0.2s"}),
        pytest.raises(ValueError, match=r"No Dask scheduler answers at 'tcp://127.0.0.1:9'"),
    ):
        write(series(), tmp_path / "a.zarr", scheduler="tcp://127.0.0.1:9")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_place_is_kept_unless_told_otherwise(
    tmp_path: Path, series: Series, write: Write
) -> None:
    path = write(series(seed=1), tmp_path / "a.zarr")
    other = series(seed=2)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        write(other, path)
    np.testing.assert_array_equal(Store.open(path).read(slice(None)), series(seed=1).values)
    write(other, path, overwrite=True)
    np.testing.assert_array_equal(Store.open(path).read(slice(None)), other.values)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zarr"]

    precious = tmp_path / "thesis"
    precious.mkdir()
    (precious / "chapter.txt").write_text("words")
    with pytest.raises(FileExistsError, match="not only, a weather store"):
        write(other, precious, overwrite=True)
    assert (precious / "chapter.txt").read_text() == "words"


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as Linux does")
def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    """The kernel refuses to let files grow (EFBIG), which stands for a full disk (ENOSPC)."""
    script = textwrap.dedent(f"""
        import resource, sys
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        from conftest import store_attrs, unpacked_simulation
        from sciml_dchag.weather.store.writing import write_store
        state = unpacked_simulation()
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        try:
            write_store(state, {str(tmp_path / "a.zarr")!r}, attrs=store_attrs(state))
        except OSError as error:
            print(error)
        """)
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout.startswith(f"No room to write {tmp_path / 'a.zarr'} (file too large)")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as Linux does")
@pytest.mark.usefixtures("small_blocks")
def test_a_disk_that_fills_up_keeps_what_is_finished(
    tmp_path: Path, series: Series, write: Write
) -> None:
    """From the ninth time on the kernel lets no file grow; later it does again."""
    state, path = series(times=20), tmp_path / "a.zarr"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_up(done: int, total: int, what: str) -> None:
        if done == 9:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))

    try:
        with pytest.raises(OSError, match=r"No room to write .* 9 of 20 times are kept") as caught:
            write(state, path, progress=fill_up)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value) and not path.exists()
    seen: list[int] = []
    write(state, path, progress=lambda done, total, what: seen.append(done))
    assert seen[0] == 9
    np.testing.assert_array_equal(Store.open(path).read(slice(None)), state.values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.transpose("channel", "time", ...), "has the dimensions"),
        (lambda s: s.isel(time=[0, 2, 1]), "2001-01-01T06:00 follows 2001-01-01T12:00"),
        (lambda s: s.isel(time=[0, 0]), "each once"),
        (lambda s: s.assign_coords(time=s.time + np.timedelta64(30, "m")), "no whole hour"),
        (lambda s: s.isel(latitude=slice(None, None, -1)), "sort the state by latitude"),
        (lambda s: s.isel(time=slice(0, 0)), "no time"),
        (lambda s: s.assign_coords(channel=["t2m", "t2m"]), "listed twice"),
    ],
)
def test_a_state_that_is_no_state_is_refused_before_work_starts(
    tmp_path: Path,
    series: Series,
    write: Write,
    change: Callable[[xr.DataArray], xr.DataArray],
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        write(change(series()), tmp_path / "a.zarr")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_memory_stays_bounded_while_a_quarter_degree_is_regridded(tmp_path: Path) -> None:
    """200 steps of 5 channels at 0.25 degrees (4.2 GB in all) pass in less than 2 GiB."""
    script = textwrap.dedent(f"""
        import resource, sys
        import dask.array, numpy as np, xarray as xr
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        from conftest import store_attrs
        from sciml_dchag.weather.store.writing import write_store
        from sciml_dchag.weather.grid import Grid
        from sciml_dchag.weather.regrid.regrid import regrid
        def field(block_info=None):
            first = block_info[None]["array-location"][0][0]
            return np.full(block_info[None]["chunk-shape"], 280 + first / 100, np.float32)
        grid = Grid.named("721x1440")
        data = dask.array.map_blocks(
            field, dtype=np.float32, chunks=((1,) * 200, (1,) * 5, (721,), (1440,))
        )
        times = np.datetime64("2001-01-01", "ns") + np.arange(200) * np.timedelta64(1, "h")
        state = xr.DataArray(
            data, dims=("time", "channel", "latitude", "longitude"),
            coords={{"time": times, "channel": ["t2m", "msl", "u10", "v10", "sst"],
                    "latitude": grid.latitude, "longitude": grid.longitude}})
        small = regrid(state, "5.625", weights_directory={str(tmp_path)!r})
        write_store(small, {str(tmp_path / "a.zarr")!r}, attrs=store_attrs(small))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
        """)
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    gibibytes = float(out.stdout) / (1 if sys.platform == "linux" else 2**10)
    print(f"peak {gibibytes:.2f} GiB")
    assert gibibytes < 2.0
    assert Store.open(tmp_path / "a.zarr").shape == (200, 5, 32, 64)


def test_provenance_is_kept_as_json(tmp_path: Path, series: Series, write: Write) -> None:
    attrs = {"provenance": {"sources": [{"path": "a.nc", "bytes": 3}]}}
    store = Store.open(write(series(), tmp_path / "a.zarr", attrs=attrs))
    assert json.loads(store.attrs["provenance"])["sources"][0]["path"] == "a.nc"
