"""How well traits are read off images: embeddings, mean spectra and indices side by side.

    OUT/scores.csv              one row per trait, kind of features and regressor
    OUT/predictions.csv         every out-of-fold prediction beside what was measured
    OUT/predicted_TRAIT.png     the same, drawn

The regressions are `nested_regression`'s, the traits `traits`', the features those of an encoder
(`inference.embeddings`) and of the store (`plant_means`).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np
import pandas as pd

from sciml_dchag.figures.numbers import readable_number
from sciml_dchag.figures.saving import save_figure
from sciml_dchag.files.places import check_place, folder_kind
from sciml_dchag.files.result_folders import whole_folder
from sciml_dchag.files.resumable import Progress
from sciml_dchag.plants.store.cubes import CubeStore
from sciml_dchag.plants.traits.embeddings import Embeddings, read_embeddings
from sciml_dchag.plants.traits.indices import reached_indices
from sciml_dchag.plants.traits.nested_regression import (
    REGRESSORS,
    predict_out_of_fold,
    r2_score,
    require_groups,
    root_mean_square_error,
)
from sciml_dchag.plants.traits.plant_means import plant_indices, plant_spectra
from sciml_dchag.plants.traits.plots import plot_predictions
from sciml_dchag.plants.traits.traits import Traits, read_traits, split_units

if TYPE_CHECKING:
    from rich.table import Table

SCORES, PREDICTIONS = "scores.csv", "predictions.csv"
FOLDER = folder_kind(
    "a folder of scores of traits", contains=SCORES, holds=(PREDICTIONS, "predicted_*.png")
)
BASELINE = "training mean"


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
    embeddings_path: str | Path,
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
        embeddings_path: a folder that `write_embeddings` wrote.
        traits_path: the table of traits; see `traits`. Where it names no plants, the features of an
            image are the means over its plants.
        traits: columns of it; none takes every column of numbers that can be scored.
        store_path: the store with the spectra; None takes the one that the embeddings are from.
        group: a column of the table of traits or of the store whose equal rows stay together;
            None keeps rows of one plant (or image) together.
        folds: outer folds, and inner ones.
        seed: of the division into folds.
        out: the folder; None writes `NAME_probe` beside the embeddings.
        overwrite: replace what was written there before.
        progress: called with (done, total, what) after each regression.

    Raises:
        FileExistsError: `out` exists, and `overwrite` is off or it is something else.
        FileNotFoundError: there are no embeddings, no table of traits or no store.
        ValueError: a trait by name that does not exist, is constant or is known of too few plants;
            a group that does not exist; or no trait that can be scored.
    """
    embeddings = read_embeddings(embeddings_path)
    out = embeddings.path.with_name(f"{embeddings.path.name}_probe") if out is None else Path(out)
    check_place(out, FOLDER, overwrite)
    table = read_traits(Path(traits_path), embeddings.plants)
    labels = _groups(table, embeddings, group)
    chosen = _scorable(table, table.choose(traits, group), labels, folds, by_name=bool(traits))
    features = _features(embeddings, store_path, table)
    scores: list[dict[str, object]] = []
    predictions: list[pd.DataFrame] = []
    total = len(chosen) * (1 + len(features) * len(REGRESSORS))
    for trait in chosen:
        for row, predicted in _regress(table, trait, features, labels, folds, seed):
            scores.append(row | ({"synthetic": 1} if embeddings.simulated else {}))
            predictions.append(predicted)
            if progress is not None:
                progress(len(scores), total, "regressions")
    scored, every = pd.DataFrame(scores), pd.concat(predictions, ignore_index=True)
    with whole_folder(out, FOLDER, overwrite=overwrite) as folder:
        scored.to_csv(folder / SCORES, index=False)
        every.to_csv(folder / PREDICTIONS, index=False)
        for trait in chosen:
            of_trait = (frame[frame["trait"] == trait] for frame in (scored, every))
            figure = plot_predictions(*of_trait, simulated=embeddings.simulated)
            save_figure(figure, folder / _picture(trait), embeddings.attribution)
    return Probe(folder=out, scores=scored)


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


def _groups(table: Traits, embeddings: Embeddings, group: str | None) -> pd.Series:
    """A label a row of the table; rows of one label stay together."""
    if group is None:
        return table.table[table.keys].astype(str).agg(" plant ".join, axis=1)
    if group in table.table.columns:
        labels = table.table[group]
    elif group in embeddings.plants.columns.drop(embeddings.features):
        of_plants = embeddings.plants.drop_duplicates(table.keys).set_index(table.keys)[group]
        labels = table.table[table.keys].join(of_plants, on=table.keys)[group]
    else:
        raise ValueError(
            f"Neither {table.path} nor the store of the embeddings has a column {group!r} to group "
            f"by: name one that they have, or leave `group` out."
        )
    if labels.isna().any():
        raise ValueError(
            f"{int(labels.isna().sum())} rows have nothing in the column {group!r} to group by: "
            f"fill it in."
        )
    return labels.astype(str)


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
            if values.nunique() == 1:
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
    embeddings: Embeddings, store_path: str | Path | None, table: Traits
) -> dict[str, pd.DataFrame]:
    """Features by kind, as many rows as the table of traits, all of them finite."""
    frames = {"embedding": embeddings.plants.set_index(["cube", "plant"])[embeddings.features]}
    store = _store(embeddings, store_path)
    if store is not None:
        store.require_reflectance("mean reflectance and spectral indices")
        cubes = list(dict.fromkeys(table.table["cube"]))
        spectra = plant_spectra(store, cubes).set_index(["cube", "plant"])
        frames["mean spectrum"] = spectra.drop(columns="pixels")
        if names := reached_indices(store.wavelength_nm)[0]:
            means = plant_indices(store, names, cubes).set_index(["cube", "plant"])
            frames["indices"] = means[[f"{name}_mean" for name in names]]
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
                f"Some plants of {embeddings.path} have no {kind} in the store: take the store "
                f"that the embeddings are from, with `store_path`."
            )
        if not known.all():
            left = ", ".join(map(str, frame.columns[~known][:8]))
            warnings.warn(f"{kind}: not known of every plant and left out: {left}.", stacklevel=3)
        features[kind] = frame.loc[:, known]
    return features


def _store(embeddings: Embeddings, path: str | Path | None) -> CubeStore | None:
    if path is not None:
        return CubeStore.open(path)
    recorded = embeddings.attrs.get("store")
    if recorded and Path(str(recorded)).exists():
        return CubeStore.open(str(recorded))
    warnings.warn(
        "The store of the embeddings is not where it was, so that they are scored alone: give it "
        "with `store_path` to see mean spectra and indices beside them.",
        stacklevel=4,
    )
    return None


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
        cases += [(kind, regressor, regressor, frame[known].to_numpy()) for regressor in REGRESSORS]
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


def _picture(trait: str) -> str:
    """File name of a trait's picture."""
    return f"predicted_{quote(trait, safe=' ()[]')}.png"
