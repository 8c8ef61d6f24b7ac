"""The result of an evaluation, of whatever task: a table of scores, notes and pictures.

FOLDER/scores.csv        one row per score: what it is of, its units, the model's and baselines'
FOLDER/evaluation.json   notes, captions and what else belongs to the table
FOLDER/figures/          pictures
FOLDER/report.html       one page made from all of it (`figures.report`)
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sciml_dchag.files.atomic import write_text, written_beside

SCORES, RECORD = "scores.csv", "evaluation.json"
BEST = "best"
"""Stands for whichever baseline is the best one in a row."""
ABOUT = ("units", "perfect")
"""Columns of the table between the keys and the scores."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """Scores of a run beside those of its baselines."""

    folder: Path
    """`runs/NAME/evaluation`."""
    title: str = "Scores"
    """The report's heading."""
    table: pd.DataFrame
    """One row per score: `keys`, `units`, `perfect` (NaN where better and worse have no meaning),
    `model` and one column per baseline; NaN where undefined."""
    keys: tuple[str, ...]
    """Columns that say what a row is the score of, such as channel, lead_hours, metric."""
    reference: str
    """The baseline that the model is compared with first; `best` takes each row's best one."""
    summary: str
    """What was found, in a sentence."""
    headline: str = ""
    """The metric that the report's first table is of."""
    overview: str = ""
    """The key by which that table has rows; empty for a first table of `first_rows`."""
    labels: dict[str, str] = field(default_factory=dict)
    """Names of metrics in headings."""
    definitions: dict[str, str] = field(default_factory=dict)
    """What each metric is, in words."""
    notes: tuple[str, ...] = ()
    """What a reader must know of the scores."""
    figures: tuple[tuple[str, str], ...] = ()
    """(Caption, file within `folder`) of each picture."""
    tables: tuple[tuple[str, str], ...] = ()
    """(Caption, CSV file within `folder`) of each further table."""
    terms: dict[str, str] = field(default_factory=dict)
    """What words of the report mean, beside the metrics."""
    provenance: dict[str, str] = field(default_factory=dict)
    """Where data and weights come from: sources, store, checkpoint, version."""
    settings: dict[str, str] = field(default_factory=dict)
    """What the run was made with."""
    attribution: str = ""
    """Whose the data are."""
    shown: tuple[int, ...] = ()
    """Positions of the rows to show first; empty for all."""

    @property
    def baselines(self) -> list[str]:
        """Names of the baselines, in the order of the table."""
        columns = list(self.table.columns)
        return [str(name) for name in columns[columns.index("model") + 1 :]]

    @property
    def first_rows(self) -> pd.DataFrame:
        """The rows to show first."""
        return self.table.iloc[list(self.shown)] if self.shown else self.table

    @property
    def paths(self) -> dict[str, Path]:
        """What to look at of what is there, by name."""
        places = {"Scores": SCORES, "Pictures": "figures", "Report": "report.html"}
        paths = {name: self.folder / place for name, place in places.items()}
        return {name: path for name, path in paths.items() if path.exists()}

    def skill(self, against: str) -> pd.Series[float]:
        """Skill of each row against a baseline, or against the row's best one; see `skill`."""
        reference = self.best if against == BEST else self.table[against]
        return skill(self.table["model"], reference, self.table["perfect"])

    @property
    def best(self) -> pd.Series[float]:
        """The score of each row's best baseline; NaN where better has no meaning."""
        return best_of(self.table, self.baselines)[0]

    def to_frame(self) -> pd.DataFrame:
        """The scores as a table of their own, one row per score."""
        return self.table.copy()

    def write(self) -> None:
        """Write the table and what belongs to it; pictures and the page are there already.

        The table comes last: its being there says that the evaluation is complete.
        """
        record = {
            f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("folder", "table")
        }
        write_text(self.folder / RECORD, json.dumps(record, indent=1))
        with written_beside(self.folder / SCORES) as partial:
            # Every digit, and `nan` where a score is undefined.
            self.table.to_csv(partial, index=False, na_rep="nan", lineterminator="\n")

    @classmethod
    def read(cls, run: Path) -> Evaluation:
        """Read what `write` wrote into a run's evaluation folder.

        Raises:
            FileNotFoundError: the run was not evaluated.
            ValueError: files that cannot be read; which.
        """
        folder = run / "evaluation"
        for name in (SCORES, RECORD):
            if not (folder / name).is_file():
                raise FileNotFoundError(
                    f"There are no scores in {folder} ({name} is missing): write them with "
                    f"`sciml-dchag evaluate {run}`."
                )
        try:
            record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            text = {*record["keys"], "units"}
            # As text first: before pandas 3.1 its own reading of numbers loses the last digit.
            table = pd.read_csv(folder / SCORES, dtype=str, keep_default_na=False)
            for name in ("lead_hours",):
                if name in table:
                    table[name] = table[name].astype(int)
            numbers = [name for name in table.columns if name not in text]
            table[numbers] = table[numbers].astype(np.float64)
            found = cls(folder=folder, table=table, **_tuples(record))
            for name in (*found.keys, *ABOUT, "model", found.reference):
                if name not in table and name != BEST:
                    raise ValueError(f"{SCORES} has no column {name}")
            if any(position >= len(table) for position in found.shown):
                raise ValueError(f"{SCORES} has {len(table)} rows, fewer than {RECORD} names")
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{folder} holds no evaluation that can be read ({error}): evaluate the run again."
            ) from error
        return found


