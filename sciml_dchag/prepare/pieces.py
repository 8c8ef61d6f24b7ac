"""One variable of one file, in the order of rows and columns that all are read in.

And whether several lie on one grid. Which of them make a state is `sources`' concern.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sciml_dchag.channels import VARIABLES
from sciml_dchag.prepare.grid_checks import SLACK_DEGREES
from sciml_dchag.prepare.grids import Grid
from sciml_dchag.prepare.layouts import units_factor
from sciml_dchag.prepare.reading import VERTICAL, RawField


@dataclass(frozen=True, eq=False)
class Piece:
    """One variable of one file."""

    field: xr.DataArray
    source: str

    @cached_property
    def name(self) -> str:
        """Our short name of the variable, or `state`."""
        return str(self.field.name)

    @cached_property
    def times(self) -> NDArray[np.datetime64]:
        """Its times; a variable without any is refused."""
        if "time" not in self.field.coords:
            raise ValueError(
                f"{self.name} of {self.source} has no time coordinate: add one, as every state "
                f"belongs to a time."
            )
        return np.atleast_1d(self.field["time"].values)

    @cached_property
    def levels(self) -> list[int]:
        """Its levels in hPa; none for a field on a surface."""
        if "level" not in self.field.coords:
            return []
        return [int(level) for level in np.atleast_1d(self.field["level"].values)]

    @cached_property
    def further_dims(self) -> list[str]:
        """Dimensions that a field does not have, such as ensemble members."""
        known = ("time", "latitude", "longitude", "expver", *VERTICAL)
        return [str(dim) for dim in self.field.dims if dim not in known]

    @cached_property
    def missing_dims(self) -> list[str]:
        """Dimensions that a field must have and this one has not."""
        return [dim for dim in ("latitude", "longitude") if dim not in self.field.dims]

    def grid(self) -> Grid:
        """Its grid, if it has the axes of one."""
        self.raw()
        try:
            return Grid.of(self.field)
        except ValueError as error:
            raise ValueError(f"{self.source}: {error}") from error

    def raw(self) -> RawField:
        """The field ready to be read, if it has the axes of one and units that we know."""
        if self.missing_dims:
            raise ValueError(
                f"{self.name} of {self.source} has no {self.missing_dims[0]} axis: only fields on "
                f"a latitude-longitude grid can be read."
            )
        if self.further_dims:
            dim = self.further_dims[0]
            what = "ensemble members" if dim == "number" else "values"
            raise ValueError(
                f"{self.source} holds {self.field.sizes[dim]} {what} of {self.name} (dimension "
                f"{dim}) where one is needed: write one of them to a file of its own."
            )
        factor = units_factor(self.field, self.source) if self.name in VARIABLES else 1.0
        return RawField(self.field.variable, self.source, factor)


def north_and_east(field: xr.DataArray) -> xr.DataArray:
    """Order rows from south to north and columns from 0 eastward, when they are read.

    So that files of one grid join in whatever order they hold it, and a store need not sort.
    """
    if "latitude" in field.dims and field["latitude"].size > 1:
        rows = field["latitude"].values
        if rows[0] > rows[-1]:
            field = field.isel(latitude=slice(None, None, -1))
    if "longitude" in field.dims:
        east = np.mod(field["longitude"].values, 360.0)
        field = field.assign_coords(longitude=east)
        if (np.diff(east) < 0).sum() == 1:  # eastward from another meridian, such as -180
            field = field.isel(longitude=np.argsort(east, kind="stable"))
    return field


def one_grid(pieces: Sequence[Piece]) -> Grid:
    """Return the grid of all pieces, refusing two files of different grids."""
    first = pieces[0]
    grid = first.grid()
    for piece in pieces[1:]:
        other = piece.grid()
        if _alike(grid, other):
            continue
        raise ValueError(
            f"{piece.source} has a grid of {_corner(other)} and {first.source} one of "
            f"{_corner(grid)}: prepare files of one grid at a time."
        )
    return grid


def require_same_grid(static: xr.DataArray, state: xr.DataArray) -> None:
    """Refuse static fields on another grid than the state's, where neither is regridded.

    Raises:
        ValueError: the grids differ.
    """
    ours, theirs = Grid.of(state), Grid.of(static)
    if not _alike(ours, theirs):
        raise ValueError(
            f"The static fields have a grid of {_corner(theirs)} and the states one of "
            f"{_corner(ours)}: name static files on the states' grid, or regrid to one."
        )


def _alike(one: Grid, other: Grid) -> bool:
    """Whether two grids are the same to the rounding of files."""
    return one.shape == other.shape and (
        max(
            np.abs(one.latitude - other.latitude).max(),
            np.abs(one.longitude - other.longitude).max(),
        )
        < SLACK_DEGREES
    )


def _corner(grid: Grid) -> str:
    rows, columns = grid.shape
    return f"{rows} x {columns} from {grid.latitude[0]:g} degrees north, {grid.longitude[0]:g} east"
