"""Scoring reconstructed states of the test period beside climatology and interpolation.

Every location counts in each pass that hides it. Errors are summed over cells, weighted by their
areas, in float64, and divided at the end. Interpolation is the mean of the visible patches of the
same channel, weighted by the inverse square of their great-circle distance: what anyone would do
without a model.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from sciml_dchag.figures.report import write_evaluation
from sciml_dchag.figures.saving import save_figure
from sciml_dchag.figures.training import plot_training
from sciml_dchag.files.provenance import provenance_in_words
from sciml_dchag.files.resumable import Progress
from sciml_dchag.models.summary import shape_in_words
from sciml_dchag.models.tokenizer import patchify, unpatchify
from sciml_dchag.parallel.runtime import Ranks, choose_device, evaluated_on_one_process
from sciml_dchag.training.checkpoint import (
    RECORD,
)
from sciml_dchag.training.evaluation import Evaluation
from sciml_dchag.training.export import find_model
from sciml_dchag.training.logbook import read_log
from sciml_dchag.training.masked import masked_objective
from sciml_dchag.training.precision import autocast
from sciml_dchag.weather.area import latitude_weights
from sciml_dchag.weather.masked.config import MaskedWeatherRecipe
from sciml_dchag.weather.masked.training import MaskedWeatherStore, States
from sciml_dchag.weather.store.layout import iso
from sciml_dchag.weather.store.store import taken_every
from sciml_dchag.weather.training_store import require_test

KEYS = ("metric", "channel")
LABELS = {"loss_masked": "Loss", "rmse_masked": "RMSE of hidden cells"}
DEFINITIONS = {
    "loss_masked": "Mean squared error of hidden cells in units of each channel's training "
    "variance, weighted by area; the mean over channels.",
    "rmse_masked": "Root of the mean squared error of hidden cells, weighted by area.",
}
TERMS = {
    "Climatology": "A mean of the training period.",
    "Interpolation": "The mean of the visible patches of the same channel, weighted by the inverse "
    "square of their great-circle distance.",
}
GUESSES = ("model", "climatology", "interpolation")
Floats = NDArray[np.float64]


class _Scorer:
    """A checkpoint on the test period, and sums of squared errors by channel."""

    def __init__(self, run: Path, recipe: MaskedWeatherRecipe) -> None:
        found = find_model(run)
        self.path, saved = found.path, found.checkpoint
        self.step, self.recipe = saved.step, recipe
        self.opened = MaskedWeatherStore(recipe)
        if difference := self.opened.difference(saved):
            raise ValueError(
                f"{self.path} is of a run {difference}: set data.store to the store of the run."
            )
        self.store, self.statistics = self.opened.store, self.opened.statistics
        self.ranks = Ranks(device=choose_device(recipe.parallel.device))
        self.model = found.ready(self.ranks, recipe.training)
        config = self.model.config
        self.objective = masked_objective(recipe.seed, recipe.task, config)
        channels = range(len(config.input_channels))
        test = require_test(recipe.data)
        self.states = States(self.opened, test, self.objective, recipe.seed, channels)
        self.climatology = self.store.climatology()
        self.climatology.require(period=self.store.period(recipe.data.train))
        self.area = latitude_weights(self.store.latitude)[:, None]
        self.distances = _patch_distances(self.store.latitude, self.store.longitude, config.patch)
        self.squares = {name: np.zeros(len(channels)) for name in GUESSES}
        self.weight = np.zeros(len(channels))

    @property
    def times(self) -> NDArray[np.int64]:
        """Positions of the scored times in the store."""
        indices, every = self.states.indices, self.recipe.evaluation.every_hours
        return indices[taken_every(self.store.times[indices], every, "evaluation.every_hours")]

    @torch.no_grad()
    def add(self, time: int) -> None:
        """Add the state at a time, in passes that together hide every location."""
        state = torch.from_numpy(self.states.state(time))[None]
        mean = self.statistics.mean[:, None, None]
        std = self.statistics.std[:, None, None]
        truth = self.store.read([time])[0].astype(np.float64)
        expected = self.climatology.at(self.store.times[[time]])[0].astype(np.float64)
        batch = self.recipe.evaluation.batch
        visible, hidden = self.objective.complementary(time)
        for seen, away in zip(visible.split(batch), hidden.split(batch), strict=True):
            states = state.expand(len(seen), -1, -1, -1).to(self.ranks.device)
            seen, away = seen.to(self.ranks.device), away.to(self.ranks.device)
            with autocast(self.recipe.training.precision, self.ranks.device):
                predicted = self.objective.reconstruct(self.model, states, seen, away)
            pixels = self.objective.hidden_pixels(seen, away).expand_as(predicted).cpu().numpy()
            for number, one in enumerate(predicted.double().cpu().numpy()):
                guesses = {
                    "model": one * std + mean,
                    "climatology": expected,
                    "interpolation": self._interpolated(state, seen[number].cpu()) * std + mean,
                }
                self._add(truth, guesses, pixels[number])

    def _add(self, truth: Floats, guesses: dict[str, Floats], hidden: NDArray[np.bool_]) -> None:
        counts = hidden & np.isfinite(truth)
        self.weight += (counts * self.area).sum((1, 2))
        for name, guess in guesses.items():
            error = np.where(counts, guess - np.where(counts, truth, 0.0), 0.0)
            self.squares[name] += (error**2 * self.area).sum((1, 2))

    def _interpolated(self, state: torch.Tensor, seen: torch.Tensor) -> Floats:
        """Fill every location with the visible ones' mean, nearer ones counting more: (C, H, W)."""
        patch = self.model.config.patch
        known = patchify(state, patch, seen[None])[0].double().nanmean(-1)  # (V, C)
        weights = torch.from_numpy(1.0 / self.distances[:, seen.numpy()] ** 2)
        filled = weights @ known.nan_to_num(0.0) / weights.sum(1, keepdim=True)
        pixels = filled[None, ..., None].expand(-1, -1, -1, patch**2)
        return unpatchify(pixels, patch, state.shape[-2])[0].numpy()

    def table(self) -> pd.DataFrame:
        """One row per channel, and the mean over channels in units of the standard deviation."""
        mse = {name: squares / self.weight for name, squares in self.squares.items()}
        loss = {name: float((v / self.statistics.std**2).mean()) for name, v in mse.items()}
        about = {"units": "1", "perfect": 0.0}
        rows = [{"metric": "loss_masked", "channel": "all", **about, **loss}]
        for place, channel in enumerate(self.store.channels):
            errors = {name: float(values[place]) ** 0.5 for name, values in mse.items()}
            rows.append(
                {"metric": "rmse_masked", "channel": channel.name, "units": channel.units,
                 "perfect": 0.0, **errors}
            )  # fmt: skip
        return pd.DataFrame(rows)


