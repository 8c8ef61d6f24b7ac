"""What a variable says are its valid values; others are missing, by the CF conventions.

xarray does not look at these attributes, as NetCDF's own libraries do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray


def valid_range(variable: xr.Variable) -> tuple[float, float] | None:
    """Return the least and greatest valid value of a variable; None where it says nothing.

    Limits of packed integers are packed as these are; limits that are floating-point numbers beside
    integers are those of unpacked values (NetCDF Users Guide, Attribute Conventions).

    Args:
        variable: decoded, with its attributes and encoding.
    """
    both = _numbers(variable.attrs.get("valid_range"))
    least, most = (both[:1], both[1:]) if len(both) == 2 else (both[:0], both[:0])
    least = least if len(least) else _numbers(variable.attrs.get("valid_min"))[:1]
    most = most if len(most) else _numbers(variable.attrs.get("valid_max"))[:1]
    if not len(least) and not len(most):
        return None
    encoding = variable.encoding
    stored = np.dtype(encoding.get("dtype", variable.dtype))
    low, high = (
        float(_as_stored(end, stored, encoding)[0]) if len(end) else open_end
        for end, open_end in ((least, -np.inf), (most, np.inf))
    )
    if stored.kind in "iu" and all(end.dtype.kind in "iu" for end in (least, most) if len(end)):
        scale = float(np.ravel(encoding.get("scale_factor", 1.0))[0])
        offset = float(np.ravel(encoding.get("add_offset", 0.0))[0])
        low, high = low * scale + offset, high * scale + offset
    slack = 1e-6 * max((abs(end) for end in (low, high) if np.isfinite(end)), default=0.0)
    return min(low, high) - slack, max(low, high) + slack  # a negative scale exchanges them


def within(values: NDArray[Any], valid: tuple[float, float]) -> NDArray[Any]:
    """Make missing what is not valid; see `valid_range`."""
    outside = (values < valid[0]) | (values > valid[1])
    return np.where(outside, np.nan, values) if outside.any() else values


def in_words(valid: tuple[float, float]) -> str:
    """Say which values are valid."""
    low, high = valid
    if np.isinf(high):
        return f"{low:.6g} and above"
    return f"{high:.6g} and below" if np.isinf(low) else f"{low:.6g} to {high:.6g}"


def _numbers(limits: Any) -> NDArray[Any]:
    """Limits as numbers; empty where there are none, or text."""
    found = np.ravel([] if limits is None else limits)
    usable = found.dtype.kind in "iuf" and not np.isnan(found).any()
    return found if usable else found[:0]


def _as_stored(
    end: NDArray[Any], stored: np.dtype[Any], encoding: Mapping[Any, Any]
) -> NDArray[Any]:
    """A limit of packed integers, which may be unsigned ones that the format has no name for."""
    unsigned = str(encoding.get("_Unsigned", "")).lower() == "true"
    if not unsigned or stored.kind not in "iu" or end.dtype.kind not in "iu":
        return end
    return end.astype(f"i{stored.itemsize}").view(f"u{stored.itemsize}")
