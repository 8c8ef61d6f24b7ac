"""Where a white scan shows its panel, and where the panel is in shadow.

What is much darker than the panel is left out or refused. A shadow is dimmer by little, as are the
sides of a lamp's light: the image decides, which has the light and not the shadow.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.plants.prepare.config import References
from sciml_dchag.plants.prepare.sampling import LINES_AT_ONCE, read_block, sampled
from sciml_dchag.plants.read.raw_cube import RawCube

PANEL_LEAST = 0.75
"""Lines of a column that are darker than so much of its bright ones do not show the panel."""
PANEL_EVEN, MOST_DIM = 0.93, 0.05
"""Lines below so much of the bright ones are dim, which is said of more of the panel than so."""
PANEL_EDGE = 1.5
"""Neighbouring columns of one panel do not differ by such a factor."""
FEW_LINES = 2
"""A panel may be seen in so few lines of a long scan; in one it would be a lost frame."""
PANEL_COLUMN = 0.5
"""Columns darker than so much of the median one, beyond such an edge, do not show the panel."""
MOST_COLUMNS_BESIDE = 0.02
"""More of the columns beside the panel are refused; fewer have no value."""
SHADOW = 0.1
"""A step of the panel's brightness, as a logarithm, that is a shadow where the image has none."""
SURE = 6.0
"""How many times its error a step is, that is one."""
MORE_LIKELY = 8.0
"""By so much a step of the panel explains its brightness better than none does (a difference of
squares of errors), as columns of the panel's scan differ by the sensor's."""
SAME_STEP = 0.5
"""Steps are the same where they differ by less than so much."""
STEP_COLUMNS = ((4, 0), (6, 0), (8, 0), (12, 0), (8, 2), (12, 2), (12, 4))
"""Columns on either side of a step that show it, and how many of them are half in shadow; what fits
best is taken."""
MOST_STEPS, APART = 4, 6
"""Steps that are looked at, and the columns between them."""
IMAGE_BYTES = 2**23
"""Most bytes of an image that are looked at to compare it with its white reference."""


@lru_cache(maxsize=64)
def brightness(reference: RawCube) -> NDArray[np.float64]:
    """Mean over bands at each pixel, (lines, columns)."""
    shown = np.empty((reference.lines, reference.samples))
    for first in range(0, reference.lines, LINES_AT_ONCE):
        block = np.nan_to_num(read_block(reference, first), posinf=0, neginf=0)
        shown[first : first + len(block)] = block.mean(axis=2, dtype=np.float64)
    return shown


