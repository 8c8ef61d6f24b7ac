"""Checkpoints: a folder each, written in the background by all ranks, never half-written.

Tensors are PyTorch's Distributed Checkpoint: each rank writes its shards, and any number of ranks
reads what it needs of them. What is beside the tensors is `checkpoint.json`, which is written last;
then the folder gets its name. Everything is keyed by parameter and channel names.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import typing
import warnings
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save

from sciml_dchag._version import __version__
from sciml_dchag.config import from_mapping
from sciml_dchag.files.checksums import DamagedError, require_whole
from sciml_dchag.parallel.apply import plain_name
from sciml_dchag.parallel.runtime import TIMEOUT, Ranks
from sciml_dchag.training.safe_metadata import SafeReader, SummingWriter, seal_checkpoint

FORMAT = "sciml-dchag-checkpoint-3"
RECORD = "checkpoint.json"
"""The file that says what a checkpoint is; a folder without it is no checkpoint."""
_NAME = re.compile(r"step-\d+")
_KEPT = 2
"""Checkpoints of the last steps that are kept, beside the best one: a disk may damage one."""

# Where there is one process, what DCP says of that is no news; and it warns of its own internals.
warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable or uninitialized")
warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed.checkpoint")


Record = TypeVar("Record")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What training leaves behind after a step, without the tensors."""

    step: int
    """Optimizer steps done."""
    recipe: dict[str, Any]
    """The recipe as plain values, `config.to_mapping`."""
    model_config: dict[str, Any]
    """The architecture with channels and image size filled in."""
    averaged: bool
    """Whether averaged weights are there; they are the ones to forecast with."""
    complete: bool
    """Whether training had ended, at its last step or early."""
    best_validation: float | None
    """Smallest validation loss so far; None before the first."""
    validations_since_best: int
    """Validations without improvement."""
    data: dict[str, Any]
    """What the task keeps of its data, `TrainingData.record`; read again by `read_data`."""
    skipped_steps: int = 0
    """Steps so far whose batch had nothing to score, which changed nothing."""
    loss_scale: float = 1.0
    """What the loss is multiplied by before its gradient is taken; not 1 in float16 alone."""
    loss_scale_steps: int = 0
    """Steps since the scale was changed."""
    overflowed_steps: int = 0
    """Steps so far whose gradient was not finite at their loss scale, which changed nothing."""

    @property
    def kind(self) -> str:
        """The task's kind, one of `sciml_dchag.tasks.TASKS`."""
        return str(self.recipe["task"]["kind"])

    @property
    def imported(self) -> str | None:
        """What weights were imported from; None for those that this package has trained."""
        return self.data.get("imported")

    def read_data(self, record: type[Record], path: Path) -> Record:
        """Read what the task keeps of its data as the dataclass that it defines for it.

        Args:
            record: the dataclass.
            path: of the checkpoint, for a message.

        Raises:
            ValueError: a key is missing, unknown or of another kind, or the weights were imported.
        """
        if self.imported is not None:
            raise ValueError(
                f"{path} has weights imported from {self.imported} and no statistics of data, "
                f"which this needs: train from it with training.start_from={path}."
            )
        try:
            return from_mapping(record, self.data)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{path} does not say of its data what its task {self.kind!r} needs: it is damaged "
                f"or of another version, so name another one or train again."
            ) from error

    @property
    def device(self) -> str:
        """The run's `parallel.device`."""
        return str(self.recipe.get("parallel", {}).get("device", "auto"))


