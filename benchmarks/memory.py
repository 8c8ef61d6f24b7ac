"""Memory of a rank, simulated at the paper's own shapes, against what the paper's code measured.

All 55 rows of `tests/golden/frontier_memory.csv` and `frontier_memory_t32.csv`, or those of another
file (`--readings`). The simulation runs our model's own code without
numbers (`sciml_dchag.planning.step`), so that no accelerator is needed. Two columns:

- `ours` is what our code would take in the paper's precision: the simulated step in bfloat16
  without autocast, gradients left out, and 24 bytes a parameter (`paper.STEADY_BYTES`).
- `paper's code` estimates what theirs reserved (`paper.reserved_by_theirs`): more copies of tokens,
  and parameters that each rank holds whole, which is what is left at many ranks. In rows that
  only tokenize it is three copies of the tokens.

24 bytes is taken from the rows with 32 channels; medians are given without these rows, too. The
rows of the stage alone have no transformer, and those that only tokenize are arithmetic (tokens,
their gradient, the tokenizer's parameters), as our code has no tokenization without aggregation.

The paper's figures are what the caching allocator had reserved, ours what is allocated, without its
rounding and fragments.

Then the goals of the absorbed implementation, in the paper's accounting and as the planner has it:
float32 parameters and moments, products in bfloat16, gradients when they arise, a fused update.

    python benchmarks/memory.py --folder benchmarks/results/memory
"""

from __future__ import annotations

import argparse
import csv
import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from paper import (
    FULL_MODELS,
    GIB,
    PIXELS,
    PLANNED_BYTES,
    STAGES_ALONE,
    STEADY_BYTES,
    Run,
    activations,
    as_the_paper_counts,
    config_of,
    planned_peak,
    read_runs,
    reserved_by_theirs,
    simulated,
    stage_activations,
    stage_gradients,
    stage_numbers,
)
from record import provenance, write_json
from rich.console import Console
from rich.table import Table

from sciml_dchag.models.transformer import build_model, count_parameters

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
PAPER = GOLDEN / "frontier_memory.csv"
MANY_RANKS = GOLDEN / "frontier_memory_t32.csv"
FAR = 0.30
"""A row that is off by more than this is explained."""
EXPLANATIONS = {
    "dchag_linear_tree0": (
        "the linear aggregation keeps next to nothing, so that the copies of the tokens that the "
        "paper's code makes and ours does not are most of what is there"
    ),
    "dchag_cross_tokenize_and_aggregate": (
        "the paper's code makes two more copies of the tokens, and its stage alone still has a "
        "head and position embeddings"
    ),
    "tokenize_only": (
        "the paper's code holds three copies of the tokens, and a head and position embeddings"
    ),
    "dchag_linear_tokenize_and_aggregate": (
        "each rank of the paper's seems to hold the final attention whole"
    ),
    "distributed_tokenize_full_model": (
        "at 32 ranks little is left of a split model, and what each rank of the paper's seems to "
        "hold whole, and the list of what it gathers, is most of the rest"
    ),
    "distributed_tokenize_only": (
        "the paper's code holds three copies of the tokens and, beside the tokenizer, a head and "
        "position embeddings, all on every rank; at 32 and 64 channels 0.9 GiB remain that "
        "neither tokens nor parameters explain"
    ),
}
"""Why rows of a variant are off by more than `FAR`, where some are."""
UNEXPLAINED = "not explained"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the table; memory in GiB."""

    variant: str
    channels: int
    embed_dim: int
    tp: int
    how: str
    """`simulated` or `arithmetic`."""
    parameters: str
    """`exact` where ours, counted as the paper does, are the paper's."""
    paper: float
    ours: float
    ours_off: float
    """(ours - paper) / paper."""
    as_paper: float
    """Estimate of what the paper's code reserved."""
    as_paper_off: float
    explanation: str
    """Why ours is off, where it is by more than `FAR`."""


