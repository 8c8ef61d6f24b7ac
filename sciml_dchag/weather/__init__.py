"""Weather: from ERA5 to forecasts and scores.

`prepare`, which is the folder's and is called too, and the names below are imported when they are
first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sciml_dchag.weather.climax import import_climax
    from sciml_dchag.weather.law_table import write_law_table
    from sciml_dchag.weather.objects.table import find_highs, find_lows
    from sciml_dchag.weather.opened import ForecastModel, WeatherStore, area_mean, prepare, score

_HOMES = {
    "ForecastModel": "opened",
    "WeatherStore": "opened",
    "area_mean": "opened",
    "find_highs": "objects.table",
    "find_lows": "objects.table",
    "import_climax": "climax",
    "score": "opened",
    "write_law_table": "law_table",
}

__all__ = [
    "ForecastModel",
    "WeatherStore",
    "area_mean",
    "find_highs",
    "find_lows",
    "import_climax",
    "prepare",
    "score",
    "write_law_table",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    if name == "prepare":
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
