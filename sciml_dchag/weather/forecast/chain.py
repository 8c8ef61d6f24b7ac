"""A chain of regressions that a forecast may start from: each goes on from the one before.

Its stages lie at growing lead times. At each, one ridge regression per row gives the change of some
channels since the stage before, from what that one forecast: these channels on the cells around a
place, what the winds carry to it (u df/dx + v df/dy of whole fields, in which winds and what they
carry are both forecast: the products without which no regression moves a low along a flow of its
own), and, from the initial state, all other channels at the place. As every stage is fitted on
forecasts, it also learns how far these can be trusted: anomalies shrink as predictability ends.

Shapes: B samples, C channels of the chain, N channels of the store, A advected channels, K stages,
P predictors, H x W grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.channels import ChannelSet
from sciml_dchag.files.arrays import from_text, to_text
from sciml_dchag.weather.area import latitude_weights
from sciml_dchag.weather.baselines.normal_equations import POOLED_DEGREES, NormalEquations
from sciml_dchag.weather.baselines.predictors import Advected, predictors, width
from sciml_dchag.weather.baselines.stencil import by_row
from sciml_dchag.weather.baselines.training_pairs import blocks, hours, thinned_by
from sciml_dchag.weather.store.cycles import Cycle
from sciml_dchag.weather.store.states import States
from sciml_dchag.weather.store.store import Period, Store

MOST_TIMES = 500
"""Initial times that a chain is fitted on; each row of each of them is a sample per column."""
BLOCK_TIMES = 16
"""Times whose predictors are formed at once."""
STRENGTHS = np.geomspace(1e-7, 1e1, 5)
"""Of the ridge, in units of the predictors' mean square: samples are many."""
PARTS = 3
"""Of the training period, of which each is forecast by what was fitted on the others."""


@dataclass(frozen=True)
class Stage:
    """One regression of the chain."""

    weights: NDArray[np.float32]
    """(H, P, C)."""
    usual: NDArray[np.float32]
    """Mean advection on the training period, (A, H, W)."""
    spread: NDArray[np.float32]
    """Standard deviation of advection by row, (A, H)."""


