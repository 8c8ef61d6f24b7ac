"""What a model is made of, the named sizes, and `build_model`.

Shapes: B batch, C channels, H x W image, L locations, V locations that are seen.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from sciml_dchag.models.aggregation import (
    AggregationKind,
    ChannelAggregation,
    Implementation,
    PartialLinear,
)
from sciml_dchag.models.backbone import Backbone
from sciml_dchag.models.decoder import MaskedDecoder
from sciml_dchag.models.heads import ChannelHead, ForecastHead
from sciml_dchag.models.spectral import WavelengthHead
from sciml_dchag.models.tokenizer import ChannelTokenizer, patchify, unpatchify

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


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The architecture: everything that a checkpoint's shapes depend on.

    Raises:
        ValueError: numbers that do not fit together; the message says which and the cure.
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
    """After the embeddings, in attention and after both halves of a block."""
    head: Literal["forecast", "masked"] = "forecast"
    """`forecast` predicts the output channels at a lead time; `masked` is a masked autoencoder,
    which sees some locations and predicts the input channels at all."""
    channel_embedding: Literal["index", "wavelength"] = "index"
    """`index` gives every channel parameters of its own; `wavelength` makes them functions of a
    band's wavelength, so that a model trained on one camera takes another one's bands."""
    decoder_dim: int = 128
    """Width of a masked autoencoder's decoder."""
    decoder_depth: int = 2
    """Transformer blocks of the decoder."""
    decoder_heads: int = 4
    """Attention heads of the decoder."""
    input_channels: tuple[str, ...] = ()
    """Names of the input channels, in order; filled in from the data."""
    output_channels: tuple[str, ...] = ()
    """Names of the predicted channels, in order; filled in from the data."""
    wavelength_nm: tuple[float, ...] = ()
    """Wavelengths of the channels, for `channel_embedding: wavelength`; filled in from the data."""
    image_size: tuple[int, int] = (0, 0)
    """Height and width in pixels; filled in from the data."""

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise ValueError(f"model.size {self.size!r} is none of {', '.join(SIZES)}.")
        for field, value in zip(("embed_dim", "depth", "heads"), SIZES[self.size], strict=True):
            if not getattr(self, field):
                object.__setattr__(self, field, value)
        for field in ("input_channels", "output_channels", "wavelength_nm", "image_size"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        if self.tree == 1:  # nothing is left to join, and weights for it would never be learnt
            object.__setattr__(self, "tree", 0)
        if self.aggregation == "single" and self.tree:
            raise ValueError("model.tree is for dchag-c and dchag-l: set it to 0 for single.")
        if self.channel_embedding == "wavelength":
            self._require_wavelengths()
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


class ChannelTransformer(nn.Module):
    """The shared model: channel stage, backbone, head. Tensors in, tensors out.

    A forecaster sees all locations and the lead time; a masked autoencoder sees some locations,
    on which alone channel stage and backbone work, and has a decoder before the head.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        patch, dim = config.patch, config.embed_dim
        rows, columns = (side // patch for side in config.image_size)
        masked = config.head == "masked"
        self.aggregation = ChannelAggregation(
            channels=len(config.input_channels),
            patch_pixels=patch**2,
            embed_dim=dim,
            heads=config.heads,
            kind=config.aggregation,
            partitions=config.partitions,
            tree=config.tree,
            implementation=config.implementation,
            wavelength_nm=config.wavelength_nm,
        )
        self.backbone = Backbone(
            rows=rows,
            columns=columns,
            embed_dim=dim,
            depth=config.depth,
            heads=config.heads,
            dropout=config.dropout,
            lead_time=not masked,
        )
        self.decoder = None
        if masked:
            self.decoder = MaskedDecoder(
                rows=rows,
                columns=columns,
                embed_dim=dim,
                decoder_dim=config.decoder_dim,
                depth=config.decoder_depth,
                heads=config.decoder_heads,
                dropout=config.dropout,
            )
        self.head = _build_head(config)

    @property
    def block_lists(self) -> list[nn.ModuleList]:
        """The transformer blocks: the backbone's, and the decoder's where there is one."""
        decoder = [] if self.decoder is None else [self.decoder.blocks]
        return [self.backbone.blocks, *decoder]

    def forward(
        self,
        x_BCHW: Tensor,
        lead_hours_B: Tensor | None = None,
        available_BCHW: Tensor | None = None,
        visible_BV: Tensor | None = None,
    ) -> Tensor:
        """Map normalised input channels to normalised output channels.

        Args:
            x_BCHW: (B, C_in, H, W); anything finite where a value is missing.
            lead_hours_B: lead time in hours, for a forecaster.
            available_BCHW: False where a value is missing; a patch with a missing value counts
                as missing for that channel. None: nothing is missing.
            visible_BV: the locations that a masked autoencoder sees, as many and each once in
                every sample, numbered by rows from the top; other pixels have no effect.

        Returns:
            (B, C_out, H, W).

        Raises:
            ValueError: a forecaster needs lead times, a masked autoencoder visible locations.
        """
        masked = self.decoder is not None
        if (lead_hours_B is None) != masked or (visible_BV is None) == masked:
            needed = "visible_BV and no lead_hours_B" if masked else "lead_hours_B, no visible_BV"
            raise ValueError(f"A model with head {self.config.head!r} is called with {needed}.")
        if not len(x_BCHW):
            raise ValueError("A batch without samples has nothing to map: give at least one.")
        features_BLD = self.encode(x_BCHW, available_BCHW, visible_BV, lead_hours_B)
        if self.decoder is not None:
            features_BLD = self.decoder(features_BLD, visible_BV)
        return unpatchify(self.head(features_BLD), self.config.patch, x_BCHW.shape[-2])

    def encode(
        self,
        x_BCHW: Tensor,
        available_BCHW: Tensor | None = None,
        visible_BV: Tensor | None = None,
        lead_hours_B: Tensor | None = None,
    ) -> Tensor:
        """Return the backbone's features of the visible locations, or of all: (B, V, D)."""
        patch = self.config.patch
        available_BLC = None
        if available_BCHW is not None:
            available_BLC = patchify(available_BCHW, patch, visible_BV).all(-1)
        tokens_BLD = self.aggregation(patchify(x_BCHW, patch, visible_BV), available_BLC)
        return self.backbone(tokens_BLD, lead_hours_B, visible_BV)


def _build_head(config: ModelConfig) -> ChannelHead | WavelengthHead:
    channels, patch_pixels = len(config.output_channels), config.patch**2
    if config.channel_embedding == "wavelength":
        return WavelengthHead(
            channels=channels,
            partitions=config.partitions,
            patch_pixels=patch_pixels,
            embed_dim=config.decoder_dim,
            wavelength_nm=config.wavelength_nm,
        )
    masked = config.head == "masked"
    head = ChannelHead if masked else ForecastHead
    return head(
        channels=channels,
        partitions=config.partitions,
        patch_pixels=patch_pixels,
        embed_dim=config.decoder_dim if masked else config.embed_dim,
    )


def build_model(config: ModelConfig, seed: int = 0) -> ChannelTransformer:
    """Build a model with random start values.

    Args:
        config: the architecture, with channels and image size.
        seed: what the start values are drawn from; torch's global generator stays as it is.

    Raises:
        ValueError: the config lacks channels or image size, which come from the data.
    """
    if not (config.input_channels and config.output_channels and all(config.image_size)):
        raise ValueError(
            "The model's input_channels, output_channels and image_size are not all set: take "
            "them from a store, or set them with dataclasses.replace(config, ...)."
        )
    with torch.random.fork_rng(devices=[]):
        model = ChannelTransformer(config)
        for name, module in model.named_modules():
            draw_start_values(module, name, seed)
    return model


@torch.no_grad()
def draw_start_values(module: nn.Module, name: str, seed: int) -> None:
    """Draw a module's own parameters from a seed and its name alone.

    So that a module's start does not depend on what was drawn before it, and a rank can draw one
    module at a time of a model that no memory holds whole. Seeds torch's global generator.
    """
    if next(module.parameters(recurse=False), None) is not None:
        digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=7).digest()
        torch.manual_seed(int.from_bytes(digest, "big"))
        module.reset_parameters()  # type: ignore[operator]


