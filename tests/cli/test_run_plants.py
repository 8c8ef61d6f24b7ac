"""The plant demonstration, a few steps long, from raw counts to reconstructions and embeddings."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import Result

from sciml_dchag.files.samples import recipe_path
from sciml_dchag.plants.masked.config import MaskedRecipe
from sciml_dchag.plants.store.cubes import CubeStore
from sciml_dchag.tasks import load_recipe
from sciml_dchag.training.evaluation import Evaluation

Call = Callable[..., Result]
Refused = Callable[[Result], str]

FEW_STEPS = {
    "model": {"embed_dim": 16, "depth": 1, "heads": 2, "decoder_dim": 16, "patch": 4},
    "training": {"steps": 3, "batch": 2, "warmup_steps": 1, "log_every": 1},
}


@pytest.fixture(scope="module")
def work(call: Call, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a short form of the demonstration has run."""
    folder = tmp_path_factory.mktemp("plants")
    recipe = yaml.safe_load(recipe_path("demo_plants").read_text())
    recipe["data"]["store"] = str(folder / "store.zarr")
    for section, changes in FEW_STEPS.items():
        recipe[section] = {**recipe[section], **changes}
    (folder / "plants.yaml").write_text(yaml.safe_dump({**recipe, "name": "plants"}))
    result = call("run", folder / "plants.yaml", "--runs", folder / "runs")
    assert result.exit_code == 0, result.output
    assert "which were assumed" in result.stderr
    (folder / "printed.txt").write_text(result.output)
    return folder


