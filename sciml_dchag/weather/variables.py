"""Channels as the variables of a labelled dataset, in WeatherBench 2's names.

Variables on pressure levels share one coordinate `level`, which has the levels that all of them
have. A level that only some have is a variable of its own, such as `temperature_20hpa`, so that
nothing is padded with NaN and no tool takes one variable's levels for another's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from sciml_dchag.channels import Channel


@dataclass(frozen=True, kw_only=True)
class LabelledVariable:
    """A variable of a dataset, and the channels that it holds."""

    name: str
    """Its name in the dataset."""
    channels: tuple[Channel, ...]
    """By level, ascending; one where it has no level coordinate."""
    on_levels: bool
    """Whether it has the coordinate `level`."""


def labelled_variables(channels: Iterable[Channel]) -> list[LabelledVariable]:
    """Sort channels into variables, in the order of their first channels."""
    groups: dict[str, list[Channel]] = {}
    for channel in channels:
        groups.setdefault(channel.long_name, []).append(channel)
    shared = _shared_levels(groups)
    found: list[LabelledVariable] = []
    for name, group in groups.items():
        on_levels = [c for c in group if c.level_hpa in shared]
        on_levels.sort(key=lambda channel: channel.level_hpa or 0)
        if on_levels:
            found.append(LabelledVariable(name=name, channels=tuple(on_levels), on_levels=True))
        for channel in group:
            if channel not in on_levels:
                own = name if channel.level_hpa is None else f"{name}_{channel.level_hpa}hpa"
                found.append(LabelledVariable(name=own, channels=(channel,), on_levels=False))
    return found


def shared_levels(channels: Iterable[Channel]) -> list[int]:
    """The levels in hPa that all variables on levels have, ascending."""
    on_levels = [v.channels for v in labelled_variables(channels) if v.on_levels]
    return [channel.level_hpa or 0 for channel in on_levels[0]] if on_levels else []


def split_level(name: str) -> tuple[str, int] | None:
    """Split the name of a variable on a level of its own; None where it is another's name."""
    match = re.fullmatch(r"(.+)_(\d+)hpa", name)
    return (match[1], int(match[2])) if match else None


def _shared_levels(groups: dict[str, list[Channel]]) -> set[int]:
    sets = [
        {c.level_hpa for c in group if c.level_hpa is not None}
        for group in groups.values()
        if group[0].level_hpa is not None
    ]
    return set.intersection(*sets) if sets else set()
