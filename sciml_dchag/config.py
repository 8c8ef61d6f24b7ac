"""A run's recipe: frozen dataclasses, read from YAML and `--set key=value`, checked at once.

Every field is a knob that a recipe may set; the text under it is its documentation. Checks that
need data (does the store hold this channel?) are made by `sciml-dchag check`, not here.
"""

from __future__ import annotations

import dataclasses
import datetime
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from sciml_dchag.models.presets import ModelConfig
from sciml_dchag.parallel.mesh import ParallelConfig

Section = TypeVar("Section")
Period = tuple[str | None, str | None]


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """From raw files to the store (`sciml-dchag prepare era5`)."""

    sources: tuple[str, ...] = ()
    """Files, globs, Zarr directories or URLs; `sample:era5_msl` is the embedded sample."""
    channels: str = "era5_80"
    """A preset (`era5_80`, `era5_84`, `wb2_69`) or names separated by commas."""
    grid: str = "5.625"
    """`5.625`, `2.8125`, `1.40625`, `ROWSxCOLUMNS`, or `native` to keep the source's."""
    method: Literal["bilinear", "conservative"] = "bilinear"
    """How to regrid."""
    engine: Literal["auto", "xesmf", "native"] = "auto"
    """`auto` takes xESMF where it imports, else the package's own engine (the same answer)."""
    static_sources: tuple[str, ...] = ()
    """Files that hold the static fields; empty looks in `sources`."""
    static: tuple[str, ...] = ()
    """Static fields to store: `orography`, `lsm`."""
    period: Period = (None, None)
    """First and last time to prepare, both included; null for all."""
    step_hours: int | None = None
    """Time step wanted; finer data are thinned, gaps are refused. Null keeps the source's."""
    climatology: Literal["auto", "mean", "hourly"] = "auto"
    """`hourly` is WeatherBench 2's by hour and day of year; `mean` the training mean."""
    climatology_window_days: int = 61
    """Smoothing window of the hourly climatology."""
    allow_missing: bool = False
    """Keep missing values as missing instead of refusing them."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """From the store to batches, and which times are for what."""

    store: str = ""
    """Where the prepared store is (or will be)."""
    train: Period = (None, None)
    """Training period, both ends included; statistics and climatology come from it alone."""
    validation: Period | None = None
    """Validation period; null for none."""
    test: Period | None = None
    """Test period: touched by `evaluate` and nothing else."""
    history_hours: tuple[int, ...] = ()
    """Earlier states as further inputs, for example [-6, -12]."""
    static: tuple[str, ...] = ()
    """Static fields of the store as further inputs."""
    forcings: tuple[str, ...] = ()
    """Computed inputs: `cos_latitude`, `sin_solar_time`, `cos_solar_time`, `insolation`."""
    rotate: bool = False
    """Turn each training sample about the Earth's axis by a random angle, all fields alike: a
    global grid's cheapest augmentation. Where the land lies is then known from static fields."""
    memory_mebibytes: int = 4096
    """A period of the store that fits in this much is kept in memory."""
    workers: int = 0
    """Loader processes; 0 reads in a thread of the training process."""

    def __post_init__(self) -> None:
        if bad := [hours for hours in self.history_hours if hours >= 0]:
            raise ValueError(
                f"data.history_hours has {bad[0]}: give hours before the initial time, such as -6."
            )
        if repeated := [h for h in self.history_hours if self.history_hours.count(h) > 1]:
            raise ValueError(f"data.history_hours repeats {repeated[0]}: give each hour once.")


