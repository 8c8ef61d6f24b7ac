"""The difference in percent between the scores of two runs, the paper's comparison table."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sciml_dchag.figures.numbers import readable_lead, readable_number
from sciml_dchag.files.atomic import written_beside
from sciml_dchag.weather.forecast.report import read_scores_csv
from sciml_dchag.weather.scores.table import ScoreRow

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Difference:
    """One score of two runs."""

    channel: str
    lead_hours: int
    metric: str
    run: float
    against: float

    @property
    def percent(self) -> float:
        """100 (run - against) / |against|; NaN where the reference is zero."""
        return 100 * (self.run - self.against) / abs(self.against) if self.against else float("nan")


def compare_runs(run: Path, against: Path) -> list[Difference]:
    """Pair the scores of two evaluated runs by channel, lead time and metric.

    Raises:
        FileNotFoundError: a run that was not evaluated.
        ValueError: the two have no score in common.
    """
    rows, others = (read_scores_csv(path / "evaluation" / "scores.csv") for path in (run, against))

    def key(row: ScoreRow) -> tuple[str, int, str]:
        return row.channel, row.lead_hours, row.metric

    reference = {key(row): row for row in others}
    pairs = [
        Difference(*key(row), row.model, reference[key(row)].model)
        for row in rows
        if key(row) in reference
    ]
    if not pairs:
        raise ValueError(
            f"{run} and {against} have no channel, lead time and metric in common: evaluate both "
            f"with the same evaluation.lead_hours and evaluation.channels."
        )
    return pairs


def write_comparison_csv(path: Path, differences: Sequence[Difference]) -> Path:
    """Write channel, lead_hours, metric, run, against, percent; whole or not at all."""
    with written_beside(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["channel", "lead_hours", "metric", "run", "against", "percent"])
        for d in differences:
            scores = [repr(d.run), repr(d.against), repr(d.percent)]
            writer.writerow([d.channel, d.lead_hours, d.metric, *scores])
    return path


def comparison_table(differences: Sequence[Difference], run: str, against: str) -> Table:
    """The differences as a rich table."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(header_style="bold", pad_edge=False)
    for heading in ("Channel", "Lead", "Metric"):
        table.add_column(heading)
    for heading in (escape(run), escape(against), "Difference"):
        table.add_column(heading, justify="right")
    for d in differences:
        numbers = (readable_number(d.run), readable_number(d.against), f"{d.percent:+.2f} %")
        table.add_row(d.channel, readable_lead(d.lead_hours), d.metric, *numbers)
    return table
