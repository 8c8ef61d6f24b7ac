"""Interpolation in time: the state between two states, exact at both of them, and its loss.

Independent of files, optimizers and ranks. A window has a length W in hours; tau hours after its
start s = tau / W. With the states a and b at its ends

    state(s) = (1 - s) a + s b + 4 s (1 - s) (ridge(s) + unit(W) network(a, b, tau, W)),

so that the answer at both ends is the state there, whatever the network says. The ridge and the
network also see the states one window before and one after, where there are any.

Shapes: B batch, N input channels, C state channels, O target channels, F forcings, T = 4 frames, M
fitted (window, tau), K windows, S cells of the stencil around a place, H x W grid; N = 4 C + F in
the order of `FramesLayout`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sciml_dchag.models.transformer import ChannelTransformer
from sciml_dchag.objectives.layout import InputLayout

FRAMES = {"before": -1, "start": 0, "end": 1, "after": 2}
"""States that an interpolation is made from, in windows after the start of the one between."""
ENDS = (1, 2)
"""Which frames are the ends of the window."""
OUTER = (0, 3)
"""Which lie outside of it: missing where a record begins or ends."""


@dataclass(frozen=True, kw_only=True)
class FramesLayout(InputLayout):
    """The inputs of an interpolator: each channel at four frames, then forcings and the window.

    The frames are channels of one image, so that the channel stage joins them.
    """

    @property
    def times(self) -> int:
        """T."""
        return len(FRAMES)

    @property
    def constants(self) -> tuple[str, ...]:
        """Forcings at the time between, and the length of the window."""
        return (*self.static, *self.forcings, "window_hours")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all inputs: `msl@before`, `msl@start`, ..., `cos_latitude`, `window_hours`."""
        states = (f"{channel}@{frame}" for channel in self.channels for frame in FRAMES)
        return (*states, *self.constants)


def frames_of(inputs_BNHW: Tensor, layout: FramesLayout) -> Tensor:
    """The frames among an interpolator's inputs, (B, C, T, H, W), NaN where missing."""
    return inputs_BNHW[:, : layout.states].unflatten(1, (-1, layout.times))


def taper(elapsed_B: Tensor, window_B: Tensor) -> Tensor:
    """Return 4 s (1 - s), (B, 1, 1, 1): 0 at both ends of a window, 1 in its middle."""
    s = _on_grid(elapsed_B / window_B)
    return 4 * s * (1 - s)


def between_ends(first: Tensor, last: Tensor, elapsed_B: Tensor, window_B: Tensor) -> Tensor:
    """Interpolate linearly between states (B, O, H, W); at s = 0 and 1 to the bit."""
    s = _on_grid(elapsed_B / window_B)
    return (1 - s) * first + s * last


def _on_grid(values_B: Tensor) -> Tensor:
    return values_B[:, None, None, None]


