"""The one vocabulary of channels: what a channel is, how it is called, and the preset sets.

Parameters of a model, statistics, scores, plots and files are all keyed by a channel's name.
Reading files under other names is `prepare`'s work; normalisation is `data.statistics`'s.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["level", "surface", "static", "forcing", "band"]


@dataclass(frozen=True, kw_only=True)
class Variable:
    """A physical quantity, independent of its level: names, units and what values are believable.

    `plausible` bounds the spatial mean (for `z`, `q` and other strongly level-dependent
    quantities: over all levels from 1 to 1000 hPa); it is wide enough for any weather and narrow
    enough to tell deg C from K, or geopotential height from geopotential.
    """

    short: str
    long: str
    units: str
    kind: Kind
    plausible: tuple[float, float]
    standard_name: str | None = None
    aliases: tuple[str, ...] = ()


VARIABLES: dict[str, Variable] = {
    v.short: v
    for v in (
        Variable(
            short="z", long="geopotential", units="m2 s-2", kind="level",
            plausible=(-3e3, 6e5), standard_name="geopotential",
        ),
        Variable(
            short="t", long="temperature", units="K", kind="level",
            plausible=(170.0, 330.0), standard_name="air_temperature", aliases=("ta",),
        ),
        Variable(
            short="u", long="u_component_of_wind", units="m s-1", kind="level",
            plausible=(-80.0, 80.0), standard_name="eastward_wind", aliases=("ua",),
        ),
        Variable(
            short="v", long="v_component_of_wind", units="m s-1", kind="level",
            plausible=(-50.0, 50.0), standard_name="northward_wind", aliases=("va",),
        ),
        Variable(
            short="q", long="specific_humidity", units="kg kg-1", kind="level",
            plausible=(-1e-4, 0.03), standard_name="specific_humidity", aliases=("hus",),
        ),
        Variable(
            short="r", long="relative_humidity", units="%", kind="level",
            plausible=(-5.0, 130.0), standard_name="relative_humidity",
        ),
        Variable(
            short="w", long="vertical_velocity", units="Pa s-1", kind="level",
            plausible=(-2.0, 2.0), standard_name="lagrangian_tendency_of_air_pressure",
        ),
        Variable(
            short="vo", long="vorticity", units="s-1", kind="level",
            plausible=(-1e-3, 1e-3), standard_name="atmosphere_relative_vorticity",
        ),
        Variable(
            short="t2m", long="2m_temperature", units="K", kind="surface",
            plausible=(200.0, 320.0), standard_name="air_temperature", aliases=("2t", "tas"),
        ),
        Variable(
            short="u10", long="10m_u_component_of_wind", units="m s-1", kind="surface",
            plausible=(-30.0, 30.0), standard_name="eastward_wind", aliases=("10u", "uas"),
        ),
        Variable(
            short="v10", long="10m_v_component_of_wind", units="m s-1", kind="surface",
            plausible=(-30.0, 30.0), standard_name="northward_wind", aliases=("10v", "vas"),
        ),
        Variable(
            short="msl", long="mean_sea_level_pressure", units="Pa", kind="surface",
            plausible=(9.0e4, 1.08e5), standard_name="air_pressure_at_mean_sea_level",
            aliases=("psl",),
        ),
        Variable(
            short="sp", long="surface_pressure", units="Pa", kind="surface",
            plausible=(4.5e4, 1.1e5), standard_name="surface_air_pressure", aliases=("ps",),
        ),
        Variable(
            short="tp", long="total_precipitation", units="m", kind="surface",
            plausible=(-1e-6, 0.5), aliases=("total_precipitation_6hr", "total_precipitation_24hr"),
        ),
        Variable(
            short="sst", long="sea_surface_temperature", units="K", kind="surface",
            plausible=(260.0, 315.0), standard_name="sea_surface_temperature",
        ),
        Variable(
            short="i10fg", long="instantaneous_10m_wind_gust", units="m s-1", kind="surface",
            plausible=(0.0, 80.0), standard_name="wind_speed_of_gust",
        ),
        Variable(
            short="orography", long="geopotential_at_surface", units="m2 s-2", kind="static",
            plausible=(-2e3, 6e4), standard_name="surface_geopotential",
        ),
        Variable(
            short="lsm", long="land_sea_mask", units="1", kind="static",
            plausible=(-1e-6, 1.0 + 1e-6), standard_name="land_binary_mask",
        ),
        Variable(
            short="cos_latitude", long="cosine_of_latitude", units="1", kind="forcing",
            plausible=(0.0, 1.0),
        ),
        Variable(
            short="sin_solar_time", long="sine_of_local_solar_time", units="1", kind="forcing",
            plausible=(-1.0, 1.0),
        ),
        Variable(
            short="cos_solar_time", long="cosine_of_local_solar_time", units="1", kind="forcing",
            plausible=(-1.0, 1.0),
        ),
        Variable(
            short="insolation", long="toa_incident_solar_radiation_flux", units="W m-2",
            kind="forcing", plausible=(0.0, 1420.0),
            standard_name="toa_incoming_shortwave_flux",
        ),
    )
}  # fmt: skip
"""Every known variable by its short name."""


def canonical_units(units: str) -> str:
    """Units in one spelling, `m2 s-2` for `m**2 s**-2`, `m^2/s^2` and `m2 s-2` alike."""
    plain = units.strip().replace("**", "").replace("^", "").replace("*", " ")
    plain = re.sub(r"/\s*([A-Za-z]+)(\d*)", lambda m: f" {m[1]}-{m[2] or 1}", plain)
    return " ".join(plain.split())


LEVELS_13 = (50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000)
"""WeatherBench's 13 pressure levels, hPa."""


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
    def parse(cls, name: str) -> Channel:
        """Read a channel's name: `z500` is geopotential at 500 hPa, `r652.0` reflectance at 652 nm.

        Raises:
            ValueError: the name is not in the vocabulary; the nearest known one is given.
        """
        if history := re.fullmatch(r"(.+)@(-\d+)h", name):
            return cls.parse(history[1]).at(int(history[2]))
        if (variable := VARIABLES.get(name)) and variable.kind != "level":
            return cls(
                name=name, variable=name, long_name=variable.long, units=variable.units,
                kind=variable.kind,
            )  # fmt: skip
        if (match := re.fullmatch(r"([a-z]+)(\d+)(hpa)?", name)) and match[1] in VARIABLES:
            variable = VARIABLES[match[1]]
            if variable.kind == "level" and 1 <= int(match[2]) <= 1100:
                return cls(
                    name=level_name(match[1], int(match[2])), variable=variable.short,
                    long_name=variable.long, units=variable.units, kind="level",
                    level_hpa=int(match[2]),
                )  # fmt: skip
        if match := re.fullmatch(r"r(\d+\.\d+)", name):
            return cls(
                name=name, variable="reflectance", long_name="reflectance", units="1",
                kind="band", wavelength_nm=float(match[1]),
            )  # fmt: skip
        known = [n for n, v in VARIABLES.items() if v.kind != "level"]
        known += [f"{n}{p}" for n, v in VARIABLES.items() if v.kind == "level" for p in LEVELS_13]
        nearest = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise ValueError(
            f"Channel {name!r} is unknown: use a surface variable (t2m), a variable with its "
            f"level in hPa (z500) or a reflectance with its wavelength in nm (r652.0){hint}"
        )

    def at(self, offset_hours: int) -> Channel:
        """Return this channel at an earlier time: history of `z500` six hours ago is `z500@-6h`."""
        assert offset_hours < 0 and self.offset_hours == 0
        fields = {**self.__dict__, "name": f"{self.name}@{offset_hours}h"}
        return Channel(**{**fields, "offset_hours": offset_hours})

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
        """Build from a preset's name, a comma-separated list, or an iterable of names.

        Raises:
            ValueError: neither a preset nor names of the vocabulary.
        """
        if isinstance(spec, str):
            if spec in PRESETS:
                return cls(PRESETS[spec])
            spec = [name.strip() for name in spec.split(",") if name.strip()]
        return cls(spec)

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


