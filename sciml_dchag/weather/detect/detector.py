"""A trained detector on a store: objects of some times, with places and attributes in units."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from sciml_dchag.config import from_mapping
from sciml_dchag.files.resumable import Progress
from sciml_dchag.parallel.runtime import Ranks, choose_device
from sciml_dchag.training.detection import LEAST_SCORE, detection_objective
from sciml_dchag.training.export import find_model
from sciml_dchag.training.precision import autocast
from sciml_dchag.weather.detect.config import DetectRecipe
from sciml_dchag.weather.detect.labels import BoxGrid, Located
from sciml_dchag.weather.detect.training import DetectRecord, input_windows
from sciml_dchag.weather.store.states import States


class Detector:
    """A trained model on the states of a grid, on one process.

    Args:
        model: a checkpoint, a run folder or an exported file.
        store: the states to look at, with the model's channels and static fields on its grid.
        device: where to compute; None is the run's parallel.device.

    Raises:
        FileNotFoundError: no checkpoint.
        ValueError: a damaged checkpoint, another grid or other channels, or a device that is not
            there.
    """

    def __init__(
        self, model: str | os.PathLike[str], store: States, device: str | None = None
    ) -> None:
        found = find_model(model)
        self.path, self.checkpoint, self.store = found.path, found.checkpoint, store
        self.recipe = from_mapping(DetectRecipe, found.checkpoint.recipe)
        data = found.checkpoint.read_data(DetectRecord, self.path)
        if data.grid_sha256 != store.grid_sha256:
            raise ValueError(
                f"{self.path} was trained on another grid than {store.path} has "
                f"({len(store.latitude)} x {len(store.longitude)}): regrid to that of the run's "
                f"recipe.yaml."
            )
        if list(data.channels) != store.channels.names:
            raise ValueError(
                f"{self.path} was trained on {', '.join(data.channels)}, and {store.path} has "
                f"{', '.join(store.channels.names)}: prepare a store of the same channels."
            )
        self.kinds, self.attributes = data.kinds, self.recipe.task.attributes
        self._mean, self._std = np.asarray(data.attribute_mean), np.asarray(data.attribute_std)
        self.grid = BoxGrid(store.latitude, store.longitude, self.recipe.task.radius_km)
        self.windows = input_windows(
            self.recipe, store, np.asarray(data.mean), np.asarray(data.std), None
        )
        self.device = choose_device(device or self.recipe.parallel.device)
        self.model = found.ready(Ranks(device=self.device), self.recipe.training)
        self.objective = detection_objective(self.model.config).to(self.device)

    @torch.no_grad()
    def find(
        self,
        indices: Sequence[int] | NDArray[np.int64],
        *,
        batch: int = 16,
        least_score: float = LEAST_SCORE,
        most_overlap: float | None = None,
        progress: Progress | None = None,
    ) -> list[Located]:
        """Find the objects of some times of the store, by falling probability.

        Args:
            indices: positions of the times, each with its history before it in the store.
            batch: times that are looked at together.
            least_score: leave out what is less probable.
            most_overlap: IoU beyond which the less probable of two is a duplicate; None is that of
                the run's recipe.
            progress: called for times.
        """
        found: list[Located] = []
        places = [int(index) for index in indices]
        if most_overlap is None:
            most_overlap = self.recipe.evaluation.most_overlap
        for start in range(0, len(places), batch):
            fields = [self.windows.inputs(index) for index in places[start : start + batch]]
            images = torch.from_numpy(np.stack(fields)).to(self.device)
            with autocast(self.recipe.training.precision, self.device):
                said = self.objective.predict(self.model, images)
            for one in self.objective.detections(
                said, least_score=least_score, most=self.recipe.task.max_objects,
                most_overlap=most_overlap,
            ):  # fmt: skip
                boxes = one.boxes.double().cpu().numpy()
                latitude, longitude = self.grid.places(boxes)
                measured = one.attributes.double().cpu().numpy()
                found.append(
                    Located(
                        latitude=latitude, longitude=longitude,
                        classes=one.classes.cpu().numpy(),
                        attributes=measured * self._std + self._mean,
                        scores=one.scores.double().cpu().numpy(),
                    )
                )  # fmt: skip
            if progress is not None:
                progress(len(found), len(places), "looking")
        return found
