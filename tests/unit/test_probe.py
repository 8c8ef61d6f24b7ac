"""Traits from images: known linear ones are found, permuted ones are not, and nothing leaks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from plant_stores import ATTRIBUTION, pairs_of_leaves, write_store
from sklearn.cross_decomposition import PLSRegression
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from sciml_dchag.plants.traits.embeddings import write_embeddings
from sciml_dchag.plants.traits.nested_regression import (
    RIDGE_PENALTIES,
    _path,
    predict_out_of_fold,
    r2_score,
    root_mean_square_error,
)
from sciml_dchag.plants.traits.probe import probe
from sciml_dchag.plants.traits.traits import split_units

ROWS = 90


def spectral_directions(rows: int = ROWS, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Spectra that differ along six directions, and the amounts of each: (rows, 60), (rows, 6)."""
    rng = np.random.default_rng(seed)
    amounts = rng.normal(size=(rows, 6))
    nm = np.linspace(0, 1, 60)
    directions = np.stack([np.sin(np.pi * k * nm) for k in range(1, 7)])
    return 0.4 + 0.02 * amounts @ directions + rng.normal(0, 5e-4, (rows, 60)), amounts


def score(X: np.ndarray, y: np.ndarray, groups: Any = None, **options: Any) -> float:
    groups = np.arange(len(y)) if groups is None else groups
    return r2_score(y, predict_out_of_fold(X, y, groups, **options).predicted)


@pytest.mark.parametrize("regressor", ["ridge", "pls"])
def test_a_linear_trait_is_found_and_a_permuted_one_is_not(regressor: str) -> None:
    X, amounts = spectral_directions()
    signal = 3 * amounts[:, 0] - 2 * amounts[:, 3]
    # Noise of a tenth of the signal's variance: no regression can reach more than 0.91.
    trait = 50 + signal + np.random.default_rng(1).normal(0, np.sqrt(13 / 10), ROWS)
    assert 0.8 < score(X, trait, regressor=regressor) < 0.95
    permuted = np.random.default_rng(2).permutation(trait)
    assert score(X, permuted, regressor=regressor) < 0.1


@pytest.mark.parametrize("regressor", ["ridge", "pls"])
def test_repeated_plants_do_not_leak(regressor: str) -> None:
    rng = np.random.default_rng(0)
    plant = np.repeat(np.arange(30), 4)
    # Each plant has an appearance and a trait of its own, which have nothing to do with each other.
    X = rng.normal(size=(30, 100))[plant] + rng.normal(0, 0.05, (120, 100))
    trait = rng.normal(size=30)[plant]
    assert score(X, trait, regressor=regressor) > 0.9, "rows apart: the plant is recognised"
    assert score(X, trait, plant, regressor=regressor) < 0.1


def test_standardisation_and_tuning_see_the_training_side_alone() -> None:
    X, amounts = spectral_directions()
    trait = amounts[:, 0]
    before = predict_out_of_fold(X, trait, np.arange(ROWS), regressor="ridge")
    changed, held_out = trait.copy(), before.fold == 0
    changed[held_out] = 1e6
    wild = X.copy()
    wild[np.flatnonzero(held_out)[0]] *= 1e6
    after = predict_out_of_fold(wild, changed, np.arange(ROWS), regressor="ridge")
    kept = np.flatnonzero(held_out)[1:]
    np.testing.assert_array_equal(before.fold, after.fold)
    np.testing.assert_allclose(before.predicted[kept], after.predicted[kept], rtol=1e-9)


def test_settings_are_those_of_separate_regressions() -> None:
    X, amounts = spectral_directions()
    y, new = amounts[:60, 0] + amounts[:60, 1] ** 2, X[60:]
    scaler = StandardScaler().fit(X[:60])
    for column, penalty in enumerate(RIDGE_PENALTIES):
        alone = Ridge(alpha=penalty).fit(scaler.transform(X[:60]), y)
        found = _path("ridge", X[:60], y, new)[:, column]
        # Spectra that nearly depend on each other: at 1e-4 the normal equations lose digits.
        np.testing.assert_allclose(found, alone.predict(scaler.transform(new)), rtol=1e-6)
    every = _path("pls", X[:60], y, new)
    assert every.shape == (30, 20)
    for components in (1, 2, 7, 20):
        alone = PLSRegression(n_components=components).fit(X[:60], y)
        np.testing.assert_allclose(every[:, components - 1], alone.predict(new), rtol=1e-9)


