"""`predict`, `interpolate` and `reconstruct`: a trained model applied to a store."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sciml_dchag.cli.console import Command, ProgressBar, require_one_process, say
from sciml_dchag.cli.options import device_option, overwrite_option

if TYPE_CHECKING:
    from sciml_dchag.training.checkpoint import Checkpoint

model_argument = click.argument("model", type=click.Path(path_type=Path))
input_argument = click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
output_argument = click.argument("output", type=click.Path(path_type=Path))


@click.command(cls=Command)
@model_argument
@input_argument
@output_argument
@click.option(
    "--start-time",
    "start",
    default=None,
    help="First initial time; by default the test period in the run's own store, else all.",
)
@click.option("--end-time", "end", default=None, help="Last initial time, included.")
@click.option(
    "--every-hours",
    type=click.IntRange(min=1),
    default=None,
    help="Hours between initial times; every time of INPUT by default.",
)
@click.option(
    "--lead-hours",
    default=None,
    metavar="HOURS",
    help="Lead times, such as 24,72,240; the recipe's by default.",
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="Initial times that are forecast at once, or members.",
)
@click.option(
    "--members",
    type=click.IntRange(min=2),
    default=None,
    help="Members of an ensemble from each initial time; one forecast by default.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of the ensemble: another one gives other members.",
)
@click.option(
    "--control",
    type=click.Choice(["on", "off"]),
    default="on",
    show_default=True,
    help="Off leaves a control branch out, so that its base forecasts.",
)
@click.option(
    "--score",
    type=click.FloatRange(0.0, 1.0),
    default=None,
    help="Least probability of an object; by default that of the run's evaluation, or 0.25.",
)
@click.option(
    "--tp",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes that share out the model's channels, heads and features.",
)
@click.option(
    "--fsdp",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes that share out the storage of parameters.",
)
@device_option
@overwrite_option
def predict(
    model: Path, source: Path, output: Path, start: str | None, end: str | None,
    every_hours: int | None, lead_hours: str | None, batch: int, members: int | None, seed: int,
    control: str, score: float | None, tp: int, fsdp: int, device: str | None, overwrite: bool,
) -> None:  # fmt: skip
    """Forecast with MODEL (a run, a checkpoint or an exported file) from INPUT into OUTPUT.

    INPUT is a store, or a NetCDF, GRIB or Zarr file with the model's channels on its grid, of one
    time or of several, with the earlier states that the model needs. OUTPUT is .zarr, in
    WeatherBench 2's layout, or .nc. An interrupted call resumes where it stopped when it is
    repeated.

    Processes that torchrun starts share out the initial times, whatever the mesh of the training;
    --tp and --fsdp share out a model that is too large for one.

    A MODEL of task.kind detect finds objects at the times of INPUT, a store, and OUTPUT is a folder
    with boxes.csv and a picture. --score is the least probability; options that are about forecasts
    are refused. A MODEL of task.kind grade grades the images of INPUT, a plant store, and OUTPUT is
    a table (.csv). One of task.kind detect-plants finds objects in such images, with --score, and
    OUTPUT is a table, too.

    --members makes an ensemble, whose members lie along the dimension `number`. They differ by what
    the model missed on days of its training period, for which the store of its training must be
    there.

    \b
    Example:
      sciml-dchag predict runs/A stores/A.zarr forecasts.zarr --lead-hours 6,24
      sciml-dchag predict runs/A stores/A.zarr ensemble.zarr --lead-hours 72,240 --members 20
      sciml-dchag predict A.safetensors today.nc tomorrow.nc --lead-hours 24
      sciml-dchag predict runs/lows stores/A.zarr lows --start-time 2026-02-01
      torchrun --nproc-per-node 4 -m sciml_dchag predict runs/A stores/A.zarr forecasts.zarr --tp 2
    """
    from sciml_dchag.config import from_mapping
    from sciml_dchag.parallel.config import ParallelConfig
    from sciml_dchag.weather.forecast.predict import predict_period

    kind = _kind(model)
    of_forecasts = {
        "--lead-hours": lead_hours, "--members": members, "--seed": seed,
        "--control": control == "off", "--tp": tp > 1, "--fsdp": fsdp > 1,
    }  # fmt: skip
    of_times = {"--start-time": start, "--end-time": end, "--every-hours": every_hours}
    if kind == "grade":
        of_objects = {"--score": score is not None}
        _refuse({**of_forecasts, **of_times, **of_objects}, f"{model} grades plants")
        _grade(model, source, output, batch=batch, device=device, overwrite=overwrite)
        return
    if kind == "detect-plants":
        _refuse({**of_forecasts, **of_times}, f"{model} finds objects in plants")
        _find_in_plants(
            model, source, output, score=score, batch=batch, device=device, overwrite=overwrite
        )
        return
    if kind == "detect":
        _refuse(of_forecasts, f"{model} finds objects")
        _find_objects(
            model, source, output, period=(start, end), every_hours=every_hours, batch=batch,
            score=score, device=device, overwrite=overwrite,
        )  # fmt: skip
        return
    _refuse({"--score": score is not None}, f"{model} finds no objects")
    saved = require_kind(model, "forecast", "predict")
    degrees = {"tp": tp, "fsdp": fsdp, "device": device or saved.device}
    with ProgressBar() as progress:
        path = predict_period(
            model, output, store=source, period=(start, end), every_hours=every_hours,
            lead_hours=_hours(lead_hours), batch=batch, members=members or 0, seed=seed,
            control=control == "on", overwrite=overwrite,
            parallel=from_mapping(ParallelConfig, degrees), progress=progress,
        )  # fmt: skip
    say(f"Forecasts: {path}")


def _refuse(options: Mapping[str, object], why: str) -> None:
    """Refuse options that are given where they mean nothing."""
    for name, given in options.items():
        if given:
            raise click.UsageError(f"{name} has no meaning where {why}: leave it out.")


def _find_objects(model: Path, source: Path, output: Path, **options: Any) -> None:
    """Find the objects of a store and say how many there are."""
    from sciml_dchag.weather.detect.predict import predict as predict_objects

    require_one_process("predict")
    with ProgressBar() as progress:
        table = predict_objects(model, source, output, progress=progress, **options)
    say(f"Objects: {len(table):,} at {table['time'].nunique():,} times, in {output}")


def _find_in_plants(model: Path, source: Path, output: Path, **options: Any) -> None:
    """Find the objects in the images of a store and say how many there are."""
    from sciml_dchag.plants.detect.predict import predict as predict_objects

    require_one_process("predict")
    with ProgressBar() as progress:
        table = predict_objects(model, source, output, progress=progress, **options)
    say(f"Objects: {len(table):,} in {table['cube'].nunique():,} images, in {output}")


def _grade(model: Path, source: Path, output: Path, **options: Any) -> None:
    """Grade the images of a store and say how many of which grade there are."""
    from sciml_dchag.plants.grade.predict import predict as predict_grades

    require_one_process("predict")
    with ProgressBar() as progress:
        table = predict_grades(model, source, output, progress=progress, **options)
    counts = table["grade"].value_counts().sort_index()
    of_each = ", ".join(f"{number} of grade {grade}" for grade, number in counts.items())
    say(f"Grades: {of_each}, in {output}")


@click.command(cls=Command)
@model_argument
@click.argument("source", metavar="STORE_OR_FORECASTS", type=click.Path(path_type=Path))
@click.argument("output", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--every",
    "every_hours",
    required=True,
    metavar="HOURS",
    help="Time between the states of OUT, such as 1h.",
)
@click.option(
    "--window",
    "window_hours",
    default=None,
    metavar="HOURS",
    help="Take times of the source so far apart, such as 12h, from the first on; all by default.",
)
@click.option("--start-time", "start", default=None, help="First time; of forecasts, initial time.")
@click.option("--end-time", "end", default=None, help="Last time, included.")
@device_option
@overwrite_option
def interpolate(
    model: Path, source: Path, output: Path, every_hours: str, window_hours: str | None,
    start: str | None, end: str | None, device: str | None, overwrite: bool,
) -> None:  # fmt: skip
    """Interpolate STORE_OR_FORECASTS in time with MODEL into OUT, a store or forecasts (.zarr).

    MODEL is a run, a checkpoint or an exported file of task.kind interpolate. Neighbouring times of
    the source must be as far apart as windows that it was trained on; states that are there stay as
    they are.

    \b
    Example:
      sciml-dchag interpolate runs/between-weather daily.zarr hourly.zarr --every 1h
      sciml-dchag interpolate runs/between-weather forecasts.zarr finer.zarr --every 3h --window 12h
    """
    from sciml_dchag.weather.interpolate.apply import interpolate as interpolate_source

    require_kind(model, "interpolate", "interpolate")
    with ProgressBar() as progress:
        path = interpolate_source(
            model, source, output, every_hours=_whole_hours(every_hours, "--every"),
            window_hours=None if window_hours is None else _whole_hours(window_hours, "--window"),
            period=(start, end), device=device, overwrite=overwrite, progress=progress, note=say,
        )  # fmt: skip
    say(f"Interpolated: {path}")


@click.command(cls=Command)
@model_argument
@input_argument
@output_argument
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Passes over a crop that are computed at once.",
)
@device_option
@overwrite_option
def reconstruct(
    model: Path, source: Path, output: Path, batch: int, device: str | None, overwrite: bool
) -> None:
    """Reconstruct the images in INPUT with MODEL into the folder OUTPUT.

    MODEL is a run, a checkpoint or an exported file. INPUT is a plant store, or a folder of some.
    Each pixel is what the model makes of it from others, written as a store and as ENVI files. An
    interrupted call resumes with the images that are not finished when it is repeated.

    \b
    Example:
      sciml-dchag reconstruct runs/demo-plants stores/demo_plants.zarr reconstructions
    """
    from sciml_dchag.plants.masked.reconstruct import find_stores, reconstruct_store

    require_one_process("reconstruct")
    require_kind(model, "masked", "reconstruct")
    of_folder = not source.name.endswith(".zarr")
    for store in find_stores(source):
        if of_folder and (output / store.name).exists() and not overwrite:
            say(f"{output / store.name} is there")
            continue
        with ProgressBar() as progress:
            path = reconstruct_store(
                model,
                store,
                output,
                batch=batch,
                overwrite=overwrite,
                device=device,
                progress=progress,
            )
        say(f"Reconstructions: {path}")
    say(f"ENVI: {output / 'envi'}")


OF_KIND = {
    "forecast": "predict", "masked": "reconstruct", "interpolate": "interpolate",
    "detect": "predict", "grade": "predict", "detect-plants": "predict",
}  # fmt: skip
"""What applies a model, by its task."""


def _kind(model: Path) -> str:
    from sciml_dchag.training.export import find_model

    return find_model(model).checkpoint.kind


def require_kind(model: Path, kind: str, command: str) -> Checkpoint:
    """Refuse a model of another task.

    Raises:
        ValueError: the task that was found, and the command that is for it.
    """
    from sciml_dchag.training.export import find_model

    saved = find_model(model).checkpoint
    if saved.kind != kind:
        raise ValueError(
            f"{model} is a model of task {saved.kind!r}, and `{command}` is for {kind!r}: use "
            f"`sciml-dchag {OF_KIND.get(saved.kind, 'evaluate')}`."
        )
    return saved


def _hours(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is not a list of hours: write, say, 24,72.", param_hint="--lead-hours"
        ) from None


def _whole_hours(text: str, option: str) -> int:
    found = re.fullmatch(r"(\d{1,4}) ?h?", text.strip())
    if found is None or int(found[1]) < 1:
        raise click.BadParameter(
            f"{text!r} is no number of whole hours: write, say, 1h.", param_hint=option
        )
    return int(found[1])
