"""Raw ERA5, or what looks like it, to a store ready for training: `prepare_era5`.

Opening the files is `sources`' work, judging them `checks`', regridding `regrid`'s, writing
`data.writing`'s; here they are put in order.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sciml_dchag._version import __version__
from sciml_dchag.channels import ChannelSet
from sciml_dchag.config.knobs import takes
from sciml_dchag.config.mapping import from_keywords, of_kind, to_mapping
from sciml_dchag.files.places import check_place
from sciml_dchag.files.provenance import describe_sources
from sciml_dchag.files.resumable import Progress
from sciml_dchag.files.samples import Sources, resolve_samples, several
from sciml_dchag.weather.grid import Grid
from sciml_dchag.weather.prepare.cells import Believable
from sciml_dchag.weather.prepare.checks import ConstantFields, check_values
from sciml_dchag.weather.prepare.config import PrepareWeather
from sciml_dchag.weather.prepare.opening import expand_sources
from sciml_dchag.weather.prepare.pieces import require_same_grid
from sciml_dchag.weather.prepare.sources import ALL, open_era5, open_static
from sciml_dchag.weather.prepare.times import warn_of_missing_ends
from sciml_dchag.weather.regrid.regrid import regrid
from sciml_dchag.weather.store.climatology import compute_climatology, wants_hourly
from sciml_dchag.weather.store.layout import iso
from sciml_dchag.weather.store.statistics import compute_statistics
from sciml_dchag.weather.store.store import Period, times_within
from sciml_dchag.weather.store.writing import WEATHER_STORE, write_store

NATIVE = "native"
"""The grid's name that keeps the source's."""


@takes(PrepareWeather)
def prepare_era5(
    sources: Sources,
    out: str | os.PathLike[str],
    *,
    statistics_period: Period = (None, None),
    overwrite: bool = False,
    scheduler: str | None = None,
    progress: Progress | None = None,
    **knobs: Any,
) -> Path:
    """Read ERA5, check it, regrid it, and write a store with its statistics and climatology.

    A call that was interrupted resumes where it stopped when it is repeated.

    Args:
        sources: NetCDF or GRIB files, globs, Zarr directories, URLs, or `sample:NAME`.
        out: the store's place.
        statistics_period: first and last time of the training period, both included.
        overwrite: replace a store at `out`.
        scheduler: address of a Dask cluster to compute on.
        progress: called as the work goes on.
        **knobs: as below.

    Returns:
        `out`.

    Raises:
        FileExistsError: `out` exists and `overwrite` is off.
        FileNotFoundError: a source does not exist.
        ValueError: the sources do not hold what is asked, or not as it should be.
        OSError: the disk is full, or a remote source does not answer while it is read; what is
            finished is kept in both cases.
    """
    config = from_keywords(PrepareWeather, {"sources": several(sources), **knobs})
    overwrite = of_kind(bool, overwrite, "overwrite")
    statistics_period = of_kind(Period, statistics_period, "statistics_period")
    settings = {
        key: value
        for key, value in to_mapping(config).items()
        if key not in ("sources", "static_sources")  # described with their hashes
    } | {"statistics_period": list(statistics_period)}
    out = Path(out)
    check_place(out, WEATHER_STORE, overwrite)
    static_paths = resolve_samples(config.static_sources)
    judge = Believable(at_once=scheduler is not None, allow_missing=config.allow_missing)
    state, fields = announce(config, statistics_period, judge)
    climatology, window_days = config.climatology, config.climatology_window_days
    static_files = expand_sources(static_paths) if static_paths else []
    files = list(dict.fromkeys([*state.attrs["sources"], *static_files]))
    described = describe_sources(files, progress)
    attrs = _attributes(state, config.grid, described, settings)

    constant = ConstantFields()

    def check(
        block: NDArray[np.float32], times: NDArray[np.datetime64], channels: ChannelSet
    ) -> None:
        judge.raise_first()
        check_values(block, times, channels, allow_missing=config.allow_missing, constant=constant)

    def finish(path: Path) -> None:
        # A repeated call keeps the group that an interrupted one put in place.
        if not (path / "statistics").exists():
            compute_statistics(path, statistics_period, progress=progress)
        if not (path / "climatology").exists():
            compute_climatology(
                path, statistics_period, kind=climatology, window_days=window_days,
                progress=progress,
            )  # fmt: skip

    try:
        return write_store(
            state, out, attrs=attrs, static=fields, overwrite=overwrite, scheduler=scheduler,
            progress=progress, check=check, finish=finish,
        )  # fmt: skip
    finally:  # also of a call that is interrupted: the one that resumes sees the later times alone
        constant.warn()


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


def _attributes(
    state: xr.DataArray,
    grid: str,
    described: list[dict[str, Any]],
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Root attributes of the store."""
    found = Grid.of(state)
    simulated = int(state.attrs.get("simulated", 0))
    name = found.name if grid == NATIVE else grid
    what = str(state.attrs["what"])
    number = state.sizes["channel"]
    regridding = {
        key: state.attrs[key]
        for key in ("regrid_method", "regrid_engine", "regrid_weights_sha256")
        if key in state.attrs
    }
    return {
        "title": f"{what}, {number} channel{'s' * (number > 1)}, grid {name}",
        "attribution": state.attrs["attribution"],
        **({"license": state.attrs["license"]} if "license" in state.attrs else {}),
        "simulated": simulated,
        "grid": name,
        "grid_kind": found.kind,
        "grid_sha256": found.content_hash,
        "provenance": {
            "sources": described,
            "regridding": regridding or "none: the grid of the sources",
            "package": f"sciml-dchag {__version__}",
            "settings": settings,
        },
    }
