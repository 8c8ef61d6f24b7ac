"""Which axes of a file are latitude, longitude and pressure, by their names, units and attributes.

An axis is taken for one of these only where the file says so. What an axis is instead (model
levels, heights, metres of a projection, radians) is said in words, for an error to name.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sciml_dchag.weather.units import in_one_spelling

HORIZONTAL = {
    "latitude": ("latitude", "lat", "lat_0", "y"),
    "longitude": ("longitude", "lon", "long", "lon_0", "x"),
}
"""Our name of a horizontal axis, and the names that files give it, in small letters."""

PRESSURE_NAMES = (
    "level", "pressure_level", "isobaricinhpa", "isobaricinpa", "plev", "lev", "pressure",
    "isobaric", "air_pressure", "levels", "plevel", "plevels", "pressure_levels", "lv_isbl0",
    "p", "pres", "press",
)  # fmt: skip
"""Names of axes that may be pressure; `isobaric1` and the like are too."""

IN_HPA = {"hPa": 1.0, "Pa": 1e-2, "kPa": 10.0, "bar": 1000.0}
"""Units of pressure axes, in hPa."""

NAMES_OF_ANY_LEVEL = ("level", "levels", "lev")
"""Of these, the ones that levels of whatever kind are called by."""

NOT_ON_A_GRID, NOT_ON_PRESSURE, VERTICAL_AXIS = "not_on_a_grid", "not_on_pressure", "vertical_axis"
"""Attributes of a field that say what speaks against its axes, for whoever asks for it."""

ANOTHER_QUANTITY = "another_quantity"
"""Attribute of a field: what it says itself to be, where that is not what its name says."""

SEVERAL_NAMES = "several_names"
"""Attribute of a field: its names, where its file has it under several."""

STORED_AS = "stored_as"
"""Attribute of a field: its name in its file."""

LEVELS_UNTOLD = "levels_untold"
"""Attribute of a field: its axis that is taken for pressure, which nothing in the file says."""

LEVELS_LOW = "levels_low"
"""Attribute of a field: its axis in Pa of which all levels would be usual ones in hPa."""

OTHER_LEVELS = (
    (r"model.?(level|layer)|hybrid|sigma|\beta\b|\beta.?level|generalvertical", "model levels"),
    (r"theta|isentrop|potential.temperature", "levels of potential temperature"),
    (r"potential.?vorticity", "levels of potential vorticity"),
    (r"depth|below", "depths"),
    (r"height|altitude|above|geometric|elevation", "heights"),
)
"""Words of names and attributes, and the vertical axis that they name."""

ON_NO_AXIS = (
    "surface", "meansea", "entireatmosphere", "atmosphere", "nominaltop", "tropopause", "maxwind",
    "cloudbase", "cloudtop", "unknown", "atmospheresinglelayer",
)  # fmt: skip
"""GRIB's kinds of level that are one place in a column and no pressure."""

_DEGREES = {
    "latitude": r"deg(ree)?s?[ _]?(n(orth)?)?|°[ ]?n?|",
    "longitude": r"deg(ree)?s?[ _]?(e(ast)?)?|°[ ]?e?|",
}


def said(variable: xr.Variable, *names: str) -> str:
    """Join some attributes of a variable, in small letters, blanks for underscores."""
    return " ".join(str(variable.attrs.get(name, "")) for name in names).lower().replace("_", " ")


def horizontal_axis(dataset: xr.Dataset, ours: str, dims: Iterable[Hashable]) -> str | None:
    """Find which dimension is our latitude or longitude; None where none is called so."""
    names = [str(dim) for dim in dims]
    for alias in HORIZONTAL[ours]:
        for name in names:
            if name.lower() == alias:
                return name
    for name in names:
        if name in dataset.coords and says_place(dataset[name].variable, ours):
            return name
    return None


def says_place(variable: xr.Variable, ours: str) -> bool:
    """Whether an axis says by standard name or by units (`degrees_north`) which one it is."""
    units = str(variable.attrs.get("units", "")).strip().lower()
    way = {"latitude": "n(orth)?", "longitude": "e(ast)?"}[ours]
    standard = said(variable, "standard_name")
    return standard == ours or (
        not standard and re.fullmatch(rf"degrees?_{way}", units) is not None
    )


