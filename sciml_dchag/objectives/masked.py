"""Masked autoencoding: what is hidden of a sample, what is asked of a model, and the errors.

Locations are hidden from the encoder, all channels of them, or channels, at all locations, or
both. Independent of files, optimizers and ranks. Shapes: B batch, C channels, H x W image,
L locations, V locations that are seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sciml_dchag.models.tokenizer import unpatchify
from sciml_dchag.models.transformer import ChannelTransformer
from sciml_dchag.objectives.interpolation import Interpolation, interpolation

_STREAM = 0x6D61736B
"""Keeps masks apart from what else is drawn for a sample from (seed, epoch, index)."""


def draw_mask(
    seed: int,
    epoch: int,
    index: int,
    *,
    locations: int,
    visible: int,
    channels: int,
    channel_groups: int,
    hidden_groups: int,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Draw what a sample shows, from these numbers alone: no batch mate or rank has a part in it.

    Args:
        seed, epoch, index: of the run, the pass through the data, and the sample.
        locations, visible: L, and how many of them are seen.
        channels: C.
        channel_groups: runs of neighbouring channels, as even as possible, that are hidden or
            shown together.
        hidden_groups: how many of them are hidden.

    Returns:
        The visible locations, ascending, (V,); and which channels are hidden, (C,).
    """
    draws = np.random.default_rng([seed, epoch, index, _STREAM])
    # Locations first: they are the same with and without hidden channels.
    seen = np.sort(draws.permutation(locations)[:visible])
    hidden_of_group = np.zeros(channel_groups, bool)
    hidden_of_group[draws.permutation(channel_groups)[:hidden_groups]] = True
    return seen, hidden_of_group[_group_of_channel(channels, channel_groups)]


