"""Scores as tables on a terminal, of whatever task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from sciml_dchag.figures.numbers import readable_key, readable_number, readable_percent

if TYPE_CHECKING:
    from rich.table import Table

HEADINGS = {
    "best": "Best baseline",
    "lead_hours": "Lead",
    "wavelength_nm": "Wavelength, nm",
    "pca": "PCA",
}
"""Of columns whose name does not say it well enough."""


def heading(column: str) -> str:
    """What a column of scores is called."""
    words = column.replace("_", " ")
    # The rest stays as it is: units in brackets, abbreviations.
    return HEADINGS.get(column, words[:1].upper() + words[1:])


def in_a_sentence(column: str) -> str:
    """A column's heading within a sentence; abbreviations and names stay as they are."""
    name = heading(column)
    return name if name.isupper() else name.lower().replace("gaussian", "Gaussian")


def scores_table(scores: pd.DataFrame, keys: Sequence[str], skill: pd.Series[float]) -> Table:
    """Scores of the model beside its baselines, as a rich table.

    Args:
        scores: keys, `units`, `perfect`, `model`, and one column per baseline.
        keys: columns that say what a row is the score of.
        skill: of each row against the reference baseline, whose name is the name of the series.
    """
    names = [c for c in scores.columns if c not in (*keys, "units", "perfect")]
    table = _table([*keys], [*names], "Units", f"Against {in_a_sentence(str(skill.name))}")
    for (_, row), gain in zip(scores.iterrows(), skill, strict=True):
        style = "green" if gain > 0 else "red" if gain < 0 else "dim"
        numbers = [readable_number(float(row[name])) for name in names]
        numbers[0] = f"[bold]{numbers[0]}[/bold]"
        table.add_row(
            *(_key(name, row[name]) for name in keys),
            *numbers,
            str(row["units"]),
            f"[{style}]{readable_percent(gain)}[/{style}]",
        )
    return table


def comparison_table(scores: pd.DataFrame, keys: Sequence[str], run: str, against: str) -> Table:
    """The scores of two runs and the difference in percent, as a rich table.

    Args:
        scores: keys, `units`, `run`, `against` and `percent`.
        keys: columns that say what a row is the score of.
        run, against: names of the two runs.
    """
    table = _table([*keys], [run, against], "Units", "Difference")
    for _, row in scores.iterrows():
        percent = row["percent"]
        table.add_row(
            *(_key(name, row[name]) for name in keys),
            readable_number(row["run"]),
            readable_number(row["against"]),
            str(row["units"]),
            "" if pd.isna(percent) else f"{percent:+.2f} %",
        )
    return table


def _table(keys: list[str], numbers: list[str], *last: str) -> Table:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, header_style="bold")
    for name in keys:
        table.add_column(heading(name))
    for name in numbers:
        table.add_column(escape(heading(name)), justify="right")
    for name in last:
        table.add_column(name, justify="right")
    return table


def _key(name: str, value: Any) -> str:
    from rich.markup import escape

    return escape(readable_key(name, value))
