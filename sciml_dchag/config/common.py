"""What all recipes have: a name, a model, how it is learnt, and on how many ranks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from sciml_dchag.config.mapping import changed, shown
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.parallel.config import ParallelConfig

MOST_NAME_BYTES = 200
"""Longest name of a run: file systems take 255, with a suffix."""


MOST_SAMPLES = 10**6
"""Most samples of a batch: larger numbers are slips, and would be listed one by one."""
MOST_WORKERS = 1024
FROM_DATA = (
    "input_channels", "output_channels", "attributes", "wraps", "wavelength_nm", "image_size",
)  # fmt: skip
"""Knobs of a model that no recipe sets."""


def require_at_least(least: int, key: str, value: float, most: float = math.inf) -> None:
    """Refuse a value out of its bounds, or one that is no finite number.

    Raises:
        ValueError: the key, the value and the bounds.
    """
    if not least <= value < math.inf:
        raise ValueError(f"{key} is {shown(value)}: it must be at least {least}.")
    if value > most:
        raise ValueError(f"{key} is {shown(value)}: it must be from {least} to {most}.")


def require_period_to_validate(period: object, every: int) -> None:
    """Refuse validations without a period of their own: none would ever be made.

    Raises:
        ValueError: `training.validate_every` is set and `data.validation` is not.
    """
    if every and period is None:
        raise ValueError(
            f"training.validate_every is {every} and data.validation is null: set data.validation "
            f"to a period, or validate_every to 0."
        )


@dataclass(frozen=True, kw_only=True)
class PartRate:
    """How fast some parameters learn."""

    parameters: str = ""
    """Which, as a pattern of their names, such as `aggregation.*`."""
    factor: float = 1.0
    """Their learning rate over that of the others; of several patterns that match, the last's."""

    def __post_init__(self) -> None:
        if not 0 < self.factor < math.inf:
            raise ValueError(
                f"training.rates has factor {self.factor} for {self.parameters!r}: it must be "
                f"above 0; what is not to learn is named in training.freeze."
            )


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How it is learnt."""

    start_from: str = ""
    """A run, a checkpoint or an exported model, of whatever task, whose weights training starts
    from: those of channels by name, others where their shape is the same. Empty for random ones."""
    freeze: tuple[str, ...] = ()
    """Parameters that keep the values that they start with, as patterns of their names, such as
    `backbone.blocks.[0-3].*`: they have no gradient and no moments."""
    rates: tuple[PartRate, ...] = ()
    """Parameters that learn faster or slower than the others."""
    steps: int = 1000
    """Optimizer steps."""
    batch: int = 8
    """Samples an optimizer step, over all ranks."""
    micro_batch: int = 0
    """Samples that a rank sends through the model at once; gradients of a step are accumulated. 0
    sends all of the rank's."""
    learning_rate: float = 5e-4
    """Peak learning rate of AdamW."""
    final_learning_rate: float = 1e-8
    """Where the cosine ends."""
    warmup_steps: int = 100
    """Steps of linear warm-up."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's."""
    weight_decay: float = 1e-5
    """AdamW's; none on embeddings, norms and biases."""
    clip_norm: float = 1.0
    """Largest norm of the gradient; 0 for no clipping."""
    epsilon: float = 1e-8
    """AdamW's: what is added to the root of the second moment."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """What products are computed in: `auto` is bfloat16 autocast on accelerators that have it and
    float32 on CPUs; `float16` scales the loss, so that small gradients are not rounded to zero."""
    loss_scale: float = 65536.0
    """Of float16: what the mean loss is multiplied by at first, a power of two; halved when a
    gradient is not finite, which skips the step, and doubled at first while gradients are small."""
    loss_scale_steps: int = 2000
    """Of float16: steps with finite gradients after which the scale is doubled; 0 never doubles."""
    float32_modules: tuple[str, ...] = ()
    """Modules that compute in float32 where others compute in 16 bits, as patterns of their names,
    such as `backbone.blocks.3` or `*.mlp_out`."""
    ema_decay: float = 0.0
    """Decay of the exponential moving average of the weights that is validated, evaluated and
    used for forecasts; 0 for none."""
    validate_every: int = 0
    """Steps between validations; 0 for none."""
    patience: int = 0
    """Validations without improvement before training stops; 0 never stops early."""
    checkpoint_every: int = 500
    """Steps between checkpoints; the last step is always kept."""
    log_every: int = 10
    """Steps between records in the log."""
    watch_every: int = 50
    """Steps between those that are watched for what the number format cannot hold: activations
    near overflow, gradients rounded to zero, and the like; 0 for none."""

    def __post_init__(self) -> None:
        for name in ("steps", "log_every", "checkpoint_every"):
            require_at_least(1, f"training.{name}", getattr(self, name), 10**9)
        require_at_least(1, "training.batch", self.batch, MOST_SAMPLES)
        for name in (
            "micro_batch", "clip_norm", "weight_decay", "validate_every", "patience",
            "loss_scale_steps", "watch_every",
        ):  # fmt: skip
            require_at_least(0, f"training.{name}", getattr(self, name))
        if not 0 < self.epsilon < math.inf:
            raise ValueError(f"training.epsilon is {self.epsilon}: it must be above 0.")
        if not (2**-24 <= self.loss_scale <= 2**48 and math.frexp(self.loss_scale)[0] == 0.5):
            raise ValueError(
                f"training.loss_scale is {shown(self.loss_scale)}: it must be a power of two, "
                f"from 2**-24 to 2**48, such as 65536, so that it changes no digit of a gradient."
            )
        if not (0 < self.learning_rate < math.inf and 0 <= self.final_learning_rate < math.inf):
            raise ValueError(
                f"training.learning_rate is {self.learning_rate} and training.final_learning_rate "
                f"{self.final_learning_rate}: the first must be above 0, the second at least 0."
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"training.betas are {list(self.betas)}: both must be in [0, 1).")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"training.ema_decay is {self.ema_decay}: it must be in [0, 1).")
        if not 0 <= self.warmup_steps <= self.steps:
            raise ValueError(
                f"training.warmup_steps is {self.warmup_steps} of {self.steps} steps: "
                f"lower it or train longer."
            )
        if self.patience and not self.validate_every:
            raise ValueError("training.patience needs training.validate_every: set it above 0.")


@dataclass(frozen=True, kw_only=True)
class StoreConfig:
    """From a store to batches."""

    store: str = ""
    """Where the prepared store is (or will be)."""
    memory_mebibytes: int = 4096
    """Training data of the store that fit in this much are kept in memory."""
    workers: int = 0
    """Loader processes; 0 reads in a thread of the training process."""

    def __post_init__(self) -> None:
        require_at_least(0, "data.workers", self.workers, MOST_WORKERS)
        require_at_least(0, "data.memory_mebibytes", self.memory_mebibytes)


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """What is learnt."""

    kind: str = ""
    """Which task this is, one of `sciml_dchag.tasks.TASKS`."""


@dataclass(frozen=True, kw_only=True)
class MaskingConfig(TaskConfig):
    """What is learnt: what is hidden of a sample from what is shown."""

    mask_ratio: float = 0.75
    """The fraction of locations that is hidden, all channels of them."""
    channel_mask_ratio: float = 0.0
    """The fraction of channel groups that is hidden, at all locations."""
    channel_groups: int = 0
    """Runs of neighbouring channels that are hidden together; 0 for every channel by itself."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that one run does; a run folder keeps it as `recipe.yaml`."""

    name: str
    """The run's name: results go to `runs/NAME`."""
    seed: int = 0
    """Seed of start values, sample order, masks and dropout."""
    sources_made_by: str = ""
    """The command that makes the sources of `prepare`, printed where they are missing."""
    data: StoreConfig = field(default_factory=StoreConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)

    @property
    def kind(self) -> str:
        """Which task this is the recipe of."""
        return self.task.kind

    def with_command(self, missing: str) -> str:
        """Add to a sentence that says which source is missing the command that makes it."""
        return (
            f"{missing} Make it with `{self.sources_made_by}`." if self.sources_made_by else missing
        )

    def replace(self, **changes: Any) -> Self:
        """Return a recipe with some knobs changed, checked as a recipe that is read.

        Args:
            changes: by name; of a section, a dict of the knobs to change.

        Raises:
            ValueError: an unknown knob (the nearest right one is named), a value of the wrong
                kind, or values that do not fit together.

        Example:
            >>> recipe.replace(name="short", training=dict(steps=300))  # doctest: +SKIP
        """
        return changed(self, changes)

    def __post_init__(self) -> None:
        # It is a folder's name, and a word of command lines.
        plain = self.name.isprintable() and not set("/\\") & set(self.name)
        if not plain or self.name in ("", ".", "..") or self.name.startswith("-"):
            raise ValueError(
                f"The recipe's name {self.name!r} must be a plain folder name: give one without "
                f"'/', that does not begin with '-'."
            )
        if len(self.name.encode()) > MOST_NAME_BYTES:
            raise ValueError(
                f"The recipe's name has {len(self.name)} letters: give one of up to "
                f"{MOST_NAME_BYTES}."
            )
        require_at_least(0, "seed", self.seed, 2**32 - 1)
        if self.model.control.base and self.training.start_from:
            raise ValueError("model.control starts from its base: leave training.start_from out.")
        for key in FROM_DATA:
            if getattr(self.model, key) not in ((), (0, 0), False):
                raise ValueError(f"model.{key} is filled in from the data: leave it out.")
