"""Groups held out, the front of formulas by complexity and error, and which one is the law."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.laws.formula import Formula, r2
from sciml_dchag.laws.table import LawTable

LEAST_GROUPS = 3
LEAST_GAIN = 0.01
"""Of training R2; a formula that is better by less is not worth its length."""
LEAST_R2 = 0.3
"""On held-out groups; a formula below it is no law."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A formula with its errors."""

    formula: Formula
    r2_training: float
    """With the constants fitted to the training rows."""
    r2_held_out: float
    """Of the same formula and constants on rows of groups that nothing was fitted to."""


def held_out_rows(groups: NDArray[np.int64], fraction: float, seed: int) -> NDArray[np.bool_]:
    """Draw whole groups, about that fraction of them and one at least: (rows,) of booleans.

    Raises:
        ValueError: too few groups, or a fraction that is not between 0 and 1.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"the held-out fraction is {fraction}: it must be between 0 and 1.")
    there = np.unique(groups)
    if len(there) < LEAST_GROUPS:
        raise ValueError(
            f"the table has {len(there)} groups, and {LEAST_GROUPS} are needed to hold one out: "
            "choose another column for groups."
        )
    number = min(max(1, round(fraction * len(there))), len(there) - 2)
    chosen = np.random.default_rng(seed).choice(there, number, replace=False)
    return np.isin(groups, chosen)


def folds(groups: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    """Number the fold of each row, (rows,); rows of a group are in one fold."""
    codes = np.unique(groups, return_inverse=True)[1]
    return np.asarray(codes % min(number, codes.max() + 1), dtype=np.int64)


def front(formulas: Sequence[Formula], training: LawTable, held_out: LawTable) -> list[Candidate]:
    """Fit constants to all training rows, and keep each formula that no simpler one equals.

    Only training rows decide what is kept; held-out rows are scored last.

    Returns:
        The simplest first, with increasing R2 on training rows.
    """
    fitted = [formula.condensed(training).refitted(training) for formula in formulas]
    scored = [(f.complexity, -r2(training.y, f.predict(training)), f) for f in fitted]
    kept: list[Candidate] = []
    for _, minus, formula in sorted(scored, key=lambda item: item[:2]):
        # What a constant gains by a detour over rounding is no gain.
        if np.isfinite(minus) and (not kept or -minus > kept[-1].r2_training + 1e-6):
            on_held_out = r2(held_out.y, formula.predict(held_out))
            kept.append(Candidate(formula=formula, r2_training=-minus, r2_held_out=on_held_out))
    return kept


def law_of(candidates: Sequence[Candidate]) -> Candidate | None:
    """The simplest formula within `LEAST_GAIN` of the best R2 on training rows.

    None where no formula was found, or its R2 on held-out groups is below `LEAST_R2`.
    """
    if not candidates:
        return None
    best = max(candidate.r2_training for candidate in candidates)
    law = next(c for c in candidates if c.r2_training >= best - LEAST_GAIN)
    return law if law.r2_held_out >= LEAST_R2 else None
