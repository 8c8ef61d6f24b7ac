"""Stores that several tests read: 80 simulated channels, and the embedded ERA5 sample."""

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from sciml_dchag.files.samples import sample_path
from sciml_dchag.weather.grid import Grid
from sciml_dchag.weather.store.statistics import compute_statistics
from sciml_dchag.weather.store.writing import write_store

DATA = Path(__file__).parent / "data"
if (
    not torch.cuda.is_available()
):  # kernels are interpreted, which must be said before they are read
    os.environ["TRITON_INTERPRET"] = "1"


ALONE = ("tests/distributed/test_failing_ranks.py",)
"""Files of ranks that start most of theirs with torchrun."""

FIRST = (
    "ranks", "tests/distributed/test_failing_ranks.py", "tests/cli/test_notebooks.py",
    "tests/cli/test_examples.py", "tests/unit/test_planning.py", "tests/cli/test_submit.py",
)  # fmt: skip
"""What takes minutes begins first, so that short files fill the end and no core waits."""


def lane(nodeid: str) -> str:
    """Which tests a test stays together with.

    Tests on ranks, which keep their ranks alive, are one lane, as two would crowd two cores; others
    go by file, whose tests share fixtures and, in some, a port.
    """
    file = nodeid.split("::")[0]
    on_ranks = file.startswith("tests/distributed/") and file not in ALONE
    return "ranks" if on_ranks else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Share tests out by lane, in the order of `FIRST`, among processes (`pytest -n 3`)."""
    from xdist.scheduler import LoadScopeScheduling

    class Lanes(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return lane(nodeid)

    config.option.loadscopereorder = False
    return Lanes(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of `FIRST` first."""
    places = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(lane(item.nodeid), len(places)))


def pytest_collection_finish() -> None:
    """Leave what is imported by now out of each later collection of garbage."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Let the end of the process find no leaks."""
    gc.unfreeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Give way to the ranks, whose lane is the longest: other processes take what it leaves idle."""
    here = lane(item.nodeid)
    in_company = "PYTEST_XDIST_WORKER" in os.environ
    if in_company and here != "ranks" and here not in ALONE and os.nice(0) == 0:
        os.nice(5)  # jobs of ranks have limits of time


def unpacked_simulation() -> xr.DataArray:
    """The 3-day simulated file of all 80 channels, float32, with its coordinates alone."""
    with xr.open_dataset(DATA / "weather" / "simulated_era5_80_3days.nc") as packed:
        state = (packed["state_packed"] * packed["scale"] + packed["offset"]).astype(np.float32)
        state = state.transpose("time", "channel", "latitude", "longitude")
        return state.drop_vars(set(state.coords) - set(state.dims)).load()


def store_attrs(state: xr.DataArray, **changes: object) -> dict[str, object]:
    """Root attributes that a store of this state needs."""
    grid = Grid.of(state)
    return {
        "title": "Simulated weather for tests",
        "attribution": "Simulated with JCM, not observations.",
        "simulated": 1,
        "grid": grid.name,
        "grid_kind": grid.kind,
        "grid_sha256": grid.content_hash,
        **changes,
    }


@pytest.fixture(scope="session")
def simulated_state() -> xr.DataArray:
    return unpacked_simulation()


@pytest.fixture(scope="session")
def simulated_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 12 six-hourly steps of 80 simulated channels on 32 x 64, with statistics."""
    path = tmp_path_factory.mktemp("stores") / "simulated.zarr"
    state = unpacked_simulation()
    return write_store(
        state, path, attrs=store_attrs(state), finish=lambda p: compute_statistics(p)
    )


@pytest.fixture(scope="session")
def msl_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded ERA5 sample at 5.625 degrees; its first 96 steps are the training period."""
    from sciml_dchag.weather.prepare.era5 import prepare_era5

    return prepare_era5(
        [str(sample_path("era5_msl"))],
        tmp_path_factory.mktemp("stores") / "msl.zarr",
        channels="msl",
        statistics_period=("2025-12-01", "2025-12-24"),
    )


@pytest.fixture(scope="session")
def write() -> Callable[..., Path]:
    """Write a state as a store with the attributes it needs; `title` and so on may be changed."""

    def write_with_attrs(
        state: xr.DataArray, path: Path, *, attrs: dict[str, object] | None = None, **options: Any
    ) -> Path:
        return write_store(state, path, attrs=store_attrs(state, **(attrs or {})), **options)

    return write_with_attrs


@pytest.fixture
def series() -> Callable[..., xr.DataArray]:
    """Make a random state of given times and channels on a small regular grid."""

    def make(
        times: int = 10, channels: str = "t2m,msl", rows: int = 4, start: str = "2001-01-01",
        step_hours: int = 6, seed: int = 0,
    ) -> xr.DataArray:  # fmt: skip
        names = channels.split(",")
        grid = Grid.named(f"{rows}x{2 * rows}")
        values = np.random.default_rng(seed).normal(280, 10, (times, len(names), *grid.shape))
        return xr.DataArray(
            values.astype(np.float32),
            dims=("time", "channel", "latitude", "longitude"),
            coords={
                "time": np.datetime64(start, "ns")
                + np.arange(times) * np.timedelta64(step_hours, "h"),
                "channel": names,
                "latitude": grid.latitude,
                "longitude": grid.longitude,
            },
        )

    return make
