"""Latitude-longitude grids: names, cell edges and areas, and what kind of rows a grid has.

Here: `Grid`, the named target grids, and where a dataset keeps its coordinates.
Not here: the checks of coordinates (`grid_checks.py`), interpolation between grids
(`regrid_weights.py`, `regrid.py`), and how far a row reaches (`sciml_dchag.weather.area`).
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from sciml_dchag.weather.area import reaches_poles, row_bounds
from sciml_dchag.weather.grid_checks import (
    FloatArray,
    Kind,
    check_grid,
    check_latitude,
    check_longitude,
    kind_of_rows,
)

NAMED_GRIDS = ("5.625", "2.8125", "1.40625")
"""The grids of WeatherBench and of the paper, by their spacing in degrees, cell-centred."""

MOST_CELLS = 250_000_000
"""Cells of the finest grid that may be named: half a minute of arc has 233 million."""

LATITUDE_NAMES = ("latitude", "lat")
LONGITUDE_NAMES = ("longitude", "lon")


@dataclass(frozen=True, eq=False)
class Grid:
    """A rectilinear grid of cell centres in degrees, checked when it is made.

    Latitude runs either way, longitude eastward with at most one jump of 360. The grids made here
    (`named`, `regular`) run from south to north, and from longitude 0: stores keep that order, in
    which row and latitude grow together, and which WeatherBench uses too.

    Raises:
        ValueError: if the coordinates are no such grid; see `check_grid`.
    """

    latitude: FloatArray
    """Shape (n_latitude,), degrees north."""
    longitude: FloatArray
    """Shape (n_longitude,), degrees east."""
    name: str = ""
    """What messages call the grid; `LATxLON` where none is given."""

    def __post_init__(self) -> None:
        for field in ("latitude", "longitude"):
            values = np.array(getattr(self, field), dtype=np.float64)
            values.flags.writeable = False
            object.__setattr__(self, field, values)
        check_latitude(self.latitude)
        check_longitude(self.longitude)
        if not self.name:
            object.__setattr__(self, "name", f"{self.shape[0]}x{self.shape[1]}")

    @classmethod
    def regular(cls, step: float, poles: bool = False) -> Grid:
        """The global grid of `step` degrees, rows ascending, longitudes from 0.

        Args:
            step: spacing in degrees; it must divide 180.
            poles: rows at the poles themselves (181 rows for 1 degree), else half a step from them.

        Raises:
            ValueError: if `step` is not positive or does not divide 180.
        """
        cells = round(180.0 / step) if step > 0 else 0
        if cells < 2 or abs(cells * step - 180.0) > 1e-6:
            raise ValueError(
                f"A grid step of {step:g} degrees does not divide 180 into two rows or more; "
                f"choose one that does, such as 5.625 or 0.25."
            )
        return cls._global(cells + 1 if poles else cells, 2 * cells)

    @classmethod
    def _global(cls, rows: int, columns: int) -> Grid:
        """Evenly spaced; an odd number of rows includes both poles."""
        if rows * columns > MOST_CELLS:
            raise ValueError(
                f"A grid of {rows} x {columns} has {rows * columns:.3g} cells, and "
                f"{MOST_CELLS:.3g} are the most that can be named; choose a coarser one."
            )
        if rows % 2:
            first, step = -90.0, 180.0 / (rows - 1)
        else:
            first, step = -90.0 + 90.0 / rows, 180.0 / rows
        latitude = first + step * np.arange(rows, dtype=np.float64)
        return cls(latitude, 360.0 / columns * np.arange(columns, dtype=np.float64))

    @classmethod
    def named(cls, name: str) -> Grid:
        """The grid called `name`: "5.625", another step in degrees, or "LATxLON" as in "32x64".

        Steps mean cell-centred rows (5.625 is 32 x 64, rows at +-87.1875). In "LATxLON" an even
        number of rows is cell-centred, an odd one (721x1440) has rows at the poles.

        Raises:
            ValueError: if there is no such grid.
        """
        if match := re.fullmatch(r"(\d+)\s*[xX]\s*(\d+)", name.strip()):
            rows, columns = int(match[1]), int(match[2])
            if rows > columns:
                raise ValueError(
                    f'The grid "{name}" has more rows than columns; '
                    f'write rows first, as in "{columns}x{rows}".'
                )
            if rows < 2:
                raise ValueError(f'The grid "{name}" has one row; it needs at least two.')
            grid = cls._global(rows, columns)
        elif re.fullmatch(r"\d*\.?\d+", name.strip()):
            try:
                grid = cls.regular(float(name))
            except ValueError as error:
                raise ValueError(f"{str(error)[:-1]}{_nearest(name)}.") from None
        else:
            raise ValueError(
                f'There is no grid "{name}"{_nearest(name)}; give one of '
                f'{", ".join(NAMED_GRIDS)}, a step in degrees, or rows and columns as in "32x64".'
            )
        return cls(grid.latitude, grid.longitude, name)

    @classmethod
    def of(cls, source: object) -> Grid:
        """The grid that `source` names or carries.

        Args:
            source: a `Grid`, a name (see `named`), a step in degrees, or anything with coordinates
                latitude and longitude (or lat and lon): Dataset, DataArray, mapping, object.

        Raises:
            ValueError: if there is no such grid, the coordinates are missing, or its label
                (attribute `GRIB_gridType`) contradicts its rows.
        """
        if isinstance(source, Grid):
            return source
        if isinstance(source, str):
            return cls.named(source)
        if isinstance(source, (int, float)):
            return cls.named(str(source))
        latitude = _find_coordinate(source, LATITUDE_NAMES)
        longitude = _find_coordinate(source, LONGITUDE_NAMES)
        check_grid(latitude, longitude, label=_grib_label(source))
        return cls(latitude, longitude)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.latitude.size, self.longitude.size

    @property
    def size(self) -> int:
        """Number of cells."""
        return self.latitude.size * self.longitude.size

    @cached_property
    def kind(self) -> Kind:
        """Whether the rows are evenly spaced, a full Gaussian grid's, or neither."""
        return kind_of_rows(self.latitude)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of the coordinates in their order, never of the shape alone."""
        digest = hashlib.sha256()
        for values in (self.latitude, self.longitude):
            digest.update(np.int64(values.size).astype("<i8").tobytes())
            digest.update((values + 0.0).astype("<f8").tobytes())  # + 0.0 turns -0.0 into 0.0
        return digest.hexdigest()

    @cached_property
    def unwrapped_longitude(self) -> FloatArray:
        """Longitudes that grow without a jump, from the first one on."""
        steps = np.mod(np.diff(self.longitude), 360.0)
        return np.asarray(self.longitude[0] + np.concatenate([[0.0], np.cumsum(steps)]), np.float64)

    @cached_property
    def is_periodic(self) -> bool:
        """Whether the columns go once around: the closing gap is no wider than the others."""
        longitude = self.unwrapped_longitude
        closing = 360.0 - (longitude[-1] - longitude[0])
        return bool(closing <= 1.001 * np.diff(longitude).max())

    @cached_property
    def reaches_poles(self) -> tuple[bool, bool]:
        """Whether the rows reach the south and the north pole, to within one spacing."""
        return reaches_poles(np.sort(self.latitude))

    @cached_property
    def latitude_edges(self) -> FloatArray:
        """Cell edges in the order of the rows, shape (n_latitude + 1,).

        Midpoints between rows; the outermost is the pole where the rows reach it, else half a
        spacing beyond the last row.
        """
        edges = row_bounds(np.sort(self.latitude))
        return edges if self.latitude[0] < self.latitude[-1] else edges[::-1]

    @cached_property
    def longitude_edges(self) -> FloatArray:
        """Cell edges that grow without a jump, shape (n_longitude + 1,).

        Midpoints between columns; they span exactly 360 degrees on a periodic grid.
        """
        columns = self.unwrapped_longitude
        inner = (columns[1:] + columns[:-1]) / 2
        if self.is_periodic:
            first = (columns[0] + columns[-1] - 360.0) / 2
            return np.concatenate([[first], inner, [first + 360.0]])
        first = columns[0] - (columns[1] - columns[0]) / 2
        last = columns[-1] + (columns[-1] - columns[-2]) / 2
        return np.concatenate([[first], inner, [last]])

    def cell_areas(self) -> FloatArray:
        """Area of every cell on the unit sphere in steradians, shape (n_latitude, n_longitude).

        The area between two parallels and two meridians: the difference of the sines of latitude
        times that of the longitudes in radians.
        """
        heights = np.abs(np.diff(np.sin(np.deg2rad(self.latitude_edges))))
        widths = np.deg2rad(np.diff(self.longitude_edges))
        return np.asarray(heights[:, None] * widths[None, :], dtype=np.float64)

    def coordinates(self) -> dict[str, xr.DataArray]:
        """`latitude` and `longitude` with their CF attributes, for a Dataset."""
        return {
            name: xr.DataArray(
                values,
                dims=(name,),
                attrs={"standard_name": name, "long_name": name, "units": units},
            )
            for name, values, units in (
                ("latitude", self.latitude, "degrees_north"),
                ("longitude", self.longitude, "degrees_east"),
            )
        }


def coordinate_names(data: xr.Dataset | xr.DataArray) -> tuple[str, str]:
    """The names by which `data` calls latitude and longitude.

    Raises:
        ValueError: if either is missing or is no one-dimensional coordinate of its own.
    """
    found = []
    for names in (LATITUDE_NAMES, LONGITUDE_NAMES):
        name = next((name for name in names if name in data.coords), None)
        if name is None:
            raise ValueError(
                f"The data has no coordinate {' or '.join(names)} (it has "
                f"{', '.join(map(str, data.coords)) or 'none'}); rename or assign it."
            )
        if data[name].dims != (name,):
            raise ValueError(
                f"The coordinate {name} lies on the dimensions "
                f"({', '.join(map(str, data[name].dims))}), but regridding needs rows and columns: "
                f"{name} as a dimension of its own."
            )
        attrs = data[name].attrs
        standard, units = str(attrs.get("standard_name", "")), str(attrs.get("units", ""))
        if standard.startswith(("grid_", "projection_")) or units.lower().startswith("rad"):
            raise ValueError(
                f"The coordinate {name} is {standard or 'an angle'} in {units or 'no units'}, and "
                f"{names[0]} in degrees is needed; convert it, or regrid from its rotated or "
                f"projected grid first."
            )
        found.append(name)
    return found[0], found[1]


def _find_coordinate(source: object, names: tuple[str, ...]) -> npt.NDArray[Any]:
    for name in names:
        if isinstance(source, (xr.Dataset, xr.DataArray)):
            if name in source.coords:
                return source[name].to_numpy()
        elif isinstance(source, Mapping):
            if name in source:
                return np.asarray(source[name])
        elif hasattr(source, name):
            return np.asarray(getattr(source, name))
    raise ValueError(
        f"A grid was asked of a {type(source).__name__} without {' or '.join(names)}; give a "
        f'name such as "5.625" or something with coordinates latitude and longitude.'
    )


def _grib_label(source: object) -> str | None:
    """What a GRIB reader wrote down about the grid, in the first variable that carries it."""
    if isinstance(source, xr.Dataset):
        candidates = [source.attrs, *(source[name].attrs for name in source.data_vars)]
    else:
        candidates = [source.attrs] if isinstance(source, xr.DataArray) else []
    return next((str(a["GRIB_gridType"]) for a in candidates if "GRIB_gridType" in a), None)


def _nearest(name: str) -> str:
    near = difflib.get_close_matches(name, NAMED_GRIDS, n=1)
    return f' (did you mean "{near[0]}"?)' if near else ""
