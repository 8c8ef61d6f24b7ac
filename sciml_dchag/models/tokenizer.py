"""From channels to tokens: patches, where each channel's parameters lie, and the tokenizer.

Shapes: B batch, C channels, H x W image, P pixels of a patch, L patches ("locations"),
D embedding, G partitions, S groups of a partition's tree, K channel slots of a group.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from sciml_dchag.models.hooks import local


def patchify(x_BCHW: Tensor, patch: int, locations_BV: Tensor | None = None) -> Tensor:
    """Cut an image into patches: (B, C, H, W) -> (B, L, C, P), rows of patches from the top.

    Given V locations of each sample, those alone are cut out and copied: (B, V, C, P).
    """
    B, C, H, W = x_BCHW.shape
    rows, columns = H // patch, W // patch
    x = x_BCHW.reshape(B, C, rows, patch, columns, patch).permute(0, 2, 4, 1, 3, 5)
    if locations_BV is None:
        return x.reshape(B, -1, C, patch * patch)
    sample_B1 = torch.arange(B, device=x.device)[:, None]
    return x[sample_B1, locations_BV // columns, locations_BV % columns].flatten(3)


def unpatchify(x_BLCP: Tensor, patch: int, height: int) -> Tensor:
    """Undo `patchify`: (B, L, C, P) -> (B, C, H, W)."""
    B, L, C, _ = x_BLCP.shape
    rows = height // patch
    columns = L // rows
    x = x_BLCP.reshape(B, rows, columns, C, patch, patch)
    return x.permute(0, 3, 1, 4, 2, 5).reshape(B, C, height, columns * patch)


def _even_sizes(total: int, parts: int) -> list[int]:
    """Split a count as evenly as possible, the larger parts first: 7 over 4 is 2, 2, 2, 1."""
    return [total // parts + (i < total % parts) for i in range(parts)]


class ChannelLayout(nn.Module):
    """Which slot of the stacked parameters belongs to which channel.

    Channels are dealt in order to G partitions, and within a partition to S groups, each as
    evenly as possible. Every group gets the same number K of slots, so that parameters stack to
    (G, S * K, ...) and dim 0 is the partition for any number of channels; slots left over are
    padding, which is masked out everywhere. Holds no parameters.

    Raises:
        ValueError: there are fewer channels than groups, unless a group `may_be_empty`.
    """

    slot_of_channel: Tensor
    channel_of_slot: Tensor
    filled_GSK: Tensor  # noqa: N815

    def __init__(
        self, channels: int, partitions: int, groups: int = 1, *, may_be_empty: bool = False
    ) -> None:
        super().__init__()
        if channels < partitions * groups and not may_be_empty:
            raise ValueError(
                f"{channels} channels cannot fill {partitions} partitions of {groups} group(s): "
                f"lower model.partitions or model.tree so that each group has a channel."
            )
        self.channels, self.partitions, self.groups = channels, partitions, groups
        sizes = [n for size in _even_sizes(channels, partitions) for n in _even_sizes(size, groups)]
        self.slots_per_group = max(sizes)
        self.padding = len(sizes) * self.slots_per_group - channels
        # Real values even where parameters are on the meta device: they are no one's to initialise.
        with torch.device("cpu"):
            filled = torch.arange(self.slots_per_group) < torch.tensor(sizes)[:, None]
            slot_of_channel = filled.flatten().nonzero().flatten()
            channel_of_slot = torch.zeros(filled.numel(), dtype=torch.long)
            channel_of_slot[slot_of_channel] = torch.arange(channels)
        self.register_buffer("slot_of_channel", slot_of_channel, persistent=False)
        self.register_buffer("channel_of_slot", channel_of_slot, persistent=False)
        self.register_buffer("filled_GSK", filled.view(partitions, groups, -1), persistent=False)

    def part(self, index: int, parts: int) -> ChannelLayout:
        """Return the layout of one of `parts` equal runs of partitions, for the rank that owns it.

        Its channels are `channel_range`'s, counted from 0; groups keep their number of slots.
        """
        assert self.partitions % parts == 0
        partitions = self.partitions // parts
        own = copy.copy(self)
        own._buffers = dict(self._buffers)
        own.partitions = partitions
        own.filled_GSK = self.filled_GSK[index * partitions : (index + 1) * partitions]
        own.channels = int(own.filled_GSK.sum())
        own.padding = own.filled_GSK.numel() - own.channels
        own.slot_of_channel = own.filled_GSK.flatten().nonzero().flatten()
        filled = own.filled_GSK.flatten().long()
        own.channel_of_slot = (filled.cumsum(0) - 1) * filled
        return own

    def channel_range(self, index: int, parts: int) -> range:
        """Positions of the channels that `part(index, parts)` holds; they follow each other."""
        ends = self.filled_GSK.view(parts, -1).sum(1).cumsum(0).tolist()
        return range(0 if index == 0 else ends[index - 1], ends[index])

    @property
    def slots(self) -> int:
        """Slots of one partition, S * K."""
        return self.groups * self.slots_per_group

    def to_slots(self, x_BLCx: Tensor) -> Tensor:
        """Arrange channels by slot: (B, L, C, ...) -> (B, L, G, S, K, ...)."""
        if self.padding:
            x_BLCx = x_BLCx.index_select(2, self.channel_of_slot)
        return x_BLCx.unflatten(2, (self.partitions, self.groups, self.slots_per_group))

    def to_channels(self, x_BLGKx: Tensor) -> Tensor:
        """Arrange slots by channel: (B, L, G, S * K, ...) -> (B, L, C, ...)."""
        x_BLCx = x_BLGKx.flatten(2, 3)
        return x_BLCx.index_select(2, self.slot_of_channel) if self.padding else x_BLCx

    def mask(self, available_BLC: Tensor | None) -> Tensor | None:
        """Say which slots hold data: (B, L, G, S, K) bool, or None where all do."""
        if available_BLC is not None:
            return self.to_slots(available_BLC) & self.filled_GSK
        return self.filled_GSK[None, None] if self.padding else None


class ChannelTokenizer(nn.Module):
    """Every channel has its own patch embedding and its own channel embedding.

    token_c = x_c W_c + b_c + e_c, with W_c of shape (P, D); the channel embedding e_c starts as
    one-dimensional sine-cosine over the channel's index (ClimaX, arXiv 2301.10343, section 3.1).
    """

    def __init__(self, layout: ChannelLayout, patch_pixels: int, embed_dim: int) -> None:
        super().__init__()
        self.layout = layout
        stacked = (layout.partitions, layout.slots)
        self.weight = nn.Parameter(torch.empty(*stacked, patch_pixels, embed_dim))
        self.bias = nn.Parameter(torch.empty(*stacked, embed_dim))
        self.channel_embedding = nn.Parameter(torch.empty(*stacked, embed_dim))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw start values: tokens of unit variance for normalised pixels, padding slots zero.

        Xavier's bound over (P, D), the usual start, gives a patch of few pixels tokens an order
        of magnitude below the position embedding, and training a slow start.
        """
        _, _, P, D = self.weight.shape
        filled = self.layout.filled_GSK.flatten(1)[..., None].to(self.weight.device)
        bound = (3 / P) ** 0.5
        self.weight.uniform_(-bound, bound).mul_(filled[..., None])
        self.bias.zero_()
        index = self.layout.channel_of_slot.view(filled.shape[:2])
        code = sine_cosine(index.to(self.weight.device), D)
        self.channel_embedding.copy_(code * filled)

    def affine(self) -> Tensor:
        """Return the affine map of each slot's pixels to its token, (G, S, K, P + 1, D).

        The last row is the constant b + e: with a pixel of value one appended to every patch the
        affine map is linear, and what follows needs no second case.
        """
        constant = (local(self.bias) + local(self.channel_embedding))[..., None, :]
        maps = torch.cat([local(self.weight), constant], dim=-2)
        return maps.unflatten(1, (self.layout.groups, self.layout.slots_per_group))


def append_one(x_BLCP: Tensor) -> Tensor:
    """Append the constant pixel that `ChannelTokenizer.affine` expects: P -> P + 1."""
    return nn.functional.pad(x_BLCP, (0, 1), value=1.0)


def sine_cosine(position: Tensor, dim: int) -> Tensor:
    """Sine-cosine code of positions (Vaswani et al. 2017, section 3.5): (...) -> (..., dim)."""
    frequency = 10_000.0 ** (-torch.arange(dim // 2, dtype=torch.float64) / (dim / 2))
    angle = position[..., None].to(torch.float64) * frequency.to(position.device)
    return torch.cat([angle.sin(), angle.cos()], dim=-1).to(torch.float32)
