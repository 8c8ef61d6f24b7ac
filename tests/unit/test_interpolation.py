"""Hidden pixels from the visible ones around them: the weights, and what a model starts from."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import plant_stores
import pytest
import torch

from sciml_dchag.config import from_mapping
from sciml_dchag.objectives import interpolation as core
from sciml_dchag.objectives.interpolation import (
    KERNELS,
    GaussianProcess,
    Interpolation,
    InterpolationErrors,
    InverseDistance,
    interpolation,
)
from sciml_dchag.pipeline import train
from sciml_dchag.plants.masked.config import MaskedRecipe
from sciml_dchag.plants.masked.evaluate import evaluate
from sciml_dchag.plants.masked.reconstructor import Reconstructor
from sciml_dchag.plants.store.cubes import CubeStore
from sciml_dchag.training.checkpoint import find_checkpoint, read_checkpoint
from sciml_dchag.training.export import export

NM = np.arange(450.0, 901.0, 30.0)
RANDOM = np.random.default_rng(0)
VISIBLE = RANDOM.random((9, 11)) < 0.3
IMAGE = RANDOM.normal(size=(3, 9, 11)).astype(np.float32)
SHOWN = torch.from_numpy(VISIBLE)[None]
NOTHING_HIDDEN = torch.zeros(1, 3, dtype=torch.bool)


def filled(kernel: core.Kernel, image: np.ndarray = IMAGE) -> np.ndarray:
    one = Interpolation((kernel,), np.zeros(3, np.int64))
    return one(torch.from_numpy(image)[None], SHOWN, NOTHING_HIDDEN)[0].numpy()


def places(where: np.ndarray) -> np.ndarray:
    return np.argwhere(where).astype(float)


@pytest.mark.parametrize("name", ["gaussian", "matern"])
def test_a_gaussian_process_is_that_of_scikit_learn(name: str) -> None:
    from sklearn.gaussian_process import GaussianProcessRegressor, kernels

    theirs = {"gaussian": kernels.RBF(2.5), "matern": kernels.Matern(2.5, nu=1.5)}[name]
    model = GaussianProcessRegressor(theirs, alpha=0.05, optimizer=None)
    model.fit(places(VISIBLE), IMAGE[:, VISIBLE].T)
    expected = model.predict(places(~VISIBLE)).T
    ours = filled(GaussianProcess(name, reach=2.5, noise=0.05))  # type: ignore[arg-type]
    np.testing.assert_allclose(ours[:, ~VISIBLE], expected, atol=2e-6)
    np.testing.assert_array_equal(ours[:, VISIBLE], IMAGE[:, VISIBLE])


def test_inverse_distance() -> None:
    apart = np.linalg.norm(places(~VISIBLE)[:, None] - places(VISIBLE)[None], axis=-1)
    weights = apart**-2.0
    expected = IMAGE[:, VISIBLE] @ (weights / weights.sum(1, keepdims=True)).T
    np.testing.assert_allclose(filled(InverseDistance())[:, ~VISIBLE], expected, atol=2e-6)


def test_what_is_hidden_is_not_looked_at() -> None:
    changed = np.where(VISIBLE, IMAGE, 1e6).astype(np.float32)
    kernel = GaussianProcess("matern", reach=4.0, noise=0.1)
    np.testing.assert_array_equal(filled(kernel, changed)[:, ~VISIBLE], filled(kernel)[:, ~VISIBLE])
    one = Interpolation((kernel,), np.zeros(3, np.int64))
    second = torch.tensor([[False, True, False]])
    found = one(torch.from_numpy(IMAGE)[None], SHOWN, second)[0].numpy()
    assert (found[1] == 0).all() and (found[0] == filled(kernel)[0]).all()


def test_the_nearest_of_many_pixels_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, columns = np.mgrid[:40, :40]
    smooth = np.sin(rows / 6) * np.cos(columns / 5)
    visible = np.random.default_rng(1).random((40, 40)) < 0.3
    image = torch.from_numpy(smooth.astype(np.float32))[None, None]
    kernel = GaussianProcess("gaussian", reach=5.0, noise=1e-3)
    one = Interpolation((kernel,), np.zeros(1, np.int64))
    arguments = (image, torch.from_numpy(visible)[None], torch.zeros(1, 1, dtype=torch.bool))
    exact = one(*arguments)
    monkeypatch.setattr(core, "FEW_PIXELS", 10)
    monkeypatch.setattr(core, "BLOCK", 100)
    near = one(*arguments)
    missed = (near - exact).abs().max()
    assert 0 < missed < 0.02  # the field goes from -1 to 1


def test_each_channel_gets_the_kernel_that_made_it() -> None:
    rows, columns = np.mgrid[:12, :12]
    at = np.stack([rows.ravel(), columns.ravel()], 1).astype(float)
    apart = torch.cdist(torch.from_numpy(at), torch.from_numpy(at))
    made = [GaussianProcess("gaussian", 4.0, 1e-3), GaussianProcess("matern", 4.0, 10.0)]
    roots = [torch.linalg.cholesky(kernel._at(apart) + 1e-6 * torch.eye(144)) for kernel in made]

    def sample(number: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        draws = torch.Generator().manual_seed(number)
        noise = torch.randn(2, 2, 144, generator=draws, dtype=torch.float64)
        fields = [
            root @ noise[0, i] + kernel.noise**0.5 * noise[1, i]
            for i, (root, kernel) in enumerate(zip(roots, made, strict=True))
        ]
        visible = torch.rand(12, 12, generator=draws) < 0.3
        return torch.stack(fields).view(2, 12, 12).float(), visible, torch.ones(12, 12)

    errors = InterpolationErrors.of(sample, 40)
    kernels, unit = errors.choose()
    smooth, noisy = (KERNELS[number] for number in kernels)
    assert smooth.covariance == "gaussian" and smooth.reach == 4.0 and smooth.noise <= 1e-2
    assert noisy.noise >= 1.0
    assert unit[0] < 0.3 and unit[1] == pytest.approx(11**0.5, rel=0.1)
    (one, other), _ = errors.choose(most=1)
    assert one == other


def test_few_kernels_are_used() -> None:
    errors = InterpolationErrors(1.0 + np.random.default_rng(0).random((60, 500)), np.ones(500))
    for most in (1, 2, 4):
        kernels, _ = errors.choose(most)
        assert len(set(kernels)) <= most
        assert len(interpolation(kernels).kernels) <= most


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start")
    plants = pd.DataFrame({"red_edge_nm": [705.0, 725.0], "green": 0.1, "plateau": [0.4, 0.6]})
    cubes = {name: plant_stores.scene(plants, NM, i) for i, name in enumerate("abc")}
    cubes["c"][0][3, 5, 7] = np.nan
    store = plant_stores.write_store(
        folder / "store.zarr", cubes, NM, {"split": ["train", "train", "test"]}
    )
    recipe = {
        "name": "run",
        "task": {"kind": "masked", "gaussian_process": True},
        "data": {"store": str(store), "image_size": [16, 16]},
        "model": {"embed_dim": 16, "depth": 1, "heads": 2, "patch": 1, "partitions": 2,
                  "decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2},
        "training": {"steps": 3, "batch": 2, "warmup_steps": 1, "log_every": 1},
    }  # fmt: skip
    train(from_mapping(MaskedRecipe, recipe), folder / "run")
    return folder / "run"


def test_a_model_of_nothing_gives_the_interpolation(run: Path) -> None:
    store = CubeStore.open(run.parent / "store.zarr")
    model = Reconstructor(run, store)
    for parameter in (model.model.head.weight, model.model.head.bias):
        torch.nn.init.zeros_(parameter)
    truth = store.reflectance("c")[:, :16, :16]
    alone = model.task.interpolation
    assert alone is not None and len(alone.kernels) <= core.MOST_KERNELS
    for one in model.reconstruct(truth, 0, beside={"start": alone}):
        np.testing.assert_allclose(one.predicted, one.interpolated["start"], atol=1e-6)
        shown = ~one.hidden & np.isfinite(truth)
        np.testing.assert_allclose(one.predicted[shown], truth[shown], atol=1e-6)


def test_the_model_starts_near_the_best_baseline_and_says_so(run: Path) -> None:
    recipe = from_mapping(MaskedRecipe, read_checkpoint(find_checkpoint(run)).recipe)
    evaluation = evaluate(run, recipe)
    scores = evaluation.table.query("wavelength_nm == 'all'").set_index("metric")
    row = scores.loc["mse_masked"]
    assert row["model"] < 1.05 * row["gaussian_process"] < row["mean_spectrum"]
    assert row["gaussian_process"] < row["inverse_distance"]
    assert "best baseline, a Gaussian process" in evaluation.summary


def test_an_exported_model_has_it_too(run: Path, tmp_path: Path) -> None:
    store = CubeStore.open(run.parent / "store.zarr")
    truth = store.reflectance("a")[:, :16, :16]
    file = export(run, tmp_path / "model.safetensors")
    here, there = (next(Reconstructor(m, store).reconstruct(truth, 0)) for m in (run, file))
    np.testing.assert_array_equal(here.predicted, there.predicted)


def test_kernels_are_those_of_the_nearest_bands() -> None:
    from sciml_dchag.plants.masked.reconstructor import _nearest

    @dataclasses.dataclass
    class Camera:
        wavelength_nm: np.ndarray

    camera = Camera(np.array([455.0, 500.0, 890.0]))
    assert _nearest(NM, camera).tolist() == [0, 2, 15]  # type: ignore[arg-type]