def find_panel(
    white: RawCube, dark_level: float, references: References
) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Find the panel in a white scan.

    Args:
        white: the scan.
        dark_level: mean number without light.
        references: how it is averaged.

    Returns:
        Where the panel is, (lines, columns), and remarks.

    Raises:
        ValueError: it covers a part of the columns alone, and columns are averaged one by one.
    """
    shows = f"The white reference {white.path.name} shows its panel in"
    shown = np.maximum(brightness(white) - dark_level, 0)
    bright = np.quantile(shown, 0.95, axis=0, method="lower")
    if len(shown) > FEW_LINES:
        least = np.partition(shown, -FEW_LINES, axis=0)[-FEW_LINES]
        if np.median(least) > PANEL_EDGE * np.median(bright):  # a panel of few lines
            bright = least
    panel = shown >= PANEL_LEAST * bright
    beside = _beside_panel(bright)
    if references == "band":
        _, step, error = _profile_and_steps(white, dark_level)
        sure = np.where(np.abs(step) > np.maximum(SHADOW, SURE * error), np.abs(step) / error, 0)
        if steps := _surest(step, sure):
            beside |= _darker_side(steps, len(bright))
    remarks = []
    if beside.any():
        where = f"{shows} columns {_spans(~beside)} of {white.samples} alone"
        if references == "column" and beside.mean() > MOST_COLUMNS_BESIDE:
            raise ValueError(
                f"{where}: give one whose panel is as wide as the image, or average it over the "
                f"panel with `references=band`."
            )
        remarks.append(f"{where}: the others are left out.")
        panel &= ~beside
    lines = panel[:, ~beside].mean(axis=1) > 0.5
    if not lines.all():
        remarks.append(
            f"{shows} lines {_spans(lines)} of {white.lines}: what is darker is left out."
        )
    return panel, (*remarks, *_dim_lines(white, shown, bright, panel))


def shadow_remarks(image: RawCube, white: RawCube, dark_level: float) -> list[str]:
    """Look for columns of a white scan that are in shadow, as the image of the same light is not.

    Args:
        image: an image as wide as its white reference.
        white: the reference.
        dark_level: mean number without light.

    Returns:
        Where the image does not decide, one sentence each.

    Raises:
        ValueError: columns in shadow.
    """
    profile, step, error = _profile_and_steps(white, dark_level)
    if not (np.abs(step) > max(SHADOW, 2 * float(np.median(error)))).any():
        return []
    ratio, doubt = _steps(_image_profiles(image, dark_level) - profile)
    off = np.abs(step + ratio)  # 0 for a shadow, of which the image has nothing
    shadow = np.abs(ratio) > np.maximum(SHADOW, SURE * doubt)
    shadow &= off < SAME_STEP * np.abs(ratio)
    shadow &= step**2 - off**2 > MORE_LIKELY * error**2
    unlike = np.abs(step) > np.maximum(SHADOW, SURE * error)
    unlike &= (np.abs(ratio) > SAME_STEP * np.abs(step)) & ~shadow
    said = f"The white reference {white.path.name} is darker by a factor of"
    for places, sure in ((shadow, np.abs(ratio) / doubt), (unlike, np.abs(step) / error)):
        steps = _surest(-ratio if places is shadow else step, np.where(places, sure, 0))
        if not steps:
            continue
        dark = _darker_side(steps, len(step))
        where = (
            f"{said} {np.exp(max(map(abs, steps.values()))):.2g} in columns {_spans(dark)} of "
            f"{white.samples} than beside them"
        )
        if places is unlike:
            return [f"{where}: if that is a shadow on the panel, reflectance is too high there."]
        raise ValueError(
            f"{where}, and {image.path.name} is not, as where its panel is in shadow or ends: give "
            f"one that is lit as the image is, or average it over the panel with `references=band`."
        )
    return []


@lru_cache(maxsize=64)  # a white reference is that of many images
def _profile_and_steps(
    white: RawCube, dark_level: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Logarithm of a white scan's brightness by column, its steps and their errors."""
    shown = np.maximum(brightness(white) - dark_level, 0)
    profile = _logarithm(np.quantile(shown, 0.95, axis=0, method="lower"))
    return profile, *_steps(profile[None])


def _image_profiles(image: RawCube, dark_level: float) -> NDArray[np.float64]:
    """Logarithm of an image's brightness above dark in some lines, (lines, columns)."""
    lines = []
    for _, line in sampled(image, IMAGE_BYTES):
        numbers = line.astype(np.float64)
        known = np.isfinite(numbers)
        if image.missing is not None:
            known &= line != image.missing
        total = np.where(known, numbers, 0).sum(axis=1)
        mean = np.divide(total, known.sum(axis=1), out=np.zeros(len(line)), where=known.any(axis=1))
        lines.append(_logarithm(mean - dark_level))
    return np.stack(lines)


