"""Starting from another model's weights: an encoder learnt by masking, other channel sets."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from sciml_dchag.checking import check_recipe
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.transformer import ChannelTransformer, build_model
from sciml_dchag.pipeline import run_recipe, train
from sciml_dchag.tasks import recipe_from_mapping
from sciml_dchag.training.checkpoint import find_checkpoint, read_checkpoint
from sciml_dchag.training.export import export, from_pretrained
from sciml_dchag.training.start_from import preview_start, start_from

MODEL = {"embed_dim": 16, "depth": 1, "heads": 2, "patch": 8, "partitions": 1}
TRAINING = {"steps": 4, "batch": 2, "warmup_steps": 1, "log_every": 1, "checkpoint_every": 4}


def mapping(store: Path, kind: str, **training: Any) -> dict[str, Any]:
    return {
        "name": kind,
        "data": {
            "store": str(store), "train": ["2025-12-01", "2025-12-24"],
            "test": ["2025-12-28", "2025-12-28"],
        },
        "model": MODEL,
        "task": {"kind": kind},
        "training": {**TRAINING, **training},
    }  # fmt: skip


@pytest.fixture(scope="module")
def masked_run(msl_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A masked autoencoder of sea level pressure, trained for four steps and scored."""
    run = tmp_path_factory.mktemp("runs") / "masked"
    recipe = recipe_from_mapping(mapping(msl_store, "masked-weather"))
    result = run_recipe(recipe, run)
    table = result.evaluation.table.set_index("channel")
    assert set(result.evaluation.baselines) == {"climatology", "interpolation"}
    # Climatology is the training mean: its error is the deviation of the test days, in Pa.
    assert 500 < table.loc["msl", "climatology"] < 1500
    # Between patches of 45 degrees a distance-weighted mean tells something, and not much.
    assert 200 < table.loc["msl", "interpolation"] < 1500
    assert result.evaluation.paths["Report"].is_file()
    return run


