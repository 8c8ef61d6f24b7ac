"""A trained model as one safetensors file, with all that is needed to use it, and back.

The file does not know how many ranks trained it. Beside the weights its metadata hold the
architecture with the channels' names, and mean, standard deviation and units of change.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import safetensors
import safetensors.torch

from sciml_dchag.config import from_mapping
from sciml_dchag.files.atomic import written_beside
from sciml_dchag.files.places import Kind, check_place
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.transformer import ChannelTransformer, build_model
from sciml_dchag.training.checkpoint import (
    Checkpoint,
    find_checkpoint,
    load_tensors,
    read_checkpoint,
    require_version,
    tensors_of,
)

FORMAT = "sciml-dchag-model-2"


def _objection(path: Path) -> str | None:
    try:
        with safetensors.safe_open(path, "pt") as file:
            found = (file.metadata() or {}).get("format")
    except (safetensors.SafetensorError, OSError):
        return "is no safetensors file"
    return None if found == FORMAT else "has no format of this package"


MODEL = Kind(name="an exported model", objection=_objection)


def export(checkpoint: Path, out: Path, *, overwrite: bool = False) -> Path:
    """Write a checkpoint's weights, averaged ones where there are any, all of them or nothing.

    Args:
        checkpoint: a checkpoint or a run folder.
        out: a file that ends in .safetensors.
        overwrite: replace what is there.

    Raises:
        FileNotFoundError: no checkpoint.
        FileExistsError: `out` exists and `overwrite` is off.
        ValueError: another suffix, or a damaged checkpoint.
    """
    if out.suffix != ".safetensors":
        raise ValueError(f"{out} must end in .safetensors to say what is written: rename it.")
    check_place(out, MODEL, overwrite)
    if not out.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {out.parent} for {out.name}: make it first.")
    path = find_checkpoint(checkpoint)
    saved = read_checkpoint(path)
    tensors = tensors_of(build_model(from_mapping(ModelConfig, saved.model_config)))
    load_tensors(path, {"average" if saved.averaged else "model": tensors})
    metadata = {"format": FORMAT, "checkpoint": json.dumps(dataclasses.asdict(saved))}
    try:
        with written_beside(out) as partial:
            safetensors.torch.save_file(tensors, partial, metadata=metadata)
    except safetensors.SafetensorError as error:
        raise OSError(
            f"{out} cannot be written ({error}): make room, or choose another folder."
        ) from error
    return out


def from_pretrained(path: str | os.PathLike[str]) -> tuple[ChannelTransformer, Checkpoint]:
    """Read an exported model, on the CPU, ready to forecast, and what it was trained on.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a damaged file, or one of another kind.
    """
    saved = read_exported(path)
    try:
        with safetensors.safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        model = build_model(from_mapping(ModelConfig, saved.model_config)).eval()
        model.load_state_dict(tensors)
    except (safetensors.SafetensorError, TypeError, ValueError, RuntimeError) as error:
        raise _not_what_it_says(path, error) from error
    return model, saved


def read_exported(path: str | os.PathLike[str]) -> Checkpoint:
    """Read what an exported model was trained on, and no tensor.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a damaged file, or one of another kind.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}: make one with `export`.")
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file ({error}): export it again.") from error
    require_version(Path(path), metadata.get("format"), FORMAT, "model")
    try:
        return Checkpoint(**json.loads(metadata["checkpoint"]))
    except (KeyError, TypeError, ValueError) as error:
        raise _not_what_it_says(path, error) from error


def _not_what_it_says(path: str | os.PathLike[str], error: Exception) -> ValueError:
    return ValueError(
        f"{path} does not hold the model that it describes ({type(error).__name__}): export it "
        f"again."
    )