def row_of(run: Run) -> Row:
    """Simulate a row of the paper's file, or calculate it."""
    parameters, how = "", "simulated"
    if run.variant in FULL_MODELS:
        kind, stage = FULL_MODELS[run.variant]
        cost = simulated(kind, run.channels, run.tp, run.size, stage=stage)
        ours = activations(cost) + STEADY_BYTES * cost.stored(1)
        as_paper = reserved_by_theirs(run, kind, stage, cost)
        parameters = "exact" if counted(run, kind) == run.parameters else "differ"
    elif run.variant in STAGES_ALONE:
        kind, stage = STAGES_ALONE[run.variant]
        cost = simulated(kind, run.channels, run.tp, run.size, stage=stage)
        numbers = stage_numbers(kind, stage, run.channels, run.tp, run.embed_dim)
        ours = stage_activations(cost) + STEADY_BYTES * numbers
        as_paper = reserved_by_theirs(run, kind, stage, cost)
    else:  # tokens and their gradient, and the tokenizer's parameters
        how = "arithmetic"
        own = run.channels if run.variant == "tokenize_only" else run.channels // run.tp
        ours = 2 * run.tokens + STEADY_BYTES * own * (PIXELS + 2) * run.embed_dim
        # Three copies of the tokens, and what the file counts, on each rank.
        as_paper = 3 * run.tokens + STEADY_BYTES * run.parameters
    off = ours / GIB / run.reserved - 1
    return Row(
        variant=run.variant,
        channels=run.channels,
        embed_dim=run.embed_dim,
        tp=run.tp,
        how=how,
        parameters=parameters,
        paper=run.reserved,
        ours=ours / GIB,
        ours_off=off,
        as_paper=as_paper / GIB,
        as_paper_off=as_paper / GIB / run.reserved - 1,
        explanation=EXPLANATIONS.get(run.variant, UNEXPLAINED) if abs(off) > FAR else "",
    )


def counted(run: Run, kind: str) -> int:
    config = config_of(kind, run.channels, run.tp, run.size)
    with torch.device("meta"):
        ours = count_parameters(build_model(config))
    return as_the_paper_counts(ours, kind, run, config.depth)


def summary(rows: Iterable[Row], column: Callable[[Row], float]) -> dict[str, Any]:
    """Errors of the whole models: median, largest, and without the rows that gave 24 bytes."""
    full = [row for row in rows if row.variant in FULL_MODELS]
    errors = [abs(column(row)) for row in full]
    unseen = [abs(column(row)) for row in full if row.channels > 32]
    return {
        "rows": len(errors),
        "median": statistics.median(errors),
        "largest": max(errors),
        "beyond_30_percent": sum(error > FAR for error in errors),
        "median_above_32_channels": statistics.median(unseen),
    }


def by_ranks(rows: Iterable[Row]) -> dict[int, float]:
    """Median errors of the estimate for whole models, by ranks of tp."""
    found: dict[int, list[float]] = {}
    for row in rows:
        if row.variant in FULL_MODELS:
            found.setdefault(row.tp, []).append(abs(row.as_paper_off))
    return {ranks: statistics.median(found[ranks]) for ranks in sorted(found)}


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What the absorbed implementation is to need, GiB."""

    what: str
    accounting: str
    """`paper` (24 bytes a parameter, no autocast) or `planner`."""
    needed: float
    limit: float
    paper: str
    """What the paper's own models take."""

    @property
    def reached(self) -> bool:
        return self.needed <= self.limit


def goals(accounting: str) -> list[Goal]:
    """Simulate what the absorbed implementation is to reach, in one accounting."""
    needs = {"paper": _as_paper, "planner": _as_planner}[accounting]
    large = needs("7b", 512, 16)
    found = (
        ("7B, 512 channels, T=16, -C", large, 18.3, "-L 18.3, -C 24.4, baseline 61.0"),
        ("the same, at most 10% above 32 channels", large, 1.1 * needs("7b", 32, 16), ""),
        (
            "1.7B, 1024 channels, T=8, -C",
            needs("1p7b", 1024, 8),
            14.0,
            "-L 14.0, -C 24.1, baseline 62.0",
        ),
        ("its channel stage alone", _stage_alone("1p7b", 1024, 8, accounting), 4.0, "-C 20.6"),
    )
    return [
        Goal(what=what, accounting=accounting, needed=needed, limit=limit, paper=paper)
        for what, needed, limit, paper in found
    ]


def _absorbed(size: str, channels: int, tp: int, accounting: str) -> Any:
    autocast = accounting == "planner"
    return simulated("dchag-c", channels, tp, size, implementation="absorbed", autocast=autocast)


def _as_paper(size: str, channels: int, tp: int) -> float:
    cost = _absorbed(size, channels, tp, "paper")
    return (activations(cost) + STEADY_BYTES * cost.stored(1)) / GIB


