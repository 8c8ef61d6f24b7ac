"""Plants: from hyperspectral images to reconstructions, indices and traits.

`prepare`, which is the folder's and is called too, and the names below are imported when they are
first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sciml_dchag.plants.opened import MaskedModel, PlantStore, index, prepare, rgb
    from sciml_dchag.plants.read.cube_files import open_cube
    from sciml_dchag.plants.simulate.poplars import simulate_poplars
    from sciml_dchag.plants.traits.indices import INDICES
    from sciml_dchag.plants.traits.probe import probe

_HOMES = {
    "INDICES": "traits.indices",
    "MaskedModel": "opened",
    "PlantStore": "opened",
    "index": "opened",
    "open_cube": "read.cube_files",
    "probe": "traits.probe",
    "rgb": "opened",
    "simulate_poplars": "simulate.poplars",
}

__all__ = [
    "INDICES",
    "MaskedModel",
    "PlantStore",
    "index",
    "open_cube",
    "prepare",
    "probe",
    "rgb",
    "simulate_poplars",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    if name == "prepare":
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