def test_folds_keep_groups_whole_are_even_and_follow_the_seed() -> None:
    X, amounts = spectral_directions()
    plant = np.arange(ROWS) // 3
    first = predict_out_of_fold(X, amounts[:, 0], plant, regressor="mean", seed=3)
    again = predict_out_of_fold(X, amounts[:, 0], plant, regressor="mean", seed=3)
    other = predict_out_of_fold(X, amounts[:, 0], plant, regressor="mean", seed=4)
    np.testing.assert_array_equal(first.predicted, again.predicted)
    assert (first.fold != other.fold).any()
    assert (pd.Series(first.fold).groupby(plant).nunique() == 1).all()
    assert list(np.bincount(first.fold)) == [18] * 5
    for fold in range(5):
        expected = amounts[first.fold != fold, 0].mean()
        np.testing.assert_allclose(first.predicted[first.fold == fold], expected, rtol=1e-12)


def test_the_scores_are_of_the_pooled_predictions() -> None:
    measured, predicted = np.array([1.0, 2.0, 3.0, 6.0]), np.array([1.0, 2.0, 4.0, 4.0])
    assert r2_score(measured, predicted) == pytest.approx(1 - 5 / 14)
    assert root_mean_square_error(measured, predicted) == pytest.approx(np.sqrt(5 / 4))


def test_units_are_in_the_name() -> None:
    assert split_units("LMA (g m-2)") == ("LMA", "g m-2")
    assert split_units("N [%]") == ("N", "%") and split_units("height") == ("height", "")


