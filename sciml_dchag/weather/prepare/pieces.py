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

from sciml_dchag.channels import variables
from sciml_dchag.weather.grid import Grid
from sciml_dchag.weather.grid_checks import SLACK_DEGREES, FloatArray
from sciml_dchag.weather.prepare.axes import (
    ANOTHER_QUANTITY,
    LEVELS_LOW,
    LEVELS_UNTOLD,
    NOT_ON_A_GRID,
    NOT_ON_PRESSURE,
    SEVERAL_NAMES,
    STORED_AS,
)
from sciml_dchag.weather.prepare.names import units_factor
from sciml_dchag.weather.prepare.reading import VERTICAL, RawField
from sciml_dchag.weather.prepare.valid_range import valid_range


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
                f"{self.name} of {self.source} has no time coordinate, and every state belongs to "
                f"a time: add it, as xarray's assign_coords(time=...) does."
            )
        return np.atleast_1d(self.field["time"].values)

    @cached_property
    def levels(self) -> list[int]:
        """Its levels in hPa; none where the file has none."""
        if "level" not in self.field.coords:
            return []
        return [int(level) for level in np.atleast_1d(self.field["level"].values)]

    @cached_property
    def not_on_pressure(self) -> str | None:
        """What its vertical axis is where that is no pressure, in words."""
        return self.field.attrs.get(NOT_ON_PRESSURE)

    @cached_property
    def levels_untold(self) -> str | None:
        """Its axis that is taken for pressure although its file does not say so."""
        return self.field.attrs.get(LEVELS_UNTOLD)

    @cached_property
    def levels_low(self) -> str | None:
        """Its axis in Pa of which all levels would be usual ones in hPa."""
        return self.field.attrs.get(LEVELS_LOW)

    @cached_property
    def further_dims(self) -> list[str]:
        """Dimensions that a field does not have, such as ensemble members."""
        known = ["time", "latitude", "longitude", "expver", *VERTICAL]
        if (ours := variables().get(self.name)) is not None and ours.kind != "level":
            known.remove("level")  # one value of it is no dimension any more
        return [
            str(dim)
            for dim, size in zip(self.field.dims, self.field.shape, strict=True)
            if dim not in known and not (dim == "level" and size == 1)
        ]

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
        if reason := self.field.attrs.get(NOT_ON_A_GRID):
            raise ValueError(
                f"{self.name} of {self.source} {reason}: only rows of latitude and columns of "
                f"longitude in degrees can be read, so regrid it to such a grid first."
            )
        if reason := self.odd:
            raise ValueError(f"{self.name} of {self.source} {reason}.")
        if self.missing_dims:
            axes = ", ".join(map(str, self.field.dims))
            raise ValueError(
                f"{self.name} of {self.source} has no {self.missing_dims[0]} axis (its axes are "
                f"{axes}): only fields on a latitude-longitude grid can be read."
            )
        if self.further_dims:
            dim = self.further_dims[0]
            what = "ensemble members" if dim == "number" else "values"
            on = f", on {self.not_on_pressure}" if self.not_on_pressure else ""
            raise ValueError(
                f"{self.source} holds {self.field.sizes[dim]} {what} of {self.name} (dimension "
                f"{dim}{on}) where one is needed: write one of them to a file of its own."
            )
        factor = units_factor(self.field, self.source) if self.name in variables() else 1.0
        return RawField(
            self.field.variable, self.source, factor, self.name,
            valid=valid_range(self.field.variable), copies=self._copies(),
        )  # fmt: skip

    def _copies(self) -> tuple[tuple[int, int, int], ...]:
        """First and further places of levels that are there more than once, and the levels."""
        levels = self.levels if "level" in self.field.dims else []
        return tuple(
            (levels.index(level), place, level)
            for place, level in enumerate(levels)
            if levels.index(level) != place
        )

    @property
    def odd(self) -> str | None:
        """What speaks against its values, whatever its axes; None where nothing does."""
        return self._no_numbers() or self.field.attrs.get(ANOTHER_QUANTITY) or self._ambiguous()

    def _ambiguous(self) -> str | None:
        """Say that the file has it under several names, none of which is the one asked for."""
        names = self.field.attrs.get(SEVERAL_NAMES)
        if names is None:
            return None
        ours = variables()[self.name]
        by_name = str(self.field.attrs.get(STORED_AS)).lower() in (ours.short, ours.long.lower())
        return None if by_name else in_several(names, ours.short)

    def _no_numbers(self) -> str | None:
        """Say why the field holds no numbers that can be read; None where it does."""
        for dim, size in self.field.sizes.items():
            if size == 0 and dim not in self.further_dims:
                return f"has no values: its axis {dim} has length 0, so name another file"
        packing = self.field.variable.encoding
        for key, neutral in (("scale_factor", 1.0), ("add_offset", 0.0)):
            value = np.asarray(packing.get(key, neutral))
            if value.dtype.kind not in "iuf" or not np.isfinite(value).all():
                return f"has a {key} of {value.tolist()!r}, which is no number: correct it"
            if key == "scale_factor" and not value.all():
                return "has a scale_factor of 0, which loses all values: correct it"
        kind = np.dtype(packing.get("dtype", self.field.dtype)).kind
        if kind not in "iuf" or self.field.dtype.kind not in "iuf":
            what = {"c": "complex numbers", "b": "truth values", "M": "dates", "m": "durations"}
            held = what.get(kind, "text or objects") if kind not in "iuf" else "no numbers"
            return f"holds {held}, where numbers are needed: write them as floating-point numbers"
        return None


