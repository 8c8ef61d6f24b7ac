"""`sciml-dchag replay RUN STEP`."""

import json
from pathlib import Path

from click.testing import CliRunner

from sciml_dchag.cli.main import main
from sciml_dchag.config import save_recipe
from sciml_dchag.config.mapping import from_mapping
from sciml_dchag.pipeline import train
from sciml_dchag.weather.forecast.config import ForecastRecipe


def test_a_step_is_printed_by_module_and_parameter(msl_store: Path, tmp_path: Path) -> None:
    recipe = from_mapping(
        ForecastRecipe,
        {
            "name": "run",
            "data": {"store": str(msl_store), "train": ["2025-12-01", "2025-12-24"]},
            "model": {
                "embed_dim": 16,
                "depth": 1,
                "heads": 2,
                "patch": 8,
                "aggregation": "single",
                "partitions": 1,
            },
            "training": {"steps": 4, "batch": 2, "warmup_steps": 2, "checkpoint_every": 2},
        },
    )
    run = tmp_path / "run"
    train(recipe, run)
    save_recipe(recipe, run / "recipe.yaml")
    said = CliRunner().invoke(main, ["replay", str(run), "4"])
    assert said.exit_code == 0, said.output
    assert "Repeating steps 3 to 4, from" in said.output
    assert "backbone.blocks.0.mlp_out" in said.output and "head.weight" in said.output
    half = ["replay", str(run), "2", "--json", "--set", "training.precision=float16"]
    tried = CliRunner().invoke(main, half)
    assert tried.exit_code == 0, tried.output
    found = json.loads(tried.output[tried.output.index("{") :])
    assert found["step"] == 2 and found["modules"]["backbone.blocks.0.mlp_in"]["sixteen"]
    wrong = CliRunner().invoke(main, ["replay", str(run), "9"])
    assert wrong.exit_code != 0 and "name one from 1 to 4" in wrong.output
