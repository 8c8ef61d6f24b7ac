"""Lows and highs of labelled fields as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from sciml_dchag.files.resumable import Progress
from sciml_dchag.weather.grid import Grid, coordinate_names
from sciml_dchag.weather.objects.finding import Criteria, Finder, Kind, Objects
from sciml_dchag.weather.objects.quantity import Quantity, quantity_of

LEADS = ("prediction_timedelta", "lead_time", "step")
"""Dimensions of lead times, whose column is `lead_hours`."""
AT_ONCE = 32
"""Fields that are read at once."""


def find_lows(
    field: xr.DataArray,
    *,
    min_depth: float | None = None,
    band: tuple[float, float] = (20.0, 75.0),
    ring_km: float = 600.0,
    separation_km: float = 400.0,
) -> pd.DataFrame:
    """Find the lows of fields of pressure or geopotential.

    A low is a cell, or a plateau of equal cells, below all its neighbours. Place and value are
    those of the bottom of a parabola (weighted least squares on 3 x 3 cells, in km, across
    Greenwich and the poles too); the depth is the mean of the field on a ring around that place
    minus the value. Cells beside missing values, and outermost ones of a region, are none.

    Args:
        field: on latitude and longitude in degrees, in Pa, hPa, m2 s-2 or gpm, and on any further
            dimensions, such as time. Read a part at a time.
        min_depth: least depth, in hPa of pressures and in the field's units of geopotentials;
            None is 4 hPa, 300 m2 s-2 or 30 gpm.
        band: least and greatest absolute latitude in degrees.
        ring_km: radius of the ring. Half of it must lie within a region.
        separation_km: of lows nearer to each other than this the deepest one is kept.

    Returns:
        One row per low: a column per further dimension (lead times in hours as `lead_hours`),
        `latitude`, `longitude` (0 to 360), and `value (hPa)` and `depth (hPa)`, or in the units of
        the geopotential.

    Raises:
        ValueError: units that are not those of a pressure or geopotential, pressure at the ground,
            no such grid, or criteria that nothing meets.

    Example:
        >>> import sciml_dchag as sd
        >>> lows = sd.weather.find_lows(sd.open("stores/era5.zarr")["msl"])  # doctest: +SKIP
    """
    finders, quantity = finders_of(
        field, ("lows",), min_depth=min_depth, band=band, ring_km=ring_km,
        separation_km=separation_km,
    )  # fmt: skip
    return tabulated(field, finders, quantity)


def find_highs(
    field: xr.DataArray,
    *,
    min_depth: float | None = None,
    band: tuple[float, float] = (20.0, 75.0),
    ring_km: float = 600.0,
    separation_km: float = 400.0,
) -> pd.DataFrame:
    """Find the highs of fields of pressure or geopotential; `find_lows` upside down.

    The depth of a high is its value minus the mean on the ring. Arguments, table and errors are
    those of `find_lows`.
    """
    finders, quantity = finders_of(
        field, ("highs",), min_depth=min_depth, band=band, ring_km=ring_km,
        separation_km=separation_km,
    )  # fmt: skip
    return tabulated(field, finders, quantity)


def finders_of(
    field: xr.DataArray,
    kinds: Sequence[Kind],
    *,
    min_depth: float | None = None,
    band: tuple[float, float] = (20.0, 75.0),
    ring_km: float = 600.0,
    separation_km: float = 400.0,
) -> tuple[dict[Kind, Finder], Quantity]:
    """Check a field and criteria, and return what finds each kind; see `find_lows`."""
    grid, quantity = Grid.of(field), quantity_of_field(field)
    criteria = criteria_of(
        quantity, min_depth=min_depth, band=band, ring_km=ring_km, separation_km=separation_km
    )
    found = {kind: Finder(grid.latitude, grid.longitude, kind, criteria) for kind in kinds}
    return found, quantity


def tabulated(
    field: xr.DataArray,
    finders: Mapping[Kind, Finder],
    quantity: Quantity,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Find the objects of a field; those of several kinds have a column `kind`."""
    rows, columns = coordinate_names(field)
    further = [str(dim) for dim in field.dims if dim not in (rows, columns)]
    stacked = field.transpose(*further, rows, columns)
    count = int(np.prod(stacked.shape[:-2]))
    found: list[pd.DataFrame] = []
    for done, (labels, values) in enumerate(_fields(stacked, further), start=1):
        for kind, finder in finders.items():
            objects = finder.find(values.astype(np.float64) * quantity.factor)
            said = ({"kind": kind} if len(finders) > 1 else {}) | labels
            found.append(_rows(objects, said, quantity))
        if progress is not None:
            progress(done, count, "finding")
    return pd.concat(found, ignore_index=True)