def not_on_a_grid(dataset: xr.Dataset, name: str) -> str | None:
    """Say why a field is not on rows of latitude and columns of longitude; None where it is.

    Args:
        dataset: with the field and its coordinates, under the file's names.
        name: the field's.
    """
    field = dataset[name]
    grid = str(field.attrs.get("GRIB_gridType", "regular_ll"))
    if grid not in ("regular_ll", "regular_gg"):
        return f"lies on a grid of the kind {grid}"
    if (projection := _projection(dataset, field)) is not None:
        return f"lies on a projected or rotated grid ({projection})"
    axes = {ours: horizontal_axis(dataset, ours, field.dims) for ours in HORIZONTAL}
    flat = [str(c) for c in dataset.variables if dataset[c].ndim == 2 and _is_place(dataset[c])]
    if flat and any(d is None or d.lower() in ("y", "x") for d in axes.values()):
        return (
            f"has {' and '.join(flat)} on two dimensions "
            f"({', '.join(map(str, dataset[flat[0]].dims))}), as curvilinear and projected grids do"
        )
    for ours, dim in axes.items():
        if dim is None:
            return None  # an axis is missing, which whoever reads the field says
        if dim not in dataset.coords:
            return f"is without {ours} coordinates on its dimension {dim}"
        if reason := _no_degrees(dataset[dim].variable, dim, ours):
            return reason
        if dataset[dim].dtype.kind not in "iuf":
            return f"has an axis {dim} whose values are no numbers"
    rows, columns = (dataset[axes[ours]].values.astype(float) for ours in HORIZONTAL)
    return _by_values(rows, columns, str(axes["latitude"]), str(axes["longitude"]), dataset)


def _projection(dataset: xr.Dataset, field: xr.DataArray) -> str | None:
    """Name the projection of a field; None where it says none, or latitude and longitude."""
    said_by_field = field.attrs.get("grid_mapping", field.encoding.get("grid_mapping", ""))
    mapping = str(said_by_field).split(":")[0].strip()  # CF allows `crs: latitude longitude`
    if mapping not in dataset.variables:
        return mapping if re.search(_PROJECTIONS, mapping.lower()) else None
    attrs = dataset[mapping].attrs
    projection = str(attrs.get("grid_mapping_name", "latitude_longitude"))
    if re.match(
        r"PROJ(CS|CRS|ECTEDCRS)\b", str(attrs.get("crs_wkt", attrs.get("spatial_ref", "")))
    ):
        projection = projection if "grid_mapping_name" in attrs else "by its crs_wkt"
    return None if projection == "latitude_longitude" else projection


_PROJECTIONS = r"rotated|lambert|stereo|mercator|albers|geostationary|gnomonic|orthographic|utm"
"""Words in names of grid mappings that are not in the file."""

_PLACES = ("lat", "lon", "latitude", "longitude", "xlat", "xlong", "nav_lat", "nav_lon")


def _is_place(field: xr.DataArray) -> bool:
    """Whether a variable holds latitudes or longitudes, by name or standard name."""
    standard = said(field.variable, "standard_name")
    return str(field.name).lower() in _PLACES or standard in ("latitude", "longitude")


def _no_degrees(variable: xr.Variable, dim: str, ours: str) -> str | None:
    """Say what an axis is that says itself not to be degrees of latitude or longitude."""
    units, standard = str(variable.attrs.get("units", "")).strip(), said(variable, "standard_name")
    if "grid" in standard or "projection" in standard:
        return f"has an axis {dim} that is a {standard}, as rotated and projected grids have"
    if re.fullmatch(_DEGREES[ours], units.lower()) is None:
        what = "radians" if units.lower().startswith("rad") else f"{units!r}"
        return f"has an axis {dim} in {what}, where degrees of {ours} are needed"
    return None


def _by_values(
    rows: NDArray[np.float64],
    columns: NDArray[np.float64],
    row_name: str,
    column_name: str,
    dataset: xr.Dataset,
) -> str | None:
    """Say what axes without units are, where their values show it."""
    if rows.ndim != 1 or columns.ndim != 1 or min(rows.size, columns.size) < 2:
        return None
    around = np.ptp(columns) * columns.size / (columns.size - 1)
    units = "".join(str(dataset[n].attrs.get("units", "")) for n in (row_name, column_name))
    bare_rows = not str(dataset[row_name].attrs.get("units", ""))
    if np.abs(rows).max() < 1.5709 and (
        (bare_rows and np.ptp(rows) > 2.5 and around > 300)
        or (not units and abs(around - 2 * np.pi) < 1e-3)
        or (not units and _steps_of_radians(rows, columns))
    ):
        return f"has axes {row_name} and {column_name} in radians, by their values"
    bare = row_name.lower() == "y" and not said(dataset[row_name].variable, "standard_name")
    if bare and not units and not (abs(around - 360) < 1e-3 and rows.min() < 0):
        return (
            f"has axes {row_name} and {column_name} that do not say what they are, as indices and "
            f"projected grids; if they are degrees, set their units to degrees_north and "
            f"degrees_east"
        )
    if not units and _counts(rows) and _counts(columns):
        return (
            f"has axes {row_name} and {column_name} that count cells, by their values; if they are "
            f"degrees, set their units to degrees_north and degrees_east"
        )
    return None


