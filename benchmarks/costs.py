"""Cost of a rank against channels, ranks and model size: simulated, on paper, and the paper's runs.

Image 128 x 256, patch 4, two samples a rank, bfloat16, blocks recomputed, a partition for each tp
rank, 24 bytes a parameter (`paper.STEADY_BYTES`): what the paper's runs had. Lines are simulated
steps, dashed lines the closed forms of `closed_forms.py` (derived in docs/costs.md), crosses what
the paper's code measured.

Channels: T = 8, up to 4096. Ranks: tp up to 8, a node of Frontier, beyond it fsdp over nodes, up to
1,024. Size: 1.7B to 26B, T = 8.

    python benchmarks/costs.py --folder benchmarks/results/costs
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from closed_forms import (
    flops,
    memory,
    sent_over_fsdp,
    sent_over_tp,
    shape_of,
)
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator
from memory import PAPER
from paper import (
    GIB,
    SAMPLES,
    STEADY_BYTES,
    Run,
    activations,
    config_of,
    read_runs,
    simulated,
)
from record import provenance, write_json

from sciml_dchag.figures.saving import save_figure
from sciml_dchag.figures.style import INK, SOFT_INK, label_ends, new_figure, quiet_axes
from sciml_dchag.planning.step import StepCost

ATTRIBUTION = (
    "Pale: simulated; dashed: closed forms; crosses: the paper's runs on Frontier (its own code, "
    "materialised; green is -L), arXiv 2506.21411. 24 bytes a parameter."
)
NODE = 8
MI250X_GIB = 64
"""Memory of the accelerators that the paper ran on."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """A model that is drawn as a line."""

    name: str
    kind: str
    """As in `closed_forms`."""
    implementation: str
    colour: str
    variant: str
    """The paper's runs of the same function."""


BASELINE = Side(
    name="tp only", kind="tp-only", implementation="materialised", colour="#8a9099",
    variant="tp_baseline",
)  # fmt: skip
CROSS = Side(
    name="-C materialised", kind="dchag-c", implementation="materialised", colour="#b0793a",
    variant="dchag_cross_tree0",
)  # fmt: skip
ABSORBED = Side(
    name="-C absorbed", kind="dchag-c", implementation="absorbed", colour="#0f62a8", variant="",
)  # fmt: skip
LINEAR = Side(
    name="-L absorbed", kind="dchag-l", implementation="absorbed", colour="#4d7c4a",
    variant="dchag_linear_tree0",
)  # fmt: skip
SIDES = (BASELINE, CROSS, ABSORBED, LINEAR)


@dataclass(frozen=True, kw_only=True)
class Point:
    """What a rank needs, by simulation and on paper."""

    side: str
    size: str
    channels: int
    tp: int
    fsdp: int
    memory: float
    """GiB."""
    memory_on_paper: float
    flops: float
    """TFLOP of a step: multiplications and additions."""
    flops_on_paper: float
    sent: float
    """GiB that a rank sends in a step, in rings."""
    sent_on_paper: float


KNOWN: dict[tuple[object, ...], Point] = {}
"""Points read from a file, to draw again without simulating."""


def read_points(path: Path) -> None:
    with path.open() as file:
        for row in csv.DictReader(file):
            kept = [field.type for field in fields(Point)]
            cast = {"str": str, "int": int, "float": float}
            values = [cast[str(t)](v) for t, v in zip(kept, row.values(), strict=True)]
            KNOWN[tuple(values[:5])] = Point(**dict(zip(row, values, strict=True)))


def point(side: Side, size: str, channels: int, tp: int, fsdp: int = 1) -> Point:
    """Simulate a step; FSDP's buffers are the same for two ranks and for many."""
    if (key := (side.name, size, channels, tp, fsdp)) in KNOWN:
        return KNOWN[key]
    baseline = side.kind == "tp-only"
    kind = "single" if baseline else side.kind
    cost = simulated(
        kind, channels, tp, size, stage="tp-only" if baseline else "dchag",
        implementation=side.implementation, fsdp=min(2, fsdp),
    )  # fmt: skip
    config = config_of(kind, channels, tp, size, side.implementation)
    shape = shape_of(side.kind, config, tp, SAMPLES)
    return Point(
        side=side.name,
        size=size,
        channels=channels,
        tp=tp,
        fsdp=fsdp,
        memory=(activations(cost) + STEADY_BYTES * cost.stored(fsdp)) / GIB,
        memory_on_paper=memory(shape, fsdp) / GIB,
        flops=sum(phase.flops for phase in cost.phases) / 1e12,
        flops_on_paper=flops(shape) / 1e12,
        sent=(sent(cost, "tp", tp) + sent(cost, "fsdp", fsdp)) / GIB,
        sent_on_paper=(sent_over_tp(shape) + sent_over_fsdp(shape, fsdp)) / GIB,
    )


