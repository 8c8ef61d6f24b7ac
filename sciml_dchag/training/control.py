"""The base of a control branch: read, compared with the recipe, copied in and frozen.

A checkpoint keeps the base's weights beside the branch's, so that it is used without the base, and
their hash, so that a run is not resumed with another base.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sciml_dchag.config import from_mapping, to_mapping
from sciml_dchag.models.config import ControlConfig, ModelConfig
from sciml_dchag.models.control import BRANCH
from sciml_dchag.models.hooks import local
from sciml_dchag.models.transformer import ChannelTransformer, build_model
from sciml_dchag.parallel.apply import freeze, plain_name
from sciml_dchag.parallel.build import own_slice
from sciml_dchag.training.checkpoint import Checkpoint, tensors_of
from sciml_dchag.training.export import find_model

_HOW = ("implementation", "dropout", "size")
"""Knobs of a model that change how it is computed or trained, not what its weights mean."""


@dataclass(frozen=True)
class Base:
    """A trained model that is to stay as it is."""

    path: Path
    """Where it is."""
    config: ModelConfig
    """Its architecture."""
    tensors: dict[str, Tensor]
    """Its weights by name, whole, on the CPU."""

    @property
    def sha256(self) -> str:
        """Hash of all weights and their names."""
        digest = hashlib.sha256()
        for name in sorted(self.tensors):
            digest.update(name.encode())
            digest.update(
                self.tensors[name].contiguous().view(-1).view(torch.uint8).numpy().tobytes()
            )
        return digest.hexdigest()


def read_base(config: ModelConfig) -> Base:
    """Read the base that a complete architecture names; each rank by itself.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, has a control branch of its own, or another architecture.
    """
    saved = find_model(config.control.base)
    found = from_mapping(ModelConfig, saved.checkpoint.model_config)
    _require_same(config, found)
    model = build_model(found)
    saved.load_into(model, alone=True)
    return Base(saved.path, found, tensors_of(model))


def _require_same(config: ModelConfig, base: ModelConfig) -> None:
    """Refuse a base whose weights would compute something else here."""
    where = config.control.base
    if base.control.channels:
        raise ValueError(
            f"model.control.base {where} has a control branch of its own: name the model that it "
            f"was trained on."
        )
    inputs = tuple(config.input_channels[place] for place in config.base_inputs)
    wanted = to_mapping(dataclasses.replace(config, control=ControlConfig(), input_channels=inputs))
    for key, value in to_mapping(base).items():
        if key in _HOW or wanted[key] == value:
            continue
        if key == "input_channels":
            raise ValueError(
                f"model.control.base {where} has the inputs {', '.join(value[:8])}, and without "
                f"model.control.channels there are {', '.join(inputs[:8])}: name in channels what "
                f"is new, and prepare what is missing."
            )
        raise ValueError(
            f"model.control.base {where} has model.{key} {value} and this recipe {wanted[key]}: "
            f"give the recipe the base's."
        )


def preview_base(config: ModelConfig) -> str:
    """Say what the branch of a complete architecture is and trains, reading no weights.

    Raises:
        FileNotFoundError: there is no base.
        ValueError: as `read_base`.
    """
    saved = find_model(config.control.base)
    _require_same(config, from_mapping(ModelConfig, saved.checkpoint.model_config))
    with torch.device("meta"):
        sizes = {name: p.numel() for name, p in build_model(config).named_parameters()}
    branch = sum(size for name, size in sizes.items() if name.startswith(BRANCH))
    return (
        f"control of {saved.path} by {len(config.control.channels)} new inputs: trained are "
        f"{branch:,} of {sum(sizes.values()):,} parameters"
    )


def completed(config: ModelConfig, base: Base) -> ModelConfig:
    """Return the architecture with the hash of its base."""
    control = dataclasses.replace(config.control, base_sha256=base.sha256)
    return dataclasses.replace(config, control=control)


@torch.no_grad()
def put_in(model: ChannelTransformer, base: Base) -> None:
    """Give a model, or this rank's share of it, its base, freeze it, and copy its blocks.

    Args:
        model: as `build_on_ranks` gives it, with a control branch.
        base: of its architecture.
    """
    assert model.control is not None
    for name, parameter in model.named_parameters():
        if not (plain := plain_name(name)).startswith(BRANCH):
            here = local(parameter)
            here.copy_(own_slice(base.tensors[plain], parameter).to(here.device))
    freeze(model, base.tensors.keys())
    for own, other in zip(model.control.blocks, model.backbone.blocks, strict=False):
        pairs = zip(own.parameters(), other.parameters(), strict=True)
        for parameter, source in pairs:  # spread over ranks in the same way
            local(parameter).copy_(local(source))


def require_same_base(saved: Checkpoint, config: ModelConfig, path: Path) -> None:
    """Refuse to resume a run with another base.

    Raises:
        ValueError: the checkpoint was trained on a base of other weights.
    """
    was = saved.model_config.get("control", {}).get("base_sha256", "")
    if was != config.control.base_sha256:
        raise ValueError(
            f"{path} was trained on another base than {config.control.base} (weights {was[:8]}, "
            f"not {config.control.base_sha256[:8]}): set model.control.base to that base, or "
            f"choose another name with `name=NAME`."
        )
