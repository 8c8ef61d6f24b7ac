"""Looking before work starts: what a path holds, and what of a recipe would fail.

Reads metadata alone, so that both are safe on a login node and done in seconds.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import fsspec
import torch
import xarray as xr

from sciml_dchag.channels import ChannelSet
from sciml_dchag.config import Recipe
from sciml_dchag.files.samples import resolve_samples
from sciml_dchag.files.zarr_groups import read_attrs
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.transformer import build_model, count_parameters
from sciml_dchag.objectives.forecast import can_roll_out
from sciml_dchag.parallel.runtime import choose_device
from sciml_dchag.plants.masked import checks as inspection_plants
from sciml_dchag.plants.masked.config import MaskedRecipe
from sciml_dchag.plants.store.cubes import FORMAT as PLANT_FORMAT
from sciml_dchag.plants.store.cubes import CubeStore
from sciml_dchag.plants.store.summary import facts, in_short
from sciml_dchag.tasks import require_forecast
from sciml_dchag.training.checkpoint import RECORD, Checkpoint, last_checkpoint, read_checkpoint
from sciml_dchag.weather.forecast.config import ForecastRecipe
from sciml_dchag.weather.forecast.training import (
    check_periods,
    check_rotation,
    complete_model_config,
    training_statistics,
)
from sciml_dchag.weather.grid import Grid
from sciml_dchag.weather.prepare.sources import list_contents
from sciml_dchag.weather.scores.metrics import check_metrics
from sciml_dchag.weather.store.layout import FORMAT, iso
from sciml_dchag.weather.store.store import Store
from sciml_dchag.weather.windows import require_even_steps


@dataclass(frozen=True)
class Finding:
    """One thing that a check has found."""

    verdict: Literal["ok", "note", "fails"]
    """Whether it is fine, worth knowing, or would fail."""
    what: str
    """A sentence; for a failure, with the mend."""


def describe(path: str) -> dict[str, Any]:
    """Describe raw files, a store, a forecast store, a run folder or a checkpoint.

    Raises:
        FileNotFoundError, ValueError: there is nothing, or nothing known.
    """
    place = Path(path)
    if (place / RECORD).is_file() or (place / "checkpoints").is_dir():
        return _describe_checkpoint(place)
    if place.is_dir() and (place / "zarr.json").is_file():
        attrs = read_attrs(place)
        if attrs.get("format") == FORMAT:
            return _describe_store(Store.open(place))
        if attrs.get("format") == PLANT_FORMAT:
            return facts(CubeStore.open(place))
        if "prediction_timedelta" in (dataset := xr.open_zarr(place)).coords:
            return _describe_forecasts(dataset)
    return {"kind": "raw files", **list_contents(resolve_samples([path]))}


def check_recipe(recipe: Recipe, runs: Path = Path("runs")) -> list[Finding]:
    """Say of each part of a recipe whether it would work.

    Args:
        recipe: the recipe, whose own consistency is checked when it is made.
        runs: folder of the run folders.
    """
    findings: list[Finding] = []
    store_path = Path(recipe.data.store)

    def attempt(check: Callable[[], str]) -> bool:
        try:
            findings.append(Finding("ok", check()))
        except (ValueError, OSError, ImportError) as error:
            findings.append(Finding("fails", " ".join(str(error).split())))
        return findings[-1].verdict == "ok"

    if not recipe.data.store:
        findings.append(Finding("fails", "data.store is empty: say where the store is to be."))
        return findings
    if not store_path.exists():
        findings.append(Finding("note", f"store {store_path} is not there yet: `run` prepares it"))
    if isinstance(recipe, MaskedRecipe):
        _check_plants(recipe, attempt)
    else:
        weather = require_forecast(recipe, "check")
        if store_path.exists():
            if attempt(lambda: f"store {store_path}: {_in_short(Store.open(store_path))}"):
                _check_with_store(weather, Store.open(store_path), attempt)
        else:
            if missing := _missing_filesystem(weather.prepare.sources):
                findings.append(Finding("note", missing))
            _check_before_store(weather, attempt)
        attempt(lambda: _metrics(weather))
    try:
        choose_device(recipe.parallel.device)
    except ValueError as error:  # a login node may lack what the job will have
        findings.append(Finding("note", str(error)))
    if (last := last_checkpoint(runs / recipe.name / "checkpoints")) is not None:
        findings.append(Finding("note", f"{last} is there: `train` goes on from it"))
    return findings


def _check_plants(recipe: MaskedRecipe, attempt: Callable[[Callable[[], str]], bool]) -> None:
    path = Path(recipe.data.store)
    if not path.exists():
        inspection_plants.check_before_store(recipe, attempt, _model_in_words)
    elif attempt(lambda: f"store {path}: {in_short(CubeStore.open(path))}"):
        inspection_plants.check_with_store(recipe, attempt, _model_in_words)


def _check_with_store(
    recipe: ForecastRecipe, store: Store, attempt: Callable[[Callable[[], str]], bool]
) -> None:
    def statistics() -> str:
        check_periods(store, recipe)
        check_rotation(store, recipe)
        training_statistics(store, recipe)
        return f"statistics of the training period {' to '.join(store.period(recipe.data.train))}"

    def model() -> str:
        store.channels.indices(recipe.task.targets)
        store.static(recipe.data.static)
        return _model_in_words(complete_model_config(recipe, store))

    attempt(lambda: f"time step {require_even_steps(store)} h")
    attempt(statistics)
    attempt(model)
    attempt(lambda: _leads(recipe, store.channels, require_even_steps(store)))


def _check_before_store(
    recipe: ForecastRecipe, attempt: Callable[[Callable[[], str]], bool]
) -> None:
    prepare = recipe.prepare
    channels: list[ChannelSet] = []

    def sources() -> str:
        if not prepare.sources:
            raise ValueError("prepare.sources is empty: name the raw files.")
        if any("://" in source for source in prepare.sources):
            return f"sources {', '.join(prepare.sources)} (remote: not opened)"
        contents = list_contents(resolve_samples(prepare.sources))
        return "sources: {files} file(s), {times} times, {period}".format(**contents)

    def engine() -> str:
        if prepare.engine == "xesmf" and importlib.util.find_spec("esmpy") is None:
            raise ImportError(
                "prepare.engine is xesmf, which needs ESMF: create the environment of "
                "environment.yml, or set prepare.engine=native."
            )
        return f"regridding to {prepare.grid}, {prepare.method}, engine {prepare.engine}"

    def chosen() -> str:
        channels.append(ChannelSet.of(prepare.channels))
        return f"{len(channels[0])} channels: {channels[0]!r}"

    def model() -> str:
        if prepare.grid == "native":
            return "model: its size is known once the store is there"
        return _model_in_words(expected_model(recipe))

    attempt(sources)
    attempt(engine)
    if attempt(chosen):
        attempt(model)
        step = prepare.step_hours
        attempt(lambda: _leads(recipe, channels[0], step or 1))


def expected_model(recipe: Recipe) -> ModelConfig:
    """Return the architecture that a recipe will train, from its store or from what will be in it.

    Raises:
        ValueError: there is no store yet and the recipe does not say its grid.
    """
    if isinstance(recipe, MaskedRecipe):
        return inspection_plants.expected_model(recipe)
    assert isinstance(recipe, ForecastRecipe)
    if Path(recipe.data.store).exists():
        return complete_model_config(recipe, Store.open(recipe.data.store))
    if recipe.prepare.grid == "native":
        raise ValueError(
            f"There is no store {recipe.data.store}, and prepare.grid native does not say its "
            f"size: prepare it first, or set prepare.grid."
        )
    names = ChannelSet.of(recipe.prepare.channels).names
    # Static fields, forcings and history count as inputs; which names they have is no matter.
    data = recipe.data
    extra = len(names) * len(data.history_hours) + len(data.static) + len(data.forcings)
    return dataclasses.replace(
        recipe.model,
        input_channels=(*names, *(f"input {i}" for i in range(extra))),
        output_channels=recipe.task.targets or tuple(names),
        image_size=Grid.named(recipe.prepare.grid).shape,
    )


def _missing_filesystem(sources: Sequence[str]) -> str | None:
    """Say which remote source no installed package can open, asking no network."""
    for source in sources:
        scheme, separator, _ = source.partition("://")
        if not separator:
            continue
        try:
            fsspec.get_filesystem_class(scheme)
        except (ImportError, ValueError):
            return (
                f"{scheme}:// needs a package that is not installed here: before preparing, "
                f"pip install 'sciml-dchag[cloud]'"
            )
    return None


def _leads(recipe: ForecastRecipe, channels: ChannelSet, step_hours: int) -> str:
    channels.indices([*recipe.task.targets, *recipe.evaluation.channels])
    task = recipe.task
    for key, hours in (
        ("task.lead_hours", task.lead_hours),
        ("data.history_hours", recipe.data.history_hours),
        ("evaluation.lead_hours", recipe.evaluation.lead_hours),
    ):
        if odd := [h for h in hours if h % step_hours]:
            raise ValueError(
                f"{key} has {odd[0]} h, no multiple of the time step of {step_hours} h: change "
                f"it, or prepare a store of a finer step."
            )
    longest = max(recipe.evaluation.lead_hours)
    if task.fixed_step and longest > task.lead_hours[0]:
        targets = task.targets or channels.names
        if why := can_roll_out(
            targets, channels.names, task.lead_hours[0], recipe.data.history_hours
        ):
            raise ValueError(f"evaluation.lead_hours goes to {longest} h, but {why}.")
    how = "rolled out" if task.fixed_step else "asked directly"
    return f"lead times {list(recipe.evaluation.lead_hours)} h, {how}"


def _metrics(recipe: ForecastRecipe) -> str:
    return f"metrics {', '.join(check_metrics(recipe.evaluation.metrics, with_climatology=True))}"


def _model_in_words(config: ModelConfig) -> str:
    with torch.device("meta"):
        parameters = count_parameters(build_model(config))
    # Weights, gradients and AdamW's two moments, float32.
    gibibytes = 16 * parameters / 2**30
    locations = math.prod(config.image_size) // config.patch**2
    return (
        f"model: {parameters:,} parameters, {gibibytes:.2f} GiB with gradients and optimizer, "
        f"{len(config.input_channels)} channels in, {len(config.output_channels)} out, "
        f"{locations} locations"
    )


def _in_short(store: Store) -> str:
    times, channels, rows, columns = store.shape
    return f"{times} times, {channels} channels, {rows} x {columns}"


def _describe_store(store: Store) -> dict[str, Any]:
    step = store.step_hours
    return {
        "kind": "weather store" + (" (simulated, not observations)" if store.simulated else ""),
        "title": store.attrs.get("title", ""),
        "shape": _in_short(store),
        "period": f"{iso(store.times[0])} to {iso(store.times[-1])}",
        "step": "uneven" if step is None else f"{step} h",
        "grid": f"{store.attrs['grid']} ({store.attrs['grid_kind']})",
        "channels": store.channels.names,
        "attribution": store.attribution,
    }


def _describe_forecasts(dataset: xr.Dataset) -> dict[str, Any]:
    times = dataset["time"].values
    hours = dataset["prediction_timedelta"].values.astype("timedelta64[h]").astype(int)
    return {
        "kind": "forecasts, WeatherBench 2 layout",
        "title": dataset.attrs.get("title", ""),
        "initial times": f"{len(times)}, {iso(times[0])} to {iso(times[-1])}",
        "lead hours": hours.tolist(),
        "variables": [str(name) for name in dataset.data_vars],
        "attribution": dataset.attrs.get("attribution", ""),
    }


def _describe_checkpoint(place: Path) -> dict[str, Any]:
    checkpoint = read_checkpoint(place)
    model = checkpoint.model_config
    return {
        "kind": "checkpoint",
        "run": checkpoint.recipe["name"],
        "step": checkpoint.step,
        "training": "ended" if checkpoint.complete else "not ended",
        "model": f"{model['aggregation']}, {model['depth']} blocks of {model['embed_dim']}",
        **_what_it_learnt(checkpoint),
    }


def _what_it_learnt(checkpoint: Checkpoint) -> dict[str, Any]:
    task = checkpoint.recipe["task"]
    if checkpoint.kind == "masked":
        hidden = {"locations": task["mask_ratio"], "band groups": task["channel_mask_ratio"]}
        return {
            "bands": f"{len(checkpoint.channels)}, {checkpoint.channels[0]} to "
            f"{checkpoint.channels[-1]}",
            "hidden": hidden,
            "training images": checkpoint.training_images,
        }
    return {
        "lead hours": task["lead_hours"],
        "channels": checkpoint.channels,
        "statistics": " to ".join(checkpoint.statistics_period),
    }
