"""Arrays of moderate size as text, for records that are JSON."""

from __future__ import annotations

import base64
import binascii

import numpy as np
from numpy.typing import NDArray

MOST_BYTES = 2**28
"""Largest array that is kept so; JSON beyond is slow to read."""


def to_text(array: NDArray[np.float32]) -> str:
    """Encode values as base64 of little-endian float32, in C order."""
    return base64.b64encode(np.ascontiguousarray(array, "<f4").tobytes()).decode("ascii")


def from_text(text: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Decode values of a known shape; -1 stands for one length.

    Raises:
        ValueError: the text is damaged, or of another shape.
    """
    try:
        values = np.frombuffer(base64.b64decode(text, validate=True), "<f4")
        return values.reshape(shape).astype(np.float32)
    except (binascii.Error, ValueError) as error:
        raise ValueError(
            f"an array of shape {shape} cannot be read from its text: {error}"
        ) from error
