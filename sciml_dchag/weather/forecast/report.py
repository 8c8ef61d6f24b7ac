"""Scores as NetCDF and as one page that opens without a network.

The scores are computed in `metrics`, the pictures drawn in `plots`.
"""

import base64
import statistics
from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby
from pathlib import Path

import numpy as np
import xarray as xr

from sciml_dchag.figures.numbers import readable_lead, readable_number, readable_percent
from sciml_dchag.figures.page_style import STYLE
from sciml_dchag.files.atomic import written_beside
from sciml_dchag.weather.scores.table import (
    METRIC_DEFINITIONS,
    METRIC_LABELS,
    ScoreRow,
    metric_units,
)

FORECASTS = ("model", "persistence", "climatology")


def write_scores_netcdf(
    path: str | Path,
    rows: Sequence[ScoreRow],
    units: Mapping[str, str] | None = None,
    attributes: Mapping[str, str] | None = None,
) -> Path:
    """Write `model`, `persistence` and `climatology` on (metric, channel, lead_hours).

    A combination that no row holds is NaN. The file appears whole or not at all.
    """
    path = Path(path)
    if not rows:
        raise ValueError("there are no scores to write: evaluate at least one channel and lead.")
    metrics = list(dict.fromkeys(row.metric for row in rows))
    channels = list(dict.fromkeys(row.channel for row in rows))
    leads = sorted({row.lead_hours for row in rows})
    dims = ("metric", "channel", "lead_hours")
    values = {
        name: np.full((len(metrics), len(channels), len(leads)), np.nan) for name in FORECASTS
    }
    for row in rows:
        place = metrics.index(row.metric), channels.index(row.channel), leads.index(row.lead_hours)
        for name in FORECASTS:
            values[name][place] = getattr(row, name)
    data = xr.Dataset(
        {name: (dims, array) for name, array in values.items()},
        {
            "metric": metrics,
            "channel": channels,
            "lead_hours": ("lead_hours", leads, {"long_name": "lead time in hours"}),
            "channel_units": ("channel", [(units or {}).get(channel, "") for channel in channels]),
        },
        dict(attributes or {}),
    )
    with written_beside(path) as partial:
        data.to_netcdf(partial)
    return path