def _steps_of_radians(rows: NDArray[np.float64], columns: NDArray[np.float64]) -> bool:
    """Whether both axes have steps that are odd as degrees, and not as radians."""
    for axis in (rows, columns):
        step = abs(axis[-1] - axis[0]) / (axis.size - 1)
        in_minutes, from_radians = 120 * step, 120 * np.rad2deg(step)
        if abs(in_minutes - round(in_minutes)) < 0.01 or abs(from_radians - round(from_radians)) > (
            0.01
        ):
            return False
    return True


def _counts(axis: NDArray[np.float64]) -> bool:
    """Whether an axis is 0, 1, 2, ... or 1, 2, 3, ..., in either order."""
    ascending = axis if axis[0] < axis[-1] else axis[::-1]
    return ascending[0] in (0, 1) and bool((np.diff(ascending) == 1).all())


class Vertical(NamedTuple):
    """The vertical axis of a field; both are None where the file says nothing."""

    axis: str | None = None
    """The dimension or scalar coordinate."""
    instead: str | None = None
    """What the field lies on, in words, where that is no pressure."""
    untold: bool = False
    """Whether the axis is taken for pressure although nothing in the file says so."""
    low: bool = False
    """Whether the axis is in Pa and all its levels would be usual ones in hPa, of other heights."""


def vertical_axis(dataset: xr.Dataset, name: str) -> Vertical:
    """Find on which vertical axis a field lies.

    Args:
        dataset: with the field and its coordinates, under the file's names.
        name: the field's.
    """
    field = dataset[name]
    found: str | None = None
    for dim in (*field.dims, *(c for c in field.coords if not dataset[c].dims)):
        variable = dataset[dim].variable if dim in dataset.coords else None
        other = _other(str(dim), variable)
        if other is not None:
            return Vertical(str(dim), other)
        if found is None and _may_be_pressure(str(dim), variable):
            found = str(dim)
    if found is None:
        text = said(field.variable, "long_name", "level_desc")
        pattern, what = OTHER_LEVELS[0]
        if re.search(pattern, text):
            return Vertical(None, f"{what}, by its attributes")
    return Vertical(
        found,
        untold=found is not None and _untold(field, found),
        low=found is not None and _low(dataset[found].variable),
    )


def _low(axis: xr.Variable) -> bool:
    """Whether levels in Pa are those of the stratosphere, and hPa under a wrong label as well."""
    units = in_one_spelling(str(axis.attrs.get("units", "")).strip() or "1")
    if units != "Pa" or axis.dtype.kind not in "iuf" or not axis.size:
        return False
    values = np.ravel(axis.values).astype(np.float64)
    return bool(values.max() <= 1100 and all(v >= 10 and usual(v) for v in values))


def _untold(field: xr.DataArray, axis: str) -> bool:
    """Whether neither the name nor an attribute of an axis says that it is pressure."""
    if axis.lower() not in NAMES_OF_ANY_LEVEL or axis not in field.coords:
        return False
    variable = field[axis].variable
    described = said(variable, "long_name", "standard_name", "GRIB_name", "description")
    described += said(field.variable, "GRIB_typeOfLevel", "level_type")
    return not str(variable.attrs.get("units", "")).strip() and not re.search(
        "pressure|isobar", described
    )


def _may_be_pressure(name: str, variable: xr.Variable | None) -> bool:
    lower = name.lower()
    if lower in PRESSURE_NAMES or re.fullmatch(r"isobaric\d*|lv_isbl\d+", lower):
        return True
    if variable is None:
        return False
    units = str(variable.attrs.get("units", "")).strip().lower()
    return said(variable, "standard_name") == "air pressure" and units != ""


