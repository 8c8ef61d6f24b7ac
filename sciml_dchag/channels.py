"""What a channel is, and the vocabularies that its name is looked up in.

Parameters of a model, statistics, scores, plots and files are all keyed by a channel's name. Each
wing registers its variables, names and presets; a recipe may declare channels of its own.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from typing import Any, Literal

Kind = Literal["level", "surface", "static", "forcing", "band"]


@dataclass(frozen=True, kw_only=True)
class Variable:
    """A physical quantity, independent of its level: names, units and what values are believable.

    `plausible` bounds the spatial mean (for `z`, `q` and other strongly level-dependent
    quantities: over all levels from 1 to 1000 hPa); it is wide enough for any weather and narrow
    enough to distinguish deg C from K, or geopotential height from geopotential. `cell_bounds`
    bounds every value; what lies outside is no value but a mark of a missing one, or a damaged one.

    `accumulated_hours` is None at a point in time, else over how long a sum is; 0 is the time step.
    """

    short: str
    long: str
    units: str
    kind: Kind
    plausible: tuple[float, float]
    standard_name: str | None = None
    aliases: tuple[str, ...] = ()
    cell_bounds: tuple[float, float] = (-math.inf, math.inf)
    accumulated_hours: int | None = None


def canonical_units(units: str) -> str:
    """Units in one spelling, `m2 s-2` for `m**2 s**-2`, `m^2/s^2` and `m2 s-2`."""
    plain = units.strip().replace("**", "").replace("^", "").replace("*", " ")
    plain = re.sub(r"/\s*([A-Za-z]+)(\d*)", lambda m: f" {m[1]}-{m[2] or 1}", plain)
    return " ".join(plain.split())


@dataclass(frozen=True, kw_only=True)
class Channel:
    """One input or output channel of a model.

    `name` is unique (`z500`, `t2m`, `r652.0`); `variable` the quantity's short name; exactly one
    of `level_hpa` and `wavelength_nm` is set for the kinds that have it. `offset_hours` is 0 for
    the state at the initial time and negative for history (`z500@-6h`).
    """

    name: str
    variable: str
    long_name: str
    units: str
    kind: Kind
    level_hpa: int | None = None
    wavelength_nm: float | None = None
    offset_hours: int = 0

    def __post_init__(self) -> None:
        assert (self.level_hpa is not None) == (self.kind == "level"), self
        assert (self.wavelength_nm is not None) == (self.kind == "band"), self

    @classmethod
    def of_variable(
        cls,
        variable: Variable,
        *,
        name: str | None = None,
        level_hpa: int | None = None,
        wavelength_nm: float | None = None,
    ) -> Channel:
        """Make the channel of a variable, at a level or wavelength where its kind has one."""
        return cls(
            name=name or variable.short, variable=variable.short, long_name=variable.long,
            units=variable.units, kind=variable.kind, level_hpa=level_hpa,
            wavelength_nm=wavelength_nm,
        )  # fmt: skip

    @classmethod
    def parse(cls, name: str) -> Channel:
        """Read a channel's name: `z500` is geopotential at 500 hPa, `r652.0` reflectance at 652 nm.

        Raises:
            ValueError: the name is in no vocabulary; the nearest known one is given.
        """
        if history := re.fullmatch(r"(.+)@(-\d+)h", name):
            return cls.parse(history[1]).at(int(history[2]))
        if found := _own_channels.get(name) or _in_vocabularies(name):
            return found
        known = [likely for vocabulary in vocabularies() for likely in vocabulary.likely]
        nearest = difflib.get_close_matches(name, [*_own_channels, *known], n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        usages = " or ".join(vocabulary.usage for vocabulary in vocabularies())
        raise ValueError(
            f"Channel {name!r} is unknown: use {usages}, or declare it in the recipe's channels"
            f"{hint}"
        )

    def at(self, offset_hours: int) -> Channel:
        """Return this channel at an earlier time: history of `z500` six hours ago is `z500@-6h`."""
        assert offset_hours < 0 and self.offset_hours == 0
        return replace(self, name=f"{self.name}@{offset_hours}h", offset_hours=offset_hours)

    @property
    def label(self) -> str:
        """A name for plots: `geopotential at 500 hPa`."""
        text = self.long_name.replace("_", " ")
        if self.level_hpa is not None:
            text += f" at {self.level_hpa} hPa"
        if self.wavelength_nm is not None:
            text += f" at {self.wavelength_nm:g} nm"
        return text


class ChannelSet(Sequence[Channel]):
    """An ordered set of channels with unique names.

    Raises:
        ValueError: a name occurs twice.
    """

    def __init__(self, channels: Iterable[Channel | str]) -> None:
        self._channels = tuple(c if isinstance(c, Channel) else Channel.parse(c) for c in channels)
        self._index = {c.name: i for i, c in enumerate(self._channels)}
        if len(self._index) < len(self._channels):
            names = [c.name for c in self._channels]
            twice = next(n for n in names if names.count(n) > 1)
            raise ValueError(f"Channel {twice!r} is listed twice: remove one of the two.")

    @classmethod
    def of(cls, spec: str | Iterable[str]) -> ChannelSet:
        """Build from names of channels and presets: an iterable, or text with commas between.

        Raises:
            ValueError: neither a preset nor names of the vocabulary.
        """
        if isinstance(spec, str):
            spec = [name.strip() for name in spec.split(",") if name.strip()]
        presets = {k: v for vocabulary in vocabularies() for k, v in vocabulary.presets.items()}
        return cls(name for entry in spec for name in presets.get(entry, [entry]))

    @property
    def names(self) -> list[str]:
        """The names, in order."""
        return [c.name for c in self._channels]

    def index(self, name: str) -> int:  # type: ignore[override]
        """Position of a name.

        Raises:
            ValueError: not in this set; the names that are there are given.
        """
        if name not in self._index:
            nearest = difflib.get_close_matches(name, self.names, n=1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise ValueError(f"Channel {name!r} is not among {_shorten(self.names)}{hint}")
        return self._index[name]

    def indices(self, names: Iterable[str]) -> list[int]:
        """Positions of several names."""
        return [self.index(name) for name in names]

    def __getitem__(self, key: int | str) -> Channel:  # type: ignore[override]
        return self._channels[self.index(key) if isinstance(key, str) else key]

    def __contains__(self, key: object) -> bool:
        return key in self._index or key in self._channels

    def __len__(self) -> int:
        return len(self._channels)

    def __iter__(self) -> Iterator[Channel]:
        return iter(self._channels)

    def __add__(self, other: Iterable[Channel]) -> ChannelSet:
        return ChannelSet([*self, *other])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ChannelSet) and self._channels == other._channels

    def __hash__(self) -> int:
        return hash(self._channels)

    def __repr__(self) -> str:
        return f"ChannelSet({_shorten(self.names)})"


def _shorten(names: Sequence[str], most: int = 8) -> str:
    """List names for an error message, the middle left out where there are many."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[: most - 2])}, ... {names[-1]} ({len(names)} in all)"


