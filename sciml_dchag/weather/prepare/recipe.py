"""Preparing the store of a recipe, unless it is there and fits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from sciml_dchag.files.resumable import Progress
from sciml_dchag.weather.prepare.config import PrepareWeather
from sciml_dchag.weather.prepare.era5 import prepare_era5
from sciml_dchag.weather.store.store import Period, Store
from sciml_dchag.weather.training_store import training_statistics

WHOLE_PERIOD = (
    "prepare: no training period is given, so statistics and climatology are those of all times"
)


def prepare_unless_there(
    prepare: PrepareWeather,
    store: str | Path,
    train: Period,
    progress: Progress | None,
    console: Callable[[str], None],
) -> None:
    """Regrid raw files into a store, with statistics and climatology of the training period.

    Raises:
        ValueError, OSError: sources that cannot be prepared, or a store of another training period.
    """
    store = Path(store)
    if store.exists():
        console(f"prepare: {store} is there")
        training_statistics(Store.open(store), train)
        return
    console(f"prepare: {prepare.grid} degrees, {prepare.method}, into {store}")
    if train == (None, None):
        console(WHOLE_PERIOD)
    prepare_era5(
        out=store, **dataclasses.asdict(prepare), statistics_period=train, progress=progress
    )
