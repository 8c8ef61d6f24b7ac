"""One page made from one evaluation, of whatever task; it opens without a network.

Everything that comes from a user is escaped, nothing is fetched, and no script runs.
"""

from __future__ import annotations

import base64
from collections.abc import Hashable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from sciml_dchag.figures.numbers import readable_key, readable_number, readable_percent
from sciml_dchag.figures.page_style import STYLE
from sciml_dchag.figures.tables import heading, in_a_sentence
from sciml_dchag.files.atomic import write_text

MOST_OPEN_ROWS = 200
"""A first table of more rows than this is folded, as the others are."""

MOST_FURTHER_ROWS = 500
"""Rows of a further table on the page; its file has all."""

Row = dict[Hashable, Any]


class Evaluated(Protocol):
    """What the page shows; `training.evaluation.Evaluation` is one and says what each part is."""

    @property
    def folder(self) -> Path:
        """Where the page goes."""

    @property
    def title(self) -> str:
        """The heading."""

    @property
    def table(self) -> pd.DataFrame:
        """Keys, `units`, `perfect`, `model`, and one column per baseline."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Columns that say what a row is the score of; `metric` is one."""

    @property
    def baselines(self) -> list[str]:
        """Columns of the baselines."""

    @property
    def reference(self) -> str:
        """The baseline that is compared with in every table."""

    @property
    def headline(self) -> str:
        """The metric that the summary is of."""

    @property
    def overview(self) -> str:
        """The key by which the summary has rows; empty for a summary of `first_rows`."""

    @property
    def first_rows(self) -> pd.DataFrame:
        """Rows to show first."""

    @property
    def labels(self) -> Mapping[str, str]:
        """Names of metrics in headings."""

    @property
    def definitions(self) -> Mapping[str, str]:
        """What each metric is."""

    @property
    def summary(self) -> str:
        """What was found, in a sentence."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences to know before the numbers."""

    @property
    def figures(self) -> tuple[tuple[str, str], ...]:
        """Caption and PNG file within `folder` of each picture."""

    @property
    def tables(self) -> tuple[tuple[str, str], ...]:
        """Caption and CSV file within `folder` of each further table."""

    @property
    def terms(self) -> Mapping[str, str]:
        """What words mean."""

    @property
    def provenance(self) -> Mapping[str, str]:
        """Where data and weights come from."""

    @property
    def settings(self) -> Mapping[str, str]:
        """What the run was made with."""

    @property
    def attribution(self) -> str:
        """Whose the data are."""

    def skill(self, against: str) -> pd.Series[float]:
        """Skill of each row against a baseline."""

    def write(self) -> None:
        """Write the table and what belongs to it."""


def write_evaluation(evaluation: Evaluated) -> None:
    """Write all of an evaluation but its pictures, which are there: the page, then the table.

    Raises:
        FileNotFoundError: a picture is not there.
        ValueError: there are no scores.
    """
    write_report(evaluation)
    evaluation.write()


def write_report(evaluation: Evaluated) -> Path:
    """Write `report.html` into the evaluation's folder, whole or not at all; return its path.

    Raises:
        FileNotFoundError: a picture is not there.
        ValueError: there are no scores.
    """
    if evaluation.table.empty:
        raise ValueError("There are no scores to report: evaluate at least one sample.")
    for what, files in (("picture", evaluation.figures), ("table", evaluation.tables)):
        for _, file in files:
            if not (evaluation.folder / file).is_file():
                raise FileNotFoundError(
                    f"The {what} {evaluation.folder / file} is missing: save it before the report."
                )
    title, attribution = escape(evaluation.title), escape(evaluation.attribution)
    parts = [
        f"<p>{escape(evaluation.summary)}</p>" if evaluation.summary else "",
        _notes(evaluation.notes),
        _overview(evaluation) if evaluation.overview else _first_scores(evaluation),
        "<h2>Pictures</h2>" if evaluation.figures else "",
        *(_figure(caption, evaluation.folder / file) for caption, file in evaluation.figures),
        "<h2>Scores</h2>",
        *_metric_tables(evaluation),
        *(_further(caption, evaluation.folder / file) for caption, file in evaluation.tables),
        _terms({**evaluation.terms, **_skill_term(evaluation.reference)}),
        _pairs("Provenance", "Where data and weights come from.", evaluation.provenance),
        _pairs("Settings", "What the run was made with.", evaluation.settings),
    ]
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f'<header><h1>{title}</h1><p class="soft">{attribution}</p></header>\n'
        + "\n".join(part for part in parts if part)
        + f"\n<footer>{attribution}</footer>\n</main>\n</body>\n</html>\n"
    )
    path = evaluation.folder / "report.html"
    write_text(path, page)
    return path


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f'<ul class="notes">{items}</ul>'


