"""Fitted regressions of traits: kept, read again, applied to plants that were never measured."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from plant_stores import WAVELENGTH_NM, pairs_of_leaves, write_store
from sklearn.cross_decomposition import PLSRegression

from sciml_dchag.inspecting import describe
from sciml_dchag.laws.two_band import fit_two_band
from sciml_dchag.plants.store.cubes import CubeStore
from sciml_dchag.plants.traits.nested_regression import fit_linear, predict_out_of_fold, r2_score
from sciml_dchag.plants.traits.plant_means import plant_spectra
from sciml_dchag.plants.traits.plant_source import open_source
from sciml_dchag.plants.traits.probe import probe
from sciml_dchag.plants.traits.trait_models import apply_models, half_width, read_models

CHLOROPHYLL = "chlorophyll (ug cm-2)"


def plants_of(folder: Path, seed: int, count: int = 20) -> tuple[Path, pd.DataFrame]:
    """A store of images of two plants, and their chlorophyll, which the red edge shows."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {"cube": np.repeat([f"c{n}" for n in range(count)], 2), "plant": [1, 2] * count,
         "red_edge_nm": rng.uniform(705, 725, 2 * count), "green": rng.uniform(0.05, 0.15, 2 * count)}
    )  # fmt: skip
    table[CHLOROPHYLL] = 2 * (table["red_edge_nm"] - 690) + rng.normal(0, 2, 2 * count)
    return write_store(folder / f"s{seed}.zarr", pairs_of_leaves(table, rng)), table


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store and what was probed of it, without any embedding."""
    folder = tmp_path_factory.mktemp("models")
    store, table = plants_of(folder, 0)
    table.drop(columns=["red_edge_nm", "green"]).to_csv(folder / "traits.csv", index=False)
    result = probe(store, folder / "traits.csv", out=folder / "probed")
    assert set(result.scores["features"]) == {"none", "mean spectrum", "indices"}
    told = describe(str(result.folder))
    assert told["traits"] == [CHLOROPHYLL] and len(told["regressions"]) == 2
    return folder


def test_new_plants_are_predicted_within_the_interval(probed: Path, tmp_path: Path) -> None:
    store, truth = plants_of(tmp_path, 7, count=40)
    found = apply_models(probed / "probed", store)
    assert list(found.columns) == [
        "cube", "plant", CHLOROPHYLL,
        *(f"{CHLOROPHYLL} {what}" for what in ("low", "high", "outside"))
    ]  # fmt: skip
    both = found.merge(truth, on=["cube", "plant"], suffixes=("", " measured"))
    measured = both[f"{CHLOROPHYLL} measured"]
    assert len(both) == 80
    assert r2_score(measured.to_numpy(), both[CHLOROPHYLL].to_numpy()) > 0.9
    within = (measured > both[f"{CHLOROPHYLL} low"]) & (measured < both[f"{CHLOROPHYLL} high"])
    assert 0.8 < within.mean() <= 1.0  # 90 % are promised, of 80 plants
    assert both[f"{CHLOROPHYLL} outside"].max() < 0.5
    spectra = pd.read_csv(probed / "probed" / "mean_spectra.csv")
    pd.testing.assert_frame_equal(
        spectra, plant_spectra(CubeStore.open(probed / "s0.zarr")).drop(columns="pixels")
    )


def test_plants_unlike_those_measured_are_said(probed: Path, tmp_path: Path) -> None:
    image = np.random.default_rng(0).uniform(0.88, 0.92, (len(WAVELENGTH_NM), 6, 12))
    odd = write_store(tmp_path / "odd.zarr", {"white": (image, np.ones((6, 12), int))})
    said = apply_models(probed / "probed", odd)[f"{CHLOROPHYLL} outside"].item()
    those_measured = apply_models(probed / "probed", probed / "s0.zarr")[f"{CHLOROPHYLL} outside"]
    assert said > 0.3 and (those_measured == 0).all()


def test_plants_of_unknown_bands_are_named_and_not_predicted(probed: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = rng.uniform(0.1, 0.5, (len(WAVELENGTH_NM), 6, 12))
    image[:, :, 6:][10:] = np.nan
    plants = np.where(np.arange(12) < 6, 1, 2) * np.ones((6, 1), int)
    odd = write_store(tmp_path / "odd.zarr", {"x": (image, plants)})
    with pytest.warns(UserWarning, match=r"\) of x plant 2 is not predicted, as some of the"):
        found = apply_models(probed / "probed", odd).drop(columns=["cube", "plant"])
    assert np.isfinite(found.iloc[0]).all() and found.iloc[1].isna().all()


def test_kept_models_are_the_regressions_on_all_rows(probed: Path) -> None:
    models = {model.features: model for model in read_models(probed / "probed")}
    assert set(models) == {"mean spectrum", "indices"}
    source = open_source(probed / "s0.zarr")
    features = source.features([f"c{n}" for n in range(20)])
    scores = pd.read_csv(probed / "probed" / "scores.csv").set_index(["features", "regressor"])
    predictions = pd.read_csv(probed / "probed" / "predictions.csv")
    coefficients = pd.read_csv(probed / "probed" / "coefficients.csv")
    for kind, model in models.items():
        assert model.r2 == pytest.approx(scores.loc[kind]["r2"].max())
        predicted = model.predict(features[kind][model.names].to_numpy())
        measured = pd.read_csv(probed / "traits.csv")[CHLOROPHYLL].to_numpy()
        assert r2_score(measured, predicted) > model.r2  # fitted on them
        rows = predictions[
            (predictions["features"] == kind) & (predictions["regressor"] == model.regressor)
        ]
        errors = np.sort((rows["measured"] - rows["predicted"]).abs())
        assert model.half_width == pytest.approx(errors[int(np.ceil(41 * 0.9)) - 1])
        assert list(coefficients[coefficients["features"] == kind]["feature"]) == model.names
    of_bands = coefficients[coefficients["features"] == "mean spectrum"]["wavelength_nm"]
    assert of_bands.notna().all()


@pytest.mark.parametrize("regressor", ["ridge", "pls"])
def test_coefficients_are_in_the_units_of_features_and_trait(regressor: str) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(3, [1.0, 10.0, 0.1], (200, 3))
    y = 5 + X @ [2.0, -0.3, 40.0] + rng.normal(0, 1e-3, 200)
    fit = fit_linear(X, y, np.arange(200), regressor=regressor)
    np.testing.assert_allclose(fit.coefficients, [2.0, -0.3, 40.0], rtol=1e-2)
    assert fit.intercept == pytest.approx(5, abs=0.1)


def test_importance_is_that_of_its_definition() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 6))
    y = 3 * X[:, 1] + rng.normal(0, 0.5, 100)
    fit = fit_linear(X, y, np.arange(100), regressor="pls")
    assert fit.importance is not None
    pls = PLSRegression(n_components=int(fit.chosen)).fit(X, y)
    explained = [float((pls.x_scores_[:, k] ** 2).sum() * pls.y_loadings_[0, k] ** 2)
                 for k in range(int(fit.chosen))]  # fmt: skip
    for j in range(6):
        share = sum(
            s * (pls.x_weights_[j, k] / np.linalg.norm(pls.x_weights_[:, k])) ** 2
            for k, s in enumerate(explained)
        )
        assert fit.importance[j] == pytest.approx(np.sqrt(6 * share / sum(explained)), rel=1e-6)
    assert (fit.importance**2).mean() == pytest.approx(1)  # so that 1 is the average
    assert fit.importance.argmax() == 1


def test_the_two_bands_that_made_a_trait_are_found() -> None:
    rng = np.random.default_rng(0)
    X = rng.uniform(0.05, 0.6, (120, 40))
    index = (X[:, 11] - X[:, 29]) / (X[:, 11] + X[:, 29])
    found = fit_two_band(X, 4 - 3 * index)
    assert (found.first, found.second) == (11, 29)
    assert (found.slope, found.intercept) == pytest.approx((-3, 4))
    np.testing.assert_allclose(found.predict(X), 4 - 3 * index)
    luck = predict_out_of_fold(X, rng.normal(size=120), np.arange(120), regressor="two-band")
    assert r2_score(rng.normal(size=120), luck.predicted) < 0.1  # chosen within the folds
    flat = fit_two_band(np.zeros((5, 3)), np.arange(5.0))
    np.testing.assert_allclose(flat.predict(np.zeros((5, 3))), 2.0)


def test_an_interval_covers_what_it_says() -> None:
    rng = np.random.default_rng(0)
    widths = [half_width(np.abs(rng.normal(size=99))) for _ in range(200)]
    new = np.abs(rng.normal(size=(200, 500)))
    assert (new <= np.array(widths)[:, None]).mean() == pytest.approx(0.9, abs=0.01)
    assert half_width(np.ones(5)) == np.inf  # too few to say


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda record: record.update(format="x"), "its format is 'x'"),
        (lambda record: record.pop("models"), "is no file of fitted models"),
        (
            lambda record: record["models"][0]["coefficients"].append(1.0),
            "does not fit its features",
        ),
        (lambda record: record["models"][0].pop("names"), "is no file of fitted models"),
    ],
)
def test_damaged_models_are_refused(change: Any, why: str, probed: Path, tmp_path: Path) -> None:
    record = json.loads((probed / "probed" / "models.json").read_text())
    change(record)
    (tmp_path / "models.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=why):
        read_models(tmp_path)


def test_plants_of_other_bands_and_unknown_traits_are_refused(probed: Path, tmp_path: Path) -> None:
    record = json.loads((probed / "probed" / "models.json").read_text())
    for model in record["models"]:
        model["names"] = [f"{name}9" for name in model["names"]]
    (tmp_path / "models.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="prepare the images with the bands"):
        apply_models(tmp_path, probed / "s0.zarr")
    with pytest.raises(ValueError, match="has no model of 'height'"):
        apply_models(probed / "probed", probed / "s0.zarr", traits=["height"])
