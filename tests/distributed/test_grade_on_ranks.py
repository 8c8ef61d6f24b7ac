"""Graders and detectors of plants learn on ranks what they learn on one process."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import run_workers as workers
from PIL import Image
from rank_launcher import on_ranks

from sciml_dchag.plants.detect.detector import PlantDetector
from sciml_dchag.plants.grade.grader import Grader
from sciml_dchag.plants.prepare.images import prepare_plants
from sciml_dchag.plants.store.cubes import CubeStore


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight cubes of five bands, lesions of three of them, and a table in which a grade lacks."""
    folder, draw, rows = tmp_path_factory.mktemp("grades"), np.random.default_rng(0), []
    (folder / "cubes").mkdir()
    (folder / "lesions").mkdir()
    nm = np.array([450.0, 550, 650, 720, 800])
    np.savetxt(folder / "nm.txt", nm)
    for number in range(8):
        cube = draw.uniform(0.1, 0.6, (16, 16, 5)).astype(np.float32)
        np.save(folder / "cubes" / f"c{number}.npy", cube)
        if number < 3:
            labels = draw.integers(0, 3, (16, 16)).astype(np.uint8)
            Image.fromarray(labels).save(folder / "lesions" / f"c{number}.png")
        grade = "" if number == 2 else str(number % 3)
        rows.append({"image": f"c{number}", "severity": grade, "split": "train"})
    pd.DataFrame(rows).to_csv(folder / "grades.csv", index=False)
    with pytest.warns(UserWarning, match="taken as nm"):
        prepare_plants(
            folder / "cubes", folder / "cubes.zarr", wavelengths=str(folder / "nm.txt"),
            table=str(folder / "grades.csv"), bands="native", mask="none", quicklooks=False,
        )  # fmt: skip
    return folder


@pytest.mark.parametrize(
    ("world", "parallel"),
    [
        (2, {"tp": 2}),
        pytest.param(2, {"tp": 2, "channel_stage": "tp-only"}, marks=pytest.mark.full),
        pytest.param(2, {"fsdp": 2}, marks=pytest.mark.full),
        pytest.param(4, {"tp": 2, "fsdp": 2, "sequence_parallel": True}, marks=pytest.mark.full),
    ],
)
def test_ranks_learn_as_one_process(
    world: int, parallel: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    """Each rank maps its own bands' pixels, and adds up the errors of its own samples."""
    recipe = {
        "name": "grades",
        "data": {"store": str(folder / "cubes.zarr"), "lesions": str(folder / "lesions"),
                 "image_size": [16, 16]},
        "model": {"embed_dim": 16, "depth": 1, "heads": 2, "patch": 4, "partitions": 2,
                  "pyramid_dim": 8},
        "task": {"kind": "grade", "grades": 3},
        "training": {"steps": 3, "batch": 4, "warmup_steps": 1, "log_every": 1},
    }  # fmt: skip
    one, many = tmp_path / "one", tmp_path / "many"
    workers.train_run(recipe, str(one))
    on_ranks(world, workers.train_run, workers.changed(recipe, parallel=parallel), str(many))
    curves = workers.curve(one), workers.curve(many)
    for key in ("loss", "gradient_norm"):
        assert len(curves[0][key]) == 3
        np.testing.assert_allclose(curves[1][key], curves[0][key], rtol=1e-5, err_msg=key)
    store = CubeStore.open(folder / "cubes.zarr")
    found = [Grader(run, store).grade(store.names) for run in (one, many)]
    for column in ("severity", "lesion_percent"):
        np.testing.assert_allclose(found[1][column], found[0][column], rtol=1e-4)


@pytest.mark.parametrize("parallel", [{"tp": 2}, pytest.param({"fsdp": 2}, marks=pytest.mark.full)])
def test_detectors_learn_as_one_process(
    parallel: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    recipe = {
        "name": "pieces",
        "data": {"store": str(folder / "cubes.zarr"), "objects": str(folder / "lesions"),
                 "image_size": [16, 16]},
        "model": {"embed_dim": 16, "depth": 1, "heads": 2, "patch": 4, "partitions": 2,
                  "pyramid_dim": 8},
        "task": {"kind": "detect-plants", "label": 2, "least_pixels": 2},
        "training": {"steps": 3, "batch": 4, "warmup_steps": 1, "log_every": 1},
    }  # fmt: skip
    one, many = tmp_path / "one", tmp_path / "many"
    workers.train_run(recipe, str(one))
    on_ranks(2, workers.train_run, workers.changed(recipe, parallel=parallel), str(many))
    curves = workers.curve(one), workers.curve(many)
    for key in ("loss", "gradient_norm"):
        assert len(curves[0][key]) == 3
        np.testing.assert_allclose(curves[1][key], curves[0][key], rtol=1e-5, err_msg=key)
    store = CubeStore.open(folder / "cubes.zarr")
    found = [PlantDetector(run, store).find(store.names[:3]) for run in (one, many)]
    assert min(map(len, found[0])) > 5
    for first, second in zip(*found, strict=True):
        np.testing.assert_allclose(second.scores, first.scores, rtol=1e-4)
