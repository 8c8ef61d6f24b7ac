"""A linear forecast of the change over one step, from the states around each place.

Shapes: B batch, C state channels, T times of the input (initial time, then history), S cells of the
stencil around a place, O target channels, H x W grid.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sciml_dchag.objectives.layout import InputLayout


def states_of(inputs_BNHW: Tensor, layout: InputLayout) -> Tensor:
    """The states among a forecaster's inputs, (B, C, T, H, W), 0 where missing."""
    states_BCTHW = inputs_BNHW[:, : layout.states].unflatten(1, (-1, layout.times))
    return states_BCTHW.nan_to_num(0.0)


class LinearStep(nn.Module):
    """Weights by row on the cells around each place; fitted, not trained.

    change[o, h, w] = sum over c, t, s of weights[o, c, t, s, h] x[c, t, neighbours[s, h, w]],
    where c runs over all channels, or is the target itself.

    Args:
        weights: (O, C, T, S, H); (O, 1, T, S, H) where each target is forecast from itself alone.
        neighbours: positions of the cells around each place on the flattened grid, (S, H, W).
        target_indices: positions of the targets among the state channels, (O,).
    """

    weights: Tensor
    neighbours: Tensor
    target_indices: Tensor

    def __init__(
        self,
        weights: NDArray[np.float32],
        neighbours: NDArray[np.int64],
        target_indices: NDArray[np.int64],
    ) -> None:
        super().__init__()
        self.register_buffer("weights", torch.as_tensor(weights))
        self.register_buffer("neighbours", torch.as_tensor(neighbours))
        self.register_buffer("target_indices", torch.as_tensor(target_indices))

    def around(self, states_BCTHW: Tensor) -> Tensor:
        """Gather the cells around each place: (B, C, T, H, W) -> (B, C, T, S, H, W)."""
        gathered = states_BCTHW.flatten(-2).index_select(-1, self.neighbours.flatten())
        return gathered.unflatten(-1, self.neighbours.shape)

    def forward(self, states_BCTHW: Tensor) -> Tensor:
        """Forecast the change of the targets, (B, O, H, W), in float32 under autocast too."""
        from_all = self.weights.shape[1] > 1
        with torch.autocast(states_BCTHW.device.type, enabled=False):
            states = states_BCTHW.to(self.weights.dtype)
            if from_all or states.shape[1] == 1:
                x = self.around(states)
                return torch.einsum("bctshw,octsh->bohw", x, self.weights)
            x = self.around(states.index_select(1, self.target_indices))
            return torch.einsum("botshw,otsh->bohw", x, self.weights[:, 0])
