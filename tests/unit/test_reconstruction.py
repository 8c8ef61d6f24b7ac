"""Reconstructions: what the model may see, how it is scored, and what is written of it."""

import hashlib
import html
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import plant_stores
import pytest

from sciml_dchag.config import from_mapping
from sciml_dchag.objectives.masked import MaskedObjective
from sciml_dchag.pipeline import train
from sciml_dchag.plants.masked.config import MaskedRecipe
from sciml_dchag.plants.masked.embed import embed
from sciml_dchag.plants.masked.evaluate import evaluate
from sciml_dchag.plants.masked.metrics import METRICS, Sums
from sciml_dchag.plants.masked.reconstruct import reconstruct_store
from sciml_dchag.plants.masked.reconstructor import Reconstructor
from sciml_dchag.plants.masked.scores import (
    KEYS,
    MODELS,
    fit_components,
    score_images,
    spectral_angle,
)
from sciml_dchag.plants.store.cubes import CubeStore
from sciml_dchag.plants.traits.embeddings import read_embeddings
from sciml_dchag.plants.traits.plant_source import open_source
from sciml_dchag.plants.traits.trait_models import apply_models, fit_model, write_models
from sciml_dchag.training.evaluation import Evaluation
from sciml_dchag.training.export import export

NM = np.arange(450.0, 901.0, 30.0)


def make_store(path: Path, nm: np.ndarray = NM, seed: int = 0) -> Path:
    """Three images of 20 x 40 pixels with two plants each; the last is for testing."""
    edges = pd.DataFrame({"red_edge_nm": [705.0, 725.0], "green": 0.1, "plateau": [0.4, 0.6]})
    names = ("one", "two", "three")
    cubes = {name: plant_stores.scene(edges, nm, seed + i) for i, name in enumerate(names)}
    table = {"split": ["train", "train", "test"]}
    return plant_stores.write_store(path, cubes, nm, table)