def evaluate(
    run: Path, recipe: MaskedWeatherRecipe, *, progress: Progress | None = None
) -> Evaluation:
    """Score a run on its recipe's test period.

    Args:
        run: the run folder with its checkpoints.
        recipe: says which store and times.
        progress: called for times.

    Raises:
        ValueError: no test period, a store that does not fit the checkpoint, or several processes.
    """
    evaluated_on_one_process("Masked autoencoders")
    test = require_test(recipe.data)
    scorer = _Scorer(run, recipe)
    times, store = scorer.times, scorer.store
    for number, time in enumerate(times):
        scorer.add(int(time))
        if progress is not None:
            progress(number + 1, len(times), "scoring")
    table, config, objective = scorer.table(), scorer.model.config, scorer.objective
    best = table.loc[0, ["climatology", "interpolation"]].astype(float)
    evaluation = Evaluation(
        folder=run / "evaluation",
        title=f"Reconstruction scores: {recipe.name}",
        table=table,
        keys=KEYS,
        reference=str(best.idxmin()),
        summary=f"The squared error of hidden cells is {table.loc[0, 'model']:.3g} of the "
        f"variance; that of the better baseline ({best.idxmin()}) is {best.min():.3g}.",
        headline="rmse_masked",
        labels=LABELS,
        definitions=DEFINITIONS,
        terms=TERMS,
        figures=_draw(run, store.attribution),
        provenance=provenance_in_words(
            recipe.data.store, store.attrs, scorer.path / RECORD, scorer.step
        ),
        notes=(
            f"{len(times)} time{'s' * (len(times) > 1)}, {iso(store.times[times[0]])} to "
            f"{iso(store.times[times[-1]])} UTC; none of the test period was used in "
            f"training, statistics or climatology.",
            f"Each location is scored in passes that hide it; {objective.visible} of "
            f"{objective.locations} locations are shown.",
            *(["The data are simulated: scores say nothing about the real atmosphere."]
              if store.simulated else []),
        ),
        settings={
            "Training period": " to ".join(store.period(recipe.data.train)),
            "Test period": " to ".join(store.period(test)),
            "Model": shape_in_words(config),
            "Seed": str(recipe.seed),
        },
        attribution=store.attribution,
    )  # fmt: skip
    write_evaluation(evaluation)
    return evaluation


def _draw(run: Path, attribution: str) -> tuple[tuple[str, str], ...]:
    """Draw the training's loss; return caption and file."""
    records = read_log(run / "log.jsonl")
    if not records:
        return ()
    folder = run / "evaluation"
    save_figure(plot_training(records), folder / "figures" / "training.png", attribution)
    return (("Training loss.", "figures/training.png"),)


def _patch_distances(latitude: Floats, longitude: Floats, patch: int) -> Floats:
    """Great-circle distance between the centres of patches, radians, at least a tenth of a cell."""
    rows, columns = np.deg2rad(latitude), np.deg2rad(longitude)
    lat = np.repeat(rows.reshape(-1, patch).mean(1), len(columns) // patch)
    lon = np.tile(columns.reshape(-1, patch).mean(1), len(rows) // patch)
    unit = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
    distance = np.arccos(np.clip(unit.T @ unit, -1.0, 1.0))
    smallest = 0.1 * abs(rows[1] - rows[0])
    return np.maximum(distance, smallest)
