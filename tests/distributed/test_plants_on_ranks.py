"""Training masked autoencoders on ranks: the same curve as one process, on any mesh."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plant_stores
import pytest
import run_workers as workers
from rank_launcher import on_ranks

from sciml_dchag.training.checkpoint import find_checkpoint, read_checkpoint

NM = np.arange(450.0, 901.0, 25.0)  # 19 bands, uneven over 4 partitions


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Five images with gaps, hidden locations and bands, validation, dropout, flips and turns."""
    plants = pd.DataFrame({"red_edge_nm": [705.0, 725.0], "green": 0.1, "plateau": [0.4, 0.6]})
    cubes = {f"plant{i}": plant_stores.scene(plants, NM, seed=i) for i in range(5)}
    cubes["plant0"][0][7, 3:6, 5:9] = np.nan
    table = {"split": ["train"] * 3 + ["validation"] * 2}
    path = tmp_path_factory.mktemp("plants") / "plants.zarr"
    plant_stores.write_store(path, cubes, NM, table)
    return {
        "name": "plants",
        "task": {"kind": "masked", "mask_ratio": 0.5, "channel_mask_ratio": 0.25,
                 "channel_groups": 4},
        "data": {"store": str(path), "image_size": [16, 16], "crops": 3},
        "model": {"embed_dim": 16, "depth": 1, "heads": 4, "patch": 4, "partitions": 4,
                  "decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2},
        "training": {"steps": 8, "batch": 4, "warmup_steps": 2, "log_every": 1,
                     "checkpoint_every": 4, "validate_every": 4, "learning_rate": 1e-3},
    }  # fmt: skip


def compare(here: Path, there: Path) -> None:
    one, other = workers.curve(here), workers.curve(there)
    assert len(one["loss"]) == 8 and len(one["validation_loss"]) == 2
    for key in one:
        np.testing.assert_allclose(other[key], one[key], rtol=1e-5, err_msg=key)


@pytest.mark.parametrize(
    ("model", "parallel"),
    [
        pytest.param({"aggregation": "dchag-l"}, {"tp": 2}, marks=pytest.mark.full),
        ({"aggregation": "dchag-c"}, {"tp": 2, "fsdp": 2}),
        ({"channel_embedding": "wavelength"}, {"tp": 2}),
        ({"aggregation": "single"}, {"dp": 2}),
    ],
    ids=str,
)
def test_ranks_learn_what_one_process_learns(
    recipe: dict[str, Any], model: dict[str, Any], parallel: dict[str, int], tmp_path: Path
) -> None:
    here = workers.changed(recipe, model=model)
    alone = workers.train_run(here, str(tmp_path / "one"))
    ranks = int(np.prod(list(parallel.values())))
    spread = workers.changed(here, parallel=parallel)
    read = on_ranks(ranks, workers.train_run, spread, str(tmp_path / "many"))
    compare(tmp_path / "one", tmp_path / "many")
    # Images are kept in memory: each rank reads its own bands of all of them, once.
    share = {1: 1.0, 2: 10 / 19}[parallel.get("tp", 1)]
    assert max(read) == pytest.approx(share * alone)


def test_ranks_start_from_the_same_interpolation(recipe: dict[str, Any], tmp_path: Path) -> None:
    here = workers.changed(recipe, task={"gaussian_process": True})
    workers.train_run(here, str(tmp_path / "one"))
    on_ranks(
        2, workers.train_run, workers.changed(here, parallel={"tp": 2}), str(tmp_path / "many")
    )
    compare(tmp_path / "one", tmp_path / "many")
    one, many = (read_checkpoint(find_checkpoint(tmp_path / name)).data for name in ("one", "many"))
    assert one["kernels"] == many["kernels"] and len(one["kernels"]) == len(NM)
    np.testing.assert_allclose(one["missed_std"], many["missed_std"], rtol=1e-6)


@pytest.mark.full
def test_a_run_goes_on_with_another_mesh(recipe: dict[str, Any], tmp_path: Path) -> None:
    workers.train_run(recipe, str(tmp_path / "one"))
    run = str(tmp_path / "many")
    begun = workers.changed(recipe, parallel={"tp": 2, "fsdp": 2})
    with pytest.raises(RuntimeError, match="stopped on purpose"):
        on_ranks(4, workers.train_until_step_6, begun, run)
    on_ranks(2, workers.train_run, workers.changed(recipe, parallel={"tp": 2}), run)
    compare(tmp_path / "one", tmp_path / "many")
