"""Self-attention has no bias of the key, and weights of earlier versions, which had one, are read."""

import json
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from torch.nn import functional as F
from training_runs import recipe, weights

from sciml_dchag.models.layers import SelfAttention
from sciml_dchag.parallel.runtime import Ranks
from sciml_dchag.pipeline import train
from sciml_dchag.training.checkpoint import (
    CheckpointWriter,
    last_checkpoint,
    load_tensors,
    read_checkpoint,
)
from sciml_dchag.training.export import export, from_pretrained


def test_a_bias_of_the_key_would_change_nothing() -> None:
    torch.manual_seed(0)
    attention = SelfAttention(16, 2).double()
    assert attention.key.bias is None
    x, bias = torch.randn(2, 5, 16).double(), torch.randn(16).double()
    q, k, v = (
        layer.unflatten(-1, (2, 8)).transpose(1, 2)
        for layer in (attention.query(x), attention.key(x) + bias, attention.value(x))
    )
    mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attention(x), attention.output(mixed), rtol=1e-12, atol=1e-12)


@pytest.fixture(scope="module")
def run(msl_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "run"
    train(recipe(msl_store, training={"steps": 3}), path)
    return path


def test_an_exported_model_with_one_is_read(run: Path, tmp_path: Path) -> None:
    """Its checksums say what the file holds, the bias as well."""
    new = export(run, tmp_path / "new.safetensors")
    with safetensors.safe_open(new, "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    name = "backbone.blocks.0.attention.key.bias"
    tensors[name] = torch.randn(16)
    sums = json.loads(metadata["crc32c"])
    sums["tensors"][name] = 0
    old = tmp_path / "old.safetensors"
    safetensors.torch.save_file(tensors, old, {**metadata, "crc32c": json.dumps(sums)})
    models = [from_pretrained(path)[0].state_dict() for path in (new, old)]
    assert models[0].keys() == models[1].keys()
    assert all(torch.equal(models[0][key], models[1][key]) for key in models[0])
    tensors["backbone.blocks.0.attention.other.bias"] = torch.randn(16)
    safetensors.torch.save_file(tensors, old, metadata)
    with pytest.raises(ValueError, match="does not hold the model that it describes"):
        from_pretrained(old)


def test_a_run_with_one_is_resumed(run: Path, msl_store: Path, tmp_path: Path) -> None:
    """A checkpoint with the bias, its moments and its average goes on as one without."""
    place = last_checkpoint(run / "checkpoints")
    assert place is not None
    before = weights(run)
    saved = read_checkpoint(place)
    name = "backbone.blocks.0.attention.key.bias"
    kinds: dict[str, dict[str, torch.Tensor]] = {
        kind: {key: torch.empty_like(value) for key, value in before.items()}
        for kind in ("model", "average")
    }
    kinds["optimizer"] = {}
    load_tensors(place, {kind: kinds[kind] for kind in ("model", "average")})
    for key, value in before.items():
        kinds["optimizer"] |= {
            f"state.{key}.exp_avg": torch.zeros_like(value),
            f"state.{key}.exp_avg_sq": torch.zeros_like(value),
            f"state.{key}.step": torch.zeros(()),
        }
    load_tensors(place, {"optimizer": kinds["optimizer"]})
    for kind, key in (("model", name), ("average", name), ("optimizer", f"state.{name}.exp_avg")):
        kinds[kind][key] = torch.randn(16)
    old = tmp_path / "old"
    with CheckpointWriter(old / "checkpoints", Ranks(device=torch.device("cpu"))) as writer:
        writer.save("step", saved, kinds)
    more = recipe(msl_store, training={"steps": 5})
    train(more, old)
    assert read_checkpoint(old).step == 5
    train(more, run)
    for key, value in weights(run).items():
        assert torch.equal(value, weights(old)[key]), key