def _tuples(record: dict[str, Any]) -> dict[str, Any]:
    """Turn JSON's lists back into tuples."""
    plain = {key: tuple(v) if isinstance(v, list) else v for key, v in record.items()}
    pairs: dict[str, Any] = {
        name: tuple((caption, file) for caption, file in record[name])
        for name in ("figures", "tables")
        if name in record
    }
    return {**plain, **pairs}


def best_of(table: pd.DataFrame, baselines: list[str]) -> tuple[pd.Series[float], pd.Series[str]]:
    """Return the score of the best baseline in each row, and its name.

    The best is the nearest to perfect. NaN and an empty name where there is no perfect score, or
    where no baseline has one.
    """
    distance = table[baselines].sub(table["perfect"], axis=0).abs()
    known = distance.notna().any(axis=1)
    names = distance[known].idxmin(axis=1).reindex(table.index, fill_value="")
    values = [table.at[row, name] if name else np.nan for row, name in names.items()]
    return pd.Series(values, index=table.index, dtype=np.float64), names


def skill(
    model: pd.Series[float], reference: pd.Series[float], perfect: pd.Series[float]
) -> pd.Series[float]:
    """Fraction of the reference's distance from a perfect score that the model removes.

    (reference - model) / (reference - perfect): for an error 1 - model / reference. Negative where
    the model is worse; NaN where `perfect` is, or where the reference is perfect already.
    """
    room = reference - perfect
    return (reference - model) / room.where(room != 0)


def compare(one: Evaluation, other: Evaluation) -> pd.DataFrame:
    """Pair the scores of two evaluations, and say by how many percent the first one's differ.

    Returns:
        The keys and `units`, `run`, `against`, and `percent` = 100 (run - against) / |against|,
        NaN where the latter is zero.

    Raises:
        ValueError: evaluations of different tasks, or without a score in common.
    """
    if one.keys != other.keys:
        raise ValueError(
            f"{one.folder.parent} and {other.folder.parent} are runs of different tasks, with "
            f"scores by {', '.join(one.keys)} and by {', '.join(other.keys)}: compare runs of "
            f"one task."
        )
    keys = list(one.keys)
    found = one.table[[*keys, "units", "model"]].merge(other.table[[*keys, "model"]], on=keys)
    if found.empty:
        raise ValueError(
            f"{one.folder.parent} and {other.folder.parent} have no {', '.join(keys)} in common: "
            f"evaluate both with the same settings in evaluation."
        )
    found = found.rename(columns={"model_x": "run", "model_y": "against"})
    size = found["against"].abs()
    found["percent"] = 100 * (found["run"] - found["against"]) / size.where(size > 0)
    return found
