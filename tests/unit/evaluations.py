"""Evaluations as the tests of pictures, tables and reports need them."""

import math

import pandas as pd

from sciml_dchag.training.evaluation import Evaluation
from sciml_dchag.weather.scores.formulas import METRICS
from sciml_dchag.weather.scores.table import KEYS, TERMS, headline_of, summary_of

ATTRIBUTION = "Contains modified Copernicus Climate Change Service information 2025"
UNITS = {"msl": "Pa", "z500": "m**2 s**-2"}


def forecast_rows():
    """Two channels at three leads, rmse and acc."""
    made = []
    for channel, size in (("msl", 100.0), ("z500", 400.0)):
        for lead in (6, 24, 72):
            rmse = {"model": size * lead / 24, "persistence": size * lead / 12}
            made.append(row(channel, lead, "rmse", climatology=3 * size, **rmse))
            made.append(row(channel, lead, "acc_wb2", 0.9, 0.8, math.nan))
    return made


def row(channel, lead_hours, metric, model, persistence, climatology):
    return {
        "channel": channel,
        "lead_hours": lead_hours,
        "metric": metric,
        "units": METRICS[metric].units(UNITS.get(channel, "1")),
        "perfect": METRICS[metric].perfect_or_nan,
        "model": model,
        "persistence": persistence,
        "climatology": climatology,
    }


def evaluation_of(folder, rows, **changes):
    """What an evaluation of a forecast has."""
    table = pd.DataFrame(rows)
    metrics = [METRICS[name] for name in dict.fromkeys(table["metric"])]
    settings = {
        "title": "Forecast scores",
        "summary": summary_of(table),
        "headline": headline_of(list(table["metric"])),
        "overview": "lead_hours",
        "labels": {metric.name: metric.label for metric in metrics},
        "definitions": {metric.name: metric.definition for metric in metrics},
        "terms": TERMS,
        "attribution": ATTRIBUTION,
        **changes,
    }
    return Evaluation(folder=folder, table=table, keys=KEYS, reference="persistence", **settings)
