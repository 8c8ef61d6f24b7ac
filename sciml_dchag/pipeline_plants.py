"""All steps of a masked autoencoder's recipe: prepare, train, evaluate; finished ones are skipped.

Each step is done by its own package; see `pipeline` for the weather.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sciml_dchag.config import save_recipe
from sciml_dchag.files.resumable import Progress
from sciml_dchag.pipeline import train_unless_done
from sciml_dchag.plants.masked.config import MaskedRecipe
from sciml_dchag.plants.masked.evaluate import evaluate
from sciml_dchag.plants.masked.scores import ScoreRow, read_scores_csv
from sciml_dchag.plants.prepare.images import prepare_plants
from sciml_dchag.plants.store.cubes import CubeStore
from sciml_dchag.tasks import load_recipe
from sciml_dchag.training.checkpoint import RECORD, find_checkpoint


@dataclass(frozen=True)
class PlantPipelineResult:
    """What a pipeline has left, and the scores."""

    run: Path
    """The run folder."""
    rows: list[ScoreRow]
    """All scores."""
    attribution: str
    """Whose the data are."""

    @property
    def paths(self) -> dict[str, Path]:
        """What to look at, by name."""
        evaluation = self.run / "evaluation"
        return {"Scores": evaluation / "scores.csv", "Pictures": evaluation / "figures"}


def run_plant_recipe(
    recipe: MaskedRecipe,
    run: Path,
    *,
    progress: Progress | None = None,
    console: Callable[[str], None] = lambda line: None,
) -> PlantPipelineResult:
    """Do what a recipe asks for, step by step.

    A step is skipped when what it makes is there and was made from the same settings and the
    same checkpoint.

    Raises:
        ValueError, OSError: as the steps do; finished steps stay finished.
    """
    _prepare(recipe, progress, console)
    train_unless_done(recipe, run, progress, console)
    newest = (find_checkpoint(run) / RECORD).stat().st_mtime
    scores, saved = run / "evaluation" / "scores.csv", run / "recipe.yaml"
    before = load_recipe(saved) if saved.is_file() else None
    same = isinstance(before, MaskedRecipe) and before.evaluation == recipe.evaluation
    if same and scores.exists() and scores.stat().st_mtime >= newest:
        console(f"evaluate: {scores} is there")
    else:
        console("evaluate: reconstructions beside the mean spectrum and a PCA")
        for note in evaluate(run, recipe, progress=progress).notes:
            console(f"evaluate: {note}")
    save_recipe(recipe, run / "recipe.yaml")
    store = CubeStore.open(recipe.data.store)
    return PlantPipelineResult(run, read_scores_csv(scores), store.attribution)


def _prepare(
    recipe: MaskedRecipe, progress: Progress | None, console: Callable[[str], None]
) -> None:
    store, prepare = Path(recipe.data.store), recipe.prepare
    if store.exists():
        console(f"prepare: {store} is there")
        CubeStore.open(store)
        return
    console(f"prepare: bands {prepare.bands} into {store}")
    prepare_plants(
        prepare.sources,
        store,
        white=prepare.white or None,
        dark=prepare.dark or None,
        white_reflectance=prepare.white_reflectance,
        bands=prepare.bands,
        merge_bands=prepare.merge_bands,
        smooth=(prepare.smooth[0], prepare.smooth[1]) if prepare.smooth else None,
        snv=prepare.snv,
        mask=prepare.mask or None,
        plants=prepare.plants or None,
        table=prepare.table or None,
        split=prepare.split,
        group_by=prepare.group_by or None,
        seed=recipe.seed,
        progress=progress,
    )
