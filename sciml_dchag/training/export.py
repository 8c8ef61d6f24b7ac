"""A trained model as one safetensors file, with all that is needed to use it, and back.

The file does not know how many ranks trained it. Beside the weights its metadata hold the
architecture with the channels' names, and mean, standard deviation and units of change.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from sciml_dchag.config import TrainingConfig, from_mapping
from sciml_dchag.files.atomic import written_beside
from sciml_dchag.files.checksums import DamagedError, crc_of
from sciml_dchag.files.places import Kind, check_place
from sciml_dchag.files.remote import in_short
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.transformer import ChannelTransformer, build_model
from sciml_dchag.parallel.build import build_on_ranks
from sciml_dchag.parallel.config import ParallelConfig
from sciml_dchag.parallel.runtime import Ranks
from sciml_dchag.training.checkpoint import (
    Checkpoint,
    find_checkpoint,
    last_checkpoint,
    load_tensors,
    read_checkpoint,
    record_of,
    require_version,
    tensors_of,
)
from sciml_dchag.training.precision import keep_as_trained

FORMAT = "sciml-dchag-model-2"
SUFFIX = ".safetensors"
"""What an exported file's name ends with."""

WITHOUT_EFFECT = ".attention.key.bias"
"""Ends names of weights that models of earlier versions had, and which a softmax does not see."""


def _objection(path: Path) -> str | None:
    try:
        with safetensors.safe_open(path, "pt") as file:
            found = (file.metadata() or {}).get("format")
    except (safetensors.SafetensorError, OSError):
        return "is no safetensors file"
    return None if found == FORMAT else "has no format of this package"


MODEL = Kind(name="an exported model", objection=_objection)


def export(
    checkpoint: str | os.PathLike[str], out: str | os.PathLike[str], *, overwrite: bool = False
) -> Path:
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
    out = Path(out)
    require_place(out, overwrite)
    path = find_checkpoint(Path(checkpoint))
    saved = read_checkpoint(path)
    tensors = tensors_of(build_model(from_mapping(ModelConfig, saved.model_config)))
    load_tensors(path, {"average" if saved.averaged else "model": tensors})
    return write_model(out, saved, tensors)


def require_place(out: Path, overwrite: bool) -> None:
    """Refuse a place where no model can be written, before work starts.

    Raises:
        FileExistsError: it is taken and `overwrite` is off.
        FileNotFoundError: its folder is not there.
        ValueError: another suffix.
    """
    if out.suffix != SUFFIX:
        raise ValueError(f"{out} must end in .safetensors to say what is written: rename it.")
    check_place(out, MODEL, overwrite)
    if not out.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {out.parent} for {out.name}: make it first.")


def write_model(out: Path, saved: Checkpoint, tensors: dict[str, Tensor]) -> Path:
    """Write weights and what lies beside them, all of it or nothing.

    Args:
        out: as `require_place` allows.
        saved: what lies beside the weights.
        tensors: of the model that `saved` describes, by name.

    Raises:
        OSError: no room.
    """
    record = json.dumps(dataclasses.asdict(saved))
    sums = {name: _crc_of(tensor) for name, tensor in tensors.items()}
    metadata = {
        "format": FORMAT,
        "checkpoint": record,
        "crc32c": json.dumps(
            {
                "format": crc_of(FORMAT.encode()),
                "checkpoint": crc_of(record.encode()),
                "tensors": sums,
            }
        ),
    }
    try:
        with written_beside(out) as partial:
            safetensors.torch.save_file(tensors, partial, metadata=metadata)
    except safetensors.SafetensorError as error:
        raise OSError(
            f"{out} cannot be written ({error}): make room, or choose another folder."
        ) from error
    return out


def _crc_of(tensor: Tensor) -> int:
    return crc_of(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())


def damages(path: Path) -> Iterator[str]:
    """Read all of an exported model and yield a sentence for what is not as it was written."""
    try:
        model, _ = from_pretrained(path)
    except ValueError as error:
        yield str(error)
        return
    del model