def _as_planner(size: str, channels: int, tp: int) -> float:
    return planned_peak(_absorbed(size, channels, tp, "planner")) / GIB


def _stage_alone(size: str, channels: int, tp: int, accounting: str) -> float:
    cost = _absorbed(size, channels, tp, accounting)
    dim = config_of("dchag-c", channels, tp, size).embed_dim
    numbers = stage_numbers("dchag-c", "dchag", channels, tp, dim)
    if accounting == "paper":
        return (stage_activations(cost) + STEADY_BYTES * numbers) / GIB
    return (stage_activations(cost) + stage_gradients(cost) + PLANNED_BYTES * numbers) / GIB


def rows_table(rows: list[Row]) -> Table:
    table = Table(title="Peak memory of a rank, GiB", title_justify="left")
    for name in ("variant", "channels", "D", "T", "parameters"):
        table.add_column(name, justify="left" if name in ("variant", "parameters") else "right")
    for name in ("paper", "ours", "off", "paper's code", "off"):
        table.add_column(name, justify="right", no_wrap=True)
    variant = rows[0].variant
    for row in rows:
        if row.variant != variant:
            table.add_section()
        variant = row.variant
        far = abs(row.ours_off) > FAR
        table.add_row(
            row.variant + ("*" if row.how == "arithmetic" else ""),
            *(str(number) for number in (row.channels, row.embed_dim, row.tp)),
            row.parameters,
            f"{row.paper:.1f}",
            f"{row.ours:.1f}",
            f"{row.ours_off:+.0%}" if not far else f"[bold]{row.ours_off:+.0%}[/]",
            f"{row.as_paper:.1f}",
            f"{row.as_paper_off:+.0%}",
        )
    return table


def goals_table(found: list[Goal]) -> Table:
    table = Table(title="Absorbed, GiB", title_justify="left")
    for name in ("what", "accounting", "needs", "limit", "", "paper's own"):
        table.add_column(name, justify="right" if name in ("needs", "limit") else "left")
    for goal in found:
        table.add_row(
            goal.what,
            goal.accounting,
            f"{goal.needed:.2f}",
            f"{goal.limit:.2f}",
            "reached" if goal.reached else "NOT REACHED",
            goal.paper,
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="where memory.csv and about.json are kept")
    parser.add_argument("--readings", type=Path, nargs="*", default=[PAPER, MANY_RANKS],
                        help="files of readings, with the columns of the paper's")  # fmt: skip
    options = parser.parse_args()
    folder = options.folder
    console = Console()
    rows = [row_of(run) for file in options.readings for run in read_runs(file)]
    found = [*goals("paper"), *goals("planner")]
    console.print(rows_table(rows), "* arithmetic, not simulated", "")
    summaries = {
        "ours": summary(rows, lambda row: row.ours_off),
        "paper's code": summary(rows, lambda row: row.as_paper_off),
    }
    for name, errors in summaries.items():
        console.print(
            f"{name}, {errors['rows']} whole models: median error {errors['median']:.1%} "
            f"({errors['median_above_32_channels']:.1%} of those above 32 channels), largest "
            f"{errors['largest']:.0%}, off by more than 30%: {errors['beyond_30_percent']}"
        )
    for ranks, error in by_ranks(rows).items():
        console.print(f"paper's code, T = {ranks}: median error {error:.1%}")
    console.print("\nWhy ours is off by more than 30%:")
    for variant, explanation in dict.fromkeys((r.variant, r.explanation) for r in rows):
        if explanation:
            far = [r.ours_off for r in rows if r.variant == variant and r.explanation]
            errors = ", ".join(f"{error:+.0%}" for error in far)
            console.print(f"- {variant} ({errors}): {explanation}.")
    console.print("", goals_table(found))
    if folder:
        write(folder, rows, summaries, found)


def write(folder: Path, rows: list[Row], summaries: dict[str, Any], found: list[Goal]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "memory.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(asdict(rows[0])), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            values = asdict(row).items()
            writer.writerow({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in values})
    write_json(
        folder / "about.json",
        {
            "benchmark": "memory",
            "method": "by simulation; nothing was run on an accelerator",
            "paper": "arXiv 2506.21411, readings in tests/golden/frontier_memory*.csv",
            "errors": summaries,
            "estimate_by_ranks": by_ranks(rows),
            "goals": [asdict(goal) | {"reached": goal.reached} for goal in found],
            "machine": provenance(),
        },
    )


if __name__ == "__main__":
    main()
