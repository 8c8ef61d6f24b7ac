"""Masks and label images that a user gives, read for what they are.

Numbers of plants are kept as they are, so that a plant is called the same in every image. Palettes
give their places and not their colours; black and white drawings are one plant, whose grey edges
(anti-aliasing) are no plants of their own.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.plants.read.pictures import only_picture

NEARLY_WHITE = 245
"""What the white of a drawing may have become in a picture of 8 bits."""
WHITE = (255, 65535)
"""Of pictures of 8 and 16 bits."""
EDGE_PIXELS, MOSTLY_EDGES = 2, 0.9
"""So much of the grey of a drawing lies so near to both its black and its white."""
LEAST_PIXELS, MOST_SMALL = 8, 4
"""More numbers than that of fewer pixels are grey edges."""
DENSE, PATCH = 2, 0.5
"""Numbers of plants leave out no more than every other one, and fill so much of their box."""


def read_mask(path: Path, shape: tuple[int, int], drawings: list[str]) -> NDArray[np.int32]:
    """Read a mask of an image.

    Args:
        path: as `read_labels`.
        shape: rows and columns of the image.
        drawings: as `read_labels`.

    Returns:
        0 for background, and the number of the plant, (rows, columns).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no mask, of another size, or all background.
    """
    labels = read_labels(path, drawings)
    if labels.shape != shape:
        raise ValueError(
            f"The mask {path} has {' x '.join(map(str, labels.shape))} values and the image "
            f"{shape[0]} x {shape[1]}: draw it on the image as it was taken."
        )
    return labels


def read_labels(path: Path, drawings: list[str]) -> NDArray[np.int32]:
    """Read a label image: 0 for background, and one number a plant; white alone is plant 1.

    Args:
        path: PNG or TIFF of grey, palette or 1 bit, or NPY.
        drawings: the file's name is added where greys of a drawing are made black and white.

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
    return _without_grey(path, labels, drawings) if kind == "grey" else labels


def of_drawings(names: Sequence[str]) -> list[str]:
    """Say once which masks are taken for drawings."""
    if not names:
        return []
    more = f" and {len(names) - 3} others" if len(names) > 3 else ""
    are = "masks that are drawings" if len(names) > 1 else "a mask that is a drawing"
    return [
        f"{', '.join(names[:3])}{more}: {are} in black and white with greys, from half white on "
        f"taken for plant 1."
    ]


def _read(path: Path) -> tuple[NDArray[Any], Literal["numbers", "grey", "lossy"]]:
    """Read numbers, and whether they are greys of 8 bits or were compressed with losses."""
    if path.suffix.lower() == ".npy":
        return np.load(path, allow_pickle=False), "numbers"
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path) as image:
            kind, found = image.mode, only_picture(image)
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


def _without_grey(path: Path, labels: NDArray[np.int32], drawings: list[str]) -> NDArray[np.int32]:
    """Take a drawing in black and white, with edges in grey, for one plant.

    Raises:
        ValueError: many numbers that lie beside others as the edges of several plants do.
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
    beside = np.bincount(labels[graded], minlength=int(numbers[-1]) + 1)[numbers] / times
    of_gradient = numbers[(beside >= MOSTLY_EDGES) & ~np.isin(numbers, within)]
    many = len(of_gradient) > max(MOST_SMALL, len(numbers) / 2)
    thin = numbers[times.argmax()] >= NEARLY_WHITE and edges.sum() >= MOSTLY_EDGES * grey.sum()
    if len(numbers) > 1 and numbers[0] >= NEARLY_WHITE and not black.any():
        raise ValueError(
            f"The mask {path} has no background (0), and numbers from {numbers[0]} to "
            f"{numbers[-1]}, as where black and white are exchanged: draw the plants on 0."
        )
    if len(numbers) > 1 and (thin or (many and len(within) and within.min() >= NEARLY_WHITE)):
        drawings.append(path.name)
        return (labels >= 128).astype(np.int32)
    small = numbers[(times < LEAST_PIXELS) & (beside > 0)]
    wrong, where = (of_gradient, "beside others") if many else (small, "in few pixels")
    if len(wrong) > max(MOST_SMALL, len(numbers) / 2) and not _are_plants(labels, wrong):
        raise ValueError(
            f"The mask {path} holds {len(wrong)} numbers that lie {where} each, such as "
            f"{wrong[0]}, which are the edges of a smoothed drawing and no plants: save it without "
            f"anti-aliasing, or in 16 bits if they are plants."
        )
    return labels


def _are_plants(labels: NDArray[np.int32], suspected: NDArray[np.int32]) -> bool:
    """Whether small numbers that touch others are plants: counted on, and each a patch of its own.

    Greys of a smoothed drawing are spread over all from black to white, and lie all around it.
    """
    from scipy.ndimage import find_objects, label

    numbers = np.unique(labels[labels > 0])
    if numbers[-1] - numbers[0] > DENSE * len(numbers):
        return False
    boxes = find_objects(labels)
    patches = 0
    for number in suspected:
        mine = labels[boxes[number - 1]] == number
        patches += label(mine, np.ones((3, 3)))[1] == 1 and mine.mean() >= PATCH
    return patches >= MOSTLY_EDGES * len(suspected)
