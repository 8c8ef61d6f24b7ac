"""What training a detector asks of a weather store and a table of objects; see `training.task`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.transformer import ChannelTransformer
from sciml_dchag.objectives.layout import InputLayout
from sciml_dchag.parallel.apply import own_channels
from sciml_dchag.parallel.runtime import Ranks
from sciml_dchag.training.batches import drawn
from sciml_dchag.training.checkpoint import Checkpoint
from sciml_dchag.training.detection import DetectionBatch, DetectionData
from sciml_dchag.training.task import Fingerprint, short_hash
from sciml_dchag.weather.area import goes_around
from sciml_dchag.weather.detect.config import DetectRecipe
from sciml_dchag.weather.detect.labels import BoxGrid, Located, ObjectTable
from sciml_dchag.weather.store.states import States
from sciml_dchag.weather.store.store import Period
from sciml_dchag.weather.training_store import (
    Timed,
    WeatherRecord,
    WeatherTrainingStore,
    check_rotation,
)
from sciml_dchag.weather.windows import ForecastWindows


@dataclass(frozen=True, kw_only=True)
class DetectRecord(WeatherRecord):
    """What a detector's checkpoint keeps of its data."""

    kinds: tuple[str, ...]
    """Classes of objects."""
    attribute_mean: tuple[float, ...]
    """Training mean of each attribute, in units of the table."""
    attribute_std: tuple[float, ...]
    """Training deviation of each attribute."""
    objects_sha256: str
    """Hash of the objects of the training period."""


class DetectStore(WeatherTrainingStore):
    """A weather store and a table of the objects in it.

    Raises:
        ValueError: store, table and recipe do not fit together.
        FileNotFoundError: there is no store or no table, or the store has no statistics.
    """

    record_type = DetectRecord

    def __init__(self, recipe: DetectRecipe) -> None:
        super().__init__(recipe.data.store, recipe.data)
        self.recipe, store = recipe, self.store
        check_rotation(store, recipe.data.rotate)
        self.table = ObjectTable(recipe.data.objects, recipe.task.attributes)
        self.grid = BoxGrid(store.latitude, store.longitude, recipe.task.radius_km)
        for name in ("train", "validation", "test"):
            if (period := getattr(recipe.data, name)) is not None:
                times = store.times[store.time_indices(period)]
                self.table.require_covers(times, name)
                self._require_room(times)
        training = store.times[store.time_indices(recipe.data.train)]
        self.mean, self.std = self.table.moments(training)
        parts = [self.objects(time) for time in training]
        self.objects_sha256 = short_hash(
            *(np.column_stack([p.latitude, p.longitude, p.attributes]).tobytes() for p in parts)
        )

    def objects(self, time: np.datetime64) -> Located:
        """The true objects of a time that lie on the grid."""
        found = self.table.at(time)
        return found.at(self.grid.inside(found.latitude, found.longitude))

    def _require_room(self, times: NDArray[np.datetime64]) -> None:
        most = self.recipe.task.max_objects
        for time in times:
            if (number := len(self.objects(time))) > most:
                raise ValueError(
                    f"data.objects {self.table.path} has {number} objects at {time}, and "
                    f"task.max_objects is {most}: raise it to {number} or more."
                )

    def model_config(self) -> ModelConfig:
        """Fill in channels, grid, classes and attributes."""
        return complete_model_config(
            self.recipe, tuple(self.store.channels.names), self.store.latitude,
            self.store.longitude, self.table.kinds,
        )  # fmt: skip

    def fingerprint(self) -> Fingerprint:
        """As of every weather store, and the objects of the training period."""
        fix = f"let all ranks read the same {self.table.path}, or copy it to each machine again"
        return super().fingerprint() | {"objects": (f"objects {self.objects_sha256}", fix)}

    def difference(self, checkpoint: Checkpoint) -> str | None:
        """Find what was prepared differently, or is of other objects."""
        if (found := super().difference(checkpoint)) is not None:
            return found
        saved = checkpoint.read_data(DetectRecord, Path("the run's checkpoint"))
        if saved.objects_sha256 != self.objects_sha256:
            return f"whose training period had other objects than {self.table.path} has"
        return None

    def record(self) -> dict[str, Any]:
        """The values of a `DetectRecord`."""
        return {
            **super().record(),
            "kinds": list(self.table.kinds),
            "attribute_mean": self.mean.tolist(),
            "attribute_std": self.std.tolist(),
            "objects_sha256": self.objects_sha256,
        }

    def training_data(self, model: ChannelTransformer, ranks: Ranks) -> WeatherDetectionData:
        """Build samples and the objective."""
        return WeatherDetectionData(self, model, ranks)