def in_several(names: str, short: str) -> str:
    """Say of a variable that a file has it under several names."""
    return (
        f"is in the file as {names}, which are names of one variable: remove all but one, or call "
        f"the one that is meant {short}"
    )


def north_and_east(field: xr.DataArray) -> xr.DataArray:
    """Order rows from south to north and columns from 0 eastward, when they are read.

    So that files of one grid join in whatever order they hold it, and a store need not sort.
    Columns that do not go once around stay together: from 350 to 10 degrees they run from -10.
    Coordinates that make no grid are left as they are, for `Grid` to refuse.
    """
    if not field.size or NOT_ON_A_GRID in field.attrs:  # refused where it is asked for
        return field
    if "latitude" in field.dims and "latitude" in field.coords:
        rows = field["latitude"].values
        if rows[0] > rows[-1]:
            field = field.isel(latitude=slice(None, None, -1))
    if "longitude" not in field.dims or "longitude" not in field.coords:
        return field
    columns = field["longitude"].values.astype(np.float64)
    steps = np.mod(np.diff(columns), 360.0)
    if 0 < (-steps % 360.0).sum() < 360.0 <= steps.sum():  # columns that run west
        return north_and_east(field.isel(longitude=slice(None, None, -1)))
    if not 0 < steps.sum() < 360.0:
        return field
    east = np.mod(columns, 360.0)
    east[east > 360.0 - SLACK_DEGREES] -= 360.0  # a rounded 0
    if (np.diff(east) < 0).any() and 360.0 - steps.sum() > 1.001 * steps.max():
        return field.assign_coords(longitude=np.where(east >= east[0], east - 360.0, east))
    field = field.assign_coords(longitude=east)
    if (np.diff(east) < 0).any():
        field = field.isel(longitude=np.argsort(east, kind="stable"))
    return field


def one_grid(pieces: Sequence[Piece]) -> Grid:
    """Return the grid of all pieces, refusing two files of different grids."""
    first = pieces[0]
    grid = first.grid()
    for piece in pieces[1:]:
        piece.raw()  # refuses a field without the axes of one
        rows, columns = piece.field["latitude"].values, piece.field["longitude"].values
        if not _alike(grid, rows, columns):
            raise ValueError(
                f"{piece.source} has a grid of {_extent(piece.grid())} and {first.source} "
                f"one of {_extent(grid)}: prepare files of one grid at a time."
            )
    return grid


def require_same_grid(static: xr.DataArray, state: xr.DataArray) -> None:
    """Refuse static fields on another grid than the state's, where neither is regridded.

    Raises:
        ValueError: the grids differ.
    """
    ours, theirs = Grid.of(state), Grid.of(static)
    if not _alike(ours, theirs.latitude, theirs.longitude):
        raise ValueError(
            f"The static fields have a grid of {_extent(theirs)} and the states one of "
            f"{_extent(ours)}: name static files on the states' grid, or regrid to one."
        )


def _alike(grid: Grid, rows: FloatArray, columns: FloatArray) -> bool:
    """Whether rows and columns are a grid's, to the rounding of files."""
    return (rows.size, columns.size) == grid.shape and bool(
        max(np.abs(rows - grid.latitude).max(), np.abs(columns - grid.longitude).max())
        < SLACK_DEGREES
    )


def _extent(grid: Grid) -> str:
    rows, columns = grid.shape
    south, north = grid.latitude[[0, -1]]
    west, east = grid.longitude[[0, -1]]
    return f"{rows} x {columns} from {south:g} to {north:g} north and {west:g} to {east:g} east"