def _overview(evaluation: Evaluated) -> str:
    """For each value of a key, in how many rows the model is better, and the median skill."""
    headline = evaluation.table["metric"] == evaluation.headline
    values = evaluation.table.loc[headline, evaluation.overview]
    others = [k for k in evaluation.keys if k not in ("metric", evaluation.overview)]
    against = list(dict.fromkeys([evaluation.reference, *evaluation.baselines]))
    body = []
    for value in dict.fromkeys(values):
        here = values.index[values == value]
        cells = f'<th scope="row">{escape(readable_key(evaluation.overview, value))}</th>'
        for baseline in against:
            skill = evaluation.skill(baseline).loc[here].dropna()
            better = f"{int((skill > 0).sum())} of {len(skill)}" if len(skill) else "–"  # noqa: RUF001
            cells += f"{_skill_cell(skill.median())}<td>{better}</td>"
        body.append(f"<tr>{cells}</tr>")
    names = [escape(f"Against {in_a_sentence(baseline)}") for baseline in against]
    label = _label(evaluation.headline, evaluation)
    return (
        f'<h2>Summary</h2><div class="wide"><table><caption>{label}'
        f" of the model against each baseline: the fraction of its distance from a perfect score "
        f"that the model removes, median over {_of(others)}, and the number of them in which the "
        f"model is better.</caption>"
        f'<thead><tr><th scope="col" rowspan="2">{escape(heading(evaluation.overview))}</th>'
        + "".join(f'<th scope="colgroup" colspan="2">{name}</th>' for name in names)
        + "</tr><tr>"
        + '<th scope="col">Median</th><th scope="col">Better in</th>' * len(names)
        + f"</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _of(keys: Sequence[str]) -> str:
    return escape(" and ".join(f"{heading(key).lower()}s" for key in keys)) or "all"


def _first_scores(evaluation: Evaluated) -> str:
    """The first rows in one table, a metric in each."""
    first = evaluation.first_rows
    skill = evaluation.skill(evaluation.reference).loc[first.index]
    keys = [k for k in evaluation.keys if k != "metric" and first[k].nunique() > 1]
    body = ""
    for row, gain in zip(first.to_dict("records"), skill, strict=True):
        label = _label(str(row["metric"]), evaluation)
        cells = "".join(f"<td>{escape(readable_key(k, row[k]))}</td>" for k in keys)
        body += (
            f'<tr><th scope="row">{label}{_unit(row["units"])}</th>{cells}'
            f"{_numbers(row, evaluation, gain)}</tr>"
        )
    return (
        '<h2>Summary</h2><div class="wide"><table><caption>The model beside its baselines; what '
        f"each score means is said below.</caption>{_head(['Score', *keys], evaluation)}"
        f"<tbody>{body}</tbody></table></div>"
    )


def _metric_tables(evaluation: Evaluated) -> list[str]:
    """One table per metric, in the order in which they first occur."""
    table = evaluation.table.assign(_skill=evaluation.skill(evaluation.reference))
    keys = [key for key in evaluation.keys if key != "metric"]
    tables: list[str] = []
    for metric in dict.fromkeys(table["metric"]):
        of_metric = table[table["metric"] == metric]
        is_open = not tables and len(of_metric) <= MOST_OPEN_ROWS
        tables.append(_metric_table(metric, of_metric, keys, is_open, evaluation))
    return tables


def _metric_table(
    metric: str, table: pd.DataFrame, keys: Sequence[str], is_open: bool, evaluation: Evaluated
) -> str:
    """Rows of a metric, gathered by the first of several keys."""
    outer, inner = list(keys[:1]) if len(keys) > 1 else [], list(keys[1:] or keys)
    units = {str(unit) for unit in table["units"]} if not outer else set()
    caption = escape(evaluation.definitions.get(metric, ""))
    if unit := escape(", ".join(sorted(units - {"", "1"}))):
        caption += f" Units: {unit}."
    bodies = []
    groups = dict.fromkeys(table[outer[0]]) if outer else (None,)
    for group in groups:
        rows = table[table[outer[0]] == group] if outer else table
        first = ""
        if outer:
            text = escape(readable_key(outer[0], group)) + _unit(rows["units"].iloc[0])
            first = f'<th scope="rowgroup" rowspan="{len(rows)}">{text}</th>'
        lines = []
        for row in rows.to_dict("records"):
            named = "".join(
                f'<th scope="row">{escape(readable_key(key, row[key]))}</th>' for key in inner
            )
            lines.append(f"<tr>{first}{named}{_numbers(row, evaluation, row['_skill'])}</tr>")
            first = ""
        bodies.append(f"<tbody>{''.join(lines)}</tbody>")
    return (
        f"<details{' open' if is_open else ''}><summary>{_label(metric, evaluation)} "
        f'<code>{escape(metric)}</code></summary><div class="wide"><table>'
        f"<caption>{caption}</caption>{_head([*outer, *inner], evaluation)}{''.join(bodies)}"
        f"</table></div></details>"
    )


def _head(keys: Sequence[str], evaluation: Evaluated) -> str:
    names = [heading(name) for name in (*keys, "model", *evaluation.baselines)]
    names.append(f"Against {in_a_sentence(evaluation.reference)}")
    cells = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    return f"<thead><tr>{cells}</tr></thead>"


def _numbers(row: Row, evaluation: Evaluated, skill: float) -> str:
    others = "".join(f"<td>{readable_number(row[name])}</td>" for name in evaluation.baselines)
    return f'<td class="model">{readable_number(row["model"])}</td>{others}{_skill_cell(skill)}'


def _skill_cell(skill: float) -> str:
    kind = "better" if skill > 0 else "worse" if skill < 0 else "none"
    return f'<td class="{kind}">{readable_percent(skill)}</td>'


def _unit(units: object) -> str:
    text = "" if units == "1" else escape(str(units))
    return f'<span class="unit">{text}</span>' if text else ""


def _label(metric: str, evaluation: Evaluated) -> str:
    return escape(evaluation.labels.get(metric, metric))


def _figure(caption: str, picture: Path) -> str:
    data = base64.b64encode(picture.read_bytes()).decode("ascii")
    text = escape(caption)
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{text}">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def _further(caption: str, file: Path) -> str:
    """A folded table of a CSV file, its numbers as short as those of the scores."""
    whole = pd.read_csv(file, keep_default_na=False, na_values=["nan"])
    table = whole.head(MOST_FURTHER_ROWS)
    if len(whole) > len(table):
        caption += f": the first {len(table)} of {len(whole)} rows"
    head = "".join(f'<th scope="col">{escape(heading(str(name)))}</th>' for name in table.columns)
    body = "".join(
        "<tr>"
        + "".join(f"<td>{_cell(str(key), value)}</td>" for key, value in row.items())
        + "</tr>"
        for row in table.to_dict("records")
    )
    return (
        f"<details><summary>{escape(caption)} <code>{escape(file.name)}</code></summary>"
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
        f"</details>"
    )


def _cell(key: str, value: Any) -> str:
    if isinstance(value, float):
        return readable_number(value)
    return escape(readable_key(key, value))


def _skill_term(reference: str) -> dict[str, str]:
    name = in_a_sentence(reference)
    return {
        f"Against {name}": f"The fraction of the distance between {name} and a perfect score that "
        "the model removes: 100 % is perfect, 0 % no better, negative worse. A score without a "
        "perfect value has none."
    }


def _terms(terms: Mapping[str, str]) -> str:
    items = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in terms.items())
    return f"<h2>What the words mean</h2><dl>{items}</dl>"


def _pairs(title: str, caption: str, values: Mapping[str, str]) -> str:
    """A section of names and values; nothing where there are none."""
    if not values:
        return ""
    lines = "".join(
        f'<tr><th scope="row">{escape(str(name))}</th>'
        f'<td class="text">{escape(str(value))}</td></tr>'
        for name, value in values.items()
    )
    return (
        f'<h2>{title}</h2><div class="wide"><table><caption>{caption}</caption>'
        '<thead><tr><th scope="col">Name</th><th scope="col">Value</th></tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )
