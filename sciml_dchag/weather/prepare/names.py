"""Names and units of the variables in raw files, and what is ours for each.

Dimensions, times and levels are `layouts`' concern.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import xarray as xr

from sciml_dchag.channels import variables
from sciml_dchag.weather.channels import VARIABLES
from sciml_dchag.weather.prepare.axes import vertical_axis
from sciml_dchag.weather.units import in_one_spelling

GEOPOTENTIAL_HEIGHT = (
    "gh", "geopotential_height", "zg", "hgt", "h", "hgtprs", "geopotential_height_isobaric",
)  # fmt: skip
"""Names of the height that is geopotential over standard gravity; its units must say so."""

SURFACE_HEIGHT = (
    "orography", "orog", "hgtsfc", "surface_altitude", "hgt_surface",
    "geopotential_height_surface",
)  # fmt: skip
"""Names of the height of the ground; its units must say so."""

CONVERTIBLE = {
    ("hPa", "Pa"): 100.0,
    ("g kg-1", "kg kg-1"): 1e-3,
    ("1", "kg kg-1"): 1.0,
    ("gpm", "m2 s-2"): 9.80665,
    ("m", "m2 s-2"): 9.80665,
    ("mm", "m"): 1e-3,
    ("kg m-2", "m"): 1e-3,
    ("%", "1"): 1e-2,
    ("1", "%"): 1e2,
    ("W s m-2", "J m-2"): 1.0,
}
"""Factor from a file's units to ours, where there is no doubt; metres are geopotential height, and
kg m-2 those of water."""

AT_HEIGHT = {("t", 2): "t2m", ("u", 10): "u10", ("v", 10): "v10"}
"""Our name of a variable at a height above the ground in metres."""

HEIGHTS = {"t2m": (1.0, 3.0), "u10": (8.0, 12.0), "v10": (8.0, 12.0)}
"""Heights above the ground in metres that a variable of ours may be at; some models have 1.5 m."""

UNITS_UNTOLD = "untold"
"""Stands for the units of a geopotential height that has none: it may not pass for geopotential."""


def variable_names() -> dict[str, str]:
    """Our short name of a variable by each name that files give it, the likeliest first."""
    return {
        alias.lower(): short
        for short, variable in variables().items()
        for alias in (short, variable.long, *variable.aliases)
    } | {
        **dict.fromkeys(GEOPOTENTIAL_HEIGHT, "z"),
        **dict.fromkeys(SURFACE_HEIGHT, "orography"),
    }


OTHER_QUANTITIES = (
    r"potential[ _]temperature", r"potential[ _]vorticity", r"virtual[ _]temperature",
    r"dew[ _]?point", r"wet[ _]?bulb", r"anomal(y|ies)", r"mixing[ _]ratio",
    r"standard[ _]deviation|variance|ensemble[ _]spread", r"upward[ _]air[ _]velocity",
    r"(^|[ (])(natural[ _])?log(arithm)?[ _(]",
)  # fmt: skip
"""Words of standard and long names of what is none of our variables."""

ABOUT_A_FIELD = (
    r"standard[ _]error|status[ _]flag|number[ _]of[ _]observations|detection[ _]minimum|"
    r"\bincrements?\b|\btendency\b|\buncertainty\b|\bquality[ _](flag|control)\b"
)
"""Words for what is said about one of our variables (CF's modifiers of standard names too), or is
its change; a recipe's own channel may be one."""

_SPEED = r"wind[ _]?speed|wind[ _]?direction|wind_(from|to)_direction"
_NORTHWARD = r"northward|meridional|\bv[ -]?component|y[ -]component|northerly|southerly"
_EASTWARD = r"eastward|zonal|\bu[ -]?component|x[ -]component|easterly|westerly"
_TEMPERATURE = (
    r"\bmaximum\b|\bminimum\b|(skin|soil|brightness)[ _]temperature|^surface_temperature$"
)
OTHER_QUANTITIES_OF = {
    "u": f"{_SPEED}|{_NORTHWARD}", "u10": f"{_SPEED}|{_NORTHWARD}",
    "v": f"{_SPEED}|{_EASTWARD}", "v10": f"{_SPEED}|{_EASTWARD}",
    "t": _TEMPERATURE, "t2m": _TEMPERATURE,
    "q": r"relative[ _]humidity", "r": r"specific[ _]humidity",
    "vo": r"absolute[ _]vorticity|divergence",
    "msl": r"^surface[ _](air[ _])?pressure", "sp": r"sea[ _-]?level",
}  # fmt: skip
"""Words of standard and long names of what others call by a name of this variable of ours: U10 is
the wind speed in files of CESM."""

_GROUND = {"z", "orography"}
"""Geopotential of the ground comes under the name of geopotential."""


def another_quantity(field: xr.DataArray, short: str) -> str | None:
    """Say what a field says itself to be, where that is another quantity than its name says.

    Args:
        field: with the file's attributes.
        short: our name of the variable that it is taken for.
    """
    ours_alone = [ABOUT_A_FIELD] if short in VARIABLES else []
    of_it = filter(None, [OTHER_QUANTITIES_OF.get(short)])
    words = "|".join([*OTHER_QUANTITIES, *ours_alone, *of_it])
    for key in ("standard_name", "long_name", "var_desc", "statistic"):
        text = str(field.attrs.get(key, "")).strip()
        # A recipe's own channel may be computed, and keep the attributes of what it is made from.
        named = _named_so(text) if key == "standard_name" and short in VARIABLES else set()
        ours = not named or short in named or {short, *named} <= _GROUND
        if re.search(words, text.lower()) or not ours:
            return (
                f"says by its {key} that it is {text!r}, which is another quantity: name files of "
                f"the variable itself, or correct that attribute"
            )
    return None


def another_height(field: xr.DataArray, short: str, height: float | None) -> str | None:
    """Say at which height a field is, where its variable is at another one above the ground.

    Args:
        field: with the file's attributes.
        short: our name of the variable that it is taken for.
        height: that its coordinate says, in metres; None where it says none.
    """
    if short not in HEIGHTS:
        return None
    low, high = HEIGHTS[short]
    said = [height] if height is not None else []
    for key in ("long_name", "standard_name", "var_desc"):
        words = re.findall(
            r"(?<![\d.])(\d+(?:\.\d+)?)[ _-]?m(?:et(?:er|re)s?)?\b", str(field.attrs.get(key, ""))
        )
        said += [float(word) for word in words]
    if any(low <= one <= high for one in said) or not said:
        return None
    return (
        f"says that it is {said[0]:g} m above the ground, where {short} is at "
        f"{low:g} to {high:g} m: name files of that height, or correct what it says"
    )


def _named_so(standard_name: str) -> set[str]:
    """Short names of our variables that have a standard name."""
    return {
        short
        for short, variable in VARIABLES.items()
        if standard_name and variable.standard_name == standard_name.lower()
    }


@dataclass(frozen=True)
class Known:
    """A variable of a file that is one of ours."""

    name: str
    """What the file calls it."""
    alias: str
    """Its name in `variable_names`."""
    level_hpa: int | None
    """The level that its name says, as `u850` does."""
    short: str
    """What we call it."""
    beside: tuple[str, ...] = ()
    """Other variables of the file that are it too, by their names."""


def known_variables(dataset: xr.Dataset) -> list[Known]:
    """Find the variables that are ours: each once, on each level that a name says.

    Small and capital letters count the same. Of several names of one variable the likeliest is
    taken, and the others stand `beside`.
    """
    found, ours, kinds = [], variable_names(), {k: v.kind for k, v in variables().items()}
    for name in sorted(map(str, dataset.data_vars), reverse=True):  # small letters come first
        lower = name.lower()
        match = re.fullmatch(r"(.+?)_?(\d+)_?(hpa|mb)?", lower)
        if lower in ours:
            found.append(Known(name, lower, None, ours[lower]))
        elif match and kinds.get(short := ours.get(match[1], "")) == "level":
            on_levels = vertical_axis(dataset, name).axis is not None
            level = _level_told(
                short, int(match[2]), bool(match[3]), dataset[name], on_levels=on_levels
            )
            if level is not None:
                found.append(Known(name, match[1], level, short))
    found.sort(key=lambda known: list(ours).index(known.alias))
    same: dict[tuple[str, int | None, str | None], list[Known]] = {}
    for known in found:
        lies_on = vertical_axis(dataset, known.name).instead
        same.setdefault((known.short, known.level_hpa, lies_on), []).append(known)
    return [
        replace(known, beside=tuple(other.name for other in others))
        for known, *others in same.values()
    ]


def _level_told(
    short: str, number: int, in_hpa: bool, field: xr.DataArray, *, on_levels: bool
) -> int | None:
    """Say whether the number in a variable's name is its level in hPa, or a height in metres."""
    if not 1 <= number <= 1100:
        return None
    attrs = f"{field.attrs.get('long_name')} {field.attrs.get('standard_name')}"
    if in_hpa or re.search(rf"(?<!\d){number}[ _-]?(hPa|mb|millibar)", attrs):
        return number
    if re.search(rf"(?<!\d){number}[ _-]?m(et(er|re)s?)?\b", attrs):
        return None
    # Names that others give to heights above the ground: WRF's T2, ERA5's u100.
    in_metres = number < 10 or (short in ("u", "v") and number in (10, 100))
    return None if in_metres and not on_levels else number


def units_factor(field: xr.DataArray, source: str) -> float:
    """Return what to multiply a field to have it in our units.

    Raises:
        ValueError: units that are not ours, nor certain to be convertible.
    """
    variable = variables()[str(field.name)]
    if "units" not in field.attrs:
        return 1.0
    found = str(field.attrs["units"])
    if found == UNITS_UNTOLD:
        raise ValueError(
            f"{source} has {variable.short} as a height without units: if it is in metres, set its "
            f"units attribute to m."
        )
    units, ours = in_one_spelling(found), in_one_spelling(variable.units)
    if units == ours:
        return 1.0
    if (units, ours) not in CONVERTIBLE:
        raise ValueError(
            f"{source} has {variable.short} in {found!r} where {variable.units!r} is needed: "
            f"convert it and set its units attribute."
        )
    return CONVERTIBLE[units, ours]