def sent(cost: StepCost, axis: str, ranks: int) -> float:
    """Bytes that a rank sends over an axis in rings of so many ranks."""
    whole = sum(
        (2 if name.startswith("all-reduce") else 1) * size * calls
        for phase in cost.phases
        for (name, size), calls in phase.sent.items()
        if name.endswith(axis)
    )
    return whole * (ranks - 1) / ranks


Line = tuple[Side, list[Point]]
Position = Callable[[Point], float]


def draw(
    axes: Axes, lines: Iterable[Line], x: Position, quantity: str, labels: Sequence[str] = ()
) -> None:
    """Draw a quantity of points: simulated, and dashed on paper; names at the ends of lines."""
    ends = []
    for number, (side, points) in enumerate(lines):
        at, values = [x(p) for p in points], [getattr(p, quantity) for p in points]
        on_paper = [getattr(p, f"{quantity}_on_paper") for p in points]
        axes.plot(at, values, color=side.colour, linewidth=4, alpha=0.3, solid_capstyle="round")
        axes.plot(at, on_paper, color=side.colour, linewidth=1.2, linestyle=(0, (4, 2)))
        if name := labels[number] if labels else side.name:
            ends.append((values[-1], name, side.colour))
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    quiet_axes(axes)
    axes.margins(x=0.03)
    ticks = sorted({x(p) for _, points in lines for p in points})
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes._ends = ends  # type: ignore[attr-defined]  # named once the layout is final


def mark_runs(axes: Axes, runs: Iterable[Run], side: Side, x: Callable[[Run], float]) -> None:
    """Draw what the paper's code measured."""
    for run in runs:
        axes.plot(
            x(run), run.reserved, marker="x", markersize=6, markeredgewidth=1.6,
            color=side.colour, linestyle="none", zorder=5,
        )  # fmt: skip


def limit(axes: Axes, *, on_the_right: bool = False) -> None:
    """Draw the memory of the accelerators that the paper ran on."""
    axes.axhline(MI250X_GIB, color=INK, linewidth=0.7, linestyle=":")
    x, ha = (0.99, "right") if on_the_right else (0.01, "left")
    axes.annotate(
        "64 GiB", (x, MI250X_GIB), xycoords=("axes fraction", "data"), xytext=(0, 2),
        textcoords="offset points", color=SOFT_INK, fontsize=7.5, ha=ha,
    )  # fmt: skip


def finish(figure: object, path: Path) -> None:
    """Name the ends of lines, for which the axes must have their final size, and save."""
    figure.draw_without_rendering()  # type: ignore[attr-defined]
    for axes in figure.axes:  # type: ignore[attr-defined]
        if ends := getattr(axes, "_ends", None):
            label_ends(axes, ends)
    save_figure(figure, path, ATTRIBUTION)  # type: ignore[arg-type]


def against_channels(folder: Path, runs: list[Run]) -> list[Point]:
    figure = new_figure(13.5, 4.6, "Cost of a rank against channels", "T = 8")
    axes = figure.subplots(1, 3)
    found = []
    for column, (size, label) in enumerate((("1p7b", "1.7B"), ("7b", "7B"))):
        counts = (32, 128, 256, 512, 1024, 2048, 4096)[column == 0 :]
        lines = [(side, [point(side, size, c, 8) for c in counts]) for side in SIDES]
        found += [p for _, points in lines for p in points]
        draw(axes[column], lines, lambda p: p.channels, "memory")
        for side in SIDES:
            mine = [r for r in runs if (r.variant, r.size, r.tp) == (side.variant, size, 8)]
            mark_runs(axes[column], mine, side, lambda r: r.channels)
        limit(axes[column])
        axes[column].set_title(f"{label}: memory, GiB", loc="left", fontsize=10, color=INK)
        if size == "1p7b":
            draw(axes[2], lines, lambda p: p.channels, "flops")
            axes[2].set_title("1.7B: TFLOP of a step", loc="left", fontsize=10, color=INK)
    for each in axes:
        each.set_xlabel("channels")
    finish(figure, folder / "channels.png")
    return found


