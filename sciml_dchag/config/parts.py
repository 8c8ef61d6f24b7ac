"""Which parameters of a model a recipe means, by shell patterns of their names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sciml_dchag.config.common import TrainingConfig


def matching(pattern: str, names: Sequence[str], key: str, what: str = "parameter") -> list[str]:
    """Return the names that a pattern such as `backbone.blocks.[0-3].*` matches.

    Args:
        pattern: of whole names; `*` stands for anything, dots included.
        names: of all parameters or modules, as they are on one process.
        key: of the recipe, for a message.
        what: has these names, for a message.

    Raises:
        ValueError: it matches none; the nearest names and modules.
    """
    if found := [name for name in names if fnmatchcase(name, pattern)]:
        return found
    modules = {name[: place + 1] + "*" for name in names for place in _dots(name)}
    nearest = difflib.get_close_matches(pattern, sorted(modules | set(names)), n=3, cutoff=0.0)
    raise ValueError(
        f"{key} has {pattern!r}, which matches no {what} of the model: the nearest are "
        f"{', '.join(nearest)}."
    )


def _dots(name: str) -> Iterable[int]:
    return (place for place, letter in enumerate(name) if letter == ".")


def frozen_of(names: Sequence[str], training: TrainingConfig) -> frozenset[str]:
    """Return the names of the parameters that keep their start values.

    Raises:
        ValueError: a pattern matches none, or all parameters would be frozen.
    """
    frozen = frozenset(
        name for p in training.freeze for name in matching(p, names, "training.freeze")
    )
    if len(frozen) == len(names):
        raise ValueError(
            f"training.freeze freezes all {len(names)} parameters, so that nothing is trained: "
            f"leave out those that are to learn."
        )
    return frozen


def rates_of(names: Sequence[str], training: TrainingConfig) -> dict[str, float]:
    """Return the factor of each parameter's learning rate; of several that match, the last's.

    Raises:
        ValueError: a pattern matches none.
    """
    factors = dict.fromkeys(names, 1.0)
    for rate in training.rates:
        found = matching(rate.parameters, names, "training.rates")
        factors |= dict.fromkeys(found, rate.factor)
    return factors