class RegressionChain:
    """A fitted chain.

    Args:
        lead_hours: of the stages, ascending.
        channels: the store's.
        names: channels of the chain.
        cycle: what departures are taken from.
        scale: deviation of departures by channel of the store, (N,).
        stages: one for each lead time.
    """

    def __init__(
        self,
        lead_hours: Sequence[int],
        channels: ChannelSet,
        names: Sequence[str],
        cycle: Cycle,
        scale: NDArray[np.float32],
        stages: Sequence[Stage] = (),
    ) -> None:
        self.lead_hours = tuple(lead_hours)
        self.names = tuple(names)
        self.places = channels.indices(names)
        self.others = [place for place in range(len(channels)) if place not in self.places]
        self.advected = Advected.of(ChannelSet(names))
        self.cycle, self.scale, self.stages = cycle, scale, list(stages)

    def departures(self, store: States, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Read initial states of all channels, (B, N, H, W), in deviations; 0 where missing."""
        everything = range(len(self.scale))
        fields = store.read(indices) - self.cycle.at(store.times[indices], everything)
        fields /= self.scale[:, None, None]
        return np.nan_to_num(fields, copy=False)

    def forecast(
        self, store: States, indices: Sequence[int], last_hours: int
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Forecast stage by stage up to a lead time, from initial times of a store.

        Yields:
            Lead time in hours and departures of the chain's channels, (B, C, H, W), in the
            chain's deviations.
        """
        initial = np.asarray(indices, np.int64)
        whole = self.departures(store, initial)
        states, others, valid = whole[:, self.places], whole[:, self.others], store.times[initial]
        for stage, lead in zip(self.stages, self.lead_hours, strict=True):
            if lead > last_hours:
                return
            states = self._step(stage, states, others, valid, store)
            others, valid = others[:, :0], store.times[initial] + hours(lead)
            yield lead, states

    def advection(
        self, states: NDArray[np.float32], valid: NDArray[np.datetime64], store: States
    ) -> NDArray[np.float32]:
        """What winds carry, (B, A, H, W), of departures (B, C, H, W) at some times."""
        if not len(self.advected):
            return states[:, :0]
        fields = states * self.scale[self.places][:, None, None]
        fields += self.cycle.at(valid, self.places)
        return self.advected.change(fields, store.latitude, store.longitude)

    def predictors(
        self,
        stage: Stage,
        states: NDArray[np.float32],
        others: NDArray[np.float32],
        valid: NDArray[np.datetime64],
        store: States,
    ) -> NDArray[np.float32]:
        """Predictors of a stage, (B, H, W, P)."""
        moved = (self.advection(states, valid, store) - stage.usual) / stage.spread[:, :, None]
        return predictors(states, others, moved, store.latitude, store.longitude)

    def _step(
        self,
        stage: Stage,
        states: NDArray[np.float32],
        others: NDArray[np.float32],
        valid: NDArray[np.datetime64],
        store: States,
    ) -> NDArray[np.float32]:
        found = np.empty_like(states)
        for block in blocks(np.arange(len(states)), BLOCK_TIMES):
            x_BHWP = self.predictors(stage, states[block], others[block], valid[block], store)
            change_HNC = by_row(x_BHWP) @ stage.weights
            batch, rows, columns = x_BHWP.shape[:3]
            change = change_HNC.reshape(rows, batch, columns, -1).transpose(1, 3, 0, 2)
            found[block] = states[block] + change
        return found

    def to_text(self) -> str:
        """All numbers of the chain, as `files.arrays` has them."""
        parts = [self.scale, *(a for s in self.stages for a in (s.weights, s.usual, s.spread))]
        return to_text(np.concatenate([part.ravel() for part in parts]))

    def load(self, text: str, grid: tuple[int, int]) -> RegressionChain:
        """Take the numbers of `to_text`, on a grid of (rows, columns).

        Raises:
            ValueError: the text is damaged, or of another chain.
        """
        rows, columns = grid
        chained, moved = len(self.places), len(self.advected)
        shapes: list[tuple[int, ...]] = [(len(self.scale),)]
        for stage in range(len(self.lead_hours)):
            predicted_from = width(chained, len(self.others) if stage == 0 else 0, moved)
            shapes += [(rows, predicted_from, chained), (moved, rows, columns), (moved, rows)]
        sizes = [int(np.prod(shape)) for shape in shapes]
        flat = from_text(text, (sum(sizes),))
        cut = np.split(flat, np.cumsum(sizes)[:-1])
        self.scale, *arrays = (part.reshape(s) for part, s in zip(cut, shapes, strict=True))
        self.stages = [Stage(*arrays[n : n + 3]) for n in range(0, len(arrays), 3)]
        return self


def fit_chain(
    store: Store, period: Period, cycle: Cycle, lead_hours: Sequence[int], names: Sequence[str]
) -> RegressionChain:
    """Fit all stages on a training period, one after the other.

    A stage is fitted on forecasts of times that the stages before were not fitted on: the period is
    cut into parts, and what each part is forecast from has seen the others alone. Else every stage
    would trust the ones before too much. The strength of the ridge is chosen for each channel and
    stage by the error on the part that is left out.

    Args:
        store: with even steps.
        period: nothing else is read.
        cycle: of this period.
        lead_hours: of the stages, ascending multiples of the store's step.
        names: channels of the chain.

    Raises:
        ValueError: too few times, or missing values.
    """
    initial, step = fitted_times(store, period, lead_hours), store.step_hours or 1
    chain = RegressionChain(
        lead_hours, store.channels, names, cycle, np.ones(len(store.channels), np.float32)
    )
    whole = np.concatenate(
        [chain.departures(store, block) for block in blocks(initial, BLOCK_TIMES)]
    )
    chain.scale = np.maximum(whole.std(axis=(0, 2, 3), dtype=np.float64), 1e-30).astype(np.float32)
    whole /= chain.scale[:, None, None]
    states, others = whole[:, chain.places], whole[:, chain.others]
    samples = Samples(store, states, others, store.times[initial])
    for lead in lead_hours:
        samples = _add_stage(chain, samples, initial + lead // step)
    return chain


class Timed(Protocol):
    """A store, or one that will be: its times."""

    @property
    def step_hours(self) -> int | None:
        """Hours between its times; None where they differ."""

    def time_indices(self, period: Period) -> NDArray[np.int64]:
        """Return the positions of the times within a period."""


def fitted_times(store: Timed, period: Period, lead_hours: Sequence[int]) -> NDArray[np.int64]:
    """Positions of the initial times that a chain is fitted on.

    Raises:
        ValueError: too few.
    """
    inside = store.time_indices(period)
    initial = inside[: max(0, len(inside) - lead_hours[-1] // (store.step_hours or 1))]
    if len(initial) < PARTS:
        raise ValueError(
            f"task.chain_hours goes to {lead_hours[-1]} h, and the training period of "
            f"{len(inside)} time(s) has {len(initial)} initial time(s) so long before its end: "
            f"lengthen data.train, or shorten task.chain_hours."
        )
    return initial[:: thinned_by(len(initial), MOST_TIMES)]


@dataclass(frozen=True)
class Samples:
    """What a stage goes on from, of all initial times of the training period."""

    store: Store
    states: NDArray[np.float32]
    """Of the chain's channels, (B, C, H, W)."""
    others: NDArray[np.float32]
    """Of all others, (B, N - C, H, W); none after the first stage."""
    valid: NDArray[np.datetime64]
    """Times of the states, (B,)."""


def _add_stage(chain: RegressionChain, samples: Samples, later: NDArray[np.int64]) -> Samples:
    """Fit the change up to the store's times `later`, (B,), and forecast these."""
    store, states, others, valid = samples.store, samples.states, samples.others, samples.valid
    usual, spread = _usual_advection(chain, store, states, valid)
    shell = Stage(np.empty(0, np.float32), usual, spread)
    parts = np.array_split(np.arange(len(later)), PARTS)
    sums = [NormalEquations() for _ in parts]
    for part, own in zip(parts, sums, strict=True):
        for block in blocks(part, BLOCK_TIMES):
            truth = _truth(chain, store, later[block])
            x = chain.predictors(shell, states[block], others[block], valid[block], store)
            own.add(by_row(x), by_row((truth - states[block]).transpose(0, 2, 3, 1)))
    without = [
        reduce(add, sums[:n] + sums[n + 1 :]).pooled(store.latitude, POOLED_DEGREES)
        for n in range(len(sums))
    ]
    rows = latitude_weights(store.latitude)
    errors = sum(rest.errors(own, rows, STRENGTHS) for rest, own in zip(without, sums, strict=True))
    strengths = STRENGTHS[np.argmin(errors, axis=0)]
    forecast = np.empty_like(states)
    for part, rest in zip(parts, without, strict=True):
        stage = Stage(_solved(rest, strengths), usual, spread)
        forecast[part] = chain._step(stage, states[part], others[part], valid[part], store)
    everything = reduce(add, sums).pooled(store.latitude, POOLED_DEGREES)
    chain.stages.append(Stage(_solved(everything, strengths), usual, spread))
    return Samples(store, forecast, others[:, :0], store.times[later])


def _solved(sums: NormalEquations, strengths: NDArray[np.float64]) -> NDArray[np.float32]:
    """Weights of a ridge of its own strength for each channel, (H, P, C)."""
    weights = np.empty(sums.targets.shape, np.float32)
    for strength in np.unique(strengths):
        chosen = strengths == strength
        weights[..., chosen] = sums.solve(float(strength))[..., chosen]
    return weights


def _truth(chain: RegressionChain, store: Store, indices: NDArray[np.int64]) -> NDArray[np.float32]:
    """Departures of the chain's channels, (B, C, H, W), in its deviations."""
    truth = store.read(indices, chain.places)
    truth -= chain.cycle.at(store.times[indices], chain.places)
    truth /= chain.scale[chain.places][:, None, None]
    if not np.isfinite(truth).all():
        raise ValueError(
            f"{store.path} has missing values in task.chain_channels at "
            f"{str(store.times[indices[0]])[:13]} or soon after, and a chain of regressions needs "
            f"whole fields: leave such channels out."
        )
    return truth


def _usual_advection(
    chain: RegressionChain,
    store: Store,
    states: NDArray[np.float32],
    valid: NDArray[np.datetime64],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean (A, H, W) and standard deviation by row (A, H) of advection over samples."""
    rows, columns = store.shape[2:]
    total = np.zeros((len(chain.advected), rows, columns))
    squares = np.zeros_like(total)
    for block in blocks(np.arange(len(states)), BLOCK_TIMES):
        moved = chain.advection(states[block], valid[block], store).astype(np.float64)
        total += moved.sum(0)
        squares += np.square(moved).sum(0)
    usual = total / len(states)
    spread = np.sqrt(np.maximum(squares / len(states) - usual**2, 0).mean(-1))
    return usual.astype(np.float32), np.maximum(spread, 1e-30).astype(np.float32)
