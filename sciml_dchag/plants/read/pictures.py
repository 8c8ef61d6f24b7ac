"""Pictures: of three colours, JPEG and PNG, as images of three bands; and how all are turned."""

from __future__ import annotations

import warnings
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.plants.read.formats import damaged
from sciml_dchag.plants.read.raw_cube import RawCube

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".jpg", ".jpeg", ".png")
"""How names of pictures end."""
COLOURS_NM = (640.0, 550.0, 460.0)
"""Where red, green and blue are taken to be: near the peaks of cameras' filters."""
MOST_VALUE = 255.0
"""The largest number of a picture of 8 bits, which stands for white."""


def open_picture(path: Path, wavelengths: NDArray[np.float64] | None = None) -> RawCube:
    """Open a picture of red, green and blue in 8 bits, upright as its camera notes.

    Its numbers over 255 are taken for reflectance, which they are not: cameras bend them (gamma)
    and balance colours. They do for telling tissues apart, not for spectral indices.

    Raises:
        ValueError: it is damaged, or no picture of three colours.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                mode, turned = image.mode, image.getexif().get(_ORIENTATION, 1) in _ON_ITS_SIDE
                samples, lines = image.size[::-1] if turned else image.size
    except (ValueError, OSError, SyntaxError) as error:
        raise damaged(path, "picture", error) from error
    if mode != "RGB":
        raise ValueError(
            f"{path} is a picture of mode {mode}, where red, green and blue in 8 bits are needed: "
            f"save it as RGB."
        )
    if wavelengths is not None and len(wavelengths) != len(COLOURS_NM):
        raise ValueError(
            f"There are {len(wavelengths)} wavelengths for the 3 colours of {path}: give those of "
            f"red, green and blue."
        )

    def read(wanted: slice) -> NDArray[Any]:
        return _pixels(path, path.stat().st_mtime_ns)[wanted]

    remark = (
        "Pictures of three colours: taken for red, green and blue at "
        + ", ".join(f"{nm:g}" for nm in COLOURS_NM)
        + " nm and, divided by 255, for reflectance, which a camera's colours are not: do not "
        "compare them with spectra."
    )
    return RawCube(
        path=path,
        lines=lines,
        samples=samples,
        wavelength_nm=np.array(COLOURS_NM) if wavelengths is None else wavelengths,
        dtype=np.dtype(np.uint8),
        read_lines=read,
        scale=MOST_VALUE,
        remarks=(remark,),
    )


_ORIENTATION, _ON_ITS_SIDE = 0x0112, (5, 6, 7, 8)
"""The tag that says how a camera was held, and what it says of pictures on their side."""


@lru_cache(maxsize=2)
def _pixels(path: Path, modified: int) -> NDArray[np.uint8]:
    """All pixels of a file as it was at a time, (lines, samples, 3).

    Kept, as pictures cannot be read in parts, and lines are asked for one after the other.
    """
    from PIL import Image

    with Image.open(path) as image:
        return upright(image)


def upright(image: Image.Image) -> NDArray[Any]:
    """The pixels of a picture as it is shown, however the camera was held."""
    from PIL import ImageOps

    return np.array(ImageOps.exif_transpose(image))


def only_picture(image: Image.Image) -> NDArray[Any]:
    """The same of a file that must hold one picture, such as a mask.

    Raises:
        ValueError: it holds several.
    """
    if getattr(image, "n_frames", 1) > 1:
        raise ValueError("several pictures")
    return upright(image)