def level_name(variable: str, level_hpa: int) -> str:
    """Name a variable on a pressure level: `z500`; `u10hpa`, because `u10` is the wind at 10 m."""
    name = f"{variable}{level_hpa}"
    return f"{name}hpa" if name in VARIABLES else name


def band_name(wavelength_nm: float) -> str:
    """Name reflectance at a wavelength: `r652.0`, `r401.25`."""
    return f"r{round(float(wavelength_nm), 2)}"


def _levels(variables: str, levels: Iterable[int]) -> list[str]:
    levels = sorted(levels)
    return [level_name(variable, level) for variable in variables for level in levels]


_SURFACE = ["t2m", "u10", "v10"]
_LEVELS_16 = (20, 30, 70, *LEVELS_13)
_LEVELS_17 = (10, *_LEVELS_16)

PRESETS: dict[str, list[str]] = {
    # The paper's "80 channels": 3 + 13 geopotential + 4 x 16.
    "era5_80": _SURFACE + _levels("z", LEVELS_13) + _levels("tuvq", _LEVELS_16),
    # What the paper's public code lists: 10 hPa too.
    "era5_84": _SURFACE + _levels("z", LEVELS_13) + _levels("tuvq", _LEVELS_17),
    # WeatherBench 2's usual headline set: 4 surface fields and 5 x 13 levels.
    "wb2_69": [*_SURFACE, "msl", *_levels("ztuvq", LEVELS_13)],
}
"""Channel sets by name."""