def test_an_encoder_learnt_by_masking_serves_a_forecaster(
    masked_run: Path, msl_store: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    recipe = recipe_from_mapping(
        # A rate of next to nothing: what is saved is what was started from.
        mapping(msl_store, "forecast", start_from=str(masked_run), learning_rate=1e-12)
    )
    train(recipe, tmp_path / "run", console=said.append)
    start = next(line for line in said if line.startswith("Start from"))
    assert "1 input channels loaded, 0 new, 0 dropped" in start, start
    assert "head" in start.split("new")[0] or "backbone.lead_time" in start, start
    encoder, _ = from_pretrained(export(masked_run, tmp_path / "encoder.safetensors"))
    forecaster, _ = from_pretrained(export(tmp_path / "run", tmp_path / "f.safetensors"))
    mine, learnt = forecaster.state_dict(), encoder.state_dict()
    shared = [n for n in mine if n in learnt and n.startswith(("aggregation", "backbone"))]
    assert any("blocks.0" in name for name in shared) and any("tokenizer" in n for n in shared)
    for name in shared:
        torch.testing.assert_close(mine[name], learnt[name], rtol=1e-4, atol=1e-8, msg=name)


def config(channels: str, **changes: Any) -> ModelConfig:
    names = tuple(channels)
    made = ModelConfig(
        embed_dim=16, depth=1, heads=2, patch=2, partitions=2, input_channels=names,
        output_channels=names, image_size=(4, 8),
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def saved(config: ModelConfig, folder: Path, seed: int) -> tuple[ChannelTransformer, Path]:
    """A model with random weights, exported as if it had been trained."""
    from safetensors.torch import save_file

    import sciml_dchag.training.export as exporting
    from sciml_dchag.config import to_mapping
    from sciml_dchag.training.checkpoint import Checkpoint

    model = build_model(config, seed)
    checkpoint = Checkpoint(
        step=1, recipe={"task": {"kind": "forecast"}}, model_config=to_mapping(config),
        averaged=False, complete=True, best_validation=None, validations_since_best=0, data={},
    )  # fmt: skip
    import json

    path = folder / "model.safetensors"
    metadata = {
        "format": exporting.FORMAT,
        "checkpoint": json.dumps(dataclasses.asdict(checkpoint)),
    }
    save_file(dict(model.state_dict()), path, metadata=metadata)
    return model, path


@pytest.mark.parametrize("kind", ["single", "dchag-c"])
@pytest.mark.parametrize("now", ["dbxca", "ab", "zyxwe"])
def test_channels_are_found_by_name(kind: str, now: str, tmp_path: Path) -> None:
    """Slots move with their channels, whatever the order and the unevenness of partitions."""
    other, path = saved(config("abcde", aggregation=kind), tmp_path, seed=1)
    wanted = config(now, aggregation=kind)
    model, start = build_model(wanted, 2), build_model(wanted, 2)
    report = start_from(model, path)
    assert report == preview_start(wanted, path)
    assert report.channels_loaded == tuple(n for n in now if n in "abcde")
    assert report.channels_new == tuple(n for n in now if n not in "abcde")
    assert report.channels_dropped == tuple(n for n in "abcde" if n not in now)
    for stage in ("aggregation.tokenizer", "head"):
        mine, theirs, fresh = (m.get_submodule(stage) for m in (model, other, start))
        for place, name in enumerate(now):
            slot = mine.layout.slot_of_channel[place]
            if name in "abcde":
                source = theirs.weight, theirs.layout.slot_of_channel["abcde".index(name)]
            else:
                source = fresh.weight, slot
            expected = source[0].flatten(0, 1)[source[1]]
            assert torch.equal(mine.weight.flatten(0, 1)[slot], expected), (stage, name)
    mine, theirs = (m.backbone.blocks[0].mlp_out.weight for m in (model, other))
    assert torch.equal(mine, theirs)


def test_what_does_not_fit_keeps_its_start_values_and_nothing_at_all_is_refused(
    tmp_path: Path,
) -> None:
    _, path = saved(config("abc", depth=2), tmp_path, seed=1)
    model = build_model(config("abc"), 2)
    report = start_from(model, path)
    assert any("blocks.1" in name for name in report.dropped) and not report.new
    wider = build_model(config("abc", embed_dim=32, patch=4), 2)
    with pytest.raises(ValueError, match="Nothing of .* fits this model"):
        start_from(wider, path)
    with pytest.raises(ValueError, match="2 attention heads and this model 4.* model.heads to 2"):
        start_from(build_model(config("abc", heads=4), 2), path)
    with pytest.raises(FileNotFoundError, match="There is no checkpoint"):
        start_from(model, tmp_path / "absent")


def test_check_says_what_would_be_taken(masked_run: Path, msl_store: Path, tmp_path: Path) -> None:
    good = recipe_from_mapping(mapping(msl_store, "forecast", start_from=str(masked_run)))
    found = [f for f in check_recipe(good, tmp_path) if f.what.startswith("start from")]
    assert [f.verdict for f in found] == ["ok"] and "1 input channels loaded" in found[0].what
    bad = recipe_from_mapping(mapping(msl_store, "forecast", start_from=str(tmp_path)))
    assert any(
        f.verdict == "fails" and "no checkpoint" in f.what for f in check_recipe(bad, tmp_path)
    )


def test_a_checkpoint_of_a_newer_version_says_so(masked_run: Path, tmp_path: Path) -> None:
    import shutil

    run = tmp_path / "run"
    shutil.copytree(masked_run, run)
    record = find_checkpoint(run) / "checkpoint.json"
    (record.parent / "checksums.txt").unlink()
    record.write_text(
        record.read_text().replace("sciml-dchag-checkpoint-3", "sciml-dchag-checkpoint-9")
    )
    with pytest.raises(ValueError, match=r"newer version of sciml-dchag .*upgrade"):
        read_checkpoint(run)
