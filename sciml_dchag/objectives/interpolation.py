"""Interpolation of hidden pixels from the visible ones around them, each channel by itself.

A pixel is a weighted sum of the visible pixels nearest to it; the weights follow from where these
lie, by inverse distance or as the mean of a Gaussian process. It is a baseline of masked
autoencoders, and what one may start from: how each channel varies in space need not be learnt again
by a network. Independent of files and ranks.

Shapes: B samples, C channels, H x W image, P = H W pixels, V visible locations, N pixels that are
interpolated, K visible pixels near each; M is N, or 1 where all of them share the visible pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FEW_PIXELS = 512
"""Up to so many visible pixels are all used for each that is interpolated."""
NEAREST = 36
"""Of more, the nearest ones; further ones have next to no weight."""
BLOCK = 4096
"""Pixels that are worked on at once."""


@dataclass(frozen=True)
class InverseDistance:
    """Weights in proportion to the inverse square of the distance (Shepard 1968)."""

    def weights(self, to_NK: Tensor, between_MKK: Tensor) -> Tensor:
        """Weights of the visible pixels, (N, K), from distances in pixels."""
        inverse = to_NK.clamp(min=1e-6) ** -2
        return inverse / inverse.sum(-1, keepdim=True)


@dataclass(frozen=True)
class GaussianProcess:
    """The mean of a Gaussian process of mean 0 (Rasmussen and Williams 2006, equation 2.25)."""

    covariance: Literal["gaussian", "matern"]
    """Its shape: the squared exponential, or Matern's with index 3/2."""
    reach: float
    """Its length scale in pixels."""
    noise: float
    """Variance that neighbouring pixels do not share, over the variance that they do."""

    def weights(self, to_NK: Tensor, between_MKK: Tensor) -> Tensor:
        """Weights of the visible pixels, (N, K), from distances in pixels."""
        noise = self.noise * torch.eye(to_NK.shape[-1], dtype=to_NK.dtype)
        matrices_MKK = self._at(between_MKK) + noise
        if len(matrices_MKK) == 1:
            return torch.linalg.solve(matrices_MKK[0], self._at(to_NK).T).T
        return torch.linalg.solve(matrices_MKK, self._at(to_NK)[..., None])[..., 0]

    def _at(self, distance: Tensor) -> Tensor:
        if self.covariance == "gaussian":
            return torch.exp(-0.5 * (distance / self.reach) ** 2)
        scaled = 3**0.5 * distance / self.reach
        return (1 + scaled) * torch.exp(-scaled)


Kernel = GaussianProcess | InverseDistance

KERNELS: tuple[GaussianProcess, ...] = tuple(
    GaussianProcess(covariance, reach, noise)
    for covariance in ("gaussian", "matern")
    for reach in (2.0, 4.0, 6.0, 10.0, 20.0, 60.0)
    for noise in (1e-3, 1e-2, 1e-1, 1.0, 10.0)
)  # fmt: skip
"""Gaussian processes to choose from."""
MOST_KERNELS = 4
"""As many of them are in use at a time, as each costs a solution of equations for every pixel."""


def near(
    visible: NDArray[np.bool_], wanted: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], Tensor, Tensor]]:
    """Find the visible pixels near others, a block at a time.

    Args:
        visible: which pixels are, (H, W).
        wanted: positions on the flattened image to interpolate, (N,).

    Yields:
        Some of `wanted`, the positions of the visible pixels near each, (M, K), their distances
        from it, (N, K), and from each other, (M, K, K), in float64.
    """
    from scipy.spatial import cKDTree

    there = np.flatnonzero(visible)
    places = np.stack(np.divmod(np.arange(visible.size), visible.shape[1]), -1).astype(np.float64)
    at = torch.from_numpy(places)
    few = len(there) <= FEW_PIXELS
    tree = None if few else cKDTree(places[there])
    for start in range(0, len(wanted), BLOCK):
        some = wanted[start : start + BLOCK]
        if tree is None:
            neighbours = there[None]
            to = torch.cdist(at[some], at[there])
        else:
            to, found = tree.query(places[some], k=np.arange(1, NEAREST + 1))
            to, neighbours = torch.from_numpy(to), there[found]
        yield some, neighbours, to, torch.cdist(at[neighbours], at[neighbours])


def weighted(values_CP: Tensor, neighbours: NDArray[np.int64], weights_NK: Tensor) -> Tensor:
    """Sum visible pixels, given by their positions (M, K), with weights: (C, N)."""
    if len(neighbours) == 1:
        return values_CP[:, neighbours[0]] @ weights_NK.T
    return (values_CP[:, neighbours] * weights_NK).sum(-1)