class BetweenRidge(nn.Module):
    """What a ridge regression adds to linear interpolation, divided by 4 s (1 - s).

    There are two: on all four frames, and on both ends alone, for samples that lack a frame outside
    of the window. Between the tau that they were fitted at they are interpolated linearly, and
    before the first and after the last they are theirs.

    Args:
        weights: (2, M, O, C or 1, T, S, H): on both ends alone, where the others' are 0, then on
            all frames; by fitted time, target, source (1: the target itself), frame, cell of the
            stencil and row.
        neighbours: positions of the cells around each place on the flattened grid, (S, H, W).
        target_indices: positions of the targets among the state channels, (O,).
        fitted: (window, tau) of the fits in hours, tau in even steps, (M, 2).
    """

    weights: Tensor
    neighbours: Tensor
    target_indices: Tensor
    windows: Tensor
    taus: Tensor

    def __init__(
        self,
        weights: NDArray[np.float32],
        neighbours: NDArray[np.int64],
        target_indices: NDArray[np.int64],
        fitted: Sequence[tuple[int, int]],
    ) -> None:
        super().__init__()
        self.step = min(tau for _, tau in fitted)
        self.register_buffer("weights", torch.as_tensor(weights))
        self.register_buffer("neighbours", torch.as_tensor(neighbours))
        self.register_buffer("target_indices", torch.as_tensor(target_indices))
        hours = torch.tensor(fitted, dtype=torch.float32)
        self.register_buffer("windows", hours[:, 0])
        self.register_buffer("taus", hours[:, 1])

    def forward(self, frames_BCTHW: Tensor, elapsed_B: Tensor, window_B: Tensor) -> Tensor:
        """Return the addition, (B, O, H, W), in float32 under autocast too.

        Args:
            frames_BCTHW: of all channels, NaN where missing; a frame that is missing everywhere is
                one that the record does not have.
            elapsed_B: tau, hours since the start.
            window_B: W in hours.
        """
        with torch.autocast(frames_BCTHW.device.type, enabled=False):
            complete_B = frames_BCTHW.isfinite().any(-1).any(-1).any(1).all(1).float()
            shares_BM = self.shares(elapsed_B, window_B)
            counted = torch.stack([1 - complete_B, complete_B], 1)[..., None] * shares_BM[:, None]
            weights = torch.tensordot(counted, self.weights, 2)
            states = frames_BCTHW.nan_to_num(0.0).to(self.weights.dtype)
            from_all = weights.shape[2] > 1 or states.shape[1] == 1
            if not from_all:
                states, weights = states.index_select(1, self.target_indices), weights[:, :, 0]
            product = "bcthw,bocth->bohw" if from_all else "bothw,both->bohw"
            added = states.new_zeros(())
            # Cell by cell: what lies around all places at once is 45 times as large as the states.
            for cells_HW, of_cell in zip(self.neighbours, weights.unbind(-2), strict=True):
                around = states.flatten(-2)[..., cells_HW]
                added = added + torch.einsum(product, around, of_cell)
            return added

    def shares(self, elapsed_B: Tensor, window_B: Tensor) -> Tensor:
        """How much each fit counts, (B, M): hats over the fitted tau of the same window."""
        inside = torch.minimum(elapsed_B.clamp(min=self.step), window_B - self.step)
        hats = (1 - (inside[:, None] - self.taus).abs() / self.step).clamp(min=0)
        return hats * (window_B[:, None] == self.windows)


