"""Evaluating a run of a masked autoencoder: scores, pictures and tables into its folder.

The scores are computed in `scores`, the pictures drawn in `plots`, the page in `figures.report`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sciml_dchag.figures.report import write_evaluation
from sciml_dchag.figures.saving import save_figure
from sciml_dchag.figures.training import plot_training
from sciml_dchag.files.provenance import MOST_SOURCES, provenance_in_words
from sciml_dchag.files.resumable import Progress
from sciml_dchag.models.summary import shape_in_words
from sciml_dchag.parallel.runtime import evaluated_on_one_process
from sciml_dchag.plants.masked import plots as reconstruction_plots
from sciml_dchag.plants.masked.config import MaskedRecipe
from sciml_dchag.plants.masked.metrics import METRICS
from sciml_dchag.plants.masked.plots import Example
from sciml_dchag.plants.masked.reconstructor import Reconstructor
from sciml_dchag.plants.masked.scores import (
    KEYS,
    TERMS,
    score_images,
    summary_of,
    without_undefined,
)
from sciml_dchag.plants.store.cubes import CubeStore
from sciml_dchag.plants.training_store import require_test_images
from sciml_dchag.training.checkpoint import RECORD
from sciml_dchag.training.evaluation import Evaluation
from sciml_dchag.training.logbook import read_log

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def evaluate(
    run: Path,
    recipe: MaskedRecipe,
    *,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a run on its store's test images.

    Args:
        run: the run folder with its checkpoints.
        recipe: says which store, and what is drawn.
        progress: called for crops.

    Raises:
        ValueError: no test image, a store that does not fit the checkpoint, or several processes.
    """
    evaluated_on_one_process("Masked autoencoders")
    store = CubeStore.open(recipe.data.store)
    reconstructor = Reconstructor(run, store, recipe.parallel.device)
    images, options = require_test_images(store), recipe.evaluation
    scorer = score_images(
        reconstructor, images, components=options.components, batch=options.batch, progress=progress
    )
    table, left_out = without_undefined(scorer.table(), scorer)
    folder = run / "evaluation"
    figures = _draw(table, folder, reconstructor, images, options.spectra, run)
    config = reconstructor.config
    metrics = [METRICS[name] for name in dict.fromkeys(table["metric"])]
    evaluation = Evaluation(
        folder=folder,
        title=f"Reconstruction scores: {recipe.name}",
        table=table,
        keys=KEYS,
        reference="gaussian_process",
        summary=summary_of(table),
        headline="mse_masked",
        labels={metric.name: metric.label for metric in metrics},
        definitions={metric.name: metric.definition for metric in metrics},
        terms=TERMS,
        notes=(*_notes(reconstructor, images, len(scorer.pca.components)), *left_out),
        figures=figures,
        provenance={
            **provenance_in_words(
                recipe.data.store, store.attrs, reconstructor.path / RECORD, reconstructor.step
            ),
            **_hashes(store, images),
        },
        settings={
            "Training images": ", ".join(reconstructor.training_images),
            "Test images": ", ".join(images),
            "Model": f"{shape_in_words(config)}, {len(config.input_channels)} bands",
            "Hidden": f"{recipe.task.mask_ratio:.0%} of locations, "
            f"{recipe.task.channel_mask_ratio:.0%} of band groups",
            "Seed": str(recipe.seed),
        },
        attribution=store.attribution,
        shown=tuple(int(i) for i in np.flatnonzero(table["wavelength_nm"] == "all")),
    )
    write_evaluation(evaluation)
    return evaluation


def _hashes(store: CubeStore, images: Sequence[str], most: int = MOST_SOURCES) -> dict[str, str]:
    """The raw file of each test image and the hash of what was read of it."""
    hashes = {}
    for image in images[:most]:
        attrs = store.cube_attrs(image)
        if "source_blake2b" in attrs:
            hashes[f"Raw {image}"] = f"{attrs['source']}, blake2b {attrs['source_blake2b']}"
    return hashes


def _notes(reconstructor: Reconstructor, images: Sequence[str], components: int) -> list[str]:
    store = reconstructor.store
    notes = [
        f"{len(images)} test image(s), {len(store.channels)} bands; none of them was used in "
        f"training, statistics or PCA.",
        f"Each location is scored in passes that hide it; {reconstructor.task.visible} of "
        f"{reconstructor.task.locations} locations of a crop are shown.",
        f"The PCA sees the pixel that it reconstructs, in {components} components.",
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
    table: pd.DataFrame,
    folder: Path,
    reconstructor: Reconstructor,
    images: Sequence[str],
    spectra: int,
    run: Path,
) -> tuple[tuple[str, str], ...]:
    """Draw all pictures; return caption and file of each."""
    store, figures = reconstructor.store, []
    examples = _examples(reconstructor, images)
    subtitle = "synthetic images" if store.simulated else ""

    def keep(figure: Figure, name: str, caption: str) -> None:
        save_figure(figure, folder / "figures" / f"{name}.png", store.attribution)
        figures.append((caption, f"figures/{name}.png"))

    keep(
        reconstruction_plots.plot_side_by_side(examples, store.wavelength_nm, subtitle),
        "reconstructions",
        "Test images as true colours: what is there, what was shown, what the model makes of it.",
    )
    keep(
        reconstruction_plots.plot_reconstructed_spectra(
            examples, store.wavelength_nm, reconstructor.mean, spectra, subtitle
        ),
        "spectra",
        "Spectra of hidden pixels, evenly spread over brightness.",
    )
    keep(
        reconstruction_plots.plot_error_by_wavelength(table, subtitle),
        "error_by_wavelength",
        "Error of hidden pixels by wavelength.",
    )
    if records := read_log(run / "log.jsonl"):
        keep(plot_training(records), "training", "Training loss.")
    return tuple(figures)


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
