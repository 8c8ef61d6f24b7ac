"""Channel-heavy vision transformers for science, with D-CHAG channel aggregation.

    import sciml_dchag as sd

    coarse = sd.regrid(era5, "5.625")
    store = sd.Store.open("stores/era5.zarr")
    result = sd.run_recipe(sd.load_recipe("pipelines/demo_weather.yaml"), Path("runs/demo"))

Names are imported when they are first used, so that `import sciml_dchag` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sciml_dchag._version import __version__

if TYPE_CHECKING:
    from sciml_dchag.channels import Channel, ChannelSet
    from sciml_dchag.config import Recipe
    from sciml_dchag.models.transformer import build_model
    from sciml_dchag.pipeline import run_recipe
    from sciml_dchag.tasks import load_recipe
    from sciml_dchag.weather.forecast.forecaster import Forecaster
    from sciml_dchag.weather.prepare.era5 import prepare_era5
    from sciml_dchag.weather.regrid.regrid import regrid
    from sciml_dchag.weather.scores.metrics import score
    from sciml_dchag.weather.store.store import Store

_HOMES = {
    "Channel": "channels",
    "ChannelSet": "channels",
    "Forecaster": "inference.forecaster",
    "Recipe": "config",
    "Store": "data.store",
    "build_model": "models",
    "load_recipe": "config",
    "prepare_era5": "prepare.era5",
    "regrid": "prepare.regrid",
    "run_recipe": "pipeline",
    "score": "evaluation.metrics",
}

__all__ = [
    "Channel",
    "ChannelSet",
    "Forecaster",
    "Recipe",
    "Store",
    "__version__",
    "build_model",
    "load_recipe",
    "prepare_era5",
    "regrid",
    "run_recipe",
    "score",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
