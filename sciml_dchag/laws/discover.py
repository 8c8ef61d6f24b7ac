"""Find the laws of a table: check units, search, score on held-out groups, write the results."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sciml_dchag.figures.saving import save_figure
from sciml_dchag.files.places import check_place, folder_kind
from sciml_dchag.files.result_folders import whole_folder
from sciml_dchag.laws.baselines import baseline_scores, index_formulas, looks_like_bands
from sciml_dchag.laws.front import LEAST_R2, Candidate, front, held_out_rows, law_of
from sciml_dchag.laws.plots import plot_law
from sciml_dchag.laws.search import Progress, require_engine, search
from sciml_dchag.laws.table import Constant, LawTable, from_frame, read_table

TABLE, BASELINES, LATEX, PICTURE = "laws.csv", "baselines.csv", "laws.tex", "laws.png"
FOLDER = folder_kind("a folder of laws", TABLE, (BASELINES, LATEX, PICTURE))


@dataclass(frozen=True, kw_only=True)
class Laws:
    """What a search found."""

    candidates: tuple[Candidate, ...]
    """The simplest first; each fits training rows better than all simpler ones."""
    law: Candidate | None
    """The simplest that fits nearly as well as the best; None where it fails on held-out groups."""
    baselines: dict[str, tuple[float, float]]
    """R2 on training and on held-out rows, by baseline."""
    training: LawTable
    held_out: LawTable

    def to_frame(self) -> pd.DataFrame:
        """A row for each formula: complexity, formula, constants with units, R2, LaTeX."""
        columns = [
            "complexity", "formula", "constants", "r2_training", "r2_held_out", "law", "latex"
        ]  # fmt: skip
        rows = [
            (
                c.formula.complexity, c.formula.text(), self.constants_of(c), c.r2_training,
                c.r2_held_out, c is self.law, c.formula.latex(),
            )
            for c in self.candidates
        ]  # fmt: skip
        return pd.DataFrame(rows, columns=columns)

    def constants_of(self, candidate: Candidate) -> str:
        """Write a candidate's constants: `c = 1.04; U = 3.2 m s-1`."""
        units = {
            constant.name: f" {constant.unit.text()}" if any(constant.unit.exponents) else ""
            for constant in self.training.constants
        }
        held = candidate.formula.constants.items()
        return "; ".join(f"{name} = {value:.6g}{units[name]}" for name, value in held)

    def summary(self) -> str:
        """Say what was found in a sentence."""
        best = max(self.baselines, key=lambda name: self.baselines[name][1])
        beside = f"the best baseline, {best}, has {self.baselines[best][1]:.3f}"
        if self.law is None:
            highest = max((c.r2_held_out for c in self.candidates), default=-np.inf)
            return (
                f"No law: the formula that training rows choose stays below R2 {LEAST_R2} on "
                f"held-out groups (highest of all {highest:.3f}); {beside}."
            )
        constants = self.constants_of(self.law)
        return (
            f"{self.training.target.name} = {self.law.formula.text()}"
            + (f" with {constants}" if constants else "")
            + f": R2 {self.law.r2_held_out:.3f} on held-out groups; {beside}."
        )


def find_laws(
    table: pd.DataFrame | str | os.PathLike[str],
    target: str,
    inputs: Sequence[str],
    *,
    constants: Sequence[str] = (),
    group: str | None = None,
    units: Mapping[str, str] | None = None,
    **settings: Any,
) -> Laws:
    """Find the simplest formulas, right in units, of a column of a table.

    Args:
        table: a CSV file, or a table in memory; headings have units in brackets.
        target, inputs: names of columns, with or without their units.
        constants: `c:1` and `U:m s-1` are fitted, `g=9.81:m s-2` is given.
        group: a column whose equal rows are held out together; None: each row by itself.
        units: of columns by name, which count before those of the headings.
        **settings: `seconds`, `patience`, `batch`, `rows`, `held_out`, `bands`, `seed`, `out`,
            `overwrite` and `progress` of `laws.discover.discover`.

    Raises:
        FileNotFoundError: there is no table.
        FileExistsError, ModuleNotFoundError, ValueError: as of `discover`; or a column, a constant
            or units that are not known.

    Example:
        >>> laws = sd.find_laws("wind.csv", "v500", ["dz500_dx", "f"],
        ...                     constants=["c:1"], group="sector")  # doctest: +SKIP
        >>> laws.law.formula.text()  # doctest: +SKIP
        'c*dz500_dx/f'
    """
    parsed = [Constant.parse(text) for text in constants]
    if isinstance(table, pd.DataFrame):
        read = from_frame(table, target, inputs, parsed, group, units)
    else:
        read = read_table(Path(table), target, inputs, parsed, group, units)
    return discover(read, **settings)