def train_on(store: Path, run: Path, **model: object) -> Path:
    settings = {"embed_dim": 16, "depth": 1, "heads": 2, "patch": 4, "partitions": 2,
                "decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2, **model}  # fmt: skip
    recipe = {
        "name": run.name,
        "task": {"kind": "masked"},
        "data": {"store": str(store), "image_size": [16, 16]},
        "model": settings,
        "training": {"steps": 3, "batch": 2, "warmup_steps": 1, "log_every": 1},
    }
    train(from_mapping(MaskedRecipe, recipe), run)
    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reconstruction")
    train_on(make_store(folder / "plants.zarr"), folder / "run")
    return folder


@pytest.fixture
def model(folder: Path) -> Reconstructor:
    return Reconstructor(folder / "run", CubeStore.open(folder / "plants.zarr"))


@pytest.mark.parametrize(
    ("mask_ratio", "channel_mask_ratio", "groups"), [(0.75, 0.0, 0), (0.6, 0.5, 4), (0.0, 0.3, 5)]
)
def test_passes_hide_everything_at_least_once(
    mask_ratio: float, channel_mask_ratio: float, groups: int
) -> None:
    task = MaskedObjective(
        seed=0, image_size=(12, 20), patch=4, channels=11, mask_ratio=mask_ratio,
        channel_mask_ratio=channel_mask_ratio, channel_groups=groups,
    )  # fmt: skip
    visible, hidden = task.complementary(3)
    assert task.hidden_pixels(visible, hidden).any(0).all()
    for seen in visible:
        assert len(seen.unique()) == task.visible
    if channel_mask_ratio == 0:  # every location is shown in some pass too
        assert set(visible.flatten().tolist()) == set(range(15))
    assert visible.tolist() == task.complementary(3)[0].tolist()
    assert mask_ratio == 0 or visible.tolist() != task.complementary(4)[0].tolist()


def test_a_pixel_is_reconstructed_without_being_seen(model: Reconstructor) -> None:
    crop = model.store.reflectance("three", rows=slice(0, 16), columns=slice(0, 16))
    changed = crop.copy()
    changed[:, 4:8, 8:12] += 0.3  # one location
    for before, after in zip(
        model.reconstruct(crop, 0), model.reconstruct(changed, 0), strict=True
    ):
        same = np.array_equal(before.predicted[:, 4:8, 8:12], after.predicted[:, 4:8, 8:12])
        assert same == bool(before.hidden[0, 5, 9])


def test_scores_are_those_worked_out_pixel_by_pixel(model: Reconstructor) -> None:
    scorer = score_images(model, ["three"], components=2, batch=3)
    rows = scorer.table().set_index(list(KEYS))
    store, squares, guesses = model.store, [], []
    training = np.concatenate(
        [store.reflectance(n)[:, store.plants(n) > 0] for n in ("one", "two")], axis=1
    ).astype(float)
    _, _, vectors = np.linalg.svd((training - training.mean(1, keepdims=True)).T)
    for index, tile in enumerate(model.tiles("three")):
        truth = store.reflectance("three", rows=tile.rows, columns=tile.columns)
        counts = tile.new & (store.plants("three", tile.rows, tile.columns) > 0)
        for one in model.reconstruct(truth, index):
            where = counts & one.hidden[0]
            squares.append((one.predicted - truth)[:, where].astype(float) ** 2)
            centred = truth[:, where].T - training.mean(1)
            code = centred @ vectors[:2].T @ vectors[:2]
            guesses.append((centred - code).T ** 2)
    error = np.concatenate(squares, axis=1)
    assert rows.loc[("mse_masked", "all"), "model"] == pytest.approx(error.mean(), rel=1e-6)
    for place, nm in enumerate(NM):
        found = rows.loc[("mse_masked", f"{nm:g}"), "model"]
        assert found == pytest.approx(error[place].mean(), rel=1e-6)
    pca = np.concatenate(guesses, axis=1).mean()
    assert rows.loc[("mse_masked", "all"), "pca"] == pytest.approx(pca, rel=1e-5)
    weights = scorer.weights
    assert (weights["masked"] == 3 * weights["visible"]).all()  # 75 % of the locations


def test_baselines_know_the_training_images_alone(model: Reconstructor) -> None:
    store = model.store
    everything = fit_components(store, ("one", "two"), len(NM))
    spectra = store.reflectance("three")[:, store.plants("three") > 0].T.astype(float)
    np.testing.assert_allclose(everything.reconstruct(spectra), spectra, atol=1e-10)
    pixels = np.concatenate(
        [store.reflectance(n)[:, store.plants(n) > 0].T for n in ("one", "two")]
    ).astype(float)
    np.testing.assert_allclose(everything.mean, pixels.mean(0), atol=1e-9)
    np.testing.assert_allclose(model.mean, pixels.mean(0), atol=1e-6)
    few = fit_components(store, ("one", "two"), 3).components
    np.testing.assert_allclose(few @ few.T, np.eye(3), atol=1e-10)


def test_the_spectral_angle_does_not_depend_on_brightness() -> None:
    one = np.array([[1.0, 0.0], [1.0, 1.0], [0.2, 0.1]])
    other = np.array([[0.0, 2.0], [3.0, 3.0], [0.2, 0.1]])
    np.testing.assert_allclose(spectral_angle(one, other), [90, 0, 0], atol=1e-5)


def test_an_evaluation_is_a_table_to_the_last_digit_and_a_page(
    folder: Path, model: Reconstructor
) -> None:
    run = folder / "run"
    written = evaluate(run, model.recipe)
    read = Evaluation.read(run)
    assert list(read.table.columns) == [*KEYS, "units", "perfect", *MODELS]
    assert set(read.table["wavelength_nm"]) == {"all", *(f"{nm:g}" for nm in NM)}
    pd.testing.assert_frame_equal(read.table, written.table, check_exact=True, check_dtype=False)
    about = read.table.drop_duplicates("metric").set_index("metric")
    assert about["perfect"].to_dict() == {
        name: 1.0 if name == "r2_masked" else 0.0 for name in read.labels
    }
    assert about.loc["spectral_angle_degrees", "units"] == "degrees"
    assert about.loc["mse_masked", "units"] == ""
    assert not any(name.startswith("rmse_") for name in about.index)  # the bands reach none
    page = (run / "evaluation" / "report.html").read_text(encoding="utf-8")
    for name in about.index:
        assert f"<code>{name}</code>" in page
    assert page.count("data:image/png;base64,") == 4
    for words in (
        html.escape(read.summary),
        "Provenance",
        "Settings",
        "Mean spectrum",
        "Training images",
    ):
        assert words in page
    record = Path(model.path) / "checkpoint.json"
    assert hashlib.sha256(record.read_bytes()).hexdigest() in page


def test_coefficient_of_determination(model: Reconstructor) -> None:
    """1 - sum of squared errors / sum of squared deviations."""
    scorer = score_images(model, ["three"], components=2)
    table = scorer.table().set_index(list(KEYS))
    squares = scorer.errors["model"].squares["masked"]
    spread = scorer.truth[1] - scorer.truth[0] ** 2 / scorer.weights["masked"]
    assert table.loc[("r2_masked", "all"), "model"] == 1 - squares.sum() / spread.sum()
    assert table.loc[("r2_masked", "450"), "model"] == 1 - squares[0] / spread[0]


def test_the_error_of_an_index_is_a_root_mean_square() -> None:
    nothing = np.zeros(2)
    parts = dict.fromkeys(("masked", "visible", "all"), nothing)
    sums = Sums(
        squares=parts, weights=parts, variance=nothing + 1, spread=nothing, angle=30.0, pixels=4,
        index_squares={"NDVI": 0.36, "REP": 0.0}, index_pixels={"NDVI": 4, "REP": 0},
    )  # fmt: skip
    assert METRICS["rmse_NDVI"].overall(sums) == pytest.approx(0.3)
    assert METRICS["spectral_angle_degrees"].overall(sums) == 7.5
    assert np.isnan(METRICS["rmse_REP"].overall(sums))  # counted nowhere
    assert np.isnan(METRICS["mse_masked"].of_band(sums, 1))


def test_crops_cover_an_image_and_count_each_pixel_once(model: Reconstructor) -> None:
    covered = np.zeros((20, 40), int)
    for tile in model.tiles("three"):
        covered[tile.rows, tile.columns] += tile.new
    assert (covered == 1).all()


def test_reconstructions_are_a_store_and_envi_files(
    folder: Path, model: Reconstructor, tmp_path: Path
) -> None:
    import spectral

    path = reconstruct_store(folder / "run", folder / "plants.zarr", tmp_path)
    written, store = CubeStore.open(path), model.store
    assert written.table.equals(store.table)
    assert written.attrs["quantity"] == "reconstructed reflectance"
    crop = next(tile for tile in model.tiles("three"))
    passes = list(
        model.reconstruct(store.reflectance("three", rows=crop.rows, columns=crop.columns), 0)
    )
    mean = sum(np.where(p.hidden, p.predicted, 0.0) for p in passes) / sum(
        p.hidden.astype(float) for p in passes
    )
    # Later crops take over where they overlap: what the first crop has alone is compared.
    np.testing.assert_allclose(
        written.reflectance("three")[:, :4, :16], mean[:, :4, :16], rtol=1e-5, atol=1e-6
    )
    for name in store.names:
        image = spectral.open_image(str(tmp_path / "envi" / f"{name}.hdr"))
        np.testing.assert_allclose(image.bands.centers, NM)
        bands_last = np.asarray(image.load())
        np.testing.assert_array_equal(
            bands_last.transpose(2, 0, 1), written.reflectance(name).astype(np.float32)
        )
        assert "SYNTHETIC" in (tmp_path / "envi" / f"{name}.hdr").read_text()


def test_interrupted_reconstructions_go_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    tiles = Reconstructor.tiles
    whole = Reconstructor.reconstruct

    def stopping(self: Reconstructor, *arguments: object, **options: object) -> object:
        if len(done) == 9:  # in the second image, of six crops each
            raise InterruptedError
        done.append("crop")
        return whole(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Reconstructor, "reconstruct", stopping)
    with pytest.raises(InterruptedError):
        reconstruct_store(folder / "run", folder / "plants.zarr", tmp_path)
    assert not (tmp_path / "plants.zarr").exists()
    assert [p.name for p in sorted((tmp_path / "envi").glob("*.img"))] == ["one.img"]
    done[:] = ["another"] * 20
    path = reconstruct_store(folder / "run", folder / "plants.zarr", tmp_path)
    assert len(done) == 20 + 12  # the first image is not done again
    monkeypatch.setattr(Reconstructor, "tiles", tiles)
    assert np.isfinite(CubeStore.open(path).reflectance("one")).all()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        reconstruct_store(folder / "run", folder / "plants.zarr", tmp_path)


def test_embeddings_have_each_plant_patch_once(folder: Path, tmp_path: Path) -> None:
    embeddings = read_embeddings(embed(folder / "run", folder / "plants.zarr", tmp_path / "e"))
    patches = embeddings.patches
    assert not patches.duplicated(["cube", "y", "x"]).any()
    assert set(patches["plant"]) == {1, 2}
    assert len(embeddings.plants) == 6
    store = CubeStore.open(folder / "plants.zarr")
    for patch in patches.itertuples():
        top, left = int(patch.y - 1.5), int(patch.x - 1.5)  # of 4 x 4 pixels
        labels = store.plants(patch.cube, slice(top, top + 4), slice(left, left + 4))
        assert (labels == patch.plant).sum() > 8


def test_plants_without_an_embedding_are_named(folder: Path, tmp_path: Path) -> None:
    reflectance = np.random.default_rng(0).uniform(0.2, 0.4, (len(NM), 20, 40))
    small, none = np.zeros((20, 40), int), np.zeros((20, 40), int)
    small[0:8, 0:8], small[10:14, 18:22] = 1, 7  # over the corners of four patches
    images = {"small": (reflectance, small), "bare": (reflectance, none)}
    table = {"split": ["train", "train"]}
    store = plant_stores.write_store(tmp_path / "s.zarr", images, NM, table)
    with pytest.warns(UserWarning) as said:
        found = read_embeddings(embed(folder / "run", store, tmp_path / "e"))
    texts = [str(one.message) for one in said]
    assert [text for text in texts if text.startswith("No embedding")] == [
        "No embedding, as no patch of 4 x 4 pixels is mostly theirs: small plant 7, bare (no "
        "plant). Train with a smaller model.patch to have them."
    ]
    assert found.plants[["cube", "plant", "patches"]].to_numpy().tolist() == [["small", 1, 4]]


def test_embeddings_are_known_by_their_encoder_and_store(folder: Path, tmp_path: Path) -> None:
    """Checkpoints of two runs bear one name; a copy and an export are the same encoder."""
    store = tmp_path / "plants.zarr"
    shutil.copytree(folder / "plants.zarr", store)
    other = train_on(store, tmp_path / "other", depth=2)
    shutil.copytree(folder / "run", tmp_path / "copy")
    export(folder / "run", tmp_path / "model.safetensors")
    found = {
        name: read_embeddings(embed(path, store, tmp_path / f"e_{path.stem}"))
        for name, path in {"run": folder / "run", "other": other, "copy": tmp_path / "copy",
                           "export": tmp_path / "model.safetensors"}.items()
    }  # fmt: skip
    encoders = {name: one.attrs["encoder"] for name, one in found.items()}
    assert encoders["run"] == encoders["copy"] == encoders["export"] != encoders["other"]
    features = found["run"].plants.set_index(["cube", "plant"])[found["run"].features]
    fitted = fit_model(
        features, np.arange(6.0), np.arange(6), regressor="ridge", folds=3, seed=0, trait="LMA",
        units="", features="embedding", r2=0.5, rmse=1.0, half_width=1.0, encoder=encoders["run"],
    )  # fmt: skip
    write_models(tmp_path / "models.json", [fitted], open_source(found["run"].path))
    assert len(apply_models(tmp_path, found["copy"].path)) == 6
    with pytest.raises(ValueError, match=f"by another encoder .{encoders['run']}. than these"):
        apply_models(tmp_path, found["other"].path)
    shutil.rmtree(store)
    make_store(store, seed=5)
    with pytest.raises(ValueError, match=r"plants.zarr is not the store that .*e_run was made"):
        apply_models(tmp_path, found["run"].path)
    assert len(apply_models(tmp_path, found["run"].path, store_path=folder / "plants.zarr")) == 6


def test_a_model_of_reflectance_takes_no_standardised_spectra(folder: Path, tmp_path: Path) -> None:
    edges = pd.DataFrame({"red_edge_nm": [705.0, 725.0], "green": 0.1, "plateau": [0.4, 0.6]})
    snv = "standard normal variate of reflectance"
    cubes = {"one": plant_stores.scene(edges, NM, 0)}
    store = plant_stores.write_store(tmp_path / "snv.zarr", cubes, NM, quantity=snv)
    with pytest.raises(ValueError, match=f"was trained on reflectance, and .* holds the {snv}"):
        embed(folder / "run", store, tmp_path / "e")
    run = train_on(store, tmp_path / "of_snv")
    with pytest.raises(ValueError, match=f"was trained on {snv}, and .* holds the reflectance"):
        reconstruct_store(run, folder / "plants.zarr", tmp_path / "r")
    assert not (tmp_path / "e").exists() and not (tmp_path / "r").exists()


def test_a_model_by_index_bears_missing_bands(folder: Path, tmp_path: Path) -> None:
    path = make_store(tmp_path / "half.zarr", NM[::2])
    model = Reconstructor(folder / "run", CubeStore.open(path))
    scorer = score_images(model, ["three"], components=2)
    assert len(scorer.wavelength_nm) == len(NM[::2])
    assert np.isfinite(scorer.table()["model"][0])
    other = make_store(tmp_path / "other.zarr", NM[:-1] + 10)
    with pytest.raises(ValueError, match=r"r460.0, which is none of them: prepare the store"):
        Reconstructor(folder / "run", CubeStore.open(other))


@pytest.mark.parametrize("aggregation", ["dchag-c", "single"])
def test_a_model_by_wavelength_takes_another_camera(aggregation: str, tmp_path: Path) -> None:
    path = make_store(tmp_path / "plants.zarr")
    run = train_on(path, tmp_path / "run", channel_embedding="wavelength", aggregation=aggregation)
    same = Reconstructor(run, CubeStore.open(path))
    half = Reconstructor(run, CubeStore.open(make_store(tmp_path / "half.zarr", NM[::2])))
    between = make_store(tmp_path / "between.zarr", NM[:-1] + 15)
    np.testing.assert_allclose(half.mean, same.mean[::2])
    for model in (half, Reconstructor(run, CubeStore.open(between))):
        scorer = score_images(model, ["three"], components=2)
        assert np.isfinite(scorer.table()["model"][0])
    outside = make_store(tmp_path / "outside.zarr", NM + 60)
    with pytest.raises(ValueError, match="trained on 450 to 900 nm"):
        Reconstructor(run, CubeStore.open(outside))


def test_a_forecaster_does_not_reconstruct(folder: Path, tmp_path: Path) -> None:
    record = next((folder / "run" / "checkpoints").glob("step-*")) / "checkpoint.json"
    content = json.loads(record.read_text())
    content["recipe"]["task"]["kind"] = "forecast"
    (tmp_path / "checkpoint.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="no masked autoencoder's"):
        Reconstructor(tmp_path, CubeStore.open(folder / "plants.zarr"))
