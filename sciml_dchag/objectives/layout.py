"""Where each input of a forecaster is: states by channel and time, static fields, forcings.

The input channels are, in this order: for each of C channels its state at the initial time and at
each time of history, T in all, then the constants: static fields and forcings, which are not
forecast. The times of a channel are neighbours, so that a rank that works on some inputs reads few
channels and no others. N = C * T + F.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple


class TimePart(NamedTuple):
    """What a range of inputs needs of one time."""

    time: int
    """0 for the initial time, then history."""
    channels: list[int]
    """Which of the C channels."""
    places: list[int]
    """Where they belong within the range."""


@dataclass(frozen=True, kw_only=True)
class InputLayout:
    """The inputs of a forecaster, by name and position; plain arithmetic."""

    channels: tuple[str, ...]
    """Names of the C channels that change with time."""
    history_hours: tuple[int, ...] = ()
    """Earlier times given as input, negative."""
    static: tuple[str, ...] = ()
    """Fields that do not change."""
    forcings: tuple[str, ...] = ()
    """Fields that are computed from time and place."""

    @property
    def hours(self) -> tuple[int, ...]:
        """Hours of each time after the initial one, (T,): 0, then history."""
        return (0, *self.history_hours)

    @property
    def times(self) -> int:
        """T."""
        return len(self.hours)

    @property
    def states(self) -> int:
        """C * T: the position of the first constant."""
        return len(self.channels) * self.times

    @property
    def constants(self) -> tuple[str, ...]:
        """Names of the F constants."""
        return (*self.static, *self.forcings)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all inputs, (N,): `z500`, `z500@-6h`, ..., `orography`, `insolation`."""
        states = (
            f"{channel}@{hours}h" if hours else channel
            for channel in self.channels
            for hours in self.hours
        )
        return (*states, *self.constants)

    def __len__(self) -> int:
        """Return N."""
        return self.states + len(self.constants)

    def position(self, channel: int, time: int = 0) -> int:
        """Return where a channel's state at a time is; 0 is the initial time."""
        assert 0 <= channel < len(self.channels) and 0 <= time < self.times, (channel, time)
        return channel * self.times + time

    def now(self, channels: Iterable[int]) -> list[int]:
        """Return where the states of some channels at the initial time are."""
        return [self.position(channel) for channel in channels]

    def by_time(self, own: range) -> list[TimePart]:
        """Return what a range of inputs needs of each time; times that it does not need are not."""
        parts = [TimePart(time, [], []) for time in range(self.times)]
        for place, position in enumerate(own):
            if position < self.states:
                channel, time = divmod(position, self.times)
                parts[time].channels.append(channel)
                parts[time].places.append(place)
        return [part for part in parts if part.channels]

    def constants_of(self, own: range) -> slice:
        """Return which constants a range of inputs ends with."""
        return slice(max(own.start - self.states, 0), max(own.stop - self.states, 0))