class ObjectSamples:
    """The times of a period with their objects.

    A sample is a pure function of (seed, number of the sample).

    Args:
        opened: store and table.
        period: which times; their history lies within it, too.
        rotate: turn each sample about the Earth's axis by a random number of columns.
        inputs: positions of the input channels to read; None for all.
    """

    def __init__(
        self, opened: DetectStore, period: Period, *, rotate: bool, inputs: range | None = None
    ) -> None:
        self.opened, self.rotate, self.seed = opened, rotate, opened.recipe.seed
        self.windows = input_windows(
            opened.recipe, opened.store, opened.statistics.mean, opened.statistics.std, period,
            inputs,
        )  # fmt: skip
        self.indices = self.windows.initial_indices

    def __len__(self) -> int:
        """Return the number of times."""
        return len(self.indices)

    def __getitem__(self, number: int) -> DetectionBatch:
        """Return sample `number`, counted on through all epochs, as a batch of one."""
        epoch, place = drawn(self.seed, number, len(self))
        index = int(self.indices[place])
        columns = 0
        if self.rotate:
            draw = np.random.default_rng([self.seed, epoch, index])
            columns = int(draw.integers(len(self.opened.store.longitude)))
        return self.sample(index, columns)

    def sample(self, index: int, columns: int = 0) -> DetectionBatch:
        """Return a time of the store, turned eastward by some columns, as a batch of one."""
        opened, most = self.opened, self.opened.recipe.task.max_objects
        found = opened.objects(opened.store.times[index])
        number = len(found)
        boxes = np.zeros((most, 4), np.float32)
        boxes[:number] = opened.grid.boxes(found.latitude, found.longitude)
        boxes[:, [0, 2]] += columns  # a box may lie a turn further on; see `objectives.boxes`
        classes = np.full(most, -1, np.int64)
        classes[:number] = found.classes
        attributes = np.full((most, len(opened.mean)), np.nan, np.float32)
        attributes[:number] = (found.attributes - opened.mean) / opened.std
        image = torch.from_numpy(self.windows.inputs(index)).roll(columns, dims=-1)
        return DetectionBatch(
            images=image[None],
            boxes=torch.from_numpy(boxes)[None],
            classes=torch.from_numpy(classes)[None],
            attributes=torch.from_numpy(attributes)[None],
            counts=torch.ones(1, dtype=torch.bool),
        )


class WeatherDetectionData(DetectionData):
    """Times of the training and validation periods, and the objective."""

    def __init__(self, opened: DetectStore, model: ChannelTransformer, ranks: Ranks) -> None:
        super().__init__(model, ranks)
        self.opened, recipe = opened, opened.recipe
        inputs, _ = own_channels(model, ranks.mesh)
        self.samples = ObjectSamples(
            opened, recipe.data.train, rotate=recipe.data.rotate, inputs=inputs
        )
        self.validation = None
        if recipe.data.validation and recipe.training.validate_every:
            self.validation = ObjectSamples(
                opened, recipe.data.validation, rotate=False, inputs=inputs
            )

    def record(self) -> dict[str, Any]:
        """Channels, statistics, grid, classes and attributes."""
        return self.opened.record()


def input_windows(
    recipe: DetectRecipe,
    store: States,
    mean: NDArray[np.float64],
    std: NDArray[np.float64],
    period: Period | None,
    inputs: range | None = None,
) -> ForecastWindows:
    """What reads a detector's inputs: states, their history, static fields and forcings."""
    data = recipe.data
    return ForecastWindows(
        store, period, mean=mean, std=std, targets=(), lead_hours=(0, 0),
        history_hours=data.history_hours, static=data.static, forcings=data.forcings,
        memory_mebibytes=data.memory_mebibytes, inputs=inputs,
    )  # fmt: skip


def times_with_history(recipe: DetectRecipe, store: Timed, period: Period) -> NDArray[np.int64]:
    """Positions of the times of a period that have the history that is an input.

    Raises:
        ValueError: there is none.
    """
    inside = store.time_indices(period)
    before = max((-hours for hours in recipe.data.history_hours), default=0)
    found = inside[store.times[inside] - np.timedelta64(before, "h") >= store.times[0]]
    if not len(found):
        raise ValueError(
            f"No time of the period {period[0]} to {period[1]} has the {before} h of history "
            f"that data.history_hours asks for: choose a later period, or prepare earlier times."
        )
    return found


def complete_model_config(
    recipe: DetectRecipe,
    channels: tuple[str, ...],
    latitude: NDArray[np.float64],
    longitude: NDArray[np.float64],
    kinds: tuple[str, ...],
) -> ModelConfig:
    """Fill in what the data decide: inputs, grid, classes and attributes.

    Raises:
        ValueError: the patch does not divide the grid.
    """
    data = recipe.data
    layout = InputLayout(
        channels=channels, history_hours=data.history_hours, static=data.static,
        forcings=data.forcings,
    )  # fmt: skip
    return dataclasses.replace(
        recipe.model,
        input_channels=layout.names,
        output_channels=kinds,
        attributes=recipe.task.attributes,
        wraps=goes_around(longitude),
        image_size=(len(latitude), len(longitude)),
    )
