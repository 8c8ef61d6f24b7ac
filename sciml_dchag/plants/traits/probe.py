"""How well traits are read off images: embeddings, mean spectra and indices side by side.

    OUT/scores.csv              one row per trait, kind of features and regressor
    OUT/predictions.csv         every out-of-fold prediction beside what was measured
    OUT/predicted_TRAIT.png     the same, drawn
    OUT/models.json             a regression on all rows for each trait and kind of features
    OUT/coefficients.csv        its coefficients by feature, and what matters in PLS (VIP)
    OUT/mean_spectra.csv        mean reflectance by plant and band, where there is a store

The regressions are `nested_regression`'s, the traits `traits`', the features `plant_source`'s.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

import numpy as np
import pandas as pd

from sciml_dchag.config.common import require_at_least
from sciml_dchag.figures.numbers import readable_number
from sciml_dchag.figures.saving import save_figure
from sciml_dchag.files.places import check_place, folder_kind
from sciml_dchag.files.result_folders import whole_folder
from sciml_dchag.files.resumable import Progress
from sciml_dchag.files.tables import columns_called
from sciml_dchag.plants.prepare.splits import without_date
from sciml_dchag.plants.read.columns import PLANT_ID_COLUMNS
from sciml_dchag.plants.traits.nested_regression import (
    REGRESSORS,
    TWO_BAND,
    predict_out_of_fold,
    r2_score,
    require_groups,
    root_mean_square_error,
)
from sciml_dchag.plants.traits.plant_source import (
    EMBEDDING,
    SPECTRUM,
    PlantSource,
    open_source,
)
from sciml_dchag.plants.traits.plots import plot_predictions
from sciml_dchag.plants.traits.trait_models import (
    MODELS,
    TraitModel,
    encoder_of,
    fit_model,
    half_width,
    read_models,
    write_models,
)
from sciml_dchag.plants.traits.traits import Traits, read_traits, split_units

if TYPE_CHECKING:
    from rich.table import Table

SCORES, PREDICTIONS = "scores.csv", "predictions.csv"
COEFFICIENTS, SPECTRA = "coefficients.csv", "mean_spectra.csv"
FOLDER = folder_kind(
    "a folder of scores of traits",
    contains=SCORES,
    holds=(PREDICTIONS, "predicted_*.png", MODELS, COEFFICIENTS, SPECTRA),
)
BASELINE = "training mean"
ROUNDING = 1e-9
"""A trait that varies by less than so much of itself is constant."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What was written."""

    folder: Path
    """Where it lies."""
    scores: pd.DataFrame
    """`scores.csv`: trait, units, features, regressor, r2 (of the pooled out-of-fold predictions),
    rmse (in the trait's units), rows, groups, folds, seed, and the penalties or numbers of
    components that the folds chose."""


