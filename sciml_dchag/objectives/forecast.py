"""Forecasting: how a model's output becomes the state at a later time, and the loss.

Independent of files, optimizers and ranks. Shapes: B batch, N input channels, C state channels,
O target channels, T times of the input (initial time, then history), F static fields and forcings,
H x W grid; N = C * T + F in the order of `layout.InputLayout`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sciml_dchag.models.transformer import ChannelTransformer
from sciml_dchag.objectives.layout import InputLayout
from sciml_dchag.objectives.linear_step import LinearStep, states_of


class ForecastObjective(nn.Module):
    """One step of forecasting in normalised units, and its latitude-weighted squared error.

    Args:
        change_std: per target channel, the standard deviation of the change over a lead time in
            normalised units: the unit of a residual forecast, (O,), or (K, O) where it differs by
            lead time. None predicts the state itself.
        std_hours: the K lead times.
        area_weights: relative area of the cells of each row, mean 1: (H,).
        target_indices: positions of all target channels among the C state channels.
        layout: where each input is.
        linear: what a residual forecast starts from; None starts from the initial state.
    """

    target_indices: Tensor
    change_std: Tensor
    std_hours: Tensor
    area_weights: Tensor

    def __init__(
        self,
        *,
        change_std: NDArray[np.float64] | None,
        area_weights: NDArray[np.float64],
        target_indices: Sequence[int],
        layout: InputLayout,
        linear: LinearStep | None = None,
        std_hours: Sequence[int] = (),
    ) -> None:
        super().__init__()
        assert linear is None or change_std is not None
        self.residual = change_std is not None
        self.layout, self.linear = layout, linear
        scale = np.ones(1) if change_std is None else change_std
        self.register_buffer("target_indices", torch.as_tensor(list(target_indices)))
        scale = np.atleast_2d(scale)[..., None, None]
        self.register_buffer("change_std", torch.tensor(scale, dtype=torch.float32))
        self.register_buffer("std_hours", torch.tensor(list(std_hours), dtype=torch.float32))
        self.register_buffer(
            "area_weights", torch.tensor(area_weights, dtype=torch.float32)[:, None]
        )
        # One process works on all channels; on several, whoever builds the task says otherwise.
        self.own_inputs = slice(None)
        self.join: Callable[[Tensor], Tensor] = lambda forecast: forecast
        self.complete: Callable[[Tensor], bool] = lambda available: bool(available.all())

    def start(self, inputs: Tensor, now: Tensor) -> Tensor:
        """Return what a residual forecast adds to: (B, O, H, W), normalised.

        Args:
            inputs: (B, N, H, W), all of them where there is a linear step.
            now: (B, O, H, W), the target channels at the initial time.
        """
        if self.linear is None:
            return now
        change: Tensor = self.linear(states_of(inputs, self.layout))
        return now.nan_to_num(0.0) + change.to(now.dtype)

    def unit(self, hours: Tensor) -> Tensor:
        """The unit of a residual forecast of lead times (B,), (B or 1, O, 1, 1)."""
        if len(self.change_std) == 1:
            return self.change_std
        return self.change_std[torch.searchsorted(self.std_hours, hours)]

    def step(self, model: nn.Module, inputs: Tensor, start: Tensor, hours: Tensor) -> Tensor:
        """Forecast one lead time.

        Args:
            model: maps (B, N, H, W), hours (B,) and a mask to (B, O, H, W).
            inputs: (B, N, H, W), normalised, NaN where missing.
            start: (B, O, H, W), from `start`.
            hours: (B,).

        Returns:
            (B, O, H, W), normalised.
        """
        # A mask costs nothing where no input is missing.
        available = inputs.isfinite()
        complete = self.complete(available)
        x = inputs if complete else inputs.nan_to_num(0.0)
        out = model(x, hours, None if complete else available)
        if not self.residual:
            return out
        return start.nan_to_num(0.0) + out.to(start.dtype) * self.unit(hours)

    def advance(self, inputs: Tensor, forecast: Tensor, constants: Tensor) -> Tensor:
        """Make the inputs of the next step: the forecast first, the oldest state dropped.

        Args:
            inputs: (B, N, H, W), of this step.
            forecast: (B, C, H, W), every state channel, in the order of the targets.
            constants: (B, F, H, W), at the start of the next step.
        """
        layout = self.layout
        assert forecast.shape[1] == len(layout.channels)
        assert constants.shape[1] == len(layout.constants)
        states_BCTHW = inputs[:, : layout.states].unflatten(1, (-1, layout.times))
        newest = torch.empty_like(states_BCTHW[:, :, 0])
        newest[:, self.target_indices] = forecast.to(newest.dtype)
        advanced = torch.cat([newest[:, :, None], states_BCTHW[:, :, :-1]], dim=2)
        return torch.cat([advanced.flatten(1, 2), constants], dim=1)

    def squared_error(
        self,
        model: nn.Module,
        inputs: Tensor,
        now: Tensor,
        later_constants: Tensor,
        targets: Tensor,
        hours: Tensor,
    ) -> Tensor:
        """Sum of squared errors times area weights, over samples, target channels and steps.

        Divided by `weight` it is the loss, the same however samples and channels are dealt out.
        Errors are in units of the standard deviation of a channel (direct) or of its change
        (residual), so that every channel has the same weight. Missing target values are left out.

        Args:
            model, inputs, hours: as in `step`.
            now: (B, O, H, W), the target channels at the initial time.
            later_constants: (B, R - 1, F, H, W), at the start of each step but the first.
            targets: (B, R, O, H, W), NaN where missing.
        """
        total = now.new_zeros(())
        steps = targets.shape[1]
        for step in range(steps):
            start = self.start(inputs, now)
            forecast = self.step(model, inputs[:, self.own_inputs], start, hours)
            known = targets[:, step].isfinite()
            truth = targets[:, step].nan_to_num(0.0)
            error = (forecast.to(truth.dtype) - truth) / self.unit(hours)
            total = total + (self.area_weights * known * error.square()).sum()
            if step + 1 < steps:
                everything = self.join(forecast)
                inputs = self.advance(inputs, everything, later_constants[:, step])
                now = forecast.to(now.dtype)
        return total

    def weight(self, targets: Tensor) -> Tensor:
        """Sum of the area weights of all target values that are not missing, in float64."""
        return (self.area_weights * targets.isfinite()).sum(dtype=torch.float64)


def can_roll_out(
    targets: Sequence[str], state_channels: Sequence[str], step_hours: int, history: Sequence[int]
) -> str | None:
    """Say why a forecaster cannot be rolled out, or None where it can."""
    if missing := sorted(set(state_channels) - set(targets)):
        return f"it does not predict {missing[0]!r}, an input (add it to task.targets)"
    expected = [-step_hours * k for k in range(1, len(history) + 1)]
    if list(history) != expected:
        return f"history {list(history)} does not shift by {step_hours} h (use {expected})"
    return None


def planned_loss(
    model: ChannelTransformer, own: tuple[range, range], samples: int, dtype: torch.dtype
) -> Tensor:
    """The forecast error of samples that have no values, for a planned step.

    Args:
        model: on this rank.
        own: positions of this rank's inputs and outputs.
        samples: how many.
        dtype: of the states.
    """
    inputs, outputs = own
    size = model.config.image_size
    objective = ForecastObjective(
        change_std=None,
        area_weights=np.ones(size[0]),
        target_indices=range(len(outputs)),
        layout=InputLayout(channels=model.config.output_channels),  # nothing is fed back
    )
    objective.complete = lambda available: True  # fake values have no answer
    states, now = (
        torch.empty(samples, len(part), *size, dtype=dtype) for part in (inputs, outputs)
    )
    later, targets = torch.empty(samples, 0, 0, *size), torch.empty_like(now)[:, None]
    return objective.squared_error(model, states, now, later, targets, torch.empty(samples))
