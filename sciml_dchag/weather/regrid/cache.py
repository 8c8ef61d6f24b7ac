"""Regridding weights, made once for a pair of grids and kept on disk.

Here: which engine makes the weights, and the cache. Not here: how they are made
(`regrid_weights.py`) or applied (`regrid.py`).

Files are in ESMF's weight-file format as xESMF writes it (`S`, and 1-based `row` and `col`, on
`n_s`), so that `xesmf.Regridder(..., weights=path)` reads ours. Their names hold a hash of both
grids and the method, and the engine, since the two engines' conservative weights differ by 2e-3.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import xarray as xr

from sciml_dchag.files.atomic import written_beside
from sciml_dchag.weather.grid import Grid
from sciml_dchag.weather.regrid.weights import finished, native_weights, read_weights, xesmf_weights

ENGINES = ("auto", "xesmf", "native")
_BUILDERS = {"xesmf": xesmf_weights, "native": native_weights}

# Counts up when the native weights change, so that older files are not taken for theirs.
_GENERATION = 1


@dataclass(frozen=True, eq=False)
class Weights:
    """The matrix that takes a flattened field on one grid to another, and what made it."""

    matrix: sp.csr_array
    """Shape (target.size, source.size), float64, rows summing to 1."""
    engine: str
    """"xesmf" or "native"."""

    @cached_property
    def sha256(self) -> str:
        """Of the matrix's shape, positions and values."""
        digest = hashlib.sha256(np.array(self.matrix.shape, dtype="<i8").tobytes())
        digest.update(self.matrix.indptr.astype("<i8").tobytes())
        digest.update(self.matrix.indices.astype("<i8").tobytes())
        digest.update(self.matrix.data.astype("<f8").tobytes())
        return digest.hexdigest()


def default_directory() -> Path:
    """Where weights are kept: `sciml_dchag/weights` in XDG_CACHE_HOME, by default ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "sciml_dchag" / "weights"


def weight_file(source: Grid, target: Grid, method: str, engine: str, directory: Path) -> Path:
    """The file that keeps these weights."""
    key = f"{_GENERATION} {method} {source.content_hash} {target.content_hash}"
    digest = hashlib.sha256(key.encode()).hexdigest()[:20]
    shapes = "_".join("x".join(map(str, grid.shape)) for grid in (source, target))
    return directory / f"{method}_{shapes}_{digest}_{engine}.nc"


def weights_between(
    source: Grid,
    target: Grid,
    method: str,
    engine: str = "auto",
    directory: str | Path | None = None,
) -> Weights:
    """The weights from the cache, or made and put there.

    With `engine="auto"` they are ESMF's where xESMF imports or has left its weights in the cache,
    and native else. A damaged file is made again, and a cache that cannot be written is done
    without; both with a warning.

    Args:
        source: grid of the data.
        target: grid to go to.
        method: "bilinear" or "conservative".
        engine: "auto", "xesmf" or "native".
        directory: of the cache; by default `default_directory()`.

    Raises:
        ValueError: if `engine` is unknown or does not import, or the source does not cover the
            target.
    """
    folder = default_directory() if directory is None else Path(directory)
    if engine not in ENGINES:
        raise ValueError(f'There is no engine "{engine}"; choose one of {", ".join(ENGINES)}.')
    fault = None if engine == "native" else _xesmf_fault()
    if engine == "xesmf" and fault is not None:
        raise ValueError(
            f'xESMF does not import here ({fault}); use engine="native" or the conda environment '
            f"of environment.yml, which brings ESMF."
        )
    # Weights that ESMF left in the cache serve "auto" where ESMF itself is missing.
    engines = [engine] if engine != "auto" else ["xesmf"] + ["native"] * (fault is not None)
    for engine in engines:
        path = weight_file(source, target, method, engine, folder)
        if path.exists() and (matrix := _read(path, source, target)) is not None:
            return Weights(matrix, engine)
    matrix = _BUILDERS[engine](source, target, method)
    try:
        write_weights(matrix, path, method, engine)
    except OSError as error:
        warnings.warn(
            f"The regridding weights could not be kept in {folder} ({error}); they will be made "
            f"again next time.",
            stacklevel=2,
        )
    return Weights(matrix, engine)


def write_weights(matrix: sp.csr_array, path: Path, method: str, engine: str) -> None:
    """Write an ESMF weight file, whole or not at all.

    Raises:
        OSError: if it cannot be written.
    """
    entries = matrix.tocoo()
    weights = xr.Dataset(
        {
            "S": ("n_s", entries.data),
            "col": ("n_s", entries.col.astype(np.int32) + 1),
            "row": ("n_s", entries.row.astype(np.int32) + 1),
        },
        attrs={"method": method, "generator": f"sciml_dchag, engine {engine}"},
    )
    with written_beside(path) as partial:
        weights.to_netcdf(partial, engine="h5netcdf")


def _read(path: Path, source: Grid, target: Grid) -> sp.csr_array | None:
    """The matrix in a cache file, or None with a warning if the file is damaged."""
    try:
        return finished(read_weights(path, source, target))
    except (OSError, RuntimeError, ValueError) as error:
        warnings.warn(
            f"The cached regridding weights {path} are damaged ({error}) and are made again.",
            stacklevel=3,
        )
        return None


def _xesmf_fault() -> str | None:
    """Why xESMF does not import, or None if it does."""
    try:
        importlib.import_module("xesmf")
    except (ImportError, KeyError, OSError) as error:  # esmpy raises the latter two without ESMF
        return f"{type(error).__name__}: {error}"
    return None
