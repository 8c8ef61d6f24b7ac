"""Score a trained run on its test period beside its baselines, and report it.

Baselines are in `weather.baselines`, formulas in `scores.formulas`, pictures in `scores.plots`, the
page in `figures.report`. Ranks take initial times, a batch each, and ranks of tp the channels to
score; their sums are added up, and the first rank draws and writes.

Shapes: B initial times, O scored channels, H x W grid; all in physical units.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sciml_dchag.figures.metric import Metric
from sciml_dchag.figures.report import write_evaluation
from sciml_dchag.figures.saving import save_figure
from sciml_dchag.figures.tables import heading
from sciml_dchag.figures.training import plot_training
from sciml_dchag.files.atomic import written_beside
from sciml_dchag.files.provenance import provenance_in_words
from sciml_dchag.files.resumable import Progress
from sciml_dchag.models.summary import shape_in_words
from sciml_dchag.parallel.config import ParallelConfig
from sciml_dchag.parallel.runtime import joined, started_ranks
from sciml_dchag.training.checkpoint import RECORD
from sciml_dchag.training.evaluation import BEST, Evaluation
from sciml_dchag.training.logbook import read_log
from sciml_dchag.weather.baselines.baselines import BASELINES
from sciml_dchag.weather.forecast.base import require_unseen
from sciml_dchag.weather.forecast.config import ForecastRecipe
from sciml_dchag.weather.forecast.ensemble_scores import ENSEMBLE_TERMS, EnsembleScores
from sciml_dchag.weather.forecast.forecaster import Forecaster
from sciml_dchag.weather.forecast.scorer import BASE, Scorer
from sciml_dchag.weather.objects.plots import plot_object_scores
from sciml_dchag.weather.scores import plots
from sciml_dchag.weather.scores.ensemble import ENSEMBLE_METRICS
from sciml_dchag.weather.scores.formulas import METRICS
from sciml_dchag.weather.scores.spectra import spectra_table, why_no_spectrum
from sciml_dchag.weather.scores.table import (
    KEYS,
    TERMS,
    headline_of,
    shown_rows,
    summary_of,
)
from sciml_dchag.weather.store.layout import iso
from sciml_dchag.weather.store.store import Store
from sciml_dchag.weather.training_store import check_periods, require_test

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def evaluate(
    run: Path,
    recipe: ForecastRecipe,
    *,
    parallel: ParallelConfig | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a run on its recipe's test period; under torchrun, as one of its processes.

    Every lead time is scored over the same initial times, those whose longest lead time still
    ends in the test period, so that a curve over lead times compares like with like.

    Args:
        run: the run folder with its checkpoints.
        recipe: says which store, period, lead times, channels and metrics. Its degrees of
            `parallel` are those of the training and do not matter here.
        parallel: degrees of `fsdp` and `tp`; `dp` takes the ranks that they leave.
        progress: called for every batch of initial times, on the first rank.

    Raises:
        ValueError: no test period, one that overlaps training, lead times out of reach, or degrees
            that do not fit the ranks or the model.
    """
    store = Store.open(recipe.data.store)
    require_test(recipe.data)
    check_periods(store, recipe.data)
    degrees = (parallel or recipe.parallel.elsewhere()).forecasting(started_ranks())
    with joined(degrees) as ranks:
        forecaster = Forecaster(run, store, ranks, degrees)
        require_unseen(store, forecaster.record.base_periods, recipe.data)
        scored = list(recipe.evaluation.channels or forecaster.target_channels.names)
        scorer = Scorer(recipe, store, forecaster, scored)
        scorer.run(progress)
        if recipe.evaluation.members:
            scorer.ensembles = EnsembleScores(recipe, store, forecaster, scored, scorer.initial)
            scorer.ensembles.run(progress)
        evaluation = _evaluation(scorer, run)
        if ranks.first:
            evaluation = _write(evaluation, scorer, run)
    return evaluation


def _evaluation(scorer: Scorer, run: Path) -> Evaluation:
    """Gather what was found, but for the pictures."""
    store, recipe, forecaster = scorer.store, scorer.recipe, scorer.forecaster
    model = forecaster.model.config
    first, last = iso(store.times[scorer.initial[0]]), iso(store.times[scorer.initial[-1]])
    notes = [
        f"{len(scorer.initial)} initial times, {first} to {last} UTC; none of the test period was "
        f"used in training, statistics, climatology or the choice of a model.",
        f"Climatology is {scorer.pairs.expected.in_words()} of the training period, "
        f"{' to '.join(store.period(recipe.data.train))} UTC, on which all baselines are fitted.",
    ]
    if why_not := why_no_spectrum(store.latitude, store.longitude):
        notes.append(f"No zonal spectra are drawn: {why_not}.")
    notes += scorer.objects.summaries()
    if store.simulated:
        notes.insert(0, "The data are simulated: scores say nothing about the real atmosphere.")
    table = scorer.table()
    metrics: list[Metric] = [METRICS[name] for name in scorer.metrics]
    beside = (BASE if forecaster.control else {}) | BASELINES
    terms = TERMS | {heading(name): text for name, text in beside.items()}
    if scorer.ensembles is not None:
        metrics += ENSEMBLE_METRICS.values()
        terms |= {heading(name): text for name, text in ENSEMBLE_TERMS.items()}
        notes.append(scorer.ensembles.in_words(table))
    return Evaluation(
        folder=run / "evaluation",
        title=f"Forecast scores: {recipe.name}",
        table=table,
        keys=KEYS,
        reference=BEST,
        summary=summary_of(table),
        headline=headline_of(scorer.metrics),
        overview="lead_hours",
        labels={metric.name: metric.label for metric in metrics},
        definitions={metric.name: metric.definition for metric in metrics},
        terms=terms | scorer.objects.terms(),
        notes=tuple(notes),
        provenance=provenance_in_words(
            recipe.data.store, store.attrs, forecaster.path / RECORD, forecaster.step
        ),
        settings={
            "Training period": " to ".join(store.period(recipe.data.train)),
            "Test period": " to ".join(store.period(recipe.data.test or (None, None))),
            "Model": f"{shape_in_words(model)}, {len(model.input_channels)} channels in",
            "Lead time in training": " to ".join(f"{h} h" for h in recipe.task.lead_hours),
            "Seed": str(recipe.seed),
        },
        attribution=store.attribution,
        shown=shown_rows(table),
    )