VOCABULARIES = ("sciml_dchag.weather.channels", "sciml_dchag.plants.channels")
"""Modules that register a vocabulary when they are imported, which the first look-up does."""

OWN_CHANNELS = "own_channels"
"""Attribute in which a store keeps the channels that its recipe declared."""


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The variables of a wing and how its channels are called."""

    name: str
    """The wing."""
    variables: Mapping[str, Variable]
    """Its variables by short name."""
    parse: Callable[[str], Channel | None]
    """Reads a channel's name; returns None for one that is not of this vocabulary."""
    usage: str
    """What a name may be, with an example, for an error's sentence."""
    likely: tuple[str, ...] = ()
    """Names among which an unknown one's nearest is searched."""
    presets: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Sets of channels by name."""


@dataclass(frozen=True, kw_only=True)
class OwnChannel:
    """A channel that a recipe declares.

    Raises:
        ValueError: no name or units, a name that cannot be one, two coordinates, or bounds that
            leave nothing.
    """

    name: str = ""
    """What it is called, such as `o3_500`; taken names are refused."""
    units: str = ""
    """Units that files must have it in."""
    long_name: str = ""
    """What it is called on plots and in forecasts; without it, `variable`."""
    variable: str = ""
    """Its variable's name in raw files, which several levels share; without it, `name`."""
    level_hpa: int | None = None
    """Pressure level, of a variable on levels."""
    wavelength_nm: float | None = None
    """Wavelength, of a band: a store's band of this wavelength gets this channel's name."""
    plausible: tuple[float, float] | None = None
    """Believable bounds of an image's mean in these units; a value may lie as far outside again."""

    def __post_init__(self) -> None:
        if not (self.name and self.units):
            raise ValueError(
                f"channels: {self.name or 'a channel'} lacks its {'units' if self.name else 'name'}"
                f": give name and units (1 if it has none)."
            )
        for text in (self.name, self.variable or self.name):
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.]*", text):
                raise ValueError(
                    f"channels: {text!r} is no name: use a letter first, then letters, digits, _ "
                    f"and dots."
                )
        if self.level_hpa is not None and self.wavelength_nm is not None:
            raise ValueError(f"channels: {self.name} has level_hpa and wavelength_nm: give one.")
        if self.plausible is not None and not self.plausible[0] < self.plausible[1]:
            raise ValueError(
                f"channels: plausible of {self.name} is {list(self.plausible)}: give the lower "
                f"bound first."
            )

    @property
    def as_variable(self) -> Variable:
        """The variable that this is a channel of."""
        short = self.variable or self.name
        kind: Kind = "surface" if self.level_hpa is None else "level"
        low, high = self.plausible or (-math.inf, math.inf)
        return Variable(
            short=short, long=(self.long_name or short).replace(" ", "_"), units=self.units,
            kind=kind if self.wavelength_nm is None else "band",
            plausible=(low, high), cell_bounds=(2 * low - high, 2 * high - low),
        )  # fmt: skip


