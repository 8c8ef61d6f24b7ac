"""Masks and label images that a user gives, read for what they are.

Numbers of plants are kept as they are, so that a plant is called the same in every image. Palettes
give their places and not their colours; black and white drawings are one plant, whose grey edges
(anti-aliasing) are no plants of their own.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

NEARLY_WHITE = 245
"""What the white of a drawing may have become in a picture of 8 bits."""
WHITE = (255, 65535)
"""Of pictures of 8 and 16 bits."""
EDGE_PIXELS, MOSTLY_EDGES = 2, 0.9
"""So much of the grey of a drawing lies so near to both its black and its white."""
LEAST_PIXELS, MOST_SMALL = 8, 4
"""More numbers than that of fewer pixels are grey edges."""


def read_mask(path: Path, shape: tuple[int, int]) -> NDArray[np.int32]:
    """Read a mask of an image.

    Args:
        path: as `read_labels`.
        shape: rows and columns of the image.

    Returns:
        0 for background, and the number of the plant, (rows, columns).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no mask, of another size, or all background.
    """
    labels = read_labels(path)
    if labels.shape != shape:
        raise ValueError(
            f"The mask {path} has {' x '.join(map(str, labels.shape))} values and the image "
            f"{shape[0]} x {shape[1]}: draw it on the image as it was taken."
        )
    return labels


def read_labels(path: Path) -> NDArray[np.int32]:
    """Read a label image: 0 for background, and one number a plant; white alone is plant 1.

    Args:
        path: PNG or TIFF of grey, palette or 1 bit, or NPY.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is none, has colours or grey edges that are no plants, or is all background.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no mask {path}: check its name.")
    try:
        found, kind = _read(path)
    except (ValueError, OSError, SyntaxError, EOFError) as error:
        raise ValueError(
            f"The mask {path} cannot be read: give a PNG, TIFF or NPY file."
        ) from error
    if kind == "lossy":
        found = _from_lossy(path, found)
    if found.dtype == bool:
        found = found.astype(np.uint8)
    if found.ndim != 2:
        raise ValueError(
            f"The mask {path} has {' x '.join(map(str, found.shape))} values, where one number a "
            f"pixel is needed: save it as a grey or palette image, with a number for each plant."
        )
    numbers = np.unique(found)
    whole = np.isfinite(numbers) & (numbers >= 0) & (numbers == np.floor(numbers))
    if not (whole & (numbers < 2**31)).all():
        wrong = float(numbers[~whole][0]) if not whole.all() else float(numbers.max())
        raise ValueError(f"The mask {path} holds {wrong:g}: give whole numbers from 0 on.")
    labels = found.astype(np.int32)
    plants = numbers[numbers > 0]
    if not len(plants):
        raise ValueError(f"The mask {path} is all background (0): draw the plants into it.")
    if len(plants) == 1 and plants[0] in WHITE:
        return (labels > 0).astype(np.int32)
    return _without_grey(path, labels) if kind == "grey" else labels


def _read(path: Path) -> tuple[NDArray[Any], Literal["numbers", "grey", "lossy"]]:
    """Read numbers, and whether they are greys of 8 bits or were compressed with losses."""
    if path.suffix.lower() == ".npy":
        return np.load(path, allow_pickle=False), "numbers"
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path) as image:
            if getattr(image, "n_frames", 1) > 1:
                raise ValueError("several pictures")
            kind, found = image.mode, np.array(image)
            if image.format in ("JPEG", "WEBP"):
                return found, "lossy"
    if kind in ("RGB", "RGBA", "LA", "La") and found.ndim == 3:
        colours = found[..., : 3 if kind.startswith("RGB") else 1]
        alpha = found[..., -1]
        if kind != "RGB" and alpha.min() < alpha.max():
            # What is transparent is background, whatever colour it has below.
            colours = np.where(alpha[..., None] < 128, 0, colours)
            shown = np.unique(colours[alpha >= 128], axis=0)
            if len(shown) == 1:  # one plant, cut out
                return (alpha >= 128).astype(np.uint8), "numbers"
            found = colours
        drawn = colours.any(axis=-1)
        tinted = (colours != colours[..., :1]).any()
        if tinted and (colours[drawn] == colours[drawn][0]).all():  # one colour on black
            return np.where(drawn, 255, 0).astype(np.uint8), "grey"
        if (colours == colours[..., :1]).all():  # grey, saved as colours
            found = colours[..., 0]
    return found, "grey" if kind in ("L", "LA", "La", "RGB", "RGBA") else "numbers"


