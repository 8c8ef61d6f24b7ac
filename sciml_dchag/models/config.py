"""The architecture as plain numbers: everything that a checkpoint's shapes depend on.

Needs no torch, so that recipes are read and checked without it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

AggregationKind = Literal["single", "dchag-c", "dchag-l"]
Implementation = Literal["absorbed", "materialised"]

SIZES: dict[str, tuple[int, int, int]] = {
    # name: (embed_dim, depth, heads); 1p7b and up are the paper's performance runs.
    "tiny": (128, 4, 4),
    "small": (256, 6, 8),
    "base": (512, 16, 16),
    "1p7b": (2048, 32, 32),
    "7b": (4096, 32, 32),
    "15b": (6144, 32, 32),
    "26b": (8192, 32, 32),
}
"""Named sizes; `base` is the paper's weather model."""


MOST = {
    "embed_dim": 2**16, "depth": 1024, "heads": 1024, "patch": 1024, "partitions": 2**16,
    "tree": 2**16, "decoder_dim": 2**16, "decoder_depth": 1024, "decoder_heads": 1024,
}  # fmt: skip
"""Several times what was ever trained; a model beyond is a slip that takes hours to build."""


@dataclass(frozen=True, kw_only=True)
class ControlConfig:
    """New inputs for a trained model that stays as it is."""

    base: str = ""
    """The trained model: a run, a checkpoint or an exported file; empty for no control."""
    channels: tuple[str, ...] = ()
    """The inputs that the base does not have, by name, such as `vo850` or `msl@-6h`."""
    blocks: int = 0
    """How many of the base's first blocks the branch has copies of; 0 for all of them."""
    with_base: bool = False
    """Whether the branch aggregates the base's inputs beside the new ones, and so sees at once in
    what they differ; its channel stage costs as much more."""
    base_sha256: str = ""
    """Hash of the base's weights; filled in from the data."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))
        if bool(self.base) != bool(self.channels):
            raise ValueError(
                f"model.control has base {self.base!r} and {len(self.channels)} channels: give the "
                f"trained model and the inputs that are new to it, or neither."
            )
        if self.with_base and not self.base:
            raise ValueError("model.control.with_base is true and there is no model.control.base.")
        if self.blocks < 0:
            raise ValueError(f"model.control.blocks is {self.blocks}: it must be at least 0.")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The architecture: everything that a checkpoint's shapes depend on.

    Raises:
        ValueError: numbers that do not fit together; the message says which and the fix.
    """

    size: str = "small"
    """One of `SIZES`; gives embed_dim, depth and heads where they are not set."""
    embed_dim: int = 0
    """D; 0 takes the size's."""
    depth: int = 0
    """Transformer blocks; 0 takes the size's."""
    heads: int = 0
    """Attention heads, of the blocks and of the aggregation; 0 takes the size's."""
    patch: int = 4
    """Side of a square patch, pixels."""
    aggregation: AggregationKind = "dchag-c"
    """`single` (ClimaX), `dchag-c` (cross-attention) or `dchag-l` (linear partial aggregation)."""
    partitions: int = 4
    """G: parts that the channels are split into; ignored by `single`."""
    tree: int = 0
    """Groups that each partition is split into; 0 is one layer, and so is 1."""
    implementation: Implementation = "absorbed"
    """`absorbed` (fast, exact) or `materialised` (the reference); the parameters are the same."""
    dropout: float = 0.0
    """After the embeddings and after both halves of a block; attention itself drops nothing."""
    head: Literal["forecast", "masked", "detect", "grade"] = "forecast"
    """`forecast` predicts the output channels at a lead time; `masked` is a masked autoencoder,
    which sees some locations and predicts the input channels at all; `detect` finds objects;
    `grade` gives each image a grade."""
    channel_embedding: Literal["index", "wavelength"] = "index"
    """`index` gives every channel parameters of its own; `wavelength` makes them functions of a
    band's wavelength, so that a model trained on one camera takes another one's bands."""
    decoder_dim: int = 128
    """Width of a masked autoencoder's decoder."""
    decoder_depth: int = 2
    """Transformer blocks of the decoder."""
    decoder_heads: int = 4
    """Attention heads of the decoder."""
    pyramid_dim: int = 64
    """Width of the pyramid and of the head that find objects, and of the map of lesions."""
    control: ControlConfig = field(default_factory=ControlConfig)
    input_channels: tuple[str, ...] = ()
    """Names of the input channels, in order; filled in from the data."""
    output_channels: tuple[str, ...] = ()
    """Names of the predicted channels, of the classes of objects or of the grades, in order; filled
    in from the data."""
    attributes: tuple[str, ...] = ()
    """What is measured of each object, such as its depth; filled in from the data."""
    wraps: bool = False
    """Whether an object may lie across the first and last column; filled in from the data."""
    wavelength_nm: tuple[float, ...] = ()
    """Wavelengths of the channels, for `channel_embedding: wavelength`; filled in from the data."""
    image_size: tuple[int, int] = (0, 0)
    """Height and width in pixels; filled in from the data."""

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise ValueError(f"model.size {self.size!r} is none of {', '.join(SIZES)}.")
        for name, value in zip(("embed_dim", "depth", "heads"), SIZES[self.size], strict=True):
            if not getattr(self, name):
                object.__setattr__(self, name, value)
        names = ("input_channels", "output_channels", "attributes", "wavelength_nm", "image_size")
        for name in names:
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.tree == 1:  # nothing is left to join, and weights for it would never be learnt
            object.__setattr__(self, "tree", 0)
        if self.aggregation == "single" and self.tree:
            raise ValueError("model.tree is for dchag-c and dchag-l: set it to 0 for single.")
        if self.channel_embedding == "wavelength":
            self._require_wavelengths()
        for name, most in MOST.items():
            if getattr(self, name) > most:
                raise ValueError(
                    f"model.{name} is {getattr(self, name)}: it must be at most {most}."
                )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"model.dropout is {self.dropout}: it must be in [0, 1).")
        if self.decoder_heads < 1 or self.decoder_depth < 0:
            raise ValueError(
                f"model.decoder_heads {self.decoder_heads} must be at least 1 and "
                f"model.decoder_depth {self.decoder_depth} at least 0."
            )
        if self.heads < 1 or self.depth < 0:
            raise ValueError(
                f"model.heads {self.heads} must be at least 1 and model.depth {self.depth} at "
                f"least 0, or leave them out for those of model.size."
            )
        for prefix in ("embed", "decoder"):
            of_heads = "heads" if prefix == "embed" else "decoder_heads"
            dim, heads = getattr(self, f"{prefix}_dim"), getattr(self, of_heads)
            if dim < 1 or dim % heads or dim % 4:
                step = math.lcm(heads, 4)
                raise ValueError(
                    f"model.{prefix}_dim {dim} must be a multiple of model.{of_heads} {heads} and "
                    f"of 4: choose {step * max(1, dim // step)}."
                )
        if self.head == "masked" and self.output_channels != self.input_channels:
            raise ValueError(
                f"A masked autoencoder predicts its {len(self.input_channels)} input channels, "
                f"but model.output_channels are {len(self.output_channels)} others: give it the "
                f"same names in the same order."
            )
        if self.partitions < 1 or self.tree < 0 or self.patch < 1:
            raise ValueError(
                f"model.partitions {self.partitions} and model.patch {self.patch} must be at "
                f"least 1 and model.tree {self.tree} at least 0."
            )
        if any(side % self.patch for side in self.image_size):
            raise ValueError(
                f"model.patch {self.patch} does not divide the image of "
                f"{self.image_size[0]} x {self.image_size[1]}: choose a patch that divides both."
            )
        if self.head in ("detect", "grade"):
            self._require_pyramid()
        self._require_control()

    @property
    def base_inputs(self) -> tuple[int, ...]:
        """Positions of the inputs that the model itself aggregates; all without control."""
        new = set(self.control.channels)
        return tuple(i for i, name in enumerate(self.input_channels) if name not in new)

    @property
    def control_inputs(self) -> tuple[int, ...]:
        """Positions of the inputs of the control branch."""
        if self.control.with_base:
            return tuple(range(len(self.input_channels)))
        return tuple(self.input_channels.index(name) for name in self.control.channels)

    def _require_control(self) -> None:
        if self.control.blocks > self.depth:
            raise ValueError(
                f"model.control.blocks is {self.control.blocks} and the model has {self.depth} "
                f"blocks: set it to at most {self.depth}, or to 0 for all."
            )
        if self.head != "forecast" and self.control.base:
            raise ValueError(
                f"model.control is for forecasters, and model.head is {self.head}: leave it out."
            )
        if not self.input_channels:  # before there are data
            return
        absent = [name for name in self.control.channels if name not in self.input_channels]
        if absent or not self.base_inputs:
            what = f"{absent[0]!r}, which is no input" if absent else "all inputs"
            raise ValueError(
                f"model.control.channels has {what}: name inputs that the base does not have, of "
                f"{', '.join(self.input_channels[:8])}."
            )

    def _require_pyramid(self) -> None:
        if self.patch % 2 or self.pyramid_dim < 1:
            raise ValueError(
                f"model.patch {self.patch} must be even, as the finest cells of model.head "
                f"{self.head} are half a patch, and model.pyramid_dim {self.pyramid_dim} at "
                f"least 1."
            )
        if self.head == "detect" and any(side % (2 * self.patch) for side in self.image_size):
            raise ValueError(
                f"The coarsest cells of model.head detect are two patches of {self.patch}, which "
                f"do not divide the image of {self.image_size[0]} x {self.image_size[1]}: choose "
                f"another model.patch, or another size."
            )

    def _require_wavelengths(self) -> None:
        if self.aggregation == "dchag-l":
            raise ValueError(
                "model.channel_embedding wavelength does not go with dchag-l, which weights each "
                "channel by itself: set model.aggregation to single or dchag-c."
            )
        # A recipe's model has neither channels nor wavelengths before its data are there.
        if len(self.wavelength_nm) != len(self.input_channels) or (
            self.input_channels and self.head != "masked"
        ):
            raise ValueError(
                f"model.channel_embedding wavelength is for masked autoencoders of spectral "
                f"images, and needs a wavelength for each of the {len(self.input_channels)} "
                f"channels where there are {len(self.wavelength_nm)}: set it to index."
            )


