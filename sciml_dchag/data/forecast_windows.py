"""Forecast samples: a state, what is known beside it, and the states to be forecast.

A sample is a pure function of (seed, number of the sample), so that a run that is resumed, on any
number of ranks, repeats and skips nothing. What is done with a sample is `tasks.forecast`'s.

Shapes: B batch, T times of the input state (the initial time first, then history), C channels of
the store, O target channels, F constants and forcings, R steps of a rollout, H x W grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sciml_dchag.channels import Channel, ChannelSet
from sciml_dchag.data.forcing import SOLAR_CONSTANT, compute_forcing
from sciml_dchag.data.store import Period, Store
from sciml_dchag.evaluation.weights import latitude_weights


@dataclass(frozen=True)
class ForecastBatch:
    """Samples ready for the model; states and targets are normalised, NaN where missing."""

    states: Tensor
    """(B, T, C, H, W): the state at the initial time, then at each earlier time of history."""
    constants: Tensor
    """(B, R, F, H, W): static fields and forcings at the start of each forecast step."""
    targets: Tensor
    """(B, R, O, H, W): the target channels after each forecast step."""
    lead_hours: Tensor
    """(B,): hours of one forecast step."""

    def __post_init__(self) -> None:
        sizes = {(f.name, getattr(self, f.name).shape[0]) for f in fields(self)}
        assert len({size for _, size in sizes}) == 1, sizes
        assert self.constants.shape[1] == self.targets.shape[1]

    def to(self, device: torch.device) -> ForecastBatch:
        """Move to a device, without waiting for it where the memory is pinned."""
        moved = {f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)}
        return ForecastBatch(**moved)

    def rotated(self, columns: int) -> ForecastBatch:
        """Turn all fields eastward by a number of columns of a global grid."""
        states, constants, targets = (
            field.roll(columns, dims=-1) for field in (self.states, self.constants, self.targets)
        )
        return ForecastBatch(states, constants, targets, self.lead_hours)

    @staticmethod
    def stack(samples: Sequence[ForecastBatch]) -> ForecastBatch:
        """Join samples to a batch."""
        parts = ([getattr(sample, f.name) for sample in samples] for f in fields(ForecastBatch))
        return ForecastBatch(*(torch.cat(part) for part in parts))


class ForecastWindows(Dataset[ForecastBatch]):
    """All samples of a period whose history and targets lie within it.

    Args:
        store: the prepared store, evenly spaced in time.
        period: the times that samples may touch, targets included.
        mean, std: per channel of the store, in its units.
        targets: channels to forecast.
        lead_hours: shortest and longest lead time; drawn at random where they differ.
        history_hours: earlier times given as input, negative.
        static: static fields of the store.
        forcings: computed fields, see `data.forcing`.
        rollout_steps: R.
        rotate: turn each sample about the Earth's axis by a random number of columns.
        seed: what order, lead times and rotations are drawn from.
        memory_mebibytes: the period is kept in memory if it is no larger than this.

    Raises:
        ValueError: uneven steps, hours that are no multiple of the step, or a period too short.
    """

    def __init__(
        self,
        store: Store,
        period: Period,
        *,
        mean: NDArray[np.float64],
        std: NDArray[np.float64],
        targets: Sequence[str],
        lead_hours: tuple[int, int],
        history_hours: Sequence[int] = (),
        static: Sequence[str] = (),
        forcings: Sequence[str] = (),
        rollout_steps: int = 1,
        rotate: bool = False,
        seed: int = 0,
        memory_mebibytes: int = 0,
    ) -> None:
        self.store, self.seed, self.rotate = store, seed, rotate
        self.step_hours = require_even_steps(store)
        for hours in (*lead_hours, *history_hours):
            if hours % self.step_hours:
                raise ValueError(
                    f"{hours} h is no multiple of the store's step of {self.step_hours} h: change "
                    f"task.lead_hours or data.history_hours, or prepare a store of a finer step."
                )
        self.lead_steps = (lead_hours[0] // self.step_hours, lead_hours[1] // self.step_hours)
        self.rollout_steps = rollout_steps
        self.offsets = [0, *(hours // self.step_hours for hours in history_hours)]
        self.target_indices = store.channels.indices(targets)
        self.forcings = tuple(forcings)
        self._static = _standardised(store.static(static), store.latitude)
        self._mean = mean.astype(np.float32)[:, None, None]
        self._std = std.astype(np.float32)[:, None, None]

        inside = store.time_indices(period)
        before, after = -min(self.offsets), self.lead_steps[1] * rollout_steps
        self.initial_indices = inside[
            (inside - before >= inside[0]) & (inside + after <= inside[-1])
        ]
        if not len(self.initial_indices):
            needed = (before + after) * self.step_hours
            raise ValueError(
                f"The period {period[0]} to {period[1]} has {len(inside)} times of "
                f"{self.step_hours} h, too few for history and lead time of {needed} h together: "
                f"lengthen the period or shorten task.lead_hours."
            )
        self._first = int(inside[0])
        self._cache: NDArray[np.float32] | None = None
        if 4 * len(inside) * int(np.prod(store.shape[1:])) <= memory_mebibytes * 2**20:
            self._cache = self._normalise(store.read(slice(int(inside[0]), int(inside[-1]) + 1)))

    def __len__(self) -> int:
        """Return the number of initial times."""
        return len(self.initial_indices)

    def __getitem__(self, number: int) -> ForecastBatch:
        """Return sample `number`, counted on through all epochs, as a batch of one."""
        epoch, position = divmod(number, len(self))
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self))
        index = int(self.initial_indices[order[position]])
        low, high = self.lead_steps
        draws = np.random.default_rng([self.seed, epoch, index])
        sample = self.sample(index, int(draws.integers(low, high + 1)))
        return (
            sample.rotated(int(draws.integers(len(self.store.longitude))))
            if self.rotate
            else sample
        )

    def sample(self, index: int, lead_steps: int) -> ForecastBatch:
        """Return the sample that starts at a time of the store, as a batch of one."""
        steps = np.arange(self.rollout_steps)
        states = self._read([index + offset for offset in self.offsets])
        targets = self._read(list(index + (steps + 1) * lead_steps), self.target_indices)
        hours = torch.tensor([float(lead_steps * self.step_hours)])
        constants = self.constants(self.store.times[index + steps * lead_steps])
        return ForecastBatch(
            torch.from_numpy(states)[None],
            torch.from_numpy(constants)[None],
            torch.from_numpy(targets)[None],
            hours,
        )

    def constants(self, times: NDArray[np.datetime64]) -> NDArray[np.float32]:
        """Normalised static fields and forcings at given times: (T, F, H, W)."""
        store = self.store
        forcing = compute_forcing(self.forcings, times, store.latitude, store.longitude)
        if "insolation" in self.forcings:  # to the order of one, as all other inputs are
            forcing[:, self.forcings.index("insolation")] /= SOLAR_CONSTANT
        static = np.broadcast_to(self._static, (len(times), *self._static.shape))
        return np.concatenate([static, forcing], axis=1, dtype=np.float32)

    def states(self, index: int) -> NDArray[np.float32]:
        """Normalised states at a time of the store and its history: (T, C, H, W)."""
        return self._read([index + offset for offset in self.offsets])

    def _read(self, times: list[int], channels: list[int] | None = None) -> NDArray[np.float32]:
        if self._cache is not None:
            states = self._cache[np.asarray(times) - self._first]
            return states if channels is None else states[:, channels]
        return self._normalise(self.store.read(times, channels), channels)

    def _normalise(
        self, states: NDArray[np.float32], channels: list[int] | None = None
    ) -> NDArray[np.float32]:
        select = slice(None) if channels is None else channels
        states -= self._mean[select]
        states /= self._std[select]
        return states


def _standardised(
    fields: NDArray[np.float32], latitude: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Bring static fields (S, H, W) to area mean 0 and standard deviation 1, each by itself."""
    weights = latitude_weights(latitude)[:, None]
    mean = (fields * weights).mean((1, 2), keepdims=True)
    std = np.sqrt(((fields - mean) ** 2 * weights).mean((1, 2), keepdims=True))
    return ((fields - mean) / np.maximum(std, 1e-12)).astype(np.float32)


