"""`verify`: read all that carries checksums and say what of it is missing or has changed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from sciml_dchag.files.checksums import LIST, damages, read_list
from sciml_dchag.training import export
from sciml_dchag.training.checkpoint import RECORD
from sciml_dchag.training.logbook import read_log

Progress = Callable[[int], object]


def verify(path: Path, progress: Progress | None = None) -> Iterator[tuple[Path, int, list[str]]]:
    """Check everything at a path that carries checksums.

    Args:
        path: a store, forecasts, a checkpoint, a run folder, an exported model, or a folder with
            some of them at any depth.
        progress: called with the number of bytes of each file once it is read.

    Yields:
        Each of them, the number of its files, and a sentence for each that is damaged. A store or
        checkpoint without a list is one of no files.

    Raises:
        FileNotFoundError: there is nothing at the path.
        ValueError: nothing there carries checksums, or could.
    """
    if not path.exists():
        raise FileNotFoundError(f"There is nothing at {path}: name a store, a run or a model.")
    found = False
    for place in _places(path):
        found = True
        if place.suffix == export.SUFFIX:
            yield place, 1, list(export.damages(place))
        elif place.suffix == ".nc":
            yield place, 1, list(_damages_of_netcdf(place))
        elif place.name == "log.jsonl":
            yield place, 1, list(_damages_of_log(place))
        else:
            said = list(damages(place, progress))
            yield place, 0 if not said and not (place / LIST).exists() else _count(place), said
    if not found:
        raise ValueError(
            f"{path} holds nothing that carries checksums: name a store, forecasts, a checkpoint, "
            f"a run or an exported model."
        )


def _count(place: Path) -> int:
    try:
        return len({part.path for part in read_list(place) or ()})
    except ValueError:
        return 1


def _places(path: Path) -> Iterator[Path]:
    if path.is_file():
        if path.suffix in (export.SUFFIX, ".nc"):
            yield path
        return
    for folder, folders, names in os.walk(path):
        here = Path(folder)
        folders.sort()
        if LIST in names or RECORD in names or "zarr.json" in names:
            folders.clear()  # what is inside is of its list
            yield here
            continue
        kinds = (export.SUFFIX, ".nc") if here == path else (export.SUFFIX,)
        yield from (here / name for name in sorted(names) if Path(name).suffix in kinds)
        if "log.jsonl" in names:
            yield here / "log.jsonl"


def _damages_of_log(path: Path) -> Iterator[str]:
    try:
        read_log(path)
    except ValueError as error:
        yield str(error)


def _damages_of_netcdf(path: Path) -> Iterator[str]:
    """Read all variables, whose chunks HDF5 compares with their checksums."""
    import h5py

    try:
        with h5py.File(path) as file:
            for name, variable in file.items():
                if not isinstance(variable, h5py.Dataset):
                    continue
                for chunk in variable.iter_chunks() if variable.chunks else [...]:
                    try:
                        variable[chunk]
                    except OSError:
                        yield f"{path} is damaged in its variable {name}: make it again."
                        break
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        yield f"{path} cannot be read as NetCDF 4 ({' '.join(str(error).split())}): make it again."