@dataclass(frozen=True)
class SavedModel:
    """A trained model on disk: a checkpoint, or an exported file."""

    path: Path
    """The checkpoint's folder, or the file."""
    checkpoint: Checkpoint
    """What lies beside the tensors."""

    @property
    def exported(self) -> bool:
        """Whether it is one file."""
        return self.path.suffix == SUFFIX

    @property
    def latest(self) -> tuple[Path, Checkpoint]:
        """How far training went: the run's last checkpoint beside the best one, else itself."""
        beside = None if self.exported else last_checkpoint(self.path.parent)
        if self.path.name != "best" or beside is None:
            return self.path, self.checkpoint
        return beside, read_checkpoint(beside)

    def ready(
        self,
        ranks: Ranks,
        training: TrainingConfig,
        parallel: ParallelConfig | None = None,
        config: ModelConfig | None = None,
    ) -> ChannelTransformer:
        """Build the model on this rank's device, or its share of it, for predictions.

        Args:
            ranks: this process and the others; all call together.
            training: of the run, which says what stays in float32.
            parallel: how blocks are computed; the defaults if None.
            config: the architecture, where it is another one than was trained, with weights of the
                same names.

        Raises:
            ValueError: damaged, or weights of another model.
        """
        config = config or from_mapping(ModelConfig, self.checkpoint.model_config)
        model = build_on_ranks(config, None, ranks, parallel or ParallelConfig())
        self.load_into(model)
        keep_as_trained(model, config, training)
        return model.eval()

    def load_into(self, model: nn.Module, *, alone: bool = False) -> None:
        """Fill a model, or this rank's share of it, with the weights to be used.

        Args:
            model: of this architecture.
            alone: whether this rank reads by itself; else all ranks call together.

        Raises:
            ValueError: damaged, or weights of another model.
        """
        tensors = tensors_of(model)
        if not self.exported:
            kind = "average" if self.checkpoint.averaged else "model"
            load_tensors(self.path, {kind: tensors}, alone=alone)
            return
        try:
            with safetensors.safe_open(self.path, "pt") as file:
                names = {name for name in file.keys() if not name.endswith(WITHOUT_EFFECT)}  # noqa: SIM118
                if names != set(tensors):
                    raise ValueError("other weights")
                sums = _sums_of(file.metadata() or {})
                for name, own in tensors.items():
                    whole = file.get_tensor(name)
                    if sums and sums["tensors"][name] != _crc_of(whole):
                        raise DamagedError(
                            f"{self.path} is damaged, its tensor {name} has changed: copy it "
                            f"again, or export it again."
                        )
                    whole = whole.to(own.device)
                    if isinstance(own, DTensor):  # every rank reads the file, and keeps its share
                        whole = distribute_tensor(
                            whole, own.device_mesh, own.placements, src_data_rank=None
                        )
                    own.copy_(whole)
        except DamagedError:
            raise
        except (
            RuntimeError,
            ValueError,
            KeyError,
            TypeError,
            safetensors.SafetensorError,
        ) as error:
            raise _damaged(self.path, error) from error


def _sums_of(metadata: dict[str, str]) -> dict[str, Any]:
    """Checksums of an exported file's record and tensors; none where it was written without."""
    found = json.loads(metadata.get("crc32c", "{}"))
    if not isinstance(found, dict):
        raise ValueError("no checksums")
    return found


def find_model(path: str | os.PathLike[str]) -> SavedModel:
    """Find what a run folder, a checkpoint or an exported file holds, reading no weights.

    Raises:
        FileNotFoundError: there is none.
        ValueError: damaged, or of another kind.
    """
    place = Path(path)
    if place.suffix != SUFFIX:
        found = find_checkpoint(place)
        return SavedModel(found, read_checkpoint(found))
    if not place.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}: make one with `export`.")
    try:
        with safetensors.safe_open(place, "pt") as file:
            metadata = file.metadata() or {}
        sums, written = _sums_of(metadata), metadata.get("format")
        # Files of before have no sum of the format, and those of others none at all.
        if sums.get("format") not in (None, crc_of(str(written).encode())):
            raise _damaged(place, ValueError("its format has changed"))
        require_version(place, written, FORMAT, "model")
        if sums and sums["checkpoint"] != crc_of(metadata["checkpoint"].encode()):
            raise _damaged(place, ValueError("its record has changed"))
        if strange := metadata.keys() - {"format", "checkpoint", "crc32c"}:
            raise _damaged(place, ValueError(f"it has a field {min(strange)!r}"))
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(
            f"{path} is no safetensors file ({in_short(error)}): export it again."
        ) from error
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise _damaged(place, error) from error
    try:
        return SavedModel(place, record_of(json.loads(metadata["checkpoint"])))
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(place, error) from error


def from_pretrained(path: str | os.PathLike[str]) -> tuple[ChannelTransformer, Checkpoint]:
    """Read a trained model, on the CPU, ready to be used, and what it was trained on.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a damaged file, or one of another kind.
    """
    saved = find_model(path)
    try:
        model = build_model(from_mapping(ModelConfig, saved.checkpoint.model_config)).eval()
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise _damaged(saved.path, error) from error
    saved.load_into(model)
    return model, saved.checkpoint


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"{path} does not hold the model that it describes ({type(error).__name__}): export it "
        f"again."
    )