def _logarithm(bright: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithm of brightness by column; columns without light take their neighbours'."""
    lit = bright > 0.1 * np.median(bright)
    if lit.sum() < 2 or np.median(bright) <= 0:
        return np.zeros(len(bright))
    places = np.arange(len(bright))
    return np.asarray(np.interp(places, places[lit], np.log(bright[lit])))


def _steps(profiles: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps of lines before each column, beside a common slope, and their errors, (columns,) each.

    Medians over lines, in each of which something else may stand.

    Args:
        profiles: (lines, columns).
    """
    columns = profiles.shape[1]
    step, error = np.zeros(columns), np.full(columns, np.inf)
    for width, between in STEP_COLUMNS:
        if columns < 2 * width:
            continue
        x = np.arange(-width, width)
        x = x[(x < -between) | (x >= between)]
        design = np.stack([np.ones(len(x)), x, x >= 0], axis=1)
        inverse = np.linalg.inv(design.T @ design)
        windows = np.lib.stride_tricks.sliding_window_view(profiles, 2 * width, axis=1)
        windows = windows[..., x + width]
        left = windows @ (np.eye(len(x)) - design @ inverse @ design.T)
        spread = (left**2).sum(axis=2) / (len(x) - design.shape[1])
        at = slice(width, columns - width + 1)
        found = np.median(windows @ (inverse @ design.T)[2], axis=0)
        doubt = np.median(np.sqrt(spread * inverse[2, 2]), axis=0) + 1e-4
        better = doubt < error[at]
        step[at], error[at] = np.where(better, (found, doubt), (step[at], error[at]))
    return step, error


def _surest(step: NDArray[np.float64], sure: NDArray[np.float64]) -> dict[int, float]:
    """Steps by the first column behind each, the surest of those that lie close together."""
    found: dict[int, float] = {}
    for column in np.argsort(-sure, kind="stable").tolist():
        if sure[column] <= 0 or len(found) == MOST_STEPS:
            break
        if all(abs(column - other) > APART for other in found):
            found[column] = float(step[column])
    return found


def _darker_side(steps: dict[int, float], columns: int) -> NDArray[np.bool_]:
    """Columns on the darker side of steps."""
    level = np.zeros(columns)
    for column, step in steps.items():
        level[column:] += step
    return np.asarray(level < level.max() - SHADOW / 2)


def _dim_lines(
    white: RawCube,
    shown: NDArray[np.float64],
    bright: NDArray[np.float64],
    panel: NDArray[np.bool_],
) -> list[str]:
    """Say where the panel is dimmer than elsewhere in the same columns, noise aside."""
    from scipy.ndimage import uniform_filter

    share = np.divide(shown, bright, out=np.ones_like(shown), where=(bright > 0) & panel)
    dim = (uniform_filter(share, 5, mode="nearest") < PANEL_EVEN) & panel
    if dim.sum() <= MOST_DIM * panel.sum():
        return []
    lines, columns = (dim.mean(axis=axis) > 0.5 * dim.mean(axis=axis).max() for axis in (1, 0))
    return [
        f"The white reference {white.path.name} is {1 - float(share[dim].mean()):.0%} darker in "
        f"lines {_spans(lines)} of columns {_spans(columns)} than in others, and averaged with "
        f"them: take one of even light, if that is a shadow."
    ]


def _beside_panel(bright: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Columns from either side up to an edge, all of which are much darker than what is between.

    A lamp that fades towards the sides has no edge, and a column behind dust is not at a side.
    """
    beside = np.zeros(len(bright), bool)
    light = bright[bright > 0.1 * bright.max()] if bright.max() > 0 else bright
    dark = bright < PANEL_COLUMN * np.median(light)
    for side in (slice(None), slice(None, None, -1)):
        run = int(np.argmin(np.append(dark[side], False)))  # dark columns from this side on
        if 0 < run < len(bright) and bright[side][run] > PANEL_EDGE * bright[side][run - 1]:
            beside[side][:run] = True
    return beside


def _spans(places: NDArray[np.bool_]) -> str:
    """Say places as spans: `0 to 9 and 40 to 49`."""
    runs = np.split(np.flatnonzero(places), np.flatnonzero(np.diff(np.flatnonzero(places)) > 1) + 1)
    said = [f"{run[0]} to {run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs if len(run)]
    return " and ".join(said[:4])