def _other(name: str, variable: xr.Variable | None) -> str | None:
    """Say what a vertical axis is that is no pressure; None where it may be, or is not vertical."""
    lower, attrs = name.lower(), {} if variable is None else variable.attrs
    if lower in ON_NO_AXIS:
        return f"{name} (one place in each column)"
    text = " ".join([lower, *(str(attrs.get(k, "")) for k in ("long_name", "standard_name"))])
    text = text.replace("_", " ").lower()
    may_be = _may_be_pressure(name, variable)
    vertical = may_be or str(attrs.get("axis", "")).upper() == "Z" or "positive" in attrs
    kind = next((what for pattern, what in OTHER_LEVELS if re.search(pattern, text)), None)
    if "formula_terms" in attrs and vertical:
        return f"{name} ({kind or 'model levels'})"
    units = str(attrs.get("units", "")).strip()
    if kind == "heights" and in_one_spelling(units) in IN_HPA:
        kind = None  # GrADS calls every vertical axis an altitude
    if kind is not None and (vertical or re.search(OTHER_NAMES, lower)):
        return f"{name} ({kind})"
    if vertical and units and in_one_spelling(units) not in IN_HPA:
        return f"{name} (levels in {units!r})"
    if not may_be or variable is None:
        return f"{name}, without coordinates" if may_be else None
    return _by_levels(name, variable)


OTHER_NAMES = (
    r"hybrid|model.?level|sigma|theta|isentrop|potentialvorticity|height|altitude|depth|^eta|"
    r"bottom_top|generalvertical"
)
"""Names of vertical axes that are no pressure."""


def _by_levels(name: str, variable: xr.Variable) -> str | None:
    """Say what speaks against levels without units being pressures, if anything does."""
    if str(variable.attrs.get("units", "")).strip() or not variable.size:
        return None
    if variable.dtype.kind not in "iuf":
        return f"{name}, whose values are no numbers"
    values = np.atleast_1d(variable.values).astype(np.float64)
    shown = ", ".join(f"{value:g}" for value in values[:6]) + (", ..." if values.size > 6 else "")
    fix = f": if these are pressures, set the units attribute of {name} to hPa or Pa"
    if name.lower() == "plev" and values.max() <= 1100:
        return f"{name} ({shown}, in no units, where plev is in Pa by convention{fix})"
    if not all(usual(level) for level in _in_hpa(name, "", values)):
        return f"{name} ({shown}, in no units, which are no usual set of pressure levels{fix})"
    return None


def usual(level_hpa: float) -> bool:
    """Whether a level is one on which centres give fields; most numbers of model levels are not."""
    if level_hpa < 1 or level_hpa > 1000:  # no model has a thousand levels
        return level_hpa > 0
    return (
        level_hpa in (1, 1.5, 2, 3, 4, 5, 7, 15, 115)
        or (level_hpa >= 10 and level_hpa % 10 == 0)
        or (level_hpa >= 25 and level_hpa % 25 == 0)
    )


def levels_in_hpa(name: str, variable: xr.Variable, source: str) -> NDArray[np.float64]:
    """Turn a pressure axis into hPa; Pa is known by units, name, or size where both say nothing.

    Raises:
        ValueError: levels that are no numbers, labelled hPa that can only be Pa, or the reverse.
    """
    units = str(variable.attrs.get("units", "")).strip()
    try:
        values = np.asarray(variable.values, np.float64)
    except (TypeError, ValueError):
        shown = ", ".join(map(str, np.ravel(variable.values)[:3]))
        raise ValueError(
            f"{source} has levels on its axis {name} that are no numbers ({shown}): write numbers "
            f"in hPa or Pa."
        ) from None
    if in_one_spelling(units) == "hPa" and values.size and values.max() > 1100:
        raise ValueError(
            f"{source} has level {values.max():g} labelled {units}, which only Pa can be: correct "
            f"the units attribute of its axis {name}."
        )
    odd = [level for level in _LOWER_LEVELS if level in values]
    if in_one_spelling(units) == "Pa" and values.size and values.max() <= 1100 and odd:
        raise ValueError(
            f"{source} has level {odd[0]} labelled {units}, which would be {odd[0] / 100:g} hPa, "
            f"where no centre gives fields: if these are hPa, correct the units attribute of its "
            f"axis {name}."
        )
    return _in_hpa(name, units, values)


_LOWER_LEVELS = (1050, 975, 950, 925, 900, 875, 850, 825, 775, 750, 650, 550, 450, 350, 250, 225)
"""Usual levels in hPa; no such numbers of Pa are levels of the stratosphere."""


def _in_hpa(name: str, units: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    in_pascal = name.lower() == "isobaricinpa" or (values.size > 0 and values.max() > 1100)
    if not units:
        return values / 100.0 if in_pascal else values
    return values * IN_HPA.get(in_one_spelling(units), 1.0)
