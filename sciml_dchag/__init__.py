"""Channel-heavy vision transformers for science, with D-CHAG channel aggregation.

    import sciml_dchag as sd

    store = sd.weather.prepare("sample:era5_msl", "msl.zarr", channels="msl")
    recipe = sd.load_recipe("sample:msl_forecast")
    run = sd.train(recipe.replace(data=dict(store=store), training=dict(steps=300)))
    forecast = sd.predict(run, store, leads=[6, 24])
    scores = sd.score(forecast, truth=store, climatology=store)
    table = sd.evaluate(run).to_frame()

Names are imported when they are first used, so that `import sciml_dchag` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sciml_dchag._version import __version__

if TYPE_CHECKING:
    from sciml_dchag import plants, weather
    from sciml_dchag.api import (
        evaluate,
        from_pretrained,
        load_recipe,
        open,
        predict,
        sample,
        train,
    )
    from sciml_dchag.channels import Channel, ChannelSet
    from sciml_dchag.config import Recipe
    from sciml_dchag.laws.discover import find_laws
    from sciml_dchag.models.transformer import build_model
    from sciml_dchag.pipeline import run_recipe
    from sciml_dchag.weather.opened import score
    from sciml_dchag.weather.regrid.regrid import regrid

_HOMES = {
    "Channel": "channels",
    "ChannelSet": "channels",
    "Recipe": "config",
    "build_model": "models.transformer",
    "evaluate": "api",
    "find_laws": "laws.discover",
    "from_pretrained": "api",
    "load_recipe": "api",
    "open": "api",
    "predict": "api",
    "regrid": "weather.regrid.regrid",
    "run_recipe": "pipeline",
    "sample": "api",
    "score": "weather.opened",
    "train": "api",
}
_WINGS = ("plants", "weather")

__all__ = [
    "Channel",
    "ChannelSet",
    "Recipe",
    "__version__",
    "build_model",
    "evaluate",
    "find_laws",
    "from_pretrained",
    "load_recipe",
    "open",
    "plants",
    "predict",
    "regrid",
    "run_recipe",
    "sample",
    "score",
    "train",
    "weather",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    if name in _WINGS:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