def quantity_of_field(field: xr.DataArray) -> Quantity:
    """Return what a field is by its name and attributes; see `quantity_of`."""
    names = [str(field.attrs.get(key, "")) for key in ("standard_name", "long_name")]
    name = str(field.name) if field.name is not None else names[0] or "the field"
    return quantity_of(name, str(field.attrs.get("units", "")), *names)


def criteria_of(
    quantity: Quantity,
    *,
    min_depth: float | None,
    band: tuple[float, float],
    ring_km: float,
    separation_km: float,
) -> Criteria:
    """Check criteria.

    Raises:
        ValueError: one that nothing meets; which.
    """
    depth = quantity.min_depth if min_depth is None else float(min_depth)
    low, high = map(float, band)
    if not 0 <= low < high <= 90:
        raise ValueError(
            f"`band` is {low:g} to {high:g}: give the least and the greatest absolute latitude, "
            f"such as 20 and 75."
        )
    for name, value, least in (("min_depth", depth, 0), ("separation_km", separation_km, 0)):
        if not least <= value < np.inf:
            raise ValueError(f"`{name}` is {value:g}: it must be at least {least}.")
    if not 0 < ring_km <= 5000:
        raise ValueError(f"`ring_km` is {ring_km:g}: it must be above 0 and at most 5000 km.")
    return Criteria(
        min_depth=depth, band=(low, high), ring_km=float(ring_km),
        separation_km=float(separation_km),
    )  # fmt: skip


def _fields(
    field: xr.DataArray, further: list[str]
) -> Iterator[tuple[dict[str, Any], np.ndarray[Any, np.dtype[Any]]]]:
    """Each field (H, W), with its labels along the further dimensions."""
    if not further:
        yield {}, field.values
        return
    first = further[0]
    for start in range(0, field.sizes[first], AT_ONCE):
        block = field.isel({first: slice(start, start + AT_ONCE)})
        values, labels = block.values, [_labels(block, dim) for dim in further]
        names = [name for name, _ in labels]
        for place in np.ndindex(*block.shape[:-2]):
            said = {n: of[i] for n, (_, of), i in zip(names, labels, place, strict=True)}
            yield said, values[place]


def _labels(field: xr.DataArray, dim: str) -> tuple[str, list[Any]]:
    """The name and the values of a dimension's column."""
    if dim not in field.coords:
        return dim, list(range(field.sizes[dim]))
    values = field[dim].values
    if values.dtype.kind != "m" or dim not in LEADS:
        return dim, list(values)
    hours = values / np.timedelta64(1, "h")
    return "lead_hours", [int(h) if h == int(h) else float(h) for h in hours]


def _rows(objects: Objects, labels: dict[str, Any], quantity: Quantity) -> pd.DataFrame:
    units = quantity.units
    columns = {
        "latitude": objects.latitude, "longitude": objects.longitude,
        f"value ({units})": objects.value, f"depth ({units})": objects.depth,
    }  # fmt: skip
    repeated = {name: np.full(len(objects), value) for name, value in labels.items()}
    return pd.DataFrame({**repeated, **columns})
