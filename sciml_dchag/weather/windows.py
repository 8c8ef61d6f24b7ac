"""Forecast samples: a state, what is known beside it, and the states to be forecast.

A sample is a pure function of (seed, number of the sample), so that a run that is resumed, on any
number of ranks, repeats and skips nothing. What is done with a sample is `tasks.forecast`'s.

The order of the input channels is that of `objectives.layout.InputLayout`.

Shapes: B batch, N input channels, C channels of the store, O target channels, F static fields and
forcings, R steps of a rollout, H x W grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from sciml_dchag.objectives.layout import InputLayout
from sciml_dchag.training.batches import Batch, drawn
from sciml_dchag.weather.area import latitude_weights
from sciml_dchag.weather.forcing import scaled_forcing
from sciml_dchag.weather.store.cycles import Cycle
from sciml_dchag.weather.store.states import States
from sciml_dchag.weather.store.store import Period


@dataclass(frozen=True)
class ForecastBatch(Batch):
    """Samples ready for the model; states and targets are normalised, NaN where missing."""

    inputs: Tensor
    """(B, N, H, W): the input channels."""
    now: Tensor
    """(B, O, H, W): what a forecast starts from: the target channels at the initial time, or as a
    chain of regressions forecasts them."""
    later_constants: Tensor
    """(B, R - 1, F, H, W): static fields and forcings at the start of each step but the first."""
    targets: Tensor
    """(B, R, O, H, W): the target channels after each forecast step."""
    lead_hours: Tensor
    """(B,): hours of one forecast step."""

    def __post_init__(self) -> None:
        sizes = {(f.name, getattr(self, f.name).shape[0]) for f in fields(self)}
        assert len({size for _, size in sizes}) == 1, sizes
        assert self.later_constants.shape[1] == self.targets.shape[1] - 1

    def rotated(self, columns: int) -> ForecastBatch:
        """Turn all fields eastward by a number of columns of a global grid."""
        *on_grid, lead_hours = self.tensors
        turned = [field.roll(columns, dims=-1) for field in on_grid]
        return ForecastBatch(*turned, lead_hours)  # type: ignore[call-arg]


class ForecastWindows(Dataset[ForecastBatch]):
    """All samples of a period whose history and targets lie within it.

    Args:
        store: the prepared store, evenly spaced in time.
        period: the times that samples may touch, targets included; None for inputs alone, of which
            there are no samples.
        mean, std: per channel of the store, in its units.
        targets: channels to forecast.
        lead_hours: shortest and longest lead time; drawn at random where they differ.
        history_hours: earlier times given as input, negative.
        static: static fields of the store.
        forcings: computed fields, see `data.forcing`.
        rollout_steps: R.
        rotate: turn each sample about the Earth's axis by a random number of columns.
        seed: what order, lead times and rotations are drawn from.
        expected: what inputs and targets are departures from, before they are divided by `std`; in
            the place of `mean`.
        chain: forecasts what a sample starts from, at its lead times alone.
        memory_mebibytes: the period is kept in memory if it is no larger than this.
        inputs: positions of the input channels to read; None for all.
        outputs: positions of the targets to read; None for all.

    Raises:
        ValueError: uneven steps, hours that are no multiple of the step, or a period too short.
    """

    def __init__(
        self,
        store: States,
        period: Period | None,
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
        expected: Cycle | None = None,
        chain: Chain | None = None,
        memory_mebibytes: int = 0,
        inputs: range | None = None,
        outputs: range | None = None,
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
        self.layout = InputLayout(
            channels=tuple(store.channels.names), history_hours=tuple(history_hours),
            static=tuple(static), forcings=tuple(forcings),
        )  # fmt: skip
        self.offsets = [hours // self.step_hours for hours in self.layout.hours]
        self.target_indices = store.channels.indices(targets)
        if outputs is not None:
            self.target_indices = self.target_indices[outputs.start : outputs.stop]
        self._static = _standardised(store.static(static), store.latitude)
        self._expected, self.chain = expected, chain
        self._mean = mean.astype(np.float32)[:, None, None]
        self._std = std.astype(np.float32)[:, None, None]

        own = inputs if inputs is not None else range(len(self.layout))
        self._state_parts = self.layout.by_time(own)
        self._constant_part = self.layout.constants_of(own)
        self._input_shape = (len(own), *store.shape[2:])

        self.initial_indices = np.empty(0, np.int64)
        self._cache: NDArray[np.float32] | None = None
        if period is not None:
            self._find_samples(period, memory_mebibytes)

    def _find_samples(self, period: Period, memory_mebibytes: int) -> None:
        store = self.store
        inside = store.time_indices(period)
        before, after = -min(self.offsets), self.lead_steps[1] * self.rollout_steps
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
        read = {channel for part in self._state_parts for channel in part.channels}
        kept = sorted(read.union(self.target_indices))
        if 4 * len(inside) * len(kept) * int(np.prod(store.shape[2:])) <= memory_mebibytes * 2**20:
            self._place = {channel: place for place, channel in enumerate(kept)}
            self._cache = self._read(list(range(int(inside[0]), int(inside[-1]) + 1)), kept)

    def __len__(self) -> int:
        """Return the number of initial times."""
        return len(self.initial_indices)

    def _drawn(self, number: int) -> tuple[int, int]:
        """The epoch of a sample and the position of its initial time in the store."""
        epoch, place = drawn(self.seed, number, len(self))
        return epoch, int(self.initial_indices[place])

    def name_of(self, number: int) -> str:
        """Name a sample by its initial time."""
        return f"{number} ({np.datetime_as_string(self.store.times[self._drawn(number)[1]], 'h')})"

    def __getitem__(self, number: int) -> ForecastBatch:
        """Return sample `number`, counted on through all epochs, as a batch of one."""
        epoch, index = self._drawn(number)
        low, high = self.lead_steps
        draws = np.random.default_rng([self.seed, epoch, index])
        if self.chain is None:
            lead = int(draws.integers(low, high + 1))
        else:
            lead = int(draws.choice(self.chain.lead_hours)) // self.step_hours
        sample = self.sample(index, lead)
        return (
            sample.rotated(int(draws.integers(len(self.store.longitude))))
            if self.rotate
            else sample
        )

    def sample(self, index: int, lead_steps: int) -> ForecastBatch:
        """Return the sample that starts at a time of the store, as a batch of one."""
        steps = np.arange(self.rollout_steps + 1)
        later = self.store.times[index + steps[1:-1] * lead_steps]
        fields = (
            self.inputs(index),
            self._start(index, lead_steps * self.step_hours),
            self.constants(later),
            self._read(list(index + steps[1:] * lead_steps), self.target_indices),
        )
        hours = torch.tensor([float(lead_steps * self.step_hours)])
        inputs, now, later_constants, targets = (torch.from_numpy(f)[None] for f in fields)
        return ForecastBatch(inputs, now, later_constants, targets, hours)

    def _start(self, index: int, lead_hours: int) -> NDArray[np.float32]:
        """What a forecast starts from, normalised: (O, H, W)."""
        if self.chain is None:
            return self._read([index], self.target_indices)[0]
        for lead, starts in self.starts([index], lead_hours):
            if lead == lead_hours:
                return starts[0]
        raise AssertionError(f"{lead_hours} h is none of the chain's {self.chain.lead_hours}")

    def starts(
        self, indices: Sequence[int], last_hours: int
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """What the chain forecasts of the targets, (B, O, H, W), normalised, by lead time."""
        assert self.chain is not None
        places = [self.chain.places.index(target) for target in self.target_indices]
        unit = self.chain.scale[self.target_indices][:, None, None] / self._std[self.target_indices]
        for lead, states in self.chain.forecast(self.store, indices, last_hours):
            yield lead, states[:, places] * unit

    def targets(self, indices: Sequence[int], lead_hours: int) -> NDArray[np.float32]:
        """The target channels a lead time after some times of the store, (B, O, H, W)."""
        steps = lead_hours // self.step_hours
        return self._read([index + steps for index in indices], self.target_indices)

    def constants(self, times: NDArray[np.datetime64]) -> NDArray[np.float32]:
        """Normalised static fields and forcings at given times: (T, F, H, W)."""
        store = self.store
        forcing = scaled_forcing(self.layout.forcings, times, store.latitude, store.longitude)
        static = np.broadcast_to(self._static, (len(times), *self._static.shape))
        return np.concatenate([static, forcing], axis=1, dtype=np.float32)

    def inputs(self, index: int) -> NDArray[np.float32]:
        """Normalised input channels at a time of the store: (N, H, W)."""
        inputs = np.empty(self._input_shape, np.float32)
        for part in self._state_parts:
            inputs[part.places] = self._read([index + self.offsets[part.time]], part.channels)[0]
        constants = self.constants(self.store.times[[index]])[0, self._constant_part]
        inputs[len(inputs) - len(constants) :] = constants
        return inputs

    def _read(self, times: list[int], channels: list[int]) -> NDArray[np.float32]:
        """Normalised states, (T, C, H, W)."""
        if self._cache is not None:
            places = np.array([self._place[channel] for channel in channels], int)
            return self._cache[np.ix_(np.array(times, int) - self._first, places)]
        states = self.store.read(times, channels)
        if self._expected is None:
            states -= self._mean[channels]
        else:
            states -= self._expected.at(self.store.times[times], channels)
        states /= self._std[channels]
        return states


def _standardised(
    fields: NDArray[np.float32], latitude: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Bring static fields (S, H, W) to area mean 0 and standard deviation 1, each by itself."""
    weights = latitude_weights(latitude)[:, None]
    mean = (fields * weights).mean((1, 2), keepdims=True)
    std = np.sqrt(((fields - mean) ** 2 * weights).mean((1, 2), keepdims=True))
    return ((fields - mean) / np.maximum(std, 1e-12)).astype(np.float32)


class Chain(Protocol):
    """A forecast of some channels at some lead times, from states alone."""

    @property
    def lead_hours(self) -> tuple[int, ...]:
        """Its lead times, ascending."""

    @property
    def places(self) -> list[int]:
        """Positions of its channels among the store's."""

    @property
    def scale(self) -> NDArray[np.float32]:
        """The unit of its forecasts, by channel of the store."""

    def forecast(
        self, store: States, indices: Sequence[int], last_hours: int
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Forecast departures of its channels, (B, C, H, W), up to a lead time."""


class Stepped(Protocol):
    """A store, or one that will be: its times and the step between them."""

    @property
    def path(self) -> Path:
        """Where it is."""

    @property
    def times(self) -> NDArray[np.datetime64]:
        """Its times."""

    @property
    def step_hours(self) -> int | None:
        """Hours between its times; None where they differ."""


def require_even_steps(store: Stepped) -> int:
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