@pytest.fixture(scope="module")
def plants() -> pd.DataFrame:
    """Twenty images of two plants each, with a trait that their red edge shows."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {"cube": np.repeat([f"c{n}" for n in range(20)], 2), "plant": [1, 2] * 20,
         "red_edge_nm": rng.uniform(705, 725, 40), "green": rng.uniform(0.05, 0.15, 40)}
    )  # fmt: skip
    table["chlorophyll (ug cm-2)"] = 2 * (table["red_edge_nm"] - 690) + rng.normal(0, 2, 40)
    table["luck"] = rng.normal(size=40)
    return table


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, plants: pd.DataFrame) -> Path:
    """Their store, and embeddings: three noisy numbers of which one follows the red edge."""
    folder = tmp_path_factory.mktemp("probe")
    rng = np.random.default_rng(1)
    images = pairs_of_leaves(plants, rng)
    table = {"genotype": [f"g{n % 7}" for n in range(20)]}
    store = write_store(folder / "s.zarr", images, table=table)
    patches = pd.concat([plants[["cube", "plant"]].assign(y=y, x=2.0) for y in (2.0, 4.0)])
    values = rng.normal(0, 0.3, (80, 3))
    values[:, 1] += np.tile((plants["red_edge_nm"] - 715) / 6, 2)
    write_embeddings(
        folder / "e", patches, values,
        table=pd.DataFrame({"split": "train", **table}, index=pd.Index(list(images), name="cube")),
        attrs={"attribution": ATTRIBUTION, "simulated": 1, "store": str(store)},
    )  # fmt: skip
    return folder


@pytest.fixture
def traits(tmp_path: Path, plants: pd.DataFrame) -> Callable[..., Path]:
    def write(**changes: Any) -> Path:
        table = plants.drop(columns=["red_edge_nm", "green"]).assign(**changes)
        path = tmp_path / "traits.csv"
        table.drop(columns=[k for k, v in changes.items() if v is None]).to_csv(path, index=False)
        return path

    return write


CHLOROPHYLL = "chlorophyll (ug cm-2)"


def test_embeddings_spectra_and_indices_stand_side_by_side(
    folder: Path, traits: Callable[..., Path], plants: pd.DataFrame, tmp_path: Path
) -> None:
    table = traits(cube=[f"raw/{name}.raw.hdr" for name in plants["cube"]])
    result = probe(folder / "e", table, out=tmp_path / "out")
    scores = pd.read_csv(tmp_path / "out" / "scores.csv", keep_default_na=False)
    pd.testing.assert_frame_equal(scores, result.scores, check_dtype=False)
    assert (scores["synthetic"] == 1).all() and len(scores) == 2 * (1 + 3 * 2 + 1)
    by_case = scores.set_index(["trait", "features", "regressor"])
    assert by_case.loc[(CHLOROPHYLL, "none", "training mean"), "r2"] < 0
    for kind in ("embedding", "mean spectrum", "indices"):
        for regressor in ("ridge", "pls"):
            found = by_case.loc[(CHLOROPHYLL, kind, regressor)]
            assert found["r2"] > 0.8 and found["units"] == "ug cm-2", (kind, regressor)
            assert found["groups"] == found["rows"] == 40
            assert by_case.loc[("luck", kind, regressor), "r2"] < 0.15
    predictions = pd.read_csv(tmp_path / "out" / "predictions.csv")
    for (kind, regressor), rows in predictions[predictions["trait"] == CHLOROPHYLL].groupby(
        ["features", "regressor"]
    ):
        np.testing.assert_allclose(rows["measured"], plants[CHLOROPHYLL])
        assert list(rows["cube"]) == list(plants["cube"])
        again = r2_score(rows["measured"].to_numpy(), rows["predicted"].to_numpy())
        assert again == pytest.approx(by_case.loc[(CHLOROPHYLL, kind, regressor), "r2"])
    with Image.open(tmp_path / "out" / f"predicted_{CHLOROPHYLL}.png") as picture:
        assert picture.info["Copyright"] == ATTRIBUTION and picture.width > 900
    repeated = probe(folder / "e", table, out=tmp_path / "again")
    pd.testing.assert_frame_equal(repeated.scores, result.scores)


def test_rows_of_whole_images_take_the_mean_of_their_plants(
    folder: Path, traits: Callable[..., Path], plants: pd.DataFrame, tmp_path: Path
) -> None:
    by_image = plants.groupby("cube", sort=False)[[CHLOROPHYLL]].mean().reset_index()
    path = tmp_path / "images.csv"
    by_image.to_csv(path, index=False)
    result = probe(folder / "e", path, out=tmp_path / "out")
    assert (result.scores["rows"] == 20).all() and (result.scores["r2"].iloc[1:] > 0.6).all()
    assert "plant" not in pd.read_csv(tmp_path / "out" / "predictions.csv").columns


def test_grouping_by_a_column_of_the_store_or_of_the_table(
    folder: Path, traits: Callable[..., Path], plants: pd.DataFrame, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"traits": ["luck"], "folds": 3, "overwrite": True}
    by_store = probe(folder / "e", traits(), group="genotype", out=tmp_path / "o", **options)
    assert (by_store.scores["groups"] == 7).all()
    predictions = pd.read_csv(tmp_path / "o" / "predictions.csv")
    assert (predictions.groupby("group")["fold"].nunique() == 1).all()
    table = traits(block=[f"b{n // 4}" for n in range(40)])
    by_table = probe(folder / "e", table, group="block", out=tmp_path / "o", **options)
    assert (by_table.scores["groups"] == 10).all()
    with pytest.raises(ValueError, match="a column 'plot' to group by"):
        probe(folder / "e", table, group="plot", out=tmp_path / "o", **options)


def test_what_is_left_out_is_said(
    folder: Path, traits: Callable[..., Path], plants: pd.DataFrame, tmp_path: Path
) -> None:
    luck = plants["luck"].where(plants.index > 2)
    path = traits(luck=luck, year=2026, note="n/a, cloudy", N=[np.inf, *range(39)])
    table = pd.read_csv(path).iloc[:-1]
    table.loc[len(table)] = table.loc[5]
    table.loc[len(table)] = {**table.loc[0], "cube": "elsewhere"}
    table.to_csv(path, index=True)  # whose column of numbers without a name is no trait
    with pytest.warns(UserWarning) as said:
        result = probe(folder / "e", path, out=tmp_path / "out")
    text = " ".join(str(one.message) for one in said)
    assert "rows of no known plant: elsewhere plant 1." in text
    assert "lacks plants, which are left out: c19 plant 2." in text
    assert "luck: 3 rows without a value are left out" in text
    assert "has several rows of one plant, each of which counts: c2 plant 2." in text
    assert "holds 'inf' in the column 'N', which is left out as no numbers" in text
    assert "'year' cannot be scored: it is 2026 everywhere" in text
    assert set(result.scores["trait"]) == {CHLOROPHYLL, "luck"}
    assert list(result.scores.groupby("trait", sort=False)["rows"].first()) == [40, 37]


def test_without_the_store_the_embeddings_are_scored_alone(
    folder: Path, traits: Callable[..., Path], plants: pd.DataFrame, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    patches = plants[["cube", "plant"]].assign(y=2.0, x=2.0)
    write_embeddings(
        moved, patches, np.random.default_rng(0).normal(size=(40, 2)),
        table=pd.DataFrame(index=pd.Index(plants["cube"].unique(), name="cube")),
        attrs={"attribution": "", "simulated": 0, "store": "gone.zarr"},
    )  # fmt: skip
    with pytest.warns(UserWarning, match="store_path"):
        alone = probe(moved, traits(), traits=["luck"])
    assert set(alone.scores["features"]) == {"none", "embedding"}
    assert alone.folder == tmp_path / "moved_probe" and "synthetic" not in alone.scores
    beside = probe(
        moved, traits(), traits=["luck"], store_path=folder / "s.zarr", out=tmp_path / "beside"
    )
    assert set(beside.scores["features"]) == {"none", "embedding", "mean spectrum", "indices"}


def test_standardised_spectra_are_refused_as_features(
    folder: Path, traits: Callable[..., Path], plants: pd.DataFrame, tmp_path: Path
) -> None:
    images = pairs_of_leaves(plants, np.random.default_rng(1))
    quantity = "standard normal variate of reflectance"
    store = write_store(tmp_path / "s.zarr", images, quantity=quantity)
    for source, beside in ((store, None), (folder / "e", store)):
        with pytest.raises(ValueError, match="holds the standard normal variate of reflectance, "):
            probe(source, traits(), store_path=beside, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "options", "why"),
    [
        ({}, {"folds": 2}, "folds is 2: it must be at least 3"),
        ({}, {"seed": -1}, "seed is -1: it must be at least 0"),
        ({}, {"traits": ["lucky"]}, "no trait 'lucky': did you mean 'luck'?"),
        ({"luck": 1.0}, {"traits": ["luck"]}, "'luck' cannot be scored: it is 1 everywhere"),
        (
            {"luck": 3 + 1e-14 * np.arange(40)},
            {"traits": ["luck"]},
            "'luck' cannot be scored: it is 3 everywhere",
        ),
        ({"luck": ["<1"] * 40}, {"traits": ["luck"]}, "holds '<1' in the trait 'luck'"),
        ({}, {"folds": 25}, "there are 40 plants (or groups), but 25 folds need 50"),
        ({"cube": None}, {}, "where `cube` or `file` (the image's file name) is needed"),
        ({"cube": "elsewhere"}, {}, "its first is elsewhere plant 1, and theirs is c0 plant 1"),
        ({"plant": "x"}, {}, "names a plant 'x'"),
        ({"luck": None, CHLOROPHYLL: None}, {}, "no column of numbers"),
    ],
)
def test_tables_that_cannot_be_scored_are_refused_before_anything_is_written(
    changes: dict[str, Any], options: dict[str, Any], why: str,
    folder: Path, traits: Callable[..., Path], tmp_path: Path,
) -> None:  # fmt: skip
    path = traits(**changes)
    with pytest.raises(ValueError) as refused:
        probe(folder / "e", path, out=tmp_path / "out", **options)
    assert why in str(refused.value)
    assert [found.name for found in tmp_path.iterdir()] == ["traits.csv"]
