"""What masked autoencoders of both wings share: the objective of a recipe, errors and weights."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from sciml_dchag.config.common import MaskingConfig
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.transformer import ChannelTransformer
from sciml_dchag.objectives import masked
from sciml_dchag.objectives.masked import MaskedObjective
from sciml_dchag.parallel.apply import own_channels
from sciml_dchag.parallel.runtime import Ranks
from sciml_dchag.training.batches import MaskedBatch
from sciml_dchag.training.task import PlannedLoss


def masked_objective(seed: int, task: MaskingConfig, config: ModelConfig) -> MaskedObjective:
    """Build the objective of a recipe for the channels and image of a model.

    Raises:
        ValueError: nothing would be hidden, or nothing would be seen.
    """
    return MaskedObjective(
        seed=seed,
        image_size=config.image_size,
        patch=config.patch,
        channels=len(config.input_channels),
        mask_ratio=task.mask_ratio,
        channel_mask_ratio=task.channel_mask_ratio,
        channel_groups=task.channel_groups,
    )


def planned_loss(task: MaskingConfig) -> PlannedLoss:
    """Return the loss of a planned step: the error of what is hidden."""
    return partial(
        masked.planned_loss,
        mask_ratio=task.mask_ratio,
        channel_mask_ratio=task.channel_mask_ratio,
    )


class MaskedData:
    """Errors and weights of masked samples, for the channels that this rank works on.

    Args:
        seed: of the masks.
        task: what is hidden.
        model: on this rank.
        ranks: this process and the others.
    """

    def __init__(
        self, seed: int, task: MaskingConfig, model: ChannelTransformer, ranks: Ranks
    ) -> None:
        self.objective = masked_objective(seed, task, model.config)
        self.objective.complete = ranks.complete
        inputs, outputs = own_channels(model, ranks.mesh)
        self.objective.own_inputs, self.objective.own_outputs = inputs, outputs

    def error(self, model: ChannelTransformer, batch: MaskedBatch) -> Tensor:
        """Sum the weighted squared errors over what is hidden."""
        return self.objective.squared_errors(model, *batch.tensors)[0]

    def weight(self, batch: MaskedBatch) -> Tensor:
        """Sum the weights of what is hidden and known."""
        return self.objective.weights(*batch.tensors)[0]

    def without(self, batch: MaskedBatch, absent: list[bool]) -> MaskedBatch:
        """Weight the pixels of some samples by nothing."""
        return batch.without(absent)
