"""Ridge regression on a stencil: a linear forecast of each cell from the cells around it.

At each latitude and lead time the anomaly of a channel is regressed on anomalies at the initial
time and at earlier ones: of all channels on a stencil of cells where they are few; else of the
channel itself on the stencil and of the others at the place. The strength of the ridge is chosen
for each channel and lead time on the last fifth of the training period.

Shapes: B initial times, T times of the input, C channels, H x W grid, P predictors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from sciml_dchag.weather.area import goes_around, reaches_poles
from sciml_dchag.weather.baselines.normal_equations import Floats, NormalEquations
from sciml_dchag.weather.baselines.training_pairs import HELD_OUT, TrainingPairs, blocks, hours

ROWS, COLUMNS = 2, 3
"""Cells on each side of a place that the stencil holds."""
FEW_CHANNELS = 4
"""Up to this many channels are all on the stencil."""


class StencilRidge:
    """The regression, fitted on the training period.

    Args:
        pairs: the training period.
        channels: positions of the channels to forecast.
        lead_hours: lead times, each fitted by itself.
        history_hours: earlier times that are predictors too, negative, as the model's.
    """

    def __init__(
        self,
        pairs: TrainingPairs,
        channels: Sequence[int],
        lead_hours: Sequence[int],
        history_hours: Sequence[int] = (),
    ) -> None:
        self.pairs, self.channels = pairs, list(channels)
        self.times = (0, *sorted(history_hours, reverse=True))
        self.everything = list(range(len(pairs.store.channels)))
        self.weights: dict[tuple[int, int], NDArray[np.float64]] = {}
        """By (channel, lead time): (H, P); NaN where the period has too few pairs."""
        few = len(self.everything) <= FEW_CHANNELS and len(self.channels) > 0
        for group in [self.channels] if few else [[channel] for channel in self.channels]:
            self._fit(group, lead_hours)

    def forecast(self, initial: NDArray[np.int64], lead_hours: int) -> NDArray[np.float32]:
        """Forecast from initial times, (B, C, H, W) in physical units."""
        found = []
        states = self._states(initial)
        for channel in self.channels:
            predictors_BHWP = self._predictors(states, channel)
            weights_HP = np.broadcast_to(
                self.weights[channel, lead_hours], predictors_BHWP.shape[1::2]
            )
            found.append(np.einsum("bhwp,hp->bhw", predictors_BHWP, weights_HP, optimize=True))
        valid = self.pairs.store.times[initial] + hours(lead_hours)
        return self.pairs.physical(np.stack(found, axis=1), valid, self.channels)

    def _states(self, initial: NDArray[np.int64]) -> NDArray[np.float32]:
        """Anomalies of all channels at the times of the input, (B, T, C, H, W), 0 where missing.

        In float32, in which predictors of order one and sums over one block are exact enough.
        """
        read = [
            self.pairs.anomalies(self.pairs.later(initial, earlier), self.everything)
            for earlier in self.times
        ]
        states = np.stack(read, axis=1).astype(np.float32)
        return np.nan_to_num(states, posinf=0.0, neginf=0.0)

    def _predictors(self, states_BTCHW: NDArray[np.float32], channel: int) -> NDArray[np.float32]:
        """Predictors of a channel, (B, H, W, P)."""
        if states_BTCHW.shape[2] <= FEW_CHANNELS:
            return on_stencil(states_BTCHW, self.pairs.store.latitude, self.pairs.store.longitude)
        others = np.delete(states_BTCHW, channel, axis=2)
        batch, _, _, *grid = others.shape
        at_place = others.reshape(batch, -1, *grid).transpose(0, 2, 3, 1)
        own = on_stencil(
            states_BTCHW[:, :, [channel]], self.pairs.store.latitude, self.pairs.store.longitude
        )
        return np.concatenate([own, at_place], axis=-1)

    def _fit(self, group: Sequence[int], lead_hours: Sequence[int]) -> None:
        """Fit channels that share their predictors, at all lead times."""
        earlier = -min(self.times)
        counts = {lead: len(self.pairs.initial(lead, earlier)) for lead in lead_hours}
        sums = {(lead, last): NormalEquations() for lead in lead_hours for last in (False, True)}
        cuts = {lead: round(count * (1 - HELD_OUT)) for lead, count in counts.items()}
        # Predictors are the same at all lead times: their products are formed once.
        everything = self.pairs.initial(min(lead_hours), earlier)
        done = 0
        for part in np.split(everything, sorted({*cuts.values(), *counts.values()})):
            for block in blocks(part):
                x = by_row(self._predictors(self._states(block), group[0]))
                products = x.transpose(0, 2, 1) @ x
                for lead in [lead for lead, count in counts.items() if done < count]:
                    later = self.pairs.anomalies(self.pairs.later(block, lead), group)
                    y = by_row(later.transpose(0, 2, 3, 1).astype(np.float32))
                    sums[lead, done >= cuts[lead]].add(x, y, products)
            done += len(part)
        for lead in lead_hours:
            first, last = sums[lead, False], sums[lead, True]
            if not 0 < cuts[lead] < counts[lead]:
                nothing = np.full((len(self.pairs.weights_of_rows), 1), np.nan)
                self.weights.update({(channel, lead): nothing for channel in group})
                continue
            strengths, both = first.best_strengths(last, self.pairs.weights_of_rows), first + last
            for place, channel in enumerate(group):
                self.weights[channel, lead] = both.solve(float(strengths[place]))[..., place]


def on_stencil(
    fields: Floats,
    latitude: NDArray[np.float64],
    longitude: NDArray[np.float64],
    reach: tuple[int, int] = (ROWS, COLUMNS),
) -> Floats:
    """The cells around each place: (B, T, C, H, W) -> (B, H, W, T C (2 rows + 1)(2 columns + 1)).

    A global grid goes on around the globe and across the poles; off a region's edges the outermost
    cells stand for what is not known.

    Args:
        fields: on the grid.
        latitude: of the rows.
        longitude: of the columns.
        reach: rows and columns on each side of a place.
    """
    rows, columns = reach
    around = goes_around(longitude)
    padding = [(0, 0)] * (fields.ndim - 1) + [(columns, columns)]
    wide = np.pad(fields, padding, mode="wrap" if around else "edge")
    ends = [_beyond(fields, latitude, around, end, reach) for end in (0, -1)]
    tall = np.concatenate([ends[0], wide, ends[1]], axis=-2)
    window = sliding_window_view(tall, (2 * rows + 1, 2 * columns + 1), axis=(-2, -1))
    moved = np.moveaxis(window, (-4, -3), (1, 2))  # (B, H, W, T, C, rows, columns)
    return np.ascontiguousarray(moved).reshape(*moved.shape[:3], -1)


def _beyond(
    fields: Floats,
    latitude: NDArray[np.float64],
    around: bool,
    end: int,
    reach: tuple[int, int],
) -> Floats:
    """Rows beyond one end, in the order of the grid, as wide as a padded field."""
    count, columns = reach
    ascending = np.sort(latitude)
    poles = reaches_poles(ascending)
    north = (latitude[0] > latitude[-1]) == (end == 0)
    size = fields.shape[-1]
    padding = [(0, 0)] * (fields.ndim - 1) + [(columns, columns)]
    if not (around and poles[1 if north else 0] and size % 2 == 0):
        edge = np.repeat(fields[..., [end], :], count, axis=-2)
        return np.pad(edge, padding, mode="wrap" if around else "edge")
    skip = int(abs(latitude[end]) > 89.99)  # a row at the pole has no mirror image
    rows = (
        fields[..., skip : skip + count, :]
        if end == 0
        else fields[..., ::-1, :][..., skip : skip + count, :]
    )
    across = np.roll(rows, size // 2, axis=-1)
    across = across[..., ::-1, :] if end == 0 else across
    return np.pad(across, padding, mode="wrap")


def by_row(fields: Floats) -> Floats:
    """(B, H, W, N) -> (H, B W, N)."""
    moved = fields.transpose(1, 0, 2, 3)
    return moved.reshape(len(moved), -1, moved.shape[-1])