def probe(
    source_path: str | Path,
    traits_path: str | Path,
    *,
    traits: Sequence[str] = (),
    store_path: str | Path | None = None,
    group: str | None = None,
    folds: int = 5,
    seed: int = 0,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Probe:
    """Regress traits on embeddings, mean spectra and indices, scored by nested cross-validation.

    Args:
        source_path: a folder of embeddings, or a plant store, whose spectra and indices are then
            scored alone.
        traits_path: the table of traits; see `traits`. Where it names no plants, the features of an
            image are the means over its plants.
        traits: columns of it; none takes every column of numbers that can be scored.
        store_path: the store of embeddings; None takes the one that they are from.
        group: a column of the table of traits or of the store whose equal rows stay together;
            None keeps those of one plant together, by `plant_id` where there is one, or of one
            number in images whose names differ in a date alone.
        folds: outer folds, and inner ones.
        seed: of the division into folds.
        out: the folder; None writes `NAME_probe` beside the source.
        overwrite: replace what was written there before.
        progress: called with (done, total, what) after each regression.

    Raises:
        FileExistsError: `out` exists, and `overwrite` is off or it is something else.
        FileNotFoundError: there are no embeddings, no table of traits or no store.
        ValueError: a trait by name that does not exist, is constant or is known of too few plants;
            a group that does not exist; or no trait that can be scored.
    """
    require_at_least(0, "seed", seed)
    require_at_least(3, "folds", folds)
    source = open_source(source_path, store_path)
    out = source.path.with_name(f"{source.path.stem}_probe") if out is None else Path(out)
    check_place(out, FOLDER, overwrite)
    table = read_traits(Path(traits_path), source.plants)
    labels = _groups(table, source, group)
    chosen = _scorable(table, table.choose(traits, group), labels, folds, by_name=bool(traits))
    spectra = source.features(list(dict.fromkeys(table.table["cube"])))
    features = _features(source, spectra, table)
    scores: list[dict[str, object]] = []
    predictions: list[pd.DataFrame] = []
    models: list[TraitModel] = []
    total = len(chosen) * (1 + sum(len(_regressors(kind)) for kind in features))
    for trait in chosen:
        results = _regress(table, trait, features, labels, folds, seed)
        for row, predicted in results:
            scores.append(row | ({"synthetic": 1} if source.simulated else {}))
            predictions.append(predicted)
            if progress is not None:
                progress(len(scores), total, "regressions")
        models += _models(table, trait, features, labels, results, folds, seed, encoder_of(source))
    scored, every = pd.DataFrame(scores), pd.concat(predictions, ignore_index=True)
    with whole_folder(out, FOLDER, overwrite=overwrite) as folder:
        scored.to_csv(folder / SCORES, index=False)
        every.to_csv(folder / PREDICTIONS, index=False)
        write_models(folder / MODELS, models, source)
        _coefficients(models, source).to_csv(folder / COEFFICIENTS, index=False)
        if SPECTRUM in spectra:
            spectra[SPECTRUM].to_csv(folder / SPECTRA)
        for trait in chosen:
            of_trait = (frame[frame["trait"] == trait] for frame in (scored, every))
            figure = plot_predictions(*of_trait, simulated=source.simulated)
            save_figure(figure, folder / _picture(trait), source.attribution)
    return Probe(folder=out, scores=scored)


def describe(path: str) -> dict[str, Any] | None:
    """What `inspect` shows of a folder that `probe` wrote; None where `path` is none."""
    folder = Path(path)
    if not all((folder / name).is_file() for name in (SCORES, PREDICTIONS, MODELS)):
        return None
    models = read_models(folder)
    return {
        "kind": "scores and regressions of traits",
        "traits": list(dict.fromkeys(model.trait for model in models)),
        "regressions": [
            f"{m.trait} from the {m.features}, {m.regressor}: R2 {m.r2:.3f}, {m.rows} rows"
            for m in models
        ],
    }


def scores_table(scores: pd.DataFrame) -> Table:
    """The scores as a rich table; R2 is that of the pooled out-of-fold predictions."""
    from rich import box
    from rich.markup import escape as plain
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, header_style="bold")
    for heading in ("Trait", "Features", "Regressor"):
        table.add_column(heading)
    for heading in ("R2, pooled", "RMSE", "Rows"):
        table.add_column(heading, justify="right")
    for row in scores.to_dict("records"):
        style = "green" if row["r2"] > 0 else "dim"
        table.add_row(
            plain(str(row["trait"])),
            str(row["features"]),
            str(row["regressor"]),
            f"[{style}]{row['r2']:.3f}[/{style}]",
            f"{readable_number(float(row['rmse']))} {plain(str(row['units']))}".rstrip(),
            str(row["rows"]),
        )
    return table


def _groups(table: Traits, source: PlantSource, group: str | None) -> pd.Series:
    """A label a row of the table; rows of one label stay together."""
    if group is None:
        rows = table.table.assign(cube=table.table["cube"].map(without_date))
        of_place = rows[table.keys].astype(str).agg(" plant ".join, axis=1)
        known = (*table.table.columns, *source.plants.columns)
        if not (named := columns_called(known, PLANT_ID_COLUMNS)):
            return of_place
        by_id = _column(table, source, named[0])
        return by_id.astype(str).where(by_id.notna(), of_place)
    labels = _column(table, source, group)
    if labels.isna().any():
        raise ValueError(
            f"{int(labels.isna().sum())} rows have nothing in the column {group!r} to group by: "
            f"fill it in."
        )
    return labels.astype(str)


def _column(table: Traits, source: PlantSource, group: str) -> pd.Series:
    """A column of the table of traits, or of the store's, a row of the former.

    Raises:
        ValueError: neither has it.
    """
    if group in table.table.columns:
        return table.table[group]
    if group in source.plants.columns:
        of_plants = source.plants.drop_duplicates(table.keys).set_index(table.keys)[group]
        return table.table[table.keys].join(of_plants, on=table.keys)[group]
    raise ValueError(
        f"Neither {table.path} nor the store has a column {group!r} to group "
        f"by: name one that they have, or leave `group` out."
    )


def _scorable(
    table: Traits, names: Sequence[str], labels: pd.Series, folds: int, *, by_name: bool
) -> list[str]:
    """Refuse traits that cannot be scored, or leave them out where none was asked for by name."""
    kept, refused = [], []
    for name in names:
        values = table.values(name)
        known = values.notna()
        try:
            require_groups(labels[known].nunique(), folds)
            if np.ptp(values[known]) <= ROUNDING * np.abs(values[known]).max():
                raise ValueError(
                    f"it is {values[known].iloc[0]:g} everywhere, so that there is nothing to "
                    f"predict: choose another."
                )
        except ValueError as error:
            refused.append(f"The trait {name!r} cannot be scored: {error}")
            continue
        kept.append(name)
        if missing := int((~known).sum()):
            warnings.warn(f"{name}: {missing} rows without a value are left out.", stacklevel=3)
    if refused and (by_name or not kept):
        raise ValueError(refused[0])
    for reason in refused:
        warnings.warn(f"{reason[:-1]}. It is left out.", stacklevel=3)
    return kept