class BetweenObjective(nn.Module):
    """Interpolation in normalised units, and its latitude-weighted squared error.

    Args:
        area_weights: relative area of the cells of each row, mean 1: (H,).
        layout: where each input is.
        unit: what is left to learn, divided by 4 s (1 - s), by window and target: (K, O).
        window_hours: the K windows, ascending.
        ridge: what is added to linear interpolation; None adds nothing.
    """

    area_weights: Tensor
    unit: Tensor
    window_hours: Tensor

    def __init__(
        self,
        *,
        area_weights: NDArray[np.float64],
        layout: FramesLayout,
        unit: NDArray[np.float64],
        window_hours: Sequence[int],
        ridge: BetweenRidge | None = None,
    ) -> None:
        super().__init__()
        self.layout, self.ridge = layout, ridge
        weights = torch.tensor(area_weights, dtype=torch.float32)[:, None]
        self.register_buffer("area_weights", weights)
        unit_KO11 = torch.tensor(unit, dtype=torch.float32)[..., None, None]
        self.register_buffer("unit", unit_KO11)
        hours = torch.tensor(list(window_hours), dtype=torch.float32)
        self.register_buffer("window_hours", hours)
        # One process works on all channels; on several, whoever builds the task says otherwise.
        self.own_inputs = slice(None)
        self.complete: Callable[[Tensor], bool] = lambda available: bool(available.all())

    def guess(
        self, inputs: Tensor, first: Tensor, last: Tensor, elapsed_B: Tensor, window_B: Tensor
    ) -> Tensor:
        """Return what the model adds to, (B, O, H, W), normalised; NaN where an end is missing.

        Args:
            inputs: (B, N, H, W), all of them where there is a ridge.
            first: (B, O, H, W), the target channels at the start of the window.
            last: (B, O, H, W), at its end.
            elapsed_B: tau, hours since the start.
            window_B: W in hours.
        """
        line = between_ends(first, last, elapsed_B, window_B)
        if self.ridge is None:
            return line
        added = self.ridge(frames_of(inputs, self.layout), elapsed_B, window_B)
        return line + taper(elapsed_B, window_B) * added.to(line.dtype)

    def scale(self, elapsed_B: Tensor, window_B: Tensor) -> Tensor:
        """Return 4 s (1 - s) unit(W), (B, O, 1, 1)."""
        unit = self.unit[torch.searchsorted(self.window_hours, window_B.contiguous())]
        return taper(elapsed_B, window_B) * unit

    def between(
        self, model: nn.Module, inputs: Tensor, guess: Tensor, elapsed_B: Tensor, window_B: Tensor
    ) -> Tensor:
        """Return the states between, (B, O, H, W), normalised.

        Args:
            model: maps (B, N, H, W), hours (B,) and a mask to (B, O, H, W).
            inputs: (B, N, H, W), this rank's, NaN where missing.
            guess: from `guess`.
            elapsed_B, window_B: as there.
        """
        available = inputs.isfinite()
        complete = self.complete(available)
        x = inputs if complete else inputs.nan_to_num(0.0)
        out = model(x, elapsed_B, None if complete else available)
        return guess.nan_to_num(0.0) + out.to(guess.dtype) * self.scale(elapsed_B, window_B)

    def squared_error(
        self,
        model: nn.Module,
        inputs: Tensor,
        first: Tensor,
        last: Tensor,
        targets: Tensor,
        elapsed_B: Tensor,
        window_B: Tensor,
    ) -> Tensor:
        """Sum of squared errors times area weights, over samples and target channels.

        Divided by `weight` it is the loss. Errors are in units of 4 s (1 - s) unit(W), so that all
        channels, windows and times within them have the same weight. Missing targets are left out.

        Args:
            model, first, last, elapsed_B, window_B: as in `between` and `guess`.
            inputs: (B, N, H, W), all that this rank reads.
            targets: (B, O, H, W), NaN where missing; none of them at an end of its window.
        """
        guess = self.guess(inputs, first, last, elapsed_B, window_B)
        found = self.between(model, inputs[:, self.own_inputs], guess, elapsed_B, window_B)
        known, truth = targets.isfinite(), targets.nan_to_num(0.0)
        error = (found.to(truth.dtype) - truth) / self.scale(elapsed_B, window_B)
        return (self.area_weights * known * error.square()).sum()

    def weight(self, targets: Tensor) -> Tensor:
        """Sum of the area weights of all target values that are not missing, in float64."""
        return (self.area_weights * targets.isfinite()).sum(dtype=torch.float64)


def planned_loss(
    model: ChannelTransformer, own: tuple[range, range], samples: int, dtype: torch.dtype
) -> Tensor:
    """The interpolation error of samples that have no values, for a planned step.

    Args:
        model: on this rank.
        own: positions of this rank's inputs and outputs.
        samples: how many.
        dtype: of the states.
    """
    inputs, outputs = own
    size = model.config.image_size
    objective = BetweenObjective(
        area_weights=np.ones(size[0]), layout=FramesLayout(channels=()),
        unit=np.ones((1, len(outputs))), window_hours=[1],
    )  # fmt: skip
    objective.complete = lambda available: True  # fake values have no answer
    states = torch.empty(samples, len(inputs), *size, dtype=dtype)
    first, last, targets = torch.empty(3, samples, len(outputs), *size, dtype=dtype)
    elapsed, window = torch.empty(2, samples)
    return objective.squared_error(model, states, first, last, targets, elapsed, window)