def _write(evaluation: Evaluation, scorer: Scorer, run: Path) -> Evaluation:
    """Write tables, pictures and the page into the run's evaluation folder."""
    evaluation = dataclasses.replace(
        evaluation,
        figures=_draw(evaluation, scorer, run),
        tables=_further_tables(evaluation.folder, scorer),
    )
    write_evaluation(evaluation)
    return evaluation


def _draw(evaluation: Evaluation, scorer: Scorer, run: Path) -> tuple[tuple[str, str], ...]:
    """Draw all pictures; return caption and file of each."""
    store, folder = scorer.store, evaluation.folder
    figures: list[tuple[str, str]] = []

    def keep(figure: Figure, name: str, caption: str) -> None:
        save_figure(figure, folder / "figures" / f"{name}.png", store.attribution)
        figures.append((caption, f"figures/{name}.png"))

    shown = scorer.scored if len(scorer.scored) <= 12 else list(scorer.map_channels)
    for metric in [m for m in ("rmse", "acc_wb2") if m in scorer.metrics]:
        figure = plots.plot_scores_by_lead(evaluation.table, metric, shown)
        keep(figure, f"{metric}_by_lead", f"{METRICS[metric].label} by lead time.")
    if scorer.ensembles is not None:
        scorer.ensembles.draw(evaluation.table, shown, keep)
    lead = scorer.leads[min(len(scorer.leads) - 1, len(scorer.leads) // 2)]
    for name in scorer.map_channels:
        index, units = [store.channels.index(name)], store.channels[name].units
        valid = scorer.valid_indices(scorer.drawn_initial, lead)
        truth = store.read(valid, index)[:, 0]
        figure = plots.plot_maps(
            scorer.drawn_fields(lead, name)[0],
            truth[0],
            store.latitude,
            store.longitude,
            channel=name,
            units=units,
            init_time=store.times[scorer.drawn_initial[0]],
            lead_hours=lead,
        )
        keep(
            figure, f"map_{name}_{lead}h", f"{name}: the first forecast of {lead} h and the truth."
        )
        if why_no_spectrum(store.latitude, store.longitude):
            continue
        forecasts = {ld: scorer.drawn_fields(ld, name) for ld in _some(scorer.leads)}
        figure = plots.plot_spectra(forecasts, truth, store.latitude, channel=name, units=units)
        keep(figure, f"spectrum_{name}", f"{name}: variance by zonal wavenumber.")
    if (objects := scorer.objects).kinds:
        keep(plot_object_scores(objects.table()), "objects_by_lead", objects.caption)
    if records := read_log(run / "log.jsonl"):
        keep(plot_training(records), "training", "Training loss.")
    return tuple(figures)


def _further_tables(folder: Path, scorer: Scorer) -> tuple[tuple[str, str], ...]:
    """Write RMSE by region, zonal spectra and ranks, where there are any; caption and file."""
    store, units = scorer.store, {n: scorer.store.channels[n].units for n in scorer.scored}
    times = store.times[scorer.initial]
    hours = float((times[1] - times[0]) / np.timedelta64(1, "h")) if len(times) > 1 else 1.0
    tables = [("RMSE by region, with 95 % intervals over initial times", "regions.csv",
               scorer.regional.table(units, hours))]  # fmt: skip
    if why_no_spectrum(store.latitude, store.longitude) is None:
        spectra = pd.concat([_spectra(scorer, name) for name in scorer.map_channels])
        tables.append(("Variance by zonal wavenumber, 30 to 60 degrees", "spectra.csv", spectra))
    if scorer.objects.kinds:
        tables.insert(0, (scorer.objects.caption, "objects.csv", scorer.objects.table()))
    if scorer.ensembles is not None:
        ranks = scorer.ensembles.rank_table()
        tables.append(("Rank of the truth among the members", "rank_histogram.csv", ranks))
    for _, file, table in tables:
        with written_beside(folder / file) as partial_file:
            table.to_csv(partial_file, index=False, na_rep="nan", lineterminator="\n")
    return tuple((caption, file) for caption, file, _ in tables)


def _spectra(scorer: Scorer, name: str) -> pd.DataFrame:
    store, index = scorer.store, [scorer.store.channels.index(name)]
    pairs = (
        (lead, scorer.drawn_fields(lead, name),
         store.read(scorer.valid_indices(scorer.drawn_initial, lead), index)[:, 0])
        for lead in scorer.leads
    )  # fmt: skip
    return spectra_table(name, pairs, store.latitude)


def _some(leads: Sequence[int]) -> list[int]:
    """First, middle and last of the lead times."""
    return sorted({leads[0], leads[len(leads) // 2], leads[-1]})
