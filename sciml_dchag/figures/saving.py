"""Saving a picture with the attribution of its data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sciml_dchag.figures.style import (
    SOFT_INK,
    take_text_literally,
)
from sciml_dchag.files.atomic import written_beside

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_figure(figure: Figure, path: str | Path, attribution: str) -> Path:
    """Write a PNG with the data's attribution in the picture and in its metadata.

    The file appears whole or not at all. Returns the path.
    """
    path = Path(path)
    if path.suffix != ".png":
        raise ValueError(f"the picture is to be written to {path.name!r}, but .png is needed.")
    note = figure.text(
        0.12 / figure.get_figwidth(), 0.012, attribution, color=SOFT_INK, fontsize=7, va="bottom"
    )
    take_text_literally(figure)
    try:
        with written_beside(path) as partial:
            figure.savefig(partial, dpi=150, metadata={"Copyright": attribution, "Software": None})
    finally:
        note.remove()
    return path
