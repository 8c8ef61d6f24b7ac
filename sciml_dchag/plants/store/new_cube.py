"""An image that is to be written into a plant store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Blocks = Callable[[int], Iterable[NDArray[np.float32]]]
"""Given a number of lines, yields the image in blocks (C, lines, columns), the last one shorter.

A block may be overwritten once the one after the next is asked for.
"""


@dataclass(frozen=True, eq=False, kw_only=True)
class NewCube:
    """An image to be written; nothing of it is computed before its turn comes."""

    name: str
    """Its name in the store: letters, digits, `.`, `_`, `-`."""
    rows: int
    """Lines."""
    columns: int
    """Columns."""
    mask: Callable[[], NDArray[np.integer[Any]]]
    """Gives 0 for background and 1, 2, ... for each plant, (rows, columns); asked first."""
    blocks: Blocks
    """Gives reflectance, NaN where not known."""
    attrs: Callable[[], Mapping[str, Any]]
    """Gives what is to be recorded about it; asked after the last block."""
    finish: Callable[[Path], None] | None = None
    """Called where the store grows, once the image is written, to put a picture beside it."""
