"""The folder of objects that `predict` writes with a detector, and what `inspect` shows of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sciml_dchag.files.places import folder_kind
from sciml_dchag.files.tables import read_text_table

TABLE, PICTURE = "boxes.csv", "objects.png"
FOLDER = folder_kind("a folder of objects", contains=TABLE, holds=(PICTURE,))


def describe(path: str) -> dict[str, Any] | None:
    """What `inspect` shows of a folder of objects; None where `path` is none."""
    folder = Path(path)
    if not (folder / TABLE).is_file() or FOLDER.objection(folder) is not None:
        return None
    table = read_text_table(folder / TABLE)
    if missing := {"time", "kind", "probability"} - set(table.columns):
        raise ValueError(f"{folder / TABLE} has no column {min(missing)!r}: predict again.")
    times = sorted(set(table["time"]))
    return {
        "kind": "objects found by a network",
        "objects": len(table),
        "of": sorted(set(table["kind"])),
        "times": f"{len(times)}, {times[0]} to {times[-1]}" if times else "0",
    }
