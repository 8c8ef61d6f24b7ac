"""What a task is: the protocol between the shared machinery and one domain's way of learning.

`trainer`, `pipeline`, `checking`, `planning` and the command line ask a `Task` and know none by
name; `sciml_dchag.tasks` lists those there are. A task opens its store (`TrainingStore`), which,
once there is a model, gives samples and errors (`TrainingData`).
"""

from __future__ import annotations

import abc
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from sciml_dchag.config import Recipe
from sciml_dchag.files.resumable import Progress
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.transformer import ChannelTransformer
from sciml_dchag.parallel.config import ParallelConfig
from sciml_dchag.parallel.runtime import Ranks
from sciml_dchag.training.batches import Batch, Samples
from sciml_dchag.training.checkpoint import Checkpoint
from sciml_dchag.training.evaluation import Evaluation

AnyBatch = TypeVar("AnyBatch", bound=Batch)
AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)

Fingerprint = dict[str, tuple[str, str]]
"""What must be the same on every rank, by what it is: (what this rank sees, the fix)."""
Attempt = Callable[[Callable[[], str]], bool]
"""Runs one check and records the sentence it returns or the error it raises; True if it passed."""
PlannedLoss = Callable[[ChannelTransformer, tuple[range, range], int, torch.dtype], Tensor]
"""Given a model, this rank's (inputs, outputs), a number of samples and a dtype, computes the loss
of samples whose values do not matter."""


class NothingToScoreError(ValueError):
    """A recipe or its store has no test data: training needs none, `evaluate` and `run` do."""


class TrainingData(Protocol[AnyBatch]):
    """Samples of a store and their errors, for the channels that this rank works on."""

    @property
    def samples(self) -> Samples[AnyBatch]:
        """To train on."""

    @property
    def validation(self) -> Samples[AnyBatch] | None:
        """To choose weights by; None for none."""

    def error(self, model: ChannelTransformer, batch: AnyBatch) -> Tensor:
        """Sum of a batch's weighted squared errors on this rank; the gradient is taken of it."""

    def weight(self, batch: AnyBatch) -> Tensor:
        """Sum of the weights in `error`, in float64; the loss is their ratio over all ranks."""

    def without(self, batch: AnyBatch, absent: list[bool]) -> AnyBatch:
        """Return a batch of which some samples count nothing."""

    def record(self) -> dict[str, Any]:
        """What a checkpoint keeps of the data: its field `data`, which the task reads again."""


class TrainingStore(Protocol):
    """A recipe's store, opened and found fitting, before there is a model."""

    def model_config(self) -> ModelConfig:
        """The architecture with what the data decide filled in."""

    def fingerprint(self) -> Fingerprint:
        """What of the store must be the same on all ranks."""

    def difference(self, checkpoint: Checkpoint) -> str | None:
        """How a checkpoint's run differs from one on this store, after `a run`; None if not."""

    def training_data(self, model: ChannelTransformer, ranks: Ranks) -> TrainingData[Any]:
        """Build samples and errors for the channels of a model that this rank works on."""


class Task(abc.ABC, Generic[AnyRecipe]):
    """A recipe and all that is done with it, from raw files to scores."""

    def __init__(self, recipe: AnyRecipe) -> None:
        self.recipe = recipe

    @abc.abstractmethod
    def prepare(self, progress: Progress | None, console: Callable[[str], None]) -> None:
        """Turn raw files into the store, or find the store there and fitting.

        Raises:
            ValueError, OSError: sources that cannot be prepared, or a store of other settings.
        """

    @abc.abstractmethod
    def open(self) -> TrainingStore:
        """Open the store that is trained on.

        Raises:
            ValueError: store and recipe do not fit together.
            FileNotFoundError: there is no store, or it has no statistics.
        """

    @abc.abstractmethod
    def expected_model(self) -> ModelConfig:
        """Return the architecture to be trained, from the store or from what will be in it.

        Raises:
            ValueError: there is no store yet and the recipe does not say its size.
        """

    @abc.abstractmethod
    def planned_loss(self) -> PlannedLoss:
        """Return the loss that a planned step computes; it can be pickled."""

    @abc.abstractmethod
    def check(self, attempt: Attempt, note: Callable[[str], None]) -> None:
        """Attempt, from metadata alone, all that would fail once work has started.

        Args:
            attempt: called with each check.
            note: called with a sentence that is worth knowing and no failure.
        """

    @abc.abstractmethod
    def check_scored(self) -> str:
        """Say what `evaluate` will score: as much as the recipe says, and its store if it is there.

        `run` asks before it begins and again before it trains, as `evaluate` comes last.

        Raises:
            NothingToScoreError: there are no test data.
            ValueError: there are, and none of them can be scored.
        """

    def predictions(self, run: Path) -> Path | None:
        """Where `predict` keeps what the model makes of the test data; None if it keeps nothing."""
        return None

    def predict(self, run: Path, progress: Progress | None) -> None:
        """Apply a run's model to the test data, into `predictions`."""

    @abc.abstractmethod
    def evaluate(
        self,
        run: Path,
        *,
        parallel: ParallelConfig | None = None,
        progress: Progress | None = None,
    ) -> Evaluation:
        """Score a run on its test data and write the evaluation into its folder.

        Args:
            run: the run folder with its checkpoints.
            parallel: degrees of `fsdp` and `tp`; `dp` takes the ranks that they leave.
            progress: called for what is scored.
        """

    @classmethod
    @abc.abstractmethod
    def describe(cls, checkpoint: Checkpoint, path: Path) -> dict[str, Any]:
        """What `inspect` shows of a checkpoint beside what all have."""


def attempt_scored(
    scored: Callable[[], str], attempt: Attempt, note: Callable[[str], None]
) -> None:
    """Attempt what `evaluate` asks of test data; note that there are none, as training needs none.

    Args:
        scored: `Task.check_scored`.
        attempt, note: as of `Task.check`.
    """
    try:
        said = scored()
    except NothingToScoreError as error:
        note(f"{error} `train` goes without.")
    except (ValueError, OSError) as error:
        failure = error

        def again() -> str:
            raise failure

        attempt(again)
    else:
        attempt(lambda: said)


def short_hash(*parts: bytes) -> str:
    """Hash bytes to a few digits that people can compare."""
    return hashlib.sha256(b"".join(parts)).hexdigest()[:8]