def input_channels(
    store_channels: ChannelSet,
    history_hours: Sequence[int],
    static: Sequence[str],
    forcings: Sequence[str],
) -> ChannelSet:
    """Name a forecaster's input channels, in the order in which `tasks.forecast` joins them."""
    history = [channel.at(hours) for hours in history_hours for channel in store_channels]
    return store_channels + history + [Channel.parse(name) for name in (*static, *forcings)]


def load_batches(
    windows: ForecastWindows, *, batch: int, first_step: int, last_step: int, workers: int
) -> DataLoader[ForecastBatch]:
    """Iterate over the batches of training steps first_step .. last_step - 1."""
    return DataLoader(
        windows,
        batch_size=batch,
        sampler=range(first_step * batch, last_step * batch),
        collate_fn=ForecastBatch.stack,
        num_workers=workers,
        # A fork would inherit Zarr's running event loop and may hang.
        multiprocessing_context="forkserver" if workers else None,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def require_even_steps(store: Store) -> int:
    """Return the store's time step in hours.

    Raises:
        ValueError: the steps are uneven; the first odd one is named.
    """
    if store.step_hours is not None:
        return store.step_hours
    steps = np.diff(store.times)
    odd = int(np.argmax(steps != steps[0])) if (steps != steps[0]).any() else 0
    hours = steps / np.timedelta64(1, "h")
    raise ValueError(
        f"The times of {store.path} are uneven: {hours[0]:g} h at first but {hours[odd]:g} h after "
        f"{str(store.times[odd])[:16]}; prepare it again with prepare.step_hours set."
    )
