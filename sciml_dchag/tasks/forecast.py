"""Forecasting: how a model's output becomes the state at a later time, and the loss.

Knows nothing of files, optimizers or ranks. Shapes: B batch, T times of the input (initial time,
then history), C state channels, O target channels, F constants, R rollout steps, H x W grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sciml_dchag.evaluation.weights import latitude_weights


class ForecastTask(nn.Module):
    """One step of forecasting in normalised units, and its latitude-weighted squared error.

    Args:
        target_indices: positions of the target channels among the state channels.
        change_std: per target channel, the standard deviation of the change over a lead time in
            normalised units: the unit of a residual forecast. None predicts the state itself.
        latitude: rows of the grid in degrees, for the weights.
        state_channels: C.
    """

    target_indices: Tensor
    change_std: Tensor
    area_weights: Tensor

    def __init__(
        self,
        *,
        target_indices: Sequence[int],
        change_std: NDArray[np.float64] | None,
        latitude: NDArray[np.float64],
        state_channels: int,
    ) -> None:
        super().__init__()
        self.residual = change_std is not None
        self.state_channels = state_channels
        scale = np.ones(len(target_indices)) if change_std is None else change_std
        weights = latitude_weights(latitude)
        self.register_buffer("target_indices", torch.as_tensor(list(target_indices)))
        self.register_buffer("change_std", torch.tensor(scale, dtype=torch.float32)[:, None, None])
        self.register_buffer("area_weights", torch.tensor(weights, dtype=torch.float32)[:, None])

    def step(self, model: nn.Module, states: Tensor, constants: Tensor, hours: Tensor) -> Tensor:
        """Forecast one lead time.

        Args:
            model: maps (B, C_in, H, W), hours (B,) and a mask to (B, O, H, W).
            states: (B, T, C, H, W), normalised, NaN where missing.
            constants: (B, F, H, W).
            hours: (B,).

        Returns:
            (B, O, H, W), normalised.
        """
        x = torch.cat([states.flatten(1, 2), constants], dim=1)
        # Constants are always there; a mask costs nothing where no state is missing.
        available = x.isfinite()
        mask = None if bool(available.all()) else available
        out = model(x.nan_to_num(0.0) if mask is not None else x, hours, mask)
        if not self.residual:
            return out
        now = states[:, 0].index_select(1, self.target_indices).nan_to_num(0.0)
        return now + out.to(now.dtype) * self.change_std

    def advance(self, states: Tensor, forecast: Tensor) -> Tensor:
        """Put a forecast in front of the history that it makes, dropping the oldest time."""
        assert forecast.shape[1] == self.state_channels
        newest = torch.empty_like(states[:, 0])
        newest[:, self.target_indices] = forecast.to(newest.dtype)
        return torch.cat([newest[:, None], states[:, :-1]], dim=1)

    def loss(
        self, model: nn.Module, states: Tensor, constants: Tensor, targets: Tensor, hours: Tensor
    ) -> Tensor:
        """Latitude-weighted mean squared error over all target channels and rollout steps.

        In units of the standard deviation of a channel (direct) or of its change (residual), so
        that every channel counts alike. Missing target values are left out.

        Args:
            model: as in `step`.
            states: (B, T, C, H, W).
            constants: (B, R, F, H, W).
            targets: (B, R, O, H, W), NaN where missing.
            hours: (B,).
        """
        total = states.new_zeros(())
        weight = states.new_zeros(())
        for step in range(targets.shape[1]):
            forecast = self.step(model, states, constants[:, step], hours)
            known = targets[:, step].isfinite()
            truth = targets[:, step].nan_to_num(0.0)
            error = (forecast.to(truth.dtype) - truth) / self.change_std
            weights = self.area_weights * known
            total = total + (weights * error.square()).sum()
            weight = weight + weights.sum()
            if step + 1 < targets.shape[1]:
                states = self.advance(states, forecast)
        return total / weight


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
