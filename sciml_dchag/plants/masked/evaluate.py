"""Evaluating a run of a masked autoencoder: scores, pictures and tables into its folder.

The scores are computed in `reconstruction`, the pictures drawn in `reconstruction_plots`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sciml_dchag.figures.saving import save_figure
from sciml_dchag.figures.training import plot_training
from sciml_dchag.files.resumable import Progress
from sciml_dchag.plants.masked import plots as reconstruction_plots
from sciml_dchag.plants.masked.config import MaskedRecipe
from sciml_dchag.plants.masked.plots import Example
from sciml_dchag.plants.masked.reconstructor import Reconstructor
from sciml_dchag.plants.masked.scores import MODELS, ScoreRow, score_images, write_scores_csv
from sciml_dchag.plants.store.cubes import CubeStore
from sciml_dchag.training.logbook import read_log

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation has found."""

    rows: list[ScoreRow]
    """All scores."""
    folder: Path
    """Where they and the pictures lie."""
    notes: list[str]
    """What a reader must know of the scores."""


def evaluate(run: Path, recipe: MaskedRecipe, *, progress: Progress | None = None) -> Evaluation:
    """Score a run on its store's test images.

    Args:
        run: the run folder with its checkpoints.
        recipe: says which store, and what is drawn.
        progress: told of crops.

    Raises:
        ValueError: no test image, or a store that does not fit the checkpoint.
    """
    store = CubeStore.open(recipe.data.store)
    reconstructor = Reconstructor(run, store, recipe.parallel.device)
    images, options = store.split("test"), recipe.evaluation
    scorer = score_images(
        reconstructor, images, components=options.components, batch=options.batch, progress=progress
    )
    notes = _notes(reconstructor, images)
    evaluation = Evaluation(scorer.rows(), run / "evaluation", notes)
    evaluation.folder.mkdir(parents=True, exist_ok=True)
    _draw(evaluation, reconstructor, images, options.spectra, run)
    # Last, because `run` takes the table as the sign that the evaluation is complete.
    write_scores_csv(evaluation.folder / "scores.csv", evaluation.rows)
    return evaluation


def _notes(reconstructor: Reconstructor, images: Sequence[str]) -> list[str]:
    store, config = reconstructor.store, reconstructor.config
    notes = [
        f"{len(images)} test image(s), {len(store.channels)} bands; none of them was used in "
        f"training, statistics or PCA.",
        f"Each location is scored in passes that hide it; {reconstructor.task.visible} of "
        f"{reconstructor.task.locations} locations of a crop are shown.",
        f"The PCA sees the pixel that it reconstructs, in {config.embed_dim} components at most.",
    ]
    if store.simulated:
        notes.insert(0, "The images are synthetic: scores say nothing about real plants.")
    if any("source_columns" in store.cube_attrs(image) for image in images):
        notes.insert(
            0,
            "Training and test are parts of one image with a guard band between: this shows that "
            "the machinery works, and says nothing about other plants.",
        )
    return notes


def _draw(
    evaluation: Evaluation,
    reconstructor: Reconstructor,
    images: Sequence[str],
    spectra: int,
    run: Path,
) -> None:
    store, folder = reconstructor.store, evaluation.folder / "figures"
    examples = _examples(reconstructor, images)
    subtitle = "synthetic images" if store.simulated else ""

    def keep(figure: Figure, name: str) -> None:
        save_figure(figure, folder / f"{name}.png", store.attribution)

    keep(
        reconstruction_plots.plot_side_by_side(examples, store.wavelength_nm, subtitle),
        "reconstructions",
    )
    keep(
        reconstruction_plots.plot_reconstructed_spectra(
            examples, store.wavelength_nm, reconstructor.mean, spectra, subtitle
        ),
        "spectra",
    )
    keep(
        reconstruction_plots.plot_error_by_wavelength(evaluation.rows, subtitle),
        "error_by_wavelength",
    )
    if records := read_log(run / "log.jsonl"):
        keep(plot_training(records), "training")


def _examples(reconstructor: Reconstructor, images: Sequence[str], most: int = 3) -> list[Example]:
    """Reconstruct, of the first images, the crop with most plants in one pass."""
    store, examples = reconstructor.store, []
    for image in images[:most]:
        tiles = reconstructor.tiles(image)
        plants = [store.plants(image, tile.rows, tile.columns) > 0 for tile in tiles]
        best = int(np.argmax([here.sum() for here in plants]))
        truth = store.reflectance(image, rows=tiles[best].rows, columns=tiles[best].columns)
        one = next(reconstructor.reconstruct(truth, best, batch=1))
        hidden = np.asarray(one.hidden.any(0))
        examples.append(Example(image, truth, one.predicted, hidden, plants[best]))
    return examples


def scores_table(rows: Sequence[ScoreRow]) -> Table:
    """The scores over all wavelengths as a rich table."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, header_style="bold")
    table.add_column("Metric")
    for heading in ("Model", "Mean spectrum", "PCA", "Mean spectrum / model"):
        table.add_column(heading, justify="right")
    for row in rows:
        if row.wavelength_nm is None:
            values = [row.values[model] for model in MODELS]
            smaller_is_better = not row.metric.startswith("r2")
            ratio = f"{values[1] / values[0]:.2f}" if smaller_is_better and values[0] else ""
            table.add_row(row.metric, *(f"{value:.4g}" for value in values), ratio)
    return table


def comparison_table(
    rows: Sequence[ScoreRow], others: Sequence[ScoreRow], name: str, other_name: str
) -> Table:
    """The scores of two runs over all wavelengths, and by how much the first one's differ."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, header_style="bold")
    table.add_column("Metric")
    for heading in (escape(name), escape(other_name), "Difference"):
        table.add_column(heading, justify="right")
    of_other = {row.metric: row.values["model"] for row in others if row.wavelength_nm is None}
    for row in rows:
        if row.wavelength_nm is None and row.metric in of_other:
            one, other = row.values["model"], of_other[row.metric]
            percent = f"{100 * (one / other - 1):+.3g} %" if other else ""
            table.add_row(row.metric, f"{one:.4g}", f"{other:.4g}", percent)
    return table