def against_ranks(folder: Path, runs: list[Run]) -> list[Point]:
    figure = new_figure(
        13.5, 7.6, "Cost of a rank against ranks", "tp up to 8, fsdp beyond, two samples a tp group"
    )
    rows = figure.subplots(2, 3, sharex=True)
    found = []
    for row, (size, channels, label) in zip(
        rows, (("7b", 256, "7B, 256 channels"), ("26b", 512, "26B, 512 channels")), strict=True
    ):
        degrees = [(tp, 1) for tp in (1, 2, 4, 8)] + [(NODE, 2**k) for k in range(1, 8)]
        sides = (BASELINE, CROSS, ABSORBED)
        lines = [
            (side, [point(side, size, channels, tp, fsdp) for tp, fsdp in degrees])
            for side in sides
        ]
        found += [p for _, points in lines for p in points]
        for axes, quantity, what in zip(
            row, ("memory", "flops", "sent"), ("memory, GiB", "TFLOP of a step", "GiB sent"),
            strict=True,
        ):  # fmt: skip
            shown = lines
            if quantity == "sent":  # one process sends nothing
                shown = [(side, points[1:]) for side, points in lines]
            draw(axes, shown, lambda p: p.tp * p.fsdp, quantity)
            axes.axvline(NODE, color=INK, linewidth=0.7, linestyle=":")
            axes.set_title(f"{label}: {what}", loc="left", fontsize=10, color=INK)
        for side in SIDES:
            mine = [
                r for r in runs
                if (r.variant, r.size, r.channels) == (side.variant, size, channels)
            ]  # fmt: skip
            mark_runs(row[0], mine, side, lambda r: r.tp)
        limit(row[0], on_the_right=True)
    for axes in rows[1]:
        axes.set_xlabel("ranks")
    for axes in rows.flat:
        ticks = (1, 2, 4, 8, 16, 64, 256, 1024)
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
    finish(figure, folder / "ranks.png")
    return found


def against_size(folder: Path, runs: list[Run]) -> list[Point]:
    figure = new_figure(11, 4.6, "Cost of a rank against model size", "T = 8")
    axes = figure.subplots(1, 2)
    billions = {"1p7b": 1.7, "7b": 6.6, "15b": 14.7, "26b": 26.1}
    sides = (BASELINE, CROSS, ABSORBED)
    found, lines, labels = [], [], []
    for side in sides:
        for channels in (256, 512):
            points = [point(side, size, channels, 8) for size in billions]
            lines.append((side, points))
            labels.append(f"{side.name}, {channels}")
            if side is ABSORBED:  # two lines that coincide
                labels[-1] = "-C absorbed, 256 and 512" if channels == 512 else ""
            found += points
    for each, quantity, what in zip(
        axes, ("memory", "flops"), ("memory, GiB", "TFLOP of a step"), strict=True
    ):
        draw(each, lines, lambda p: billions[p.size], quantity, labels)
        each.set_title(what, loc="left", fontsize=10, color=INK)
        each.set_xlabel("parameters, billions")
    for side in SIDES:
        mine = [
            r for r in runs
            if r.variant == side.variant and r.tp == 8 and r.channels in (256, 512)
        ]  # fmt: skip
        mark_runs(axes[0], mine, side, lambda r: billions[r.size])
    limit(axes[0])
    finish(figure, folder / "size.png")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="where pictures are kept")
    parser.add_argument("--redraw", action="store_true", help="draw the folder's costs.csv again")
    options = parser.parse_args()
    folder = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    runs = read_runs(PAPER)
    if options.redraw:
        read_points(folder / "costs.csv")
    points = [
        *against_channels(folder, runs), *against_ranks(folder, runs), *against_size(folder, runs)
    ]  # fmt: skip
    if not options.redraw:
        write(folder, list(dict.fromkeys(points)))


def write(folder: Path, points: list[Point]) -> None:
    with (folder / "costs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(asdict(points[0])), lineterminator="\n")
        writer.writeheader()
        for p in points:
            values = asdict(p).items()
            writer.writerow({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in values})
    worst = {
        quantity: max(
            abs(getattr(p, f"{quantity}_on_paper") / getattr(p, quantity) - 1)
            for p in points
            if getattr(p, quantity)
        )
        for quantity in ("memory", "flops", "sent")
    }
    for quantity, error in worst.items():
        print(f"{quantity}: on paper within {error:.1%} of the simulation, {len(points)} points")
    about = {
        "benchmark": "costs",
        "method": "by simulation and on paper; nothing was run on an accelerator",
        "largest_difference_on_paper": worst,
        "machine": provenance(),
    }
    write_json(folder / "about.json", about)


if __name__ == "__main__":
    main()