def test_a_run_leaves_what_others_rely_on(work: Path) -> None:
    run = work / "runs" / "plants"
    recipe = load_recipe(run / "recipe.yaml")
    assert isinstance(recipe, MaskedRecipe)
    assert recipe == load_recipe(work / "plants.yaml")
    table = pd.read_csv(run / "evaluation" / "scores.csv")
    baselines = ["gaussian_process", "inverse_distance", "mean_spectrum", "pca"]
    assert list(table.columns) == [
        "metric", "wavelength_nm", "units", "perfect", "model", *baselines,
    ]  # fmt: skip
    for metric in ("mse_masked", "mse_visible", "mse_all", "r2_masked"):
        assert (table["metric"] == metric).sum() == 1 + 500
    for metric in ("loss_masked", "spectral_angle_degrees", "rmse_NDVI", "rmse_PRI"):
        assert (table["metric"] == metric).sum() == 1
    names = {p.name for p in (run / "evaluation" / "figures").glob("*.png")}
    assert names == {
        "reconstructions.png", "spectra.png", "error_by_wavelength.png", "training.png",
    }  # fmt: skip
    page = (run / "evaluation" / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == len(names)
    for words in ("says nothing about other plants", "maize_kernel_b73.raw", "PlantCV", "blake2b",
                  "Provenance", "Settings", "Training loss", "Against Gaussian process"):  # fmt: skip
        assert words in page
    assert "<script" not in page and "http" not in page
    assert not list(work.rglob("*.partial*"))
    printed = (work / "printed.txt").read_text()
    assert "says nothing about other plants" in printed
    assert "PlantCV" in printed


def test_the_split_keeps_a_guard_band(work: Path) -> None:
    store = CubeStore.open(work / "store.zarr")
    (train,), (test,) = store.split("train"), store.split("test")
    assert store.statistics().cubes == (train,)
    assert store.size(train)[1] + 4 + store.size(test)[1] == 43


def test_finished_steps_are_skipped(call: Call, work: Path) -> None:
    result = call("run", work / "plants.yaml", "--runs", work / "runs")
    assert result.exit_code == 0
    for step in ("prepare", "train", "evaluate"):
        assert f"{step}: " in result.output
    assert result.output.count("is there") == 3


def test_a_run_is_evaluated_again(call: Call, work: Path) -> None:
    before = pd.read_csv(work / "runs" / "plants" / "evaluation" / "scores.csv")
    result = call("evaluate", work / "runs" / "plants")
    assert result.exit_code == 0, result.output
    assert "mse_masked" in result.output
    after = pd.read_csv(work / "runs" / "plants" / "evaluation" / "scores.csv")
    pd.testing.assert_frame_equal(before, after)


def test_runs_are_compared(call: Call, work: Path, tmp_path: Path, refused: Refused) -> None:
    run = work / "runs" / "plants"
    result = call("evaluate", run, "--against", run)
    assert result.exit_code == 0, result.output
    assert re.search(r"mse_masked .* \+0\.00 %", result.output)
    other = tmp_path / "other"
    (other / "evaluation").mkdir(parents=True)
    (other / "recipe.yaml").write_text((run / "recipe.yaml").read_text())
    assert "There are no scores in" in refused(call("evaluate", run, "--against", other))
    for name in ("scores.csv", "evaluation.json"):
        shutil.copy(run / "evaluation" / name, other / "evaluation")
    (other / "evaluation" / "scores.csv").write_text("metric,model\nmse,1\n")
    assert "no evaluation that can be read" in refused(call("evaluate", run, "--against", other))
    forecast = {"channel": ["msl"], "lead_hours": [6], "metric": ["rmse"], "units": ["Pa"],
                "perfect": [0.0], "model": [1.0], "persistence": [2.0]}  # fmt: skip
    Evaluation(
        folder=other / "evaluation", table=pd.DataFrame(forecast), reference="persistence",
        keys=("channel", "lead_hours", "metric"), summary="",
    ).write()  # fmt: skip
    assert "runs of different tasks" in refused(call("evaluate", run, "--against", other))


def test_reconstruct_embed_and_indices(call: Call, work: Path) -> None:
    run, store = work / "runs" / "plants", work / "store.zarr"
    result = call("reconstruct", run, store, work / "made")
    assert result.exit_code == 0, result.output
    assert np.isfinite(CubeStore.open(work / "made" / "store.zarr").reflectance(
        "maize_kernel_b73_test")).all()  # fmt: skip
    assert len(list((work / "made" / "envi").glob("*.img"))) == 2
    result = call("embed", run, store, "--out", work / "embeddings")
    assert result.exit_code == 0, result.output
    assert len(pd.read_parquet(work / "embeddings" / "plants.parquet")) == 2
    result = call("indices", store, "--out", work / "indices")
    assert result.exit_code == 0, result.output
    assert len(pd.read_csv(work / "indices" / "indices.csv")) == 2


def test_a_folder_of_stores_is_reconstructed_and_gone_on_with(
    call: Call, work: Path, tmp_path: Path
) -> None:
    (tmp_path / "stores").mkdir()
    for name in ("a.zarr", "b.zarr"):
        (tmp_path / "stores" / name).symlink_to(work / "store.zarr")
    run = work / "runs" / "plants"
    first = call("reconstruct", run, tmp_path / "stores", tmp_path / "made")
    assert first.exit_code == 0, first.output
    assert {p.name for p in (tmp_path / "made").iterdir()} == {"a.zarr", "b.zarr", "envi"}
    again = call("reconstruct", run, tmp_path / "stores", tmp_path / "made")
    assert again.exit_code == 0 and again.output.count("is there") == 2


def test_check_and_inspect_understand_plants(call: Call, work: Path, tmp_path: Path) -> None:
    result = call("check", work / "plants.yaml", "--runs", work / "runs")
    assert result.exit_code == 0, result.output
    assert "2 of 9 locations are seen" in result.output
    elsewhere = call("check", work / "plants.yaml", overrides=(f"data.store={tmp_path}/none.zarr",))
    assert elsewhere.exit_code == 0, elsewhere.output
    assert "1 image(s) of 580 bands" in elsewhere.output and "2 reference(s)" in elsewhere.output
    for place in (work / "store.zarr", work / "runs" / "plants"):
        result = call("inspect", place)
        assert result.exit_code == 0, result.output
    assert "locations" in result.output and "500" in result.output


@pytest.mark.full
def test_a_plan_of_the_papers_run_before_there_is_data(call: Call) -> None:
    recipe = recipe_path("demo_plants").resolve().with_name("poplar_masked.yaml")
    result = call("plan", recipe, "--gpus", "1", "--memory", "64GiB")
    assert result.exit_code == 0, result.output
    assert "Proposed: --set parallel.dp=" in result.output
    assert "Times are estimated for Frontier (MI250X)" in result.output


@pytest.mark.parametrize(
    ("command", "overrides", "sentence"),
    [
        ("run", ("task.kind=dream",), "task.kind is 'dream': it must be one of forecast, masked"),
        ("run", ("model.patch=5",), "model.patch 5 does not divide data.image_size"),
        ("train", ("data.image_size=[32,32]",), "fewer than a crop of 32 x 32"),
        ("train", ("training.validate_every=1",), "none of the 2 images .* is for validation"),
        ("train", ("task.mask_ratio=0.99",), "little enough that something is left to see"),
        ("train", ("model.channel_embedding=wavelength",), "set model.aggregation to single"),
        (
            "train",
            ("task.rollout_steps=2",),
            "key 'task.rollout_steps', which belongs to task.kind forecast",
        ),
        ("check", ("data.image_size=[32,32]",), "fewer than a crop of 32 x 32"),
    ],
)
def test_what_does_not_fit_is_refused(
    call: Call, work: Path, refused: Refused, command: str, overrides: tuple[str, ...],
    sentence: str,
) -> None:  # fmt: skip
    result = call(command, work / "plants.yaml", "--runs", work / "none", overrides=overrides)
    if command == "check":
        assert result.exit_code == 2 and re.search(sentence, result.output)
    else:
        assert re.search(sentence, refused(result))
    assert not (work / "none").exists()


def test_what_is_for_the_other_task_is_refused(call: Call, work: Path, refused: Refused) -> None:
    run, store = work / "runs" / "plants", work / "store.zarr"
    assert "sciml-dchag reconstruct" in refused(call("predict", run, store, work / "none.zarr"))
    weather = call("train", recipe_path("msl_forecast"), "--runs", work / "none",
                   overrides=(f"data.store={store}",))  # fmt: skip
    assert "sciml-dchag-cubes-1" in refused(weather)
    nothing = call("embed", run, work / "none.zarr")
    assert "prepare plants" in refused(nothing)