_registered: dict[str, Vocabulary] = {}
_own: dict[str, OwnChannel] = {}
_own_channels: dict[str, Channel] = {}


def register(vocabulary: Vocabulary) -> None:
    """Make a vocabulary known.

    Raises:
        ValueError: another one has a variable or preset of the same name.
    """
    others = [other for name, other in _registered.items() if name != vocabulary.name]
    for other in others:
        taken = set(other.variables) & set(vocabulary.variables)
        taken |= set(other.presets) & set(vocabulary.presets)
        if taken:
            raise ValueError(
                f"The vocabularies {other.name} and {vocabulary.name} both have "
                f"{sorted(taken)[0]!r}: rename one."
            )
    _registered[vocabulary.name] = vocabulary


def vocabularies() -> list[Vocabulary]:
    """Every vocabulary; the wings' are imported first."""
    for module in VOCABULARIES:
        import_module(module)
    return list(_registered.values())


def variables() -> dict[str, Variable]:
    """Every variable by its short name, declared ones last."""
    found = {k: v for vocabulary in vocabularies() for k, v in vocabulary.variables.items()}
    return found | {own.as_variable.short: own.as_variable for own in _own.values()}


def declared() -> list[OwnChannel]:
    """The channels that recipes and stores of this process have declared."""
    return list(_own.values())


def declared_channels() -> list[Channel]:
    """The same as channels."""
    return list(_own_channels.values())


def declare(channels: Iterable[OwnChannel]) -> None:
    """Make a recipe's or a store's own channels known; repeating one changes nothing.

    Raises:
        ValueError: a name, variable or wavelength that is taken by something else.
    """
    for own in channels:
        if _own.get(own.name) == own:
            continue
        if own.name in _own:
            raise ValueError(
                f"Channel {own.name!r} is declared twice, with other values: rename one of them "
                f"(a Python session keeps what it has read: start a new one after a change)."
            )
        _require_free(own)
        variable = own.as_variable
        channel = Channel.of_variable(
            variable, name=own.name, level_hpa=own.level_hpa, wavelength_nm=own.wavelength_nm
        )
        _own[own.name], _own_channels[own.name] = own, channel


def _require_free(own: OwnChannel) -> None:
    """Refuse a channel whose name, variable or wavelength means something else."""
    variable = own.as_variable
    presets = {name for vocabulary in vocabularies() for name in vocabulary.presets}
    if own.name in presets or _in_vocabularies(own.name):
        raise ValueError(
            f"channels: the name {own.name!r} is taken by the vocabulary: choose another, or leave "
            f"the declaration out if that channel is meant."
        )
    for other in variables().values():
        level_of_same = (
            variable.kind == "level"
            and other == variable
            and other.short in {before.as_variable.short for before in _own.values()}
        )
        names = {name.lower() for name in (other.short, other.long, *other.aliases)}
        if names & {variable.short.lower(), variable.long.lower()} and not level_of_same:
            raise ValueError(
                f"channels: {own.name!r} is of the variable {variable.short!r} ({variable.long}), "
                f"a name that {other.short!r} ({other.long}, {other.units}) has: choose another "
                f"variable or long_name."
            )
    for before in _own.values():
        level = (variable.short, own.level_hpa), (before.as_variable.short, before.level_hpa)
        band = own.wavelength_nm, before.wavelength_nm
        if (own.level_hpa and level[0] == level[1]) or (own.wavelength_nm and band[0] == band[1]):
            raise ValueError(
                f"channels: {own.name!r} and {before.name!r} are the same level or wavelength: "
                f"leave one out."
            )


def own_records(names: Iterable[str]) -> list[dict[str, Any]]:
    """Describe those of some channels that are declared, for a store to keep."""
    return [asdict(_own[name]) for name in names if name in _own]


def declare_records(records: Iterable[Mapping[str, Any]]) -> None:
    """Declare the channels that a store has kept."""
    for record in records:
        bounds = record.get("plausible")
        declare([OwnChannel(**{**record, "plausible": tuple(bounds) if bounds else None})])


def _in_vocabularies(name: str) -> Channel | None:
    found = (vocabulary.parse(name) for vocabulary in vocabularies())
    return next((channel for channel in found if channel is not None), None)