def _features(
    source: PlantSource, frames: dict[str, pd.DataFrame], table: Traits
) -> dict[str, pd.DataFrame]:
    """Features by kind, as many rows as the table of traits, all of them finite."""
    rows = pd.MultiIndex.from_frame(table.table[table.keys]) if len(table.keys) > 1 else None
    features = {}
    for kind, frame in frames.items():
        if rows is None:
            frame = frame.groupby("cube").mean().reindex(table.table["cube"])
        else:
            frame = frame.reindex(rows)
        known = np.isfinite(frame).all(axis=0)
        if not known.any():
            raise ValueError(
                f"Some plants of {source.path} have no {kind} in the store: take the store "
                f"that the embeddings are from, with `store_path`."
            )
        if not known.all():
            left = ", ".join(map(str, frame.columns[~known][:8]))
            warnings.warn(f"{kind}: not known of every plant and left out: {left}.", stacklevel=3)
        features[kind] = frame.loc[:, known]
    return features


def _regressors(kind: str) -> tuple[str, ...]:
    """What features of a kind are regressed with."""
    return (*REGRESSORS, TWO_BAND) if kind == SPECTRUM else REGRESSORS


def _regress(
    table: Traits,
    trait: str,
    features: dict[str, pd.DataFrame],
    labels: pd.Series,
    folds: int,
    seed: int,
) -> list[tuple[dict[str, object], pd.DataFrame]]:
    """Score a trait: the baseline, then every kind of features with every regressor."""
    values = table.values(trait)
    known = values.notna().to_numpy()
    measured, groups = values[known].to_numpy(), labels[known].to_numpy()
    cases = [("none", BASELINE, "mean", np.zeros((len(measured), 1)))]
    for kind, frame in features.items():
        cases += [
            (kind, regressor, regressor, frame[known].to_numpy()) for regressor in _regressors(kind)
        ]
    results: list[tuple[dict[str, object], pd.DataFrame]] = []
    for kind, name, regressor, X in cases:
        found = predict_out_of_fold(
            X, measured, groups, regressor=regressor, folds=folds, seed=seed
        )
        case = {
            "trait": trait, "units": split_units(trait)[1], "features": kind, "regressor": name,
        }  # fmt: skip
        score = {
            "r2": r2_score(measured, found.predicted),
            "rmse": root_mean_square_error(measured, found.predicted),
            "rows": len(measured), "groups": len(set(groups)), "folds": folds, "seed": seed,
            "chosen": " ".join(f"{value:.4g}" for value in found.chosen),
        }  # fmt: skip
        predicted = table.table.loc[known, table.keys].reset_index(drop=True)
        predicted = predicted.assign(
            **case, group=groups, fold=found.fold, measured=measured, predicted=found.predicted
        )
        results.append((case | score, predicted))
    return results


def _models(
    table: Traits,
    trait: str,
    features: dict[str, pd.DataFrame],
    labels: pd.Series,
    results: list[tuple[dict[str, object], pd.DataFrame]],
    folds: int,
    seed: int,
    encoder: str,
) -> list[TraitModel]:
    """Fit the best regressor of each kind of features on all rows of a trait."""
    known = table.values(trait).notna().to_numpy()
    measured, groups = table.values(trait)[known].to_numpy(), labels[known].to_numpy()
    models = []
    for kind, frame in features.items():
        of_kind = [(row, found) for row, found in results if row["features"] == kind]
        row, found = max(of_kind, key=lambda result: cast(float, result[0]["r2"]))
        errors = (found["measured"] - found["predicted"]).abs().to_numpy()
        models.append(
            fit_model(
                frame[known], measured, groups, regressor=str(row["regressor"]), folds=folds,
                seed=seed, trait=trait, units=str(row["units"]), features=kind, r2=row["r2"],
                rmse=row["rmse"], half_width=half_width(errors),
                encoder=encoder if kind == EMBEDDING else "",
            )
        )  # fmt: skip
    return models


def _coefficients(models: Sequence[TraitModel], source: PlantSource) -> pd.DataFrame:
    """One row per feature of each model, with the wavelength of a band."""
    nm: dict[str, float] = {}
    if source.store is not None:
        nm = dict(
            zip(source.store.channels.names, source.store.wavelength_nm.tolist(), strict=True)
        )
    rows = []
    for model in models:
        weights = model.coefficients if len(model.coefficients) == len(model.names) else (
            [model.coefficients[0], -model.coefficients[0]]  # of a normalised difference
        )  # fmt: skip
        for place, name in enumerate(model.names):
            rows.append(
                {
                    "trait": model.trait, "features": model.features,
                    "regressor": model.regressor, "feature": name,
                    "wavelength_nm": nm.get(name, np.nan), "coefficient": weights[place],
                    "vip": model.importance[place] if model.importance else np.nan,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def _picture(trait: str) -> str:
    """File name of a trait's picture."""
    return f"predicted_{quote(trait, safe=' ()[]')}.png"