class CheckpointWriter:
    """Writes checkpoints in the background, one at a time, and gives a finished one its name.

    Every rank makes every call. Leaving the context waits for the last one.
    """

    def __init__(self, folder: Path, ranks: Ranks) -> None:
        self.folder, self.ranks = folder, ranks
        # The background thread must not speak where the training loop speaks.
        alone = ranks.mesh is None
        old = folder / "best.old"
        if ranks.first and (old / RECORD).is_file() and not (folder / "best").exists():
            old.rename(folder / "best")  # killed between the two renames of `_install`
        self._group = None if alone else dist.new_group(backend="gloo", timeout=TIMEOUT)
        self._pending: tuple[Future[Any], str] | None = None

    def save(self, name: str, checkpoint: Checkpoint, tensors: dict[str, Any]) -> None:
        """Start writing; the tensors are copied before the call returns.

        Args:
            name: `best`, or `step` for a name with the number of the step.
            checkpoint: what is beside the tensors.
            tensors: by name, this rank's shards; their copies are what is written.
        """
        self.finish()
        name = f"step-{checkpoint.step:07d}" if name == "step" else name
        place = self._partial(name)
        if self.ranks.first:
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
        self.ranks.wait()
        written = async_save(
            tensors,
            storage_writer=SummingWriter(place),
            process_group=self._group,
            no_dist=self.ranks.mesh is None,
        )
        assert isinstance(written, Future)
        # The first rank has the last word: it is done when all ranks have written.
        installed = self._install_when(written, name, checkpoint) if self.ranks.first else written
        self._pending = installed, name

    def finish(self) -> None:
        """Wait for what is being written.

        Raises:
            OSError: it could not be written.
        """
        if self._pending is None:
            return
        installed, name = self._pending
        self._pending = None
        try:
            installed.result()
        except (Exception, CheckpointException) as error:
            raise OSError(
                f"{self.folder / name} cannot be written ({type(error).__name__}): make room or "
                f"fix the disk, and resume from the checkpoint before."
            ) from error
        self.ranks.wait()

    def _install_when(self, written: Future[Any], name: str, checkpoint: Checkpoint) -> Future[Any]:
        installed: Future[Any] = Future()

        def install(written: Future[Any]) -> None:
            try:
                written.result()
                self._install(name, checkpoint)
                installed.set_result(None)
            except BaseException as error:  # handed to whoever waits
                installed.set_exception(error)

        written.add_done_callback(install)
        return installed

    def _install(self, name: str, checkpoint: Checkpoint) -> None:
        """Complete a folder and give it its name, in place of an older one."""
        place, path = self._partial(name), self.folder / name
        values = {"format": FORMAT, "version": __version__, **dataclasses.asdict(checkpoint)}
        (place / RECORD).write_text(json.dumps(values, indent=1), encoding="utf-8")
        seal_checkpoint(place)
        old = self.folder / f"{name}.old"
        if path.exists():
            if old.exists():  # killed while it was removed
                shutil.rmtree(old)
            path.rename(old)
        place.rename(path)
        shutil.rmtree(old, ignore_errors=True)
        if name.startswith("step-"):
            self._remove_all_but(_KEPT)

    def _remove_all_but(self, count: int) -> None:
        """Remove all but the last checkpoints of steps, and what is left of removed ones."""
        kept = sorted(_steps(self.folder), key=_step_of)[-count:]
        for path in _numbered(self.folder):
            if path not in kept:
                (path / RECORD).unlink(missing_ok=True)  # no checkpoint, should this be interrupted
                shutil.rmtree(path)

    def _partial(self, name: str) -> Path:
        return self.folder / f"{name}.partial"

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # After an error other ranks may not come; what they wait for would wait for ever.
        if error is None or self.ranks.mesh is None:
            self.finish()


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Return a model's parameters under the names that they have on one process."""
    return {plain_name(name): p.detach() for name, p in model.named_parameters()}


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read what is beside the tensors of a checkpoint, or of the best or last one of a run.

    Raises:
        FileNotFoundError: there is none.
        ValueError: not a checkpoint of this package, or a damaged one.
    """
    folder = find_checkpoint(Path(path))
    require_whole(folder, lambda name: name == RECORD)
    try:
        content = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise _unreadable(folder, error) from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{folder / RECORD} holds no `key: value` pairs: it is damaged.")
    require_version(folder, content.get("format"), FORMAT, "checkpoint")
    try:
        return record_of(content)
    except (TypeError, ValueError) as error:
        raise _unreadable(folder, error) from error


def record_of(content: Mapping[str, Any]) -> Checkpoint:
    """Build a checkpoint's record from plain values; keys of later versions are left out.

    Raises:
        ValueError: a value of another kind, or a key that is missing.
    """
    known = {f.name for f in dataclasses.fields(Checkpoint)}
    kinds = typing.get_type_hints(Checkpoint)
    values = {key: value for key, value in content.items() if key in known}
    for key, value in values.items():
        kind = typing.get_origin(kinds[key]) or kinds[key]
        kind = float | int | None if key == "best_validation" else kind
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
            raise ValueError(f"its {key} is no {kind}")
    try:
        found = Checkpoint(**values)
    except TypeError as error:
        raise ValueError(str(error)) from error
    if not isinstance(task := found.recipe.get("task"), Mapping) or "kind" not in task:
        raise ValueError("its recipe has no task")
    return found


def require_version(path: Path, found: object, needed: str, what: str) -> None:
    """Refuse a file of another format, saying where it is of a newer version.

    Raises:
        ValueError: `found` is not the format `needed`, NAME-NUMBER.
    """
    if found == needed:
        return
    name, _, number = needed.rpartition("-")
    of_version = re.fullmatch(rf"{re.escape(name)}-(\d+)", str(found))
    if of_version and int(of_version[1]) > int(number):
        raise ValueError(
            f"{path} was written by a newer version of sciml-dchag ({found}; this one, "
            f"{__version__}, reads {needed}): upgrade with `pip install -U sciml-dchag`."
        )
    raise ValueError(
        f"{path} has format {found!r} where a {what} of this package ({needed}) is needed: name "
        f"another one, or train again."
    )


def load_tensors(path: Path, tensors: dict[str, Any], *, alone: bool = False) -> None:
    """Fill tensors, or this rank's shards of them, from a checkpoint folder.

    Args:
        path: the folder.
        tensors: by name; filled in place.
        alone: whether this rank reads by itself; else all ranks call together.

    Raises:
        ValueError: a damaged checkpoint, or one that lacks a tensor.
    """
    try:
        reader = SafeReader(path)
        reader.read_metadata()  # of whose damage `load` prints a traceback
        load(tensors, storage_reader=reader, no_dist=alone or not dist.is_initialized())
    except DamagedError:
        raise
    except (Exception, CheckpointException) as error:  # the latter is no Exception
        for failure in getattr(error, "failures", {}).values():
            if isinstance(failure[0], DamagedError):
                raise DamagedError(str(failure[0])) from error
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: BaseException) -> ValueError:
    return ValueError(
        f"{path} cannot be read as a checkpoint ({type(error).__name__}): it is damaged or of "
        f"another kind, so name another one or train again."
    )


def find_checkpoint(path: Path) -> Path:
    """Resolve a checkpoint's folder, a run folder or its `checkpoints` folder to a checkpoint.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the one that would be taken has lost its record.
    """
    if (path / RECORD).is_file():
        return path
    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    if (folder / "best").is_dir():
        return _with_record(folder / "best")
    if last := last_checkpoint(folder):
        return last
    raise FileNotFoundError(
        f"There is no checkpoint in {path}: train first with `sciml-dchag train RECIPE`."
    )


def last_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint of the latest step in a folder, if any.

    Raises:
        ValueError: the latest has lost its record; of earlier ones it is removed first.
    """
    last = max(_numbered(folder), key=_step_of, default=None)
    return None if last is None else _with_record(last)


def _with_record(path: Path) -> Path:
    if (path / RECORD).is_file():
        return path
    raise ValueError(
        f"{path} has no {RECORD}, so that it is damaged: copy it again, or remove it so that "
        f"another checkpoint is used."
    )


def _numbered(folder: Path) -> list[Path]:
    return [path for path in folder.glob("step-*") if _NAME.fullmatch(path.name)]


def _steps(folder: Path) -> list[Path]:
    return [path for path in _numbered(folder) if (path / RECORD).is_file()]


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))
