"""What the tasks on a plant store share: preparing, and checking what is not there yet."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sciml_dchag.files.resumable import Progress
from sciml_dchag.plants.recipe import PlantRecipe
from sciml_dchag.plants.store.cubes import CubeStore
from sciml_dchag.plants.store.summary import changes
from sciml_dchag.training.task import Task

AnyPlantRecipe = TypeVar("AnyPlantRecipe", bound=PlantRecipe)


class PlantTask(Task[AnyPlantRecipe]):
    """A task on a plant store."""

    def prepare(self, progress: Progress | None, console: Callable[[str], None]) -> None:
        """Calibrate raw images into the store, with plant masks and splits."""
        store, prepare = Path(self.recipe.data.store), self.recipe.prepare
        if store.exists():
            console(f"prepare: {store} is there")
            CubeStore.open(store)
            return
        from sciml_dchag.plants.prepare.images import prepare_plants

        console(f"prepare: bands {prepare.bands} into {store}")
        prepare_plants(
            out=store,
            **dataclasses.asdict(prepare),
            seed=self.recipe.seed,
            progress=progress,
        )
        for line in changes(CubeStore.open(store)):
            console(f"prepare: {line}")
