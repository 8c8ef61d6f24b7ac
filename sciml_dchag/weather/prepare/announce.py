"""The state that a store will hold, with all that can be refused before a value of it is read.

`prepare` writes it, `check` looks at it.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from sciml_dchag.channels import ChannelSet
from sciml_dchag.files.samples import resolve_samples
from sciml_dchag.weather.grid import Grid
from sciml_dchag.weather.prepare.cells import Believable
from sciml_dchag.weather.prepare.config import PrepareWeather
from sciml_dchag.weather.prepare.pieces import require_same_grid
from sciml_dchag.weather.prepare.sources import ALL, open_era5, open_static
from sciml_dchag.weather.prepare.times import warn_of_missing_ends
from sciml_dchag.weather.regrid.regrid import regrid
from sciml_dchag.weather.store.climatology import wants_hourly
from sciml_dchag.weather.store.layout import iso
from sciml_dchag.weather.store.store import Period, times_within

NATIVE = "native"
"""The grid's name that keeps the source's."""


def announce(
    config: PrepareWeather, statistics_period: Period, judge: Believable | None = None
) -> tuple[xr.DataArray, xr.DataArray | None]:
    """Open the sources, and check on their metadata what a store is to be made of.

    Args:
        config: what to prepare, and from what.
        statistics_period: first and last time of the training period, both included.
        judge: checks fields as they are read.

    Returns:
        The state on its grid, (time, channel, latitude, longitude), not read yet; and the static
        fields, in memory, where any are asked for.

    Raises:
        FileNotFoundError: a source does not exist.
        ValueError: the sources do not hold what is asked, or not as it should be.
    """
    paths, static_paths = resolve_samples(config.sources), resolve_samples(config.static_sources)
    channels = None if config.channels == (ALL,) else ChannelSet.of(config.channels)
    state = open_era5(
        paths, channels, period=config.period, step_hours=config.step_hours, judge=judge
    )
    times = state["time"].values
    if (odd := times[times != times.astype("datetime64[h]")]).size:
        raise ValueError(f"Time {iso(odd[0])} is no whole hour: select the whole hours first.")
    training = times[times_within(times, statistics_period, "the sources")]
    warn_of_missing_ends(training, statistics_period, "training period")
    wants_hourly(training, config.climatology, config.climatology_window_days)
    fields = open_static(static_paths or paths, config.static) if config.static else None
    state = _on_grid(state, config)
    if fields is not None:
        if config.grid == NATIVE:
            require_same_grid(fields, state)
        fields = _on_grid(fields, config).astype(np.float32).compute()
    return state, fields


def _on_grid(data: xr.DataArray, config: PrepareWeather) -> xr.DataArray:
    """Regrid, or keep the source's own grid, which is in a store's order already."""
    if config.grid == NATIVE:
        return data
    attrs = data.attrs
    moved = regrid(data, Grid.named(config.grid), config.method, config.engine)
    return moved.assign_attrs({**attrs, **moved.attrs})
