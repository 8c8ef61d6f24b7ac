"""Writes a store in child processes, each killed before another change of names (test_places)."""

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import xarray as xr
from conftest import store_attrs

from sciml_dchag.files.places import former_of
from sciml_dchag.files.zarr_groups import partial_path
from sciml_dchag.weather.store.store import Store
from sciml_dchag.weather.store.writing import write_store


def state_of(values: np.ndarray) -> xr.DataArray:
    _, _, rows, columns = values.shape
    return xr.DataArray(
        values,
        dims=("time", "channel", "latitude", "longitude"),
        coords={
            "time": np.datetime64("2017-01-01", "ns") + np.arange(len(values)) * np.timedelta64(6, "h"),
            "channel": ["t2m", "z500"],
            "latitude": -90 + 180 / rows * (np.arange(rows) + 0.5),
            "longitude": 360 / columns * np.arange(columns),
        },
    )  # fmt: skip


def in_child(work: Callable[[], object], killed_before: int | None) -> int:
    """Do work in a child; its status, which is 9 where it was killed before so many changes."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    changes = 0

    def counted(function: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            nonlocal changes
            if changes == killed_before:
                os._exit(9)
            changes += 1
            return function(*args, **kwargs)

        return call

    try:
        import sciml_dchag.weather.store.writing as writing

        whole = writing.install

        def install(partial: Path, path: Path) -> None:
            plain = {name: getattr(os, name) for name in ("rename", "unlink", "rmdir")}
            for name, function in plain.items():
                setattr(os, name, counted(function))
            whole(partial, path)
            for name, function in plain.items():
                setattr(os, name, function)

        writing.install = install
        work()
    except BaseException as error:
        print(repr(error), flush=True)
        os._exit(1)
    os._exit(0)


def is_whole(place: Path, values: Iterable[np.ndarray]) -> bool:
    """Whether a folder holds one of the states; not where it is half removed."""
    try:
        found = Store.open(place).read(slice(None))
    except (ValueError, OSError, KeyError):
        return False
    return any(np.array_equal(found, one) for one in values)


def main(folder: str, overwrite: bool) -> None:
    place = Path(folder) / "a.zarr"
    values = {name: np.load(Path(folder) / f"{name}.npy") for name in ("old", "new")}

    def write(name: str, at: Path = place, **options: bool) -> None:
        state = state_of(values[name])
        write_store(state, at, attrs=store_attrs(state, title=name), **options)

    warm = Path(folder) / "warm.zarr"
    write("old", warm)  # what writing imports late is then there for all children
    shutil.rmtree(warm)
    point = 0
    while True:
        if overwrite:
            assert in_child(lambda: write("old"), None) == 0
        status = in_child(lambda: write("new", overwrite=overwrite), point)
        places = (place, former_of(place), partial_path(place))
        whole = [is_whole(p, values.values()) for p in places]
        assert any(whole), f"nothing is whole at {point}"
        assert status in (0, 9), status
        if status == 9:
            assert in_child(lambda: write("new", overwrite=overwrite), None) == 0, point
        assert np.array_equal(Store.open(place).read(slice(None)), values["new"]), point
        left = sorted(p.name for p in Path(folder).iterdir())
        assert left == ["a.zarr", "new.npy", "old.npy"], (point, left)
        shutil.rmtree(place)
        if status == 0:
            break
        point += 1 if point < 3 else 9  # most are removals of one file of the former store
    print(point)