@dataclass(frozen=True, kw_only=True)
class ForecastConfig:
    """What is learnt: the state at t + lead from the state at t."""

    targets: tuple[str, ...] = ()
    """Channels to predict; empty for every channel of the store."""
    lead_hours: tuple[int, int] = (6, 6)
    """Shortest and longest lead time in training; equal for a fixed step, else drawn at random
    from the multiples of the store's step."""
    output: Literal["residual", "direct"] = "residual"
    """`residual` predicts the change since t in units of its own standard deviation."""
    rollout_steps: int = 1
    """Forecast steps that one training sample is rolled out over (fixed step only)."""

    def __post_init__(self) -> None:
        first, last = self.lead_hours
        if not 0 < first <= last:
            raise ValueError(
                f"task.lead_hours is [{first}, {last}]: give the shortest and the longest lead "
                f"time in hours, both above 0, the shortest first."
            )
        if self.rollout_steps < 1 or (self.rollout_steps > 1 and first != last):
            raise ValueError(
                f"task.rollout_steps is {self.rollout_steps}: use at least 1, and more than 1 only "
                f"with a fixed step (both task.lead_hours equal)."
            )

    @property
    def fixed_step(self) -> bool:
        """Whether the model steps by one lead time and is rolled out to longer ones."""
        return self.lead_hours[0] == self.lead_hours[1]


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How it is learnt."""

    steps: int = 1000
    """Optimizer steps."""
    batch: int = 8
    """Samples an optimizer step, over all ranks."""
    micro_batch: int = 0
    """Samples that a rank sends through the model at once; gradients of a step are accumulated. 0
    sends all of the rank's."""
    learning_rate: float = 5e-4
    """Peak learning rate of AdamW."""
    final_learning_rate: float = 1e-8
    """Where the cosine ends."""
    warmup_steps: int = 100
    """Steps of linear warm-up."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's."""
    weight_decay: float = 1e-5
    """AdamW's; none on embeddings, norms and biases."""
    clip_norm: float = 1.0
    """Largest norm of the gradient; 0 for no clipping."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto` is bfloat16 autocast on accelerators that have it and float32 on CPUs."""
    ema_decay: float = 0.0
    """Decay of the exponential moving average of the weights that is validated, evaluated and
    used for forecasts; 0 for none."""
    validate_every: int = 0
    """Steps between validations; 0 for none."""
    patience: int = 0
    """Validations without improvement before training stops; 0 never stops early."""
    checkpoint_every: int = 500
    """Steps between checkpoints; the last step is always kept."""
    log_every: int = 10
    """Steps between records in the log."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "log_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"training.{name} is {getattr(self, name)}: it must be at least 1."
                )
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"training.ema_decay is {self.ema_decay}: it must be in [0, 1).")
        if not 0 <= self.warmup_steps <= self.steps:
            raise ValueError(
                f"training.warmup_steps is {self.warmup_steps} of {self.steps} steps: "
                f"lower it or train longer."
            )
        if self.patience and not self.validate_every:
            raise ValueError("training.patience needs training.validate_every: set it above 0.")


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What is scored, and what is written of the forecasts."""

    lead_hours: tuple[int, ...] = (6, 12, 24, 48)
    """Lead times of scores and forecasts."""
    channels: tuple[str, ...] = ()
    """Channels that are scored; empty for every predicted one."""
    metrics: tuple[str, ...] = ("rmse", "mse", "mae", "bias", "acc_wb2")
    """Metrics by name, as in `sciml_dchag.evaluation.metrics`."""
    initial_every_hours: int = 0
    """Hours between initial times; 0 takes every time of the test period."""
    batch: int = 16
    """Initial times that are forecast at once."""
    map_channels: tuple[str, ...] = ()
    """Channels that are drawn as maps; empty for the first three scored."""

    def __post_init__(self) -> None:
        if not self.lead_hours or min(self.lead_hours) <= 0:
            raise ValueError(
                f"evaluation.lead_hours is {list(self.lead_hours)}: give one or more above 0."
            )
        object.__setattr__(self, "lead_hours", tuple(sorted(set(self.lead_hours))))


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that one run does; a run folder keeps it as `recipe.yaml`."""

    name: str
    """The run's name: results go to `runs/NAME`."""
    seed: int = 0
    """Seed of start values, sample order and dropout."""
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    task: ForecastConfig = field(default_factory=ForecastConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)

    def __post_init__(self) -> None:
        if not self.name or Path(self.name).name != self.name:
            raise ValueError(f"The recipe's name {self.name!r} must be a plain folder name.")
        if self.model.head != "forecast":
            raise ValueError(
                f"model.head is {self.model.head!r}, but the recipe's task is forecasting: "
                f"leave it out."
            )
        step = self.task.lead_hours[0]
        uneven = [lead for lead in self.evaluation.lead_hours if lead % step]
        if self.task.fixed_step and uneven:
            raise ValueError(
                f"evaluation.lead_hours has {uneven[0]}, which steps of {step} h (task.lead_hours) "
                f"do not reach: use multiples of {step}."
            )


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe and apply `--set` overrides such as `training.steps=100`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not YAML, an unknown key (the nearest right one is named), a value of the
            wrong kind, or values that do not fit together.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no recipe {str(path)!r}: name a YAML file, such as one in pipelines/."
        )
    try:
        mapping = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is not readable as YAML ({reason}): mend that line.") from error
    if not isinstance(mapping, dict):
        raise ValueError(f"{path} holds a {type(mapping).__name__}, not `key: value` lines.")
    mapping.setdefault("name", path.stem)
    for override in overrides:
        _set(mapping, override)
    return from_mapping(Recipe, mapping)


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write a recipe so that `load_recipe` reads the same one."""
    path.write_text(yaml.safe_dump(to_mapping(recipe), sort_keys=False), encoding="utf-8")


def to_mapping(section: Any) -> dict[str, Any]:
    """Turn a section into plain dicts, lists and scalars."""
    return {f.name: _plain(getattr(section, f.name)) for f in dataclasses.fields(section)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_mapping(value)
    return list(value) if isinstance(value, tuple) else value


def from_mapping(section: type[Section], mapping: Mapping[str, Any], where: str = "") -> Section:
    """Build a section from plain values, checking every key and kind.

    Raises:
        ValueError: an unknown key or a value of the wrong kind.
    """
    kinds = typing.get_type_hints(section)
    unknown = [key for key in mapping if key not in kinds]
    if unknown:
        raise ValueError(_unknown_key(where + str(unknown[0]), [where + kind for kind in kinds]))
    values = {key: _convert(kinds[key], value, where + key) for key, value in mapping.items()}
    return section(**values)


def _unknown_key(key: str, known: list[str]) -> str:
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"known are {', '.join(known)}."
    return f"The recipe has an unknown key {key!r}: {hint}"


def _set(mapping: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    *parents, last = key.strip().split(".")
    if not equals or not last:
        raise ValueError(f"--set {override!r} is not KEY=VALUE: write, say, training.steps=100.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"--set {override!r} has a value that is not YAML: quote it.") from error
    for parent in parents:
        mapping = mapping.setdefault(parent, {})
        if not isinstance(mapping, dict):
            raise ValueError(f"--set {override!r}: {parent!r} is no section of the recipe.")
    mapping[last] = value


def _convert(kind: Any, value: Any, key: str) -> Any:
    """Convert a YAML value to a field's type, or say what is needed."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
        return from_mapping(typing.cast(type, kind), value, where=f"{key}.")
    if origin is types.UnionType:
        if value is None and type(None) in arguments:
            return None
        return _convert(next(a for a in arguments if a is not type(None)), value, key)
    if origin is Literal and value in arguments:
        return value
    if origin is tuple:
        values = value.split(",") if isinstance(value, str) else value
        values = values if isinstance(values, list | tuple) else [values]
        if arguments[-1] is Ellipsis:
            return tuple(_convert(arguments[0], v, key) for v in values)
        if len(values) == len(arguments):
            pairs = zip(arguments, values, strict=True)
            return tuple(_convert(argument, v, key) for argument, v in pairs)
    if kind is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:  # YAML 1.1 reads 2e-5 as text
            return float(value)
        except ValueError:
            pass
    if kind is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind is bool and isinstance(value, bool):
        return value
    if kind is str and isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value).strip()
    if kind is str and isinstance(value, datetime.date):  # YAML reads 2016-01-01 as a date
        return str(value.isoformat())
    raise ValueError(f"The recipe's {key} is {value!r}: it must be {_describe(kind)}.")


def _describe(kind: Any) -> str:
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if typing.get_origin(kind) is tuple and arguments[-1] is Ellipsis:
        return f"a list of {_describe(arguments[0])}"
    if typing.get_origin(kind) is tuple:
        return f"a list of {len(arguments)}: {', '.join(map(_describe, arguments))}"
    if typing.get_origin(kind) is types.UnionType:
        return " or ".join("null" if a is type(None) else _describe(a) for a in arguments)
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return names.get(kind, "a section of `key: value` lines")
