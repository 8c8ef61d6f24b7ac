"""Checkpoints: one file that holds all that training and forecasting need, never half-written.

A file is written beside its place and renamed. It is read without unpickling code. Everything in
it is keyed by channel names, so that it opens with the recipe or without.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sciml_dchag._version import __version__

FORMAT = "sciml-dchag-checkpoint-1"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What training leaves behind after a step."""

    step: int
    """Optimizer steps done."""
    recipe: dict[str, Any]
    """The recipe as plain values, `config.to_mapping`."""
    model_config: dict[str, Any]
    """The architecture with channels and image size filled in."""
    model: dict[str, Tensor]
    """Weights."""
    ema: dict[str, Tensor] | None
    """Averaged weights; they are the ones to forecast with where they are there."""
    optimizer: dict[str, Any]
    """AdamW's state."""
    complete: bool
    """Whether training had ended, at its last step or early."""
    best_validation: float
    """Smallest validation loss so far; infinite before the first."""
    validations_since_best: int
    """Validations without improvement."""
    channels: list[str]
    """State channels, in order."""
    mean: list[float]
    """Training mean by state channel, in its units."""
    std: list[float]
    """Training standard deviation by state channel."""
    change_std: list[float] | None
    """Unit of a residual forecast by target channel; None for direct output."""
    grid_sha256: str
    """Grid of the training store."""
    statistics_period: list[str]
    """First and last time that mean and std were computed over."""
    step_hours: int
    """Time step of the training store."""

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights to forecast with."""
        return self.model if self.ema is None else self.ema


def save_checkpoint(checkpoint: Checkpoint, folder: Path) -> Path:
    """Write `step-XXXXXXX.pt` into a folder, all of it or nothing."""
    path = folder / f"step-{checkpoint.step:07d}.pt"
    _write(checkpoint, path)
    return path


def save_best(checkpoint: Checkpoint, folder: Path) -> Path:
    """Write `best.pt`, the weights with the smallest validation loss."""
    path = folder / "best.pt"
    _write(checkpoint, path)
    return path


def _write(checkpoint: Checkpoint, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = {f.name: getattr(checkpoint, f.name) for f in dataclasses.fields(checkpoint)}
    partial = path.with_name(path.name + ".partial")
    try:
        torch.save({"format": FORMAT, "version": __version__, **fields}, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint file, or the best or else the last one of a run folder.

    Raises:
        FileNotFoundError: there is none.
        ValueError: not a checkpoint of this package, or a damaged file.
    """
    path = find_checkpoint(Path(path))
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises RuntimeError, EOFError, UnpicklingError and others
        raise ValueError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}): it is damaged or of "
            f"another kind, so name another one or train again."
        ) from error
    if not isinstance(content, Mapping) or content.get("format") != FORMAT:
        raise ValueError(f"{path} is no checkpoint of this package ({FORMAT} is needed).")
    known = {f.name for f in dataclasses.fields(Checkpoint)}
    return Checkpoint(**{key: value for key, value in content.items() if key in known})


def find_checkpoint(path: Path) -> Path:
    """Resolve a file, a run folder or its `checkpoints` folder to a checkpoint file.

    Raises:
        FileNotFoundError: there is none.
    """
    if path.is_file():
        return path
    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    if (folder / "best.pt").is_file():
        return folder / "best.pt"
    if last := last_checkpoint(folder):
        return last
    raise FileNotFoundError(
        f"There is no checkpoint in {path}: train first with `sciml-dchag train RECIPE`."
    )


def last_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint of the latest step in a folder, if any."""
    found = [p for p in folder.glob("step-*.pt") if re.fullmatch(r"step-\d+\.pt", p.name)]
    return max(found, key=lambda p: int(p.stem.removeprefix("step-")), default=None)


def drop_older(folder: Path, keep: Path) -> None:
    """Remove the other numbered checkpoints of a folder."""
    for path in folder.glob("step-*.pt"):
        if path != keep:
            path.unlink()