def expected_parameters(config: ModelConfig) -> int:
    """Count the parameters of a config without building it (Tsaris et al., as in our method note).

    For one layer (tree 0) of any kind.
    """
    C, O = len(config.input_channels), len(config.output_channels)  # noqa: E741
    D, P, G = config.embed_dim, config.patch**2, config.partitions
    L = config.image_size[0] * config.image_size[1] // P
    attention = 4 * D**2 + 2 * D
    channels = C * (P * D + D) + C * D + attention
    partial = {"single": 0, "dchag-c": G * attention, "dchag-l": C + G}[config.aggregation]

    def blocks_and_norm(depth: int, width: int) -> int:
        return depth * (12 * width**2 + 12 * width) + 2 * width

    backbone = L * D + blocks_and_norm(config.depth, D)
    if config.head == "masked":
        E = config.decoder_dim
        decoder = (D * E + E) + E + L * E + blocks_and_norm(config.decoder_depth, E)
        return channels + partial + backbone + decoder + O * (E * P + P)
    if config.head == "detect":
        E, classes, measured = config.pyramid_dim, O, len(config.attributes)
        pixels = C * (config.patch // 2) ** 2 * E + E
        pyramid = pixels + 6 * (D * E + E)
        branches = 4 * (9 * E * E + 3 * E)
        return (
            channels + partial + backbone + pyramid + branches + (E + 1) * (64 + classes + measured)
        )
    if config.head == "grade":
        E = config.pyramid_dim
        fine = C * (config.patch // 2) ** 2 * E + E + 4 * (D * E + E)
        branch = 2 * (9 * E * E + 3 * E) + 2 * (E + 1)
        pooled = (D + 1) + (D * E + E) + (E + 3)
        return channels + partial + backbone + fine + branch + pooled + O - 1
    lead_time, hidden = 2 * D, 2 * (D**2 + D)
    return channels + partial + backbone + lead_time + hidden + O * (D * P + P)
