"""Short runs on the embedded sample, and the weights that they leave."""

from pathlib import Path

import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from sciml_dchag.config import from_mapping
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.transformer import build_model
from sciml_dchag.training.checkpoint import (
    find_checkpoint,
    last_checkpoint,
    load_tensors,
    read_checkpoint,
    tensors_of,
)
from sciml_dchag.weather.forecast.config import ForecastRecipe


def recipe(store: Path, **changes: dict[str, object]) -> ForecastRecipe:
    sections: dict[str, dict[str, object]] = {
        "data": {
            "store": str(store),
            "train": ["2025-12-01", "2025-12-24"],
            "validation": ["2025-12-25", "2025-12-27"],
            "test": ["2025-12-28", "2025-12-31"],
            "forcings": ["cos_latitude"],
        },
        "model": {"embed_dim": 16, "depth": 1, "heads": 2, "patch": 8, "partitions": 2,
                  "dropout": 0.1},
        "training": {"steps": 6, "batch": 2, "warmup_steps": 2, "log_every": 1,
                     "checkpoint_every": 3, "ema_decay": 0.5},
        "evaluation": {"lead_hours": [6, 12]},
    }  # fmt: skip
    for name, change in changes.items():
        sections[name] = {**sections.get(name, {}), **change}
    return from_mapping(ForecastRecipe, {"name": "test", **sections})


def weights(run: Path) -> dict[str, torch.Tensor]:
    saved = read_checkpoint(run)
    tensors = tensors_of(build_model(from_mapping(ModelConfig, saved.model_config), seed=99))
    load_tensors(find_checkpoint(run), {"average" if saved.averaged else "model": tensors})
    return tensors


def stored(run: Path, kind: str) -> dict[str, torch.Tensor]:
    """Read every tensor of a kind from a run's last checkpoint."""
    path = last_checkpoint(run / "checkpoints")
    assert path is not None
    every = FileSystemReader(path).read_metadata().state_dict_metadata
    found = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in every.items()
        if name.startswith(f"{kind}.") and isinstance(entry, TensorStorageMetadata)
    }
    load_tensors(path, found)
    return found


def assert_same_weights(one: Path, other: Path) -> None:
    a, b = weights(one), weights(other)
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=0)