def discover(
    table: LawTable,
    *,
    seconds: float = 300.0,
    patience: int = 20,
    batch: int = 1000,
    rows: int = 400,
    held_out: float = 0.25,
    bands: Sequence[str] = (),
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Laws:
    """Find the simplest formulas of a table's target, and score them on held-out groups.

    Args:
        table: columns with units, constants and groups, as `read_table` returns.
        seconds, patience, batch: of the search; see `search`.
        rows: training rows that the search sees; constants are then fitted to all of them.
        held_out: fraction of the groups that are held out.
        bands: inputs that the baseline of two bands is made of; none: those that are named like
            wavelengths.
        seed: of the groups that are held out, the rows and the proposals.
        out: a folder for laws.csv, baselines.csv, laws.tex and laws.png; None writes nothing.
        overwrite: replace such a folder.
        progress: called during the search.

    Raises:
        FileExistsError: `out` exists, and `overwrite` is off or it is something else.
        ModuleNotFoundError: physo is not installed.
        ValueError: units of the target that cannot be made, too few groups, or a band that is no
            input.
    """
    place = None if out is None else Path(out)
    if place is not None:
        check_place(place, FOLDER, overwrite)
    for name, value, least in (
        ("seconds", seconds, 1), ("patience", patience, 1), ("batch", batch, 20), ("rows", rows, 10)
    ):  # fmt: skip
        if not value >= least:
            raise ValueError(f"{name} is {value}: it must be at least {least}.")
    foreign = set(bands) - {column.name for column in table.inputs}
    if foreign:
        raise ValueError(f"{', '.join(sorted(foreign))} is named as a band and is no input.")
    table.require_units()
    require_engine()
    away = held_out_rows(table.groups, held_out, seed)
    training, rest = table.rows(~away), table.rows(away)
    if training.y.std() == 0 or rest.y.std() == 0:
        raise ValueError(
            f"{table.target.name} is constant in the training or held-out groups: choose another."
        )
    seen = np.random.default_rng(seed).permutation(len(training.y))[:rows]
    formulas = search(
        training.rows(np.sort(seen)), seconds=seconds, patience=patience, batch=batch, seed=seed,
        progress=progress,
    )  # fmt: skip
    named = tuple(bands) or looks_like_bands(table)
    candidates = front([*formulas, *index_formulas(training, named)], training, rest)
    found = Laws(
        candidates=tuple(candidates), law=law_of(candidates), training=training, held_out=rest,
        baselines=baseline_scores(training, rest, named),
    )  # fmt: skip
    if place is not None:
        _write(found, place, overwrite)
    return found


def _write(found: Laws, place: Path, overwrite: bool) -> None:
    with whole_folder(place, FOLDER, overwrite=overwrite) as folder:
        table = found.to_frame()
        table.to_csv(folder / TABLE, index=False)
        pd.DataFrame(
            [(name, *scores) for name, scores in found.baselines.items()],
            columns=["baseline", "r2_training", "r2_held_out"],
        ).to_csv(folder / BASELINES, index=False)
        lines = [f"\\[ {candidate.formula.latex()} \\]" for candidate in found.candidates]
        (folder / LATEX).write_text("\n".join([*lines, ""]), encoding="utf-8")
        save_figure(plot_law(found), folder / PICTURE, found.summary())
