"""What the training loop asks of a kind of recipe: samples, errors, and what a checkpoint keeps.

`forecasting` and `masking` answer; `trainer` knows neither weather nor plants.
"""

from __future__ import annotations

import hashlib
from typing import Any, Protocol, TypeVar

from torch import Tensor

from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.transformer import ChannelTransformer
from sciml_dchag.parallel.runtime import Ranks
from sciml_dchag.training.batches import Batch, Samples
from sciml_dchag.training.checkpoint import Checkpoint

AnyBatch = TypeVar("AnyBatch", bound=Batch)

Fingerprint = dict[str, tuple[str, str]]
"""What a rank sees that all must see alike, by what it is, and the cure of a difference."""


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
        """What a checkpoint keeps of the data: fields of `Checkpoint`."""


class TrainingStore(Protocol):
    """A recipe's store, opened and found fitting, before there is a model."""

    def model_config(self) -> ModelConfig:
        """The architecture with what the data decide filled in."""

    def fingerprint(self) -> Fingerprint:
        """What all ranks must see alike of the store."""

    def difference(self, checkpoint: Checkpoint) -> str | None:
        """How a checkpoint's run differs from one on this store, after `a run`; None if not."""

    def training_data(self, model: ChannelTransformer, ranks: Ranks) -> TrainingData[Any]:
        """Build samples and task for the channels of a model that this rank works on."""


def short_hash(*parts: bytes) -> str:
    """Hash bytes to a few digits that people can compare."""
    return hashlib.sha256(b"".join(parts)).hexdigest()[:8]