def count_parameters(model: ChannelTransformer) -> int:
    """Count what is learnt: all parameters, less the padding of uneven partitions."""
    tokenizer, partial, head = model.aggregation.tokenizer, model.aggregation.partial, model.head
    padding = 0
    if isinstance(tokenizer, ChannelTokenizer):
        of_a_slot = sum(parameter[0, 0].numel() for parameter in tokenizer.parameters())
        padding += tokenizer.layout.padding * of_a_slot
    if isinstance(head, ChannelHead):
        of_a_slot = sum(p[0, 0].numel() for p in (head.weight, head.bias))
        padding += head.layout.padding * of_a_slot
    if isinstance(partial, PartialLinear):
        padding += int((~partial.layout.filled_GSK.any(1)).sum())
    return sum(p.numel() for p in model.parameters()) - padding


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
        return depth * (12 * width**2 + 13 * width) + 2 * width

    backbone = L * D + blocks_and_norm(config.depth, D)
    if config.head == "masked":
        E = config.decoder_dim
        decoder = (D * E + E) + E + L * E + blocks_and_norm(config.decoder_depth, E)
        return channels + partial + backbone + decoder + O * (E * P + P)
    lead_time, hidden = 2 * D, 2 * (D**2 + D)
    return channels + partial + backbone + lead_time + hidden + O * (D * P + P)