def _from_lossy(path: Path, found: NDArray[Any]) -> NDArray[np.uint8]:
    """Read a drawing in black and white out of a compression that keeps no numbers.

    Raises:
        ValueError: it is none, so that its numbers are gone.
    """
    from scipy.ndimage import binary_dilation

    grey = found.astype(np.float64) if found.ndim == 2 else found.astype(np.float64).mean(axis=2)
    colours = found.ndim == 3 and float(np.ptp(found.astype(int), axis=2).mean()) > 10
    white, black = grey >= 192, grey <= 64
    near = np.ones((2 * EDGE_PIXELS + 1,) * 2, bool)
    edges = binary_dilation(white, near) & binary_dilation(black, near)
    between = ~white & ~black
    drawing = white.any() and np.quantile(grey[white], 0.1) >= NEARLY_WHITE - 20
    if colours or (between & ~edges).sum() > (1 - MOSTLY_EDGES) * between.sum() or not drawing:
        raise ValueError(
            f"The mask {path} is compressed with losses, which change the numbers of plants: save "
            f"it as PNG or TIFF."
        )
    return np.where(grey >= 128, 255, 0).astype(np.uint8)


def _without_grey(path: Path, labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Take a drawing in black and white, with edges in grey, for one plant.

    Raises:
        ValueError: many numbers of few pixels each, which are edges of several plants.
    """
    from scipy.ndimage import binary_dilation, maximum_filter, minimum_filter

    numbers, times = np.unique(labels[labels > 0], return_counts=True)
    white, black = labels >= NEARLY_WHITE, labels == 0
    grey = ~white & ~black
    near = np.ones((2 * EDGE_PIXELS + 1,) * 2, bool)
    edges = grey & binary_dilation(white, near) & binary_dilation(black, near)
    # Numbers of a gradient lie in lines beside others; a plant's lie beside their own and 0.
    low, high = (f(labels, size=3) for f in (minimum_filter, maximum_filter))
    within = np.unique(labels[(low == high) & ~black])
    least_beside = minimum_filter(np.where(black, np.iinfo(np.int32).max, labels), size=3)
    graded = (high != labels) | (least_beside != labels)
    of_gradient = [
        n for n in numbers
        if n not in within and graded[labels == n].mean() >= MOSTLY_EDGES
    ]  # fmt: skip
    many = len(of_gradient) > max(MOST_SMALL, len(numbers) / 2)
    thin = numbers[times.argmax()] >= NEARLY_WHITE and edges.sum() >= MOSTLY_EDGES * grey.sum()
    if len(numbers) > 1 and (thin or (many and len(within) and within.min() >= NEARLY_WHITE)):
        warnings.warn(
            f"The mask {path.name} is a drawing in black and white with {len(numbers) - 1} greys: "
            f"from half white on it is taken for plant 1.",
            stacklevel=4,
        )
        return (labels >= 128).astype(np.int32)
    small = numbers[times < LEAST_PIXELS]
    if many or len(small) > max(MOST_SMALL, len(numbers) / 2):
        wrong, where = (of_gradient, "beside others") if many else (small, "in few pixels")
        raise ValueError(
            f"The mask {path} holds {len(wrong)} numbers that lie {where} each, such as "
            f"{wrong[0]}, which are the edges of a smoothed drawing and no plants: save it without "
            f"anti-aliasing."
        )
    return labels
