"""What a model is made of, the named sizes, and `build_model`.

Shapes: B batch, C channels, H x W image, L locations, V locations that are seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sciml_dchag.models.aggregation import (
    ChannelAggregation,
    PartialLinear,
)
from sciml_dchag.models.backbone import Backbone, nothing_after
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.control import ControlBranch
from sciml_dchag.models.decoder import MaskedDecoder
from sciml_dchag.models.detection import DetectionHead
from sciml_dchag.models.grading import GradeHead
from sciml_dchag.models.heads import ChannelHead, ForecastHead
from sciml_dchag.models.hooks import unchanged
from sciml_dchag.models.pyramid import FinestLevel, Pyramid
from sciml_dchag.models.spectral import WavelengthHead
from sciml_dchag.models.tokenizer import ChannelTokenizer, patchify, unpatchify

_GIVEN = {
    "forecast": (True, False), "masked": (False, True), "detect": (False, False),
    "grade": (False, False),
}  # fmt: skip
"""Whether a model is given lead times, and visible locations, by its head."""


class ChannelTransformer(nn.Module):
    """The shared model: channel stage, backbone, head. Tensors in, tensors out.

    A forecaster sees all locations and the lead time; a masked autoencoder sees some locations,
    on which alone channel stage and backbone work, and has a decoder before the head; a detector
    and a grader see all locations.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        patch, dim = config.patch, config.embed_dim
        rows, columns = (side // patch for side in config.image_size)
        masked = config.head == "masked"
        self.aggregation = ChannelAggregation(
            channels=len(config.base_inputs),
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
            lead_time=config.head == "forecast",
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
        # Which inputs go where beside a control branch; ranks each aggregate some of the base's.
        self.base_places, self.control_places = config.base_inputs, config.control_inputs
        self.enter_base: Callable[[Tensor], Tensor] = unchanged
        self.control = None
        if config.control.channels:
            # One attention over what is new: few channels need no partitions.
            new = [config.input_channels.index(name) for name in config.control.channels]
            self.control = ControlBranch(
                ChannelAggregation(
                    channels=len(config.control_inputs),
                    patch_pixels=patch**2,
                    embed_dim=dim,
                    heads=config.heads,
                    kind="single",
                    implementation=config.implementation,
                ),
                embed_dim=dim,
                heads=config.heads,
                blocks=config.control.blocks or config.depth,
                dropout=config.dropout,
                new=[config.control_inputs.index(place) for place in new],
            )

    @property
    def block_lists(self) -> list[nn.ModuleList]:
        """The transformer blocks: the backbone's, and a decoder's and a control branch's."""
        others = (self.decoder, self.control)
        return [self.backbone.blocks, *(part.blocks for part in others if part is not None)]

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
            (B, C_out, H, W); of a detector what each cell says, (B, A, N), `DetectionHead`; of a
            grader logits of grades and of areas, (B, N), `GradeHead`.

        Raises:
            ValueError: a forecaster needs lead times, a masked autoencoder visible locations.
        """
        if (lead_hours_B is not None, visible_BV is not None) != _GIVEN[self.config.head]:
            needed = " and ".join(
                f"{'' if given else 'no '}{name}"
                for name, given in zip(
                    ("lead_hours_B", "visible_BV"), _GIVEN[self.config.head], strict=True
                )
            )
            raise ValueError(f"A model with head {self.config.head!r} is called with {needed}.")
        if not len(x_BCHW):
            raise ValueError("A batch without samples has nothing to map: give at least one.")
        features_BLD = self.encode(x_BCHW, available_BCHW, visible_BV, lead_hours_B)
        if self.decoder is not None:
            features_BLD = self.decoder(features_BLD, visible_BV)
        if isinstance(self.head, DetectionHead | GradeHead):
            return self.head(features_BLD, x_BCHW, available_BCHW)
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
        x_BLCP = patchify(x_BCHW, patch, visible_BV)
        if self.control is None:
            return self.backbone(self.aggregation(x_BLCP, available_BLC), lead_hours_B, visible_BV)
        after: Callable[[int, Tensor], Tensor] = nothing_after
        if self.control.on:
            after = self.control.begin(*_of_channels(x_BLCP, available_BLC, self.control_places))
        own = _of_channels(self.enter_base(x_BLCP), available_BLC, self.base_places)
        return self.backbone(self.aggregation(*own), lead_hours_B, visible_BV, after)


def _of_channels(
    x_BLCP: Tensor, available_BLC: Tensor | None, places: Sequence[int]
) -> tuple[Tensor, Tensor | None]:
    """Take some channels' pixels, and where they are known."""
    which = list(places)
    return x_BLCP[:, :, which], None if available_BLC is None else available_BLC[:, :, which]


def _build_head(config: ModelConfig) -> ChannelHead | WavelengthHead | DetectionHead | GradeHead:
    channels, patch_pixels = len(config.output_channels), config.patch**2
    if config.head in ("detect", "grade"):
        fine: dict[str, Any] = {
            "channels": len(config.input_channels),
            "partitions": config.partitions,
            "image_size": config.image_size,
            "patch": config.patch,
            "embed_dim": config.embed_dim,
            "width": config.pyramid_dim,
        }
        if config.head == "grade":
            return GradeHead(FinestLevel(**fine), grades=channels)
        return DetectionHead(
            Pyramid(**fine), classes=channels, attributes=len(config.attributes),
            wraps=config.wraps,
        )  # fmt: skip
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
    if isinstance(head, DetectionHead | GradeHead):
        pixels = head.pixels
        padding += pixels.layout.padding * pixels.weight[0, 0].numel()
    if isinstance(tokenizer, ChannelTokenizer):
        of_a_slot = sum(parameter[0, 0].numel() for parameter in tokenizer.parameters())
        padding += tokenizer.layout.padding * of_a_slot
    if isinstance(head, ChannelHead):
        of_a_slot = sum(p[0, 0].numel() for p in (head.weight, head.bias))
        padding += head.layout.padding * of_a_slot
    if isinstance(partial, PartialLinear):
        padding += int((~partial.layout.filled_GSK.any(1)).sum())
    return sum(p.numel() for p in model.parameters()) - padding
