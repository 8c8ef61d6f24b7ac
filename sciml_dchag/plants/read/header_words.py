"""What an ENVI header says of numbers that are no reflectance: no data, and other quantities."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sciml_dchag.plants.read.envi_fields import QUANTITY_NAMES

MISSING_NAMES = ("data ignore value", "ignore value", "no data value", "nodata value", "nodata")
"""What headers call the number that stands for no data."""

_NO_NUMBER = re.compile(r"|none|n/a|unknown|.*(nan|#ind).*", re.IGNORECASE)
"""Nothing, or NaN as some systems print it, which needs no mark."""


def missing_number(header: Mapping[str, str | list[str]], path: Path) -> float | None:
    """The number that stands for no data, given once or for each band; None without one, or NaN.

    Raises:
        ValueError: it is no number, or not the same for all bands.
    """
    for name in MISSING_NAMES:
        given = header.get(name, "")
        text = ",".join(given) if isinstance(given, list) else given
        items = [item.strip() for item in text.partition(";")[0].strip(" {}").split(",")]
        try:
            numbers = {float(item) for item in items if not _NO_NUMBER.fullmatch(item)}
        except ValueError:
            numbers = {0.0, 1.0}  # refused below
        known = {number for number in numbers if not np.isnan(number)}
        if len(known) > 1:
            raise ValueError(
                f"The header {path} has {name} = {text[:40]}, where one number is needed: correct "
                f"it, or remove it and say which number stands for no data with `nodata=NUMBER`."
            )
        if known:
            return known.pop()
    return None


OTHER_QUANTITIES = re.compile(
    r"absorbance|log\W{0,3}1\s*/\s*r|derivative|continuum|standard normal|\bsnv\b|emissivity|"
    r"principal component|\bmnf\b",
    re.IGNORECASE,
)
"""Words for what is made from reflectance and is none."""


def refuse_other_quantity(header: Mapping[str, str | list[str]], path: Path) -> None:
    """Refuse an image whose header says that its numbers are another quantity.

    Raises:
        ValueError: they are made from reflectance, and none.
    """
    for name in QUANTITY_NAMES:
        given = header.get(name, "")
        text = " ".join(given) if isinstance(given, list) else given
        if found := OTHER_QUANTITIES.search(text):
            raise ValueError(
                f"{path} says {found[0]!r} in its {name}, which is no reflectance: name "
                f"the image that it was made from, or correct that field."
            )
