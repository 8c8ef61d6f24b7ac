"""Where data come from: title, attribution and licence, as their files say.

Nothing is taken for ERA5 that does not say so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sciml_dchag.files.samples import sample_path

ERA5_ATTRIBUTION = "Contains modified Copernicus Climate Change Service information"

DESCRIBING = (
    "title", "source", "source_id", "model_id", "institution", "institution_id", "dataset",
    "history", "references", "comment", "GRIB_centre", "project", "mip_era",
)  # fmt: skip
"""Attributes that may name the origin."""

UNKNOWN_ORIGIN = "origin not stated in the source files"


def origin(raw: Sequence[tuple[str, xr.Dataset]], times: NDArray[np.datetime64]) -> dict[str, Any]:
    """Say what data are, whom to thank, under which licence, and whether they are simulated.

    Args:
        raw: the files' paths, and what they hold, with its attributes.
        times: those that are taken of them.

    Returns:
        `what`, `attribution`, `simulated`, and `license` where the files have one.
    """
    stores = [dataset.attrs for _, dataset in raw if "state" in dataset]
    attrs = [dict(dataset.attrs) for _, dataset in raw]
    first, last = str(times[0])[:4], str(times[-1])[:4]
    said = _unique(str(a["attribution"]) for a in attrs if a.get("attribution"))
    simulated = any(int(a.get("simulated", 0)) for a in stores)
    era5 = any(is_era5(a) or is_sample(path) for (path, _), a in zip(raw, attrs, strict=True))
    if not said and (era5 or any(is_of_climate_data_store(a) for a in attrs)):
        said = [f"{ERA5_ATTRIBUTION} {first if first == last else f'{first}-{last}'}"]
    if not said:
        said = _unique(name for a in attrs if (name := _credit(a)))
    titles = _unique(str(a["title"]).split(",")[0] for a in stores if a.get("title"))
    what = "Simulated weather" if simulated else "ERA5" if era5 else _named(attrs)
    if stores and titles and not simulated:
        what = titles[0]
    licences = _unique(str(a[k]) for a in attrs for k in ("license", "licence") if a.get(k))
    return {
        "what": what,
        "attribution": "; ".join(said) or UNKNOWN_ORIGIN,
        "simulated": int(simulated),
        **({"license": "; ".join(licences)} if licences else {}),
    }


def is_era5(attrs: Mapping[str, Any]) -> bool:
    """Whether a file says that it is of ERA5: by name, or as its class of GRIB messages."""
    text = " ".join(str(attrs.get(key, "")) for key in DESCRIBING)
    if re.search(r"\bERA-?5\b|reanalysis-era5", text, re.IGNORECASE):
        return True
    return str(attrs.get("GRIB_class", "")) == "ea"


def is_of_climate_data_store(attrs: Mapping[str, Any]) -> bool:
    """Whether a file is as the Climate Data Store writes them, by its centre and history."""
    history = str(attrs.get("history", ""))
    if "copernicus climate" in " ".join(str(attrs.get(key, "")) for key in DESCRIBING).lower():
        return True
    adaptor = re.search(r"adaptor\.mars|\"source\": \"(tmp\w+/)?data\.grib\"", history)
    return adaptor is not None and str(attrs.get("GRIB_centre", "ecmf")) == "ecmf"


def is_sample(path: str) -> bool:
    """Whether a file is the sample of ERA5 that comes with the package."""
    return Path(path) == sample_path("era5_msl")


def _named(attrs: Sequence[Mapping[str, Any]]) -> str:
    """Name the data by title, model or institution, or as weather alone."""
    for keys in (("source_id",), ("model_id",), ("title",), ("institution_id",), ("institution",)):
        found = _unique(str(a[key]) for a in attrs for key in keys if a.get(key))
        if found:
            return found[0][:80].replace(",", "")
    return "Weather"


def _credit(attrs: Mapping[str, Any]) -> str:
    """Whom a file names: its institution and its model or title."""
    who = attrs.get("institution") or attrs.get("institution_id")
    what = attrs.get("source_id") or attrs.get("model_id") or attrs.get("title")
    return ", ".join(str(part)[:200] for part in (what, who) if part)


def _unique(texts: Any) -> list[str]:
    return list(dict.fromkeys(texts))
