"""Pictures of a verification: scores by lead, maps, zonal spectra, the training curve.

Every function takes arrays or rows and returns a matplotlib Figure; `save_figure` writes it.
Figures are made without pyplot, so that no window, backend or global state is touched.
Running a model and the scores themselves are not here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sciml_dchag.figures.metric import readable_units, squared
from sciml_dchag.figures.numbers import readable_lead, readable_number
from sciml_dchag.figures.style import (
    COLOURS,
    HAIRLINE,
    INK,
    MISSING,
    SOFT_INK,
    cell_edges,
    degrees_east,
    degrees_north,
    label_ends,
    lead_ticks,
    new_figure,
    quiet_axes,
    wavenumber_ticks,
)
from sciml_dchag.weather.area import latitude_weights
from sciml_dchag.weather.scores.ensemble import ENSEMBLE_METRICS
from sciml_dchag.weather.scores.formulas import METRICS
from sciml_dchag.weather.scores.spectra import zonal_power_spectrum

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


DISPLAY_UNITS = {"Pa": ("hPa", 0.01)}


def plot_scores_by_lead(
    table: pd.DataFrame, metric: str = "rmse", channels: Sequence[str] | None = None
) -> Figure:
    """One metric against lead time, a panel a channel: the model and its baselines.

    Args:
        table: scores as `table_of` gives them; other metrics and channels are left aside.
        metric: a name from `METRICS` or `ENSEMBLE_METRICS`.
        channels: which, in this order; None takes every channel in the order of the table.

    Raises:
        ValueError: no row of the metric, or of a channel asked for.
    """
    chosen = table[table["metric"] == metric].sort_values("lead_hours", kind="stable")
    have = list(dict.fromkeys(table.loc[chosen.index.sort_values(), "channel"]))
    channels = have if channels is None else channels
    for channel in channels:
        if channel not in have:
            raise ValueError(f"no {metric} of channel {channel!r}: there is {', '.join(have)}.")
    if not channels:
        raise ValueError(f"no scores of {metric}, so there is nothing to plot.")
    columns = min(3, len(channels))
    lines = math.ceil(len(channels) / columns)
    described = {**METRICS, **ENSEMBLE_METRICS}[metric]
    title = described.label
    figure = new_figure(1.2 + 3.6 * columns, 1.1 + 2.7 * lines, f"{title} by lead time")
    for place, channel in enumerate(channels):
        axes = figure.add_subplot(lines, columns, place + 1)
        score_panel(axes, chosen[chosen["channel"] == channel], described.perfect)
    return figure


def score_panel(axes: Axes, rows: pd.DataFrame, perfect: float | None) -> None:
    """Draw one score against lead time: a line for `model` and for each column after it.

    Args:
        axes: where.
        rows: `channel` and `units`, which are the titles, `lead_hours`, `model`, baselines.
        perfect: the score that the axis ends with; None where it may have either sign.
    """
    leads = rows["lead_hours"].to_numpy(np.float64)
    in_days = leads.max() > 72
    x = leads / 24 if in_days else leads
    ends: list[tuple[float, str, str]] = []
    columns = list(rows.columns)
    for name in reversed(columns[columns.index("model") :]):
        y = rows[name].to_numpy(np.float64)
        if not np.isfinite(y).any():
            continue
        strong = name == "model"
        axes.plot(
            x,
            y,
            color=COLOURS[name],
            linewidth=2.4 if strong else 1.4,
            marker="o",
            markersize=4.5 if strong else 3,
            clip_on=False,
            zorder=3 if strong else 2,
        )
        ends.append((float(y[np.isfinite(y)][-1]), name.replace("_", " "), COLOURS[name]))
    quiet_axes(axes)
    channel, units = rows["channel"].iloc[0], rows["units"].iloc[0]
    axes.set_title(channel, loc="left", color=INK, fontsize=10.5, fontweight="bold")
    axes.set_title(units, loc="right", color=SOFT_INK, fontsize=9)
    lead_ticks(axes, x)
    axes.set_xlabel("lead time (days)" if in_days else "lead time (hours)")
    if perfect is None:
        axes.axhline(0.0, color=SOFT_INK, linewidth=0.8, zorder=1)
    elif perfect == 0.0:
        axes.set_ylim(0.0, None)
    else:
        axes.set_ylim(min(0.0, axes.get_ylim()[0]), perfect)
    axes.set_xlim(0.0, float(x.max()))
    label_ends(axes, ends)


def plot_maps(
    forecast: ArrayLike,
    truth: ArrayLike,
    latitude: ArrayLike,
    longitude: ArrayLike,
    *,
    channel: str,
    units: str,
    init_time: np.datetime64,
    lead_hours: int,
) -> Figure:
    """Forecast and truth on one colour scale, and their difference on one centred on zero.

    Pressure is shown in hPa. The scales leave out the outermost 0.5 percent of the values, which
    the colour bar's arrows show. NaN is grey. The error's root mean square is area-weighted.

    Args:
        forecast: shape (latitude, longitude), in `units`.
        truth: likewise.
        latitude: degrees, either way round.
        longitude: degrees, ascending.
        channel: the channel's name.
        units: the channel's units.
        init_time: when the forecast starts.
        lead_hours: how far ahead it looks.

    Raises:
        ValueError: fields that do not have the shape of the grid, or hold no number.
    """
    latitude, longitude = np.asarray(latitude, float), np.asarray(longitude, float)
    shown, factor = DISPLAY_UNITS.get(units, (units, 1.0))
    fields = {"Forecast": factor * np.asarray(forecast, float)}
    fields["Truth"] = factor * np.asarray(truth, float)
    for name, field in fields.items():
        if field.shape != (latitude.size, longitude.size):
            raise ValueError(
                f"the {name.lower()} has shape {field.shape}, but the grid's "
                f"{(latitude.size, longitude.size)} is needed."
            )
    error = fields["Forecast"] - fields["Truth"]
    if not np.isfinite(error).any():
        raise ValueError(f"forecast and truth of {channel} share no finite value to map.")
    low, high = np.nanpercentile(np.stack(list(fields.values())), [0.5, 99.5])
    signed = low < -0.25 * high and high > -0.25 * low
    if signed:
        low, high = -max(-low, high), max(-low, high)
    largest = float(np.nanpercentile(np.abs(error), 99.5)) or 1e-12
    weights = np.where(np.isfinite(error), latitude_weights(latitude)[:, None], 0.0)
    rms = math.sqrt(np.sum(weights * np.nan_to_num(error) ** 2) / weights.sum())

    unit_text = readable_units(shown)
    init = init_time.astype("datetime64[m]")
    valid = init + np.timedelta64(lead_hours, "h")
    figure = new_figure(
        15,
        4.0,
        f"{channel}, {readable_lead(lead_hours)} ahead",
        f"from {time_text(init)}, valid {time_text(valid)}",
    )
    panels = [
        ("Forecast", fields["Forecast"], "BrBG_r" if signed else "viridis", low, high),
        ("Truth", fields["Truth"], "BrBG_r" if signed else "viridis", low, high),
        ("Forecast − truth", error, "RdBu_r", -largest, largest),  # noqa: RUF001
    ]
    for place, (name, field, colours, lowest, highest) in enumerate(panels):
        axes = figure.add_subplot(1, 3, place + 1)
        _map_panel(
            axes, field, latitude, longitude, colours, (float(lowest), float(highest)), unit_text
        )
        axes.set_title(name, loc="left", color=INK, fontsize=10.5, fontweight="bold")
        if place == 2:
            text = f"RMSE {readable_number(rms)} {unit_text}".strip()
            axes.set_title(text, loc="right", color=SOFT_INK, fontsize=9)
    return figure


def _map_panel(
    axes: Axes,
    field: NDArray[np.float64],
    latitude: NDArray[np.float64],
    longitude: NDArray[np.float64],
    colours: str,
    limits: tuple[float, float],
    units: str,
) -> None:
    from matplotlib.ticker import FuncFormatter, MultipleLocator

    rows = np.clip(cell_edges(latitude), -90, 90)
    mesh = axes.pcolormesh(
        cell_edges(longitude),
        rows,
        np.ma.masked_invalid(field),
        cmap=colours,
        vmin=limits[0],
        vmax=limits[1],
        rasterized=True,
    )
    axes.set_facecolor(MISSING)
    axes.set_ylim(rows.min(), rows.max())
    axes.set_aspect("equal")
    for spine in axes.spines.values():
        spine.set_color(HAIRLINE)
    axes.xaxis.set_major_locator(MultipleLocator(60 if np.ptp(longitude) > 120 else 10))
    axes.yaxis.set_major_locator(MultipleLocator(30 if np.ptp(latitude) > 60 else 10))
    axes.xaxis.set_major_formatter(FuncFormatter(degrees_east))
    axes.yaxis.set_major_formatter(FuncFormatter(degrees_north))
    axes.tick_params(colors=SOFT_INK, labelsize=8, length=3, color=HAIRLINE)
    bar = axes.figure.colorbar(
        mesh, ax=axes, orientation="horizontal", pad=0.04, shrink=0.7, aspect=32, extend="both"
    )
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=SOFT_INK, labelsize=8, length=2, color=HAIRLINE)
    bar.set_label(units, color=SOFT_INK, fontsize=9)


def plot_spectra(
    forecasts: Mapping[int, ArrayLike],
    truth: ArrayLike,
    latitude: ArrayLike,
    *,
    channel: str,
    units: str,
    band: tuple[float, float] = (30.0, 60.0),
) -> Figure:
    """Zonal power spectra of forecasts at some lead times against the truth's.

    Below the truth at large wavenumbers means a smoothed forecast. See `zonal_power_spectrum`.

    Args:
        forecasts: fields by lead time in hours, shape (..., latitude, longitude) each.
        truth: fields of the same season and grid.
        latitude: degrees.
        channel: the channel's name.
        units: the channel's units.
        band: least and greatest absolute latitude.
    """
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    subtitle = f"absolute latitude {band[0]:g}° to {band[1]:g}°"
    figure = new_figure(6.6, 4.6, f"{channel}: zonal power spectrum", subtitle)
    axes = figure.add_subplot()
    # The last wavenumber of an even row, two cells a wave, holds half a pair and looks like a drop.
    shown = slice(0, (np.shape(truth)[-1] - 1) // 2)
    wavenumber, power = (part[shown] for part in zonal_power_spectrum(truth, latitude, band))
    axes.loglog(
        wavenumber, power, color=COLOURS["truth"], linewidth=1.6, linestyle=(0, (4, 2)), zorder=4
    )
    ends = [(float(power[-1]), "truth", COLOURS["truth"])]
    shades = np.linspace(0.95, 0.5, len(forecasts)) if len(forecasts) > 1 else [0.8]
    for shade, (lead, field) in zip(shades, sorted(forecasts.items()), strict=True):
        colour = to_hex(colormaps["Blues"](shade))
        power = zonal_power_spectrum(field, latitude, band)[1][shown]
        axes.loglog(wavenumber, power, color=colour, linewidth=2.0)
        ends.append((float(power[-1]), readable_lead(lead), colour))
    quiet_axes(axes)
    axes.set_xlim(1, wavenumber[-1])
    wavenumber_ticks(axes, int(wavenumber[-1]))
    axes.set_xlabel("zonal wavenumber")
    axes.set_ylabel(f"power ({squared(units) or '1'})")
    label_ends(axes, ends)
    return figure


def time_text(time: np.datetime64) -> str:
    """Write a time for a picture."""
    return f"{np.datetime_as_string(time, unit='m').replace('T', ' ')} UTC"