@dataclass(frozen=True, eq=False)
class Interpolation:
    """Interpolates what is hidden of samples, each channel by a kernel of its own."""

    kernels: tuple[Kernel, ...]
    """Those in use."""
    kernel_of_channel: NDArray[np.int64]
    """Positions among them, (C,)."""

    @torch.no_grad()
    def __call__(self, images: Tensor, visible_BHW: Tensor, hidden_channels_BC: Tensor) -> Tensor:
        """Interpolate, (B, C, H, W).

        Args:
            images: normalised, (B, C, H, W), 0 where missing; hidden pixels are not looked at.
            visible_BHW: pixels that are shown.
            hidden_channels_BC: channels of which nothing is shown; they get 0, the mean.
        """
        found = [
            self._one(image.float().cpu(), visible.cpu().numpy())
            for image, visible in zip(images, visible_BHW, strict=True)
        ]
        filled = torch.stack(found).to(images.device)
        return filled * ~hidden_channels_BC.to(images.device)[..., None, None]

    def _one(self, image_CHW: Tensor, visible: NDArray[np.bool_]) -> Tensor:
        values_CP = image_CHW.flatten(1)
        filled_CP = values_CP.clone()
        for some, neighbours, to, between in near(visible, np.flatnonzero(~visible)):
            for number, kernel in enumerate(self.kernels):
                channels = np.flatnonzero(self.kernel_of_channel == number)
                if len(channels):
                    weights = kernel.weights(to, between).float()
                    made_CN = weighted(values_CP[channels], neighbours, weights)
                    filled_CP[np.ix_(channels, some)] = made_CN
        return filled_CP.view_as(image_CHW)


@dataclass(frozen=True, eq=False)
class InterpolationErrors:
    """What each kernel misses of some channels, on samples whose truth is known."""

    squares: NDArray[np.float64]
    """Sums of squared errors, (number of kernels, C)."""
    counts: NDArray[np.float64]
    """Pixels that they are over, (C,)."""

    @classmethod
    def of(
        cls,
        samples: Callable[[int], tuple[Tensor, Tensor, Tensor]],
        count: int,
        kernels: Sequence[Kernel] = KERNELS,
        pixels: int = 128,
    ) -> InterpolationErrors:
        """Interpolate pixels of samples by every kernel.

        Args:
            samples: returns by number an image (C, H, W), its visible pixels (H, W), and those
                that count (H, W).
            count: number of samples.
            kernels: to compare.
            pixels: hidden pixels of each sample that are tried, evenly spread.
        """
        squares: Any = 0.0
        counts: Any = 0.0
        for number in range(count):
            image, visible, weight = samples(number)
            values_CP = image.flatten(1)
            wanted = np.flatnonzero((~visible & (weight > 0)).numpy())
            wanted = wanted[:: -(-len(wanted) // pixels) or 1]
            for some, neighbours, to, between in near(visible.numpy(), wanted):
                true_CN = values_CP[:, some]
                known_CN = true_CN.isfinite()
                seen_CP = values_CP.nan_to_num(0.0)
                missed = torch.stack(
                    [
                        weighted(seen_CP, neighbours, kernel.weights(to, between).float()) - true_CN
                        for kernel in kernels
                    ]
                )
                errors = missed.where(known_CN, 0.0).double().square().sum(-1)
                squares, counts = squares + errors.numpy(), counts + known_CN.sum(-1).numpy()
        return cls(np.asarray(squares), np.asarray(counts, np.float64))

    def choose(self, most: int = MOST_KERNELS) -> tuple[list[int], NDArray[np.float64]]:
        """Choose a kernel for each channel, few different ones in all.

        Kernels are added one by one, each the one that lowers the sum over channels of the least
        error most.

        Returns:
            The positions of the kernels by channel, and the root of their mean square errors, (C,).
        """
        chosen: list[int] = []
        least = np.full(self.squares.shape[1], np.inf)
        while len(chosen) < most:
            totals = np.minimum(self.squares, least).sum(1)
            best = int(totals.argmin())
            if best in chosen or not totals[best] < least.sum():
                break
            chosen.append(best)
            least = np.minimum(least, self.squares[best])
        places = np.array(chosen)[self.squares[chosen].argmin(0)]
        return places.tolist(), np.sqrt(least / np.maximum(self.counts, 1))


def interpolation(kernel_of_channel: Sequence[int]) -> Interpolation:
    """Make the interpolation of chosen kernels, given by their positions in `KERNELS`."""
    used = sorted(set(kernel_of_channel))
    places = np.array([used.index(kernel) for kernel in kernel_of_channel], np.int64)
    return Interpolation(tuple(KERNELS[number] for number in used), places)
