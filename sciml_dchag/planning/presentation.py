"""A plan as tables and sentences; the figures are `layouts`'."""

from __future__ import annotations

from rich.table import Table

from sciml_dchag.planning.layouts import GIB, Demand, Layout, Machine, Plan

MOST_ROWS = 8


def layouts_table(layouts: list[Layout], title: str) -> Table:
    """One row a layout, the first few."""
    table = Table(title=title, title_justify="left")
    for name in ("dp x fsdp x tp", "micro-batch", "memory GiB", "sent GiB", "TFLOP", "s a step"):
        table.add_column(name, justify="right")
    table.add_column("samples/s", justify="right")
    for layout in layouts[:MOST_ROWS]:
        table.add_row(
            degrees(layout),
            str(layout.micro_batch),
            f"{layout.memory.total() / GIB:.1f}",
            f"{layout.sent.total() / GIB:.2f}",
            f"{layout.flops / 1e12:.1f}",
            f"{layout.seconds:.3g}",
            f"{layout.throughput:.3g}",
        )
    return table


def layout_table(layout: Layout, unused: int) -> Table:
    """Where one layout's memory goes, and what it sends.

    Args:
        layout: the layout.
        unused: estimate of `layouts.unused_memory`, which is known to a factor of about two.
    """
    table = Table(title=f"{degrees(layout)}, worst at: {layout.worst}", title_justify="left")
    table.add_column("memory of a rank")
    table.add_column("GiB", justify="right")
    for kind, size in layout.memory.most_common():
        if size:
            table.add_row(kind, f"{size / GIB:.2f}")
    table.add_section()
    allocated, most = layout.memory.total(), layout.memory.total() + 2 * unused
    table.add_row("[bold]allocated[/], which decides whether it fits", f"{allocated / GIB:.2f}")
    table.add_row("reserved, as the card shows it", f"{allocated / GIB:.1f} to {most / GIB:.1f}")
    table.add_section()
    table.add_row("[bold]sent by a rank in a step[/]", "")
    for name, size in layout.sent.most_common():
        if size:
            table.add_row(name, f"{size / GIB:.3f}")
    return table


def accounting(demand: Demand) -> str:
    """Say what a parameter takes in the memory that is planned."""
    moments = 12 if demand.averaged else 8
    averaged = ", its average" if demand.averaged else ""
    return (
        f"Memory has {4 + moments} bytes of a parameter at all times (float32 and two moments"
        f"{averaged}) and 4 of its gradient when it arises; FSDP shares out all of them."
    )


def degrees(layout: Layout) -> str:
    """Say a layout's degrees."""
    return f"{layout.dp} x {layout.fsdp} x {layout.tp}"


def why_too_large(layout: Layout, machine: Machine) -> str:
    """Say what of a layout does not fit."""
    kind, size = layout.memory.most_common(1)[0]
    return (
        f"{degrees(layout)} with micro-batches of {layout.micro_batch} needs "
        f"{layout.memory.total() / GIB:.1f} GiB of {machine.memory / GIB:g}: most is {kind}, "
        f"{size / GIB:.1f} GiB"
    )


def settings(layout: Layout) -> str:
    """The options that make a run take a layout."""
    values = {"dp": layout.dp, "fsdp": layout.fsdp, "tp": layout.tp}
    parallel = [f"--set parallel.{name}={degree}" for name, degree in values.items()]
    return " ".join([*parallel, f"--set training.micro_batch={layout.micro_batch}"])


def nothing_fits(plan: Plan, demand: Demand, machine: Machine) -> str:
    """Say that no layout fits, and what could be done."""
    least = plan.too_large[0]
    cures = ["ask for more ranks", "raise model.partitions, so that tp can be larger"]
    if demand.parallel.activation_checkpointing != "blocks":
        cures.insert(0, "set parallel.activation_checkpointing=blocks")
    if demand.model.implementation != "absorbed":
        cures.insert(0, "set model.implementation=absorbed")
    return f"No layout fits: {why_too_large(least, machine)}; {', or '.join(cures)}."
