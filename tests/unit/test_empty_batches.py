"""Steps of masked training whose batch shows all that would be scored."""

from pathlib import Path

import numpy as np
import plant_stores

from sciml_dchag.config import from_mapping
from sciml_dchag.pipeline import train
from sciml_dchag.plants.masked.config import MaskedRecipe
from sciml_dchag.training.checkpoint import read_checkpoint
from sciml_dchag.training.logbook import read_log


def test_a_plant_within_one_location_is_learnt_where_it_is_hidden(tmp_path: Path) -> None:
    """Half of the masks show it, and leave nothing to score at batch 1."""
    nm = np.linspace(400, 900, 6)
    draws = np.random.default_rng(0)
    image = draws.uniform(0.1, 0.6, (6, 16, 16))
    mask = np.zeros((16, 16), np.uint8)
    mask[5:7, 5:7] = 1
    store = plant_stores.write_store(tmp_path / "p.zarr", {"small": (image, mask)}, nm)
    recipe = from_mapping(
        MaskedRecipe,
        {
            "name": "small",
            "data": {"store": str(store), "image_size": [16, 16]},
            "model": {"embed_dim": 8, "depth": 1, "heads": 2, "patch": 4, "partitions": 2,
                      "decoder_dim": 8, "decoder_depth": 1, "decoder_heads": 2},
            "task": {"kind": "masked", "mask_ratio": 0.5},
            "training": {"steps": 12, "batch": 1, "warmup_steps": 1, "log_every": 1},
        },
    )  # fmt: skip
    result = train(recipe, tmp_path / "run")
    losses = [r["loss"] for r in read_log(tmp_path / "run" / "log.jsonl") if "loss" in r]
    assert 0 < result.skipped_steps < 12 and len(losses) == 12 - result.skipped_steps
    assert np.isfinite(losses).all()
    assert read_checkpoint(tmp_path / "run").skipped_steps == result.skipped_steps
