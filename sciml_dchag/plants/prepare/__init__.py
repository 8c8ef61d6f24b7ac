"""Raw hyperspectral images to a plant store.

The package is called too, `sciml_dchag.plants.prepare(sources, out, ...)`: the folder's name is
also that of the one thing which it is for, and Python binds it to the folder.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *args: Any, **settings: Any) -> Any:
        """Prepare a store and open it; see `plants.opened.prepare`."""
        from sciml_dchag.plants.opened import prepare

        return prepare(*args, **settings)


sys.modules[__name__].__class__ = _Callable
