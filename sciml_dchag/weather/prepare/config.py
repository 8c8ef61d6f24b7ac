"""The settings of `prepare era5`; see `sciml_dchag.config.knobs` for where it appears."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sciml_dchag.config.knobs import knob

Period = tuple[str | None, str | None]
"""First and last time as ISO strings, both inclusive; `2017` as an end means all of 2017."""


@dataclass(frozen=True, kw_only=True)
class PrepareWeather:
    """From raw files to the store (`sciml-dchag prepare era5`)."""

    sources: tuple[str, ...] = knob((), argument=True)
    """NetCDF or GRIB files, globs, Zarr directories or URLs; `sample:era5_msl` is the embedded
    sample."""
    channels: tuple[str, ...] = ("era5_80",)
    """Presets (`era5_80`, `era5_84`, `wb2_69`) and names (`t2m,z500`), or `all` that the sources
    hold."""
    grid: str = "5.625"
    """`5.625`, `2.8125`, `1.40625`, `ROWSxCOLUMNS`, or `native` to keep the source's, with rows
    from south to north."""
    method: Literal["bilinear", "conservative"] = "bilinear"
    """How to regrid."""
    engine: Literal["auto", "xesmf", "native"] = "auto"
    """Regridding engine; `auto` takes xESMF where it imports, else the package's own (the same
    answer)."""
    static_sources: tuple[str, ...] = knob((), option="static-source", repeat=True, metavar="FILE")
    """Files with the static fields; without any, the sources are searched."""
    static: tuple[str, ...] = knob((), metavar="NAMES")
    """Static fields to store: `orography`, `lsm`."""
    period: tuple[str | None, str | None] = knob(
        (None, None), option=("start", "end"), metavar="TIME"
    )
    """First and last time to prepare, such as 1979-01-01, both included; without them, all."""
    step_hours: int | None = None
    """Time step wanted; finer data are thinned, gaps are refused. Without it, the source's."""
    climatology: Literal["auto", "mean", "hourly"] = "auto"
    """`hourly` is WeatherBench 2's by hour and day of year; `mean` the training mean; `auto` is
    hourly where the training period is long enough."""
    climatology_window_days: int = 61
    """Smoothing window of the hourly climatology."""
    allow_missing: bool = False
    """Keep missing values as missing instead of refusing them."""

    def __post_init__(self) -> None:
        if isinstance(self.channels, str):  # a library's caller may give names as one text
            names = tuple(name.strip() for name in self.channels.split(",") if name.strip())
            object.__setattr__(self, "channels", names)
        for name in ("sources", "channels", "static_sources", "static", "period"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