def write_report(
    path: str | Path,
    *,
    title: str,
    rows: Sequence[ScoreRow],
    figures: Sequence[tuple[str, str | Path]],
    settings: Mapping[str, object],
    attribution: str,
    units: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Write one self-contained HTML page; nothing in it is fetched from elsewhere.

    Args:
        path: where to, by habit `report.html`; the file appears whole or not at all.
        title: the heading.
        rows: the scores, shown a table a metric in the order in which metrics first occur.
        figures: caption and PNG file of each picture, which is embedded.
        settings: what the run was made with; values are shown as they print.
        attribution: whose the data are, or that they are simulated.
        units: units by channel name.
        notes: sentences that the reader must know before the numbers.

    Raises:
        FileNotFoundError: a picture that is not there.
        ValueError: no rows.
    """
    path = Path(path)
    if not rows:
        raise ValueError("there are no scores to report: evaluate at least one channel and lead.")
    for _, picture in figures:
        if not Path(picture).is_file():
            raise FileNotFoundError(f"the picture {picture} is missing: save it before the report.")
    metrics = list(dict.fromkeys(row.metric for row in rows))
    parts = [
        _notes(notes),
        _summary(rows, metrics[0] if "rmse" not in metrics else "rmse"),
        "".join(_figure(caption, Path(picture)) for caption, picture in figures),
        "<h2>Scores</h2>",
        "".join(
            _metric_table(metric, [r for r in rows if r.metric == metric], units or {}, number == 0)
            for number, metric in enumerate(metrics)
        ),
        _terms(),
        _settings(settings),
    ]
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f'<header><h1>{escape(title)}</h1><p class="soft">{escape(attribution)}</p></header>\n'
        + "\n".join(part for part in parts if part)
        + f"\n<footer>{escape(attribution)}</footer>\n</main>\n</body>\n</html>\n"
    )
    with written_beside(path) as partial:
        partial.write_text(page, encoding="utf-8")
    return path


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f'<ul class="notes">{items}</ul>'


def _summary(rows: Sequence[ScoreRow], metric: str) -> str:
    """For each lead, how many channels beat the baselines, and by how much in the middle."""
    body = []
    chosen = sorted((r for r in rows if r.metric == metric), key=lambda row: row.lead_hours)
    for lead, group in groupby(chosen, key=lambda row: row.lead_hours):
        cells = [f'<th scope="row">{readable_lead(lead)}</th>']
        of_lead = list(group)
        for against in ("persistence", "climatology"):
            skills = [s for s in (row.skill(against) for row in of_lead) if not np.isnan(s)]
            if not skills:
                cells.append("<td>–</td><td>–</td>")  # noqa: RUF001
                continue
            better = sum(skill > 0 for skill in skills)
            cells.append(_skill_cell(statistics.median(skills)))
            cells.append(f"<td>{better} of {len(skills)}</td>")
        body.append(f"<tr>{''.join(cells)}</tr>")
    name = escape(METRIC_LABELS[metric])
    return (
        f'<h2>Summary</h2><div class="wide"><table><caption>{name} of the model against forecasts '
        "that need no model: the part of their error it removes, median over channels, and the "
        "number of channels in which it is better.</caption>"
        '<thead><tr><th scope="col" rowspan="2">Lead</th>'
        '<th scope="colgroup" colspan="2">Against persistence</th>'
        '<th scope="colgroup" colspan="2">Against climatology</th></tr>'
        + '<tr><th scope="col">Median</th><th scope="col">Better in</th>'
        + '<th scope="col">Median</th><th scope="col">Better in</th></tr></thead>'
        + f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _metric_table(
    metric: str, rows: Sequence[ScoreRow], units: Mapping[str, str], is_open: bool
) -> str:
    bodies = []
    for channel in dict.fromkeys(row.channel for row in rows):
        of_channel = sorted((r for r in rows if r.channel == channel), key=lambda r: r.lead_hours)
        unit = escape(metric_units(metric, units.get(channel, "")))
        head = (
            f'<th scope="rowgroup" rowspan="{len(of_channel)}">{escape(channel)}'
            f'<span class="unit">{unit}</span></th>'
        )
        lines = []
        for row in of_channel:
            lines.append(
                f'<tr>{head}<th scope="row">{readable_lead(row.lead_hours)}</th>'
                f'<td class="model">{readable_number(row.model)}</td>'
                f"<td>{readable_number(row.persistence)}</td>"
                f"<td>{readable_number(row.climatology)}</td>{_skill_cell(row.skill())}</tr>"
            )
            head = ""
        bodies.append(f"<tbody>{''.join(lines)}</tbody>")
    columns = ("Channel", "Lead", "Model", "Persistence", "Climatology", "Against persistence")
    heads = "".join(f'<th scope="col">{column}</th>' for column in columns)
    name = escape(METRIC_LABELS[metric])
    return (
        f"<details{' open' if is_open else ''}><summary>{name} <code>{metric}</code></summary>"
        f'<div class="wide"><table><caption>{escape(METRIC_DEFINITIONS[metric])}</caption>'
        f"<thead><tr>{heads}</tr></thead>{''.join(bodies)}</table></div></details>"
    )


def _skill_cell(skill: float) -> str:
    kind = "better" if skill > 0 else "worse" if skill < 0 else "none"
    return f'<td class="{kind}">{readable_percent(skill)}</td>'


def _figure(caption: str, picture: Path) -> str:
    data = base64.b64encode(picture.read_bytes()).decode("ascii")
    text = escape(caption)
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{text}">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def _terms() -> str:
    return (
        "<h2>What the words mean</h2><dl>"
        "<dt>Area mean</dt><dd>Every cell counts by its area on the sphere; cells without a value "
        "are left out.</dd>"
        "<dt>Persistence</dt><dd>The state at the initial time, held.</dd>"
        "<dt>Climatology</dt><dd>A mean of the training period; it has no anomaly, so it has no "
        "anomaly correlation.</dd>"
        "<dt>Against persistence</dt><dd>The part of persistence's distance from a perfect score "
        "that the model removes: 100 % is perfect, 0 % no better, negative worse. Bias has none."
        "</dd></dl>"
    )


def _settings(settings: Mapping[str, object]) -> str:
    if not settings:
        return ""
    lines = "".join(
        f'<tr><th scope="row">{escape(str(name))}</th>'
        f'<td class="text">{escape(str(value))}</td></tr>'
        for name, value in settings.items()
    )
    return (
        '<h2>Settings</h2><div class="wide"><table><caption>What the run was made with.</caption>'
        '<thead><tr><th scope="col">Name</th><th scope="col">Value</th></tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )
