"""The log of a run: `log.jsonl`, `stability.jsonl`, TensorBoard events and lines on the console.

Training hands over records; what is shown where is decided here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from torch.utils.tensorboard import SummaryWriter

from sciml_dchag.files.atomic import write_text

WATCHED = "stability.jsonl"
"""In the run folder: one line for each watched step."""


class Logbook:
    """Writes each record as one line of `log.jsonl` and to TensorBoard, and to the console.

    Args:
        folder: the run folder.
        first_step: records of this step and later ones, left by an interrupted run, are dropped,
            so that a resumed run's log has each step once.
        console: called with a line of text for each record; None is silent.
    """

    def __init__(
        self, folder: Path, *, first_step: int = 0, console: Callable[[str], None] | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "log.jsonl"
        self._file = _continued(self.path, first_step)
        self._watched = _continued(folder / WATCHED, first_step)
        self._said: set[str] = set()
        self._board = SummaryWriter(folder / "tensorboard", purge_step=first_step or None)
        self._console = console

    def record(self, step: int, **values: float) -> None:
        """Record scalars after an optimizer step."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        if self._console is not None:
            shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
            self._console(f"step {step:>6}  {shown}")

    def watched(self, step: int, record: dict[str, Any], **summary: float) -> None:
        """Record what was seen of a watched step; say the first warning of each kind.

        Args:
            step: that was watched.
            record: plain values, with `warnings`, each of a `kind` and a `text`.
            summary: scalars for TensorBoard.
        """
        self._watched.write(json.dumps({**record, "step": step}) + "\n")
        for name, value in summary.items():
            self._board.add_scalar(name, value, step)
        for warned in record["warnings"]:
            if self._console is not None and warned["kind"] not in self._said:
                self._console(f"step {step:>6}  WARNING  {warned['text']}")
            self._said.add(warned["kind"])

    def __enter__(self) -> Logbook:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()
        self._watched.close()
        self._board.close()


def _continued(path: Path, first_step: int) -> TextIO:
    """Open a log to append to, without the records of steps that come again."""
    kept = [r for r in read_log(path) if r["step"] <= first_step] if first_step else []
    # Whole or not at all: a kill in between would lose the log of all steps before.
    write_text(path, "".join(json.dumps(record) + "\n" for record in kept))
    return path.open("a", encoding="utf-8", buffering=1)


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read the records of a log; a last line cut short by a crash is left out.

    Raises:
        ValueError: a line before the last is no record.
    """
    if not path.is_file():
        return []
    records: list[dict[str, Any]] = []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError):
            record = None
            if number == len(lines):
                break
        if not isinstance(record, dict) or not isinstance(record.get("step"), int):
            raise ValueError(
                f"{path} is damaged in line {number}, which is no record of a step: remove that "
                f"line, or the file, which training does not need."
            )
        records.append(record)
    return records