class MaskedObjective(nn.Module):
    """Reconstruct what is hidden, in normalised units; its squared errors, hidden and shown.

    Args:
        seed: of the masks.
        image_size: (H, W).
        patch: side of a patch in pixels; a location is hidden or shown as a whole.
        channels: C, of all ranks.
        mask_ratio: the fraction of locations that is hidden.
        channel_mask_ratio: the fraction of channel groups that is hidden.
        channel_groups: runs of neighbouring channels that are hidden together; 0 for every
            channel by itself. Neighbouring bands hold nearly the same: hidden one by one, each is
            read off the next.

    Raises:
        ValueError: nothing would be hidden, or nothing would be seen.
    """

    def __init__(
        self,
        *,
        seed: int,
        image_size: tuple[int, int],
        patch: int,
        channels: int,
        mask_ratio: float = 0.75,
        channel_mask_ratio: float = 0.0,
        channel_groups: int = 0,
    ) -> None:
        super().__init__()
        height, width = image_size
        self.seed, self.patch, self.height, self.channels = seed, patch, height, channels
        self.locations = (height // patch) * (width // patch)
        self.channel_groups = channel_groups or channels
        if not 1 <= self.channel_groups <= channels:
            raise ValueError(
                f"task.channel_groups is {channel_groups} of {channels} channels: give a number "
                f"between 1 and {channels}, or 0 for every channel by itself."
            )
        self.visible = self.locations - _part("mask_ratio", mask_ratio, self.locations, "locations")
        self.hidden_groups = _part(
            "channel_mask_ratio", channel_mask_ratio, self.channel_groups, "channel groups"
        )
        if self.visible == self.locations and not self.hidden_groups:
            raise ValueError(
                f"task.mask_ratio {mask_ratio} and task.channel_mask_ratio {channel_mask_ratio} "
                f"hide none of {self.locations} locations and {self.channel_groups} channel "
                f"groups: raise one of them."
            )
        # From (epoch, index), as `draw_mask`; a loader's processes draw too.
        self.draw_mask = partial(
            draw_mask,
            seed,
            locations=self.locations,
            visible=self.visible,
            channels=channels,
            channel_groups=self.channel_groups,
            hidden_groups=self.hidden_groups,
        )
        # One process works on all channels; on several, whoever builds the task says otherwise.
        self.own_inputs = self.own_outputs = range(channels)
        self.complete: Callable[[Tensor], bool] = lambda available: bool(available.all())
        self.interpolation: Interpolation | None = None
        """What the reconstruction starts from; None starts from nothing."""
        self.missed_std: Tensor = torch.ones(1)
        """Unit of what is added to it, by own output, (C, 1, 1)."""

    def start_from(self, kernel_of_channel: Sequence[int], missed_std: NDArray[np.float64]) -> None:
        """Start reconstructions from an interpolation, by kernels of this rank's outputs.

        Args:
            kernel_of_channel: positions in `interpolation.KERNELS`.
            missed_std: standard deviation of what the interpolation misses.
        """
        self.interpolation = interpolation(kernel_of_channel)
        self.missed_std = torch.tensor(missed_std, dtype=torch.float32)[:, None, None]

    def draw(self, samples: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        """Draw the masks of samples, given by (epoch, index).

        Returns:
            The visible locations (B, V) and which channels are hidden (B, C), of all ranks.
        """
        masks = [self.draw_mask(epoch, index) for epoch, index in samples]
        seen, hidden = (torch.from_numpy(np.stack(each)) for each in zip(*masks, strict=True))
        return seen, hidden

    def complementary(self, index: int) -> tuple[Tensor, Tensor]:
        """Draw masks that together hide every location, and every band group, at least once.

        Where both are hidden, a pass hides some of each. A location is shown in one pass, or in
        two if the passes cannot share the locations out evenly.

        Args:
            index: of the sample; masks depend on it and the seed alone.

        Returns:
            Visible locations (M, V) and hidden channels (M, C) of M passes.
        """
        draws = np.random.default_rng([self.seed, index, _STREAM, 1])
        # Each location must be hidden in some pass, so that none may be shown in all.
        passes = -(-self.locations // self.visible) if self.visible < self.locations else 1
        if self.hidden_groups:
            passes = max(passes, -(-self.channel_groups // self.hidden_groups))
        order, groups = draws.permutation(self.locations), draws.permutation(self.channel_groups)
        group_of_channel = _group_of_channel(self.channels, self.channel_groups)
        visible, hidden = [], []
        for number in range(passes):
            seen = _run(order, number, self.visible)
            away = _run(groups, number, self.hidden_groups)
            visible.append(np.sort(seen))
            hidden.append(np.isin(group_of_channel, away))
        return torch.from_numpy(np.stack(visible)), torch.from_numpy(np.stack(hidden))

    def unseen(self, visible: Tensor) -> Tensor:
        """Say which pixels lie at hidden locations: (B, V) -> (B, 1, H, W)."""
        unseen_BL = torch.ones(
            len(visible), self.locations, dtype=torch.bool, device=visible.device
        ).scatter(1, visible, False)
        pixels_BL1P = unseen_BL[..., None, None].expand(-1, -1, 1, self.patch**2)
        return unpatchify(pixels_BL1P, self.patch, self.height)

    def hidden_pixels(self, visible: Tensor, hidden_channels: Tensor) -> Tensor:
        """Say which pixels of this rank's outputs are hidden: (B, C, H, W)."""
        return self.unseen(visible) | _cut(hidden_channels, self.own_outputs)[..., None, None]

    def reconstruct(
        self, model: nn.Module, images: Tensor, visible: Tensor, hidden_channels: Tensor
    ) -> Tensor:
        """Predict all pixels from what is shown.

        Args:
            model: maps (B, C, H, W), a mask of what is there and the visible locations to
                (B, C, H, W).
            images: (B, C, H, W), of `own_inputs`, normalised, NaN where missing.
            visible, hidden_channels: from `draw`.

        Returns:
            (B, C, H, W), of `own_outputs`, normalised.
        """
        # A mask costs nothing where nothing is missing and no channel hidden.
        available = images.isfinite()
        complete = self.complete(available)
        x = images if complete else images.nan_to_num(0.0)
        if self.hidden_groups:
            available = available & ~_cut(hidden_channels, self.own_inputs)[..., None, None]
        needed = self.hidden_groups or not complete
        out = model(x, available_BCHW=available if needed else None, visible_BV=visible)
        if self.interpolation is None:
            return out
        start = self.interpolation(
            self.targets(images).nan_to_num(0.0),
            ~self.unseen(visible)[:, 0],
            _cut(hidden_channels, self.own_outputs),
        )
        return start + out.float() * self.missed_std.to(out.device)

    def squared_errors(
        self,
        model: nn.Module,
        images: Tensor,
        visible: Tensor,
        hidden_channels: Tensor,
        plants: Tensor | None = None,
    ) -> Tensor:
        """Sums of squared errors times weights over what is hidden and over what is shown: (2,).

        The first, divided by the first of `weights`, is the loss, the same however samples and
        channels are dealt out. The second has no gradient. Missing values are left out.

        Args:
            model, images, visible, hidden_channels: as in `reconstruct`.
            plants: (B, H, W), weights of the pixels; None for one everywhere.
        """
        predicted = self.reconstruct(model, images, visible, hidden_channels)
        truth = self.targets(images).nan_to_num(0.0)
        squares = (predicted.to(truth.dtype) - truth).square()
        hidden, shown = self._weights(images, visible, hidden_channels, plants)
        return torch.stack([(hidden * squares).sum(), (shown * squares.detach()).sum()])

    def weights(
        self,
        images: Tensor,
        visible: Tensor,
        hidden_channels: Tensor,
        plants: Tensor | None = None,
    ) -> Tensor:
        """Sums of the weights that `squared_errors` goes over, in float64: (2,)."""
        parts = self._weights(images, visible, hidden_channels, plants)
        return torch.stack([part.sum(dtype=torch.float64) for part in parts])

    def _weights(
        self, images: Tensor, visible: Tensor, hidden_channels: Tensor, plants: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """What each pixel counts among the hidden and among the shown: twice (B, C, H, W)."""
        hidden = self.hidden_pixels(visible, hidden_channels)
        known = self.targets(images).isfinite()
        parts = known & hidden, known & ~hidden
        if plants is None:
            return parts
        return parts[0] * plants[:, None], parts[1] * plants[:, None]

    def targets(self, images: Tensor) -> Tensor:
        """What this rank predicts, out of what it is given."""
        first = self.own_inputs.start
        return _cut(images, range(self.own_outputs.start - first, self.own_outputs.stop - first))


def _cut(x: Tensor, channels: range) -> Tensor:
    return x[:, channels.start : channels.stop]


def _group_of_channel(channels: int, groups: int) -> NDArray[np.int64]:
    """Deal channels to runs of neighbours, as even as possible."""
    return np.arange(channels) * groups // channels


def _run(order: NDArray[np.int64], number: int, length: int) -> NDArray[np.int64]:
    """Cut run `number` of that length out of an order that begins again where it ends."""
    return order.take(range(number * length, (number + 1) * length), mode="wrap")


def _part(name: str, ratio: float, count: int, what: str) -> int:
    """Return how many of `count` a ratio hides, refusing one that leaves nothing to see."""
    hidden = round(ratio * count)
    if not 0 <= ratio < 1 or hidden >= count:
        raise ValueError(
            f"task.{name} {ratio} hides {hidden} of {count} {what}: give at least 0, and little "
            f"enough that something is left to see."
        )
    return hidden


def planned_loss(
    model: ChannelTransformer,
    own: tuple[range, range],
    samples: int,
    dtype: torch.dtype,
    *,
    mask_ratio: float = 0.75,
    channel_mask_ratio: float = 0.0,
) -> Tensor:
    """The reconstruction error of samples that have no values, for a planned step.

    Args:
        model: on this rank.
        own: positions of this rank's inputs and outputs.
        samples: how many.
        dtype: of the images.
        mask_ratio, channel_mask_ratio: the fractions that are hidden.
    """
    config = model.config
    objective = MaskedObjective(
        seed=0,
        image_size=config.image_size,
        patch=config.patch,
        channels=len(config.input_channels),
        mask_ratio=mask_ratio,
        channel_mask_ratio=channel_mask_ratio,
    )
    objective.own_inputs, objective.own_outputs = own
    objective.complete = lambda available: True  # fake values have no answer
    size = config.image_size
    images = torch.empty(samples, len(own[0]), *size, dtype=dtype)
    visible = torch.empty(samples, objective.visible, dtype=torch.long)
    channels = torch.empty(samples, objective.channels, dtype=torch.bool)
    weights = torch.empty(samples, *size)
    return objective.squared_errors(model, images, visible, channels, weights)[0]
