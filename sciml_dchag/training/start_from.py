"""Starting from another model's weights, mapped by the names of parameters and channels.

What belongs to a channel (a tokenizer's and a head's slices) goes where that channel is now; what
is shared is taken where its shape is the same. The rest keeps its start values. So an encoder that
was learnt by masking serves a forecaster, and a model takes a larger channel set.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from sciml_dchag.config import from_mapping
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.control import BRANCH
from sciml_dchag.models.hooks import local
from sciml_dchag.models.tokenizer import ChannelLayout
from sciml_dchag.models.transformer import ChannelTransformer, build_model
from sciml_dchag.parallel.apply import plain_name
from sciml_dchag.parallel.build import own_slice
from sciml_dchag.training.checkpoint import tensors_of
from sciml_dchag.training.export import find_model


@dataclass(frozen=True, kw_only=True)
class StartReport:
    """What of a model came from another one, by names."""

    loaded: tuple[str, ...]
    """Parameters that were taken, in whole or for some channels."""
    new: tuple[str, ...]
    """Parameters that keep their start values."""
    dropped: tuple[str, ...]
    """Parameters of the other model that have no place here."""
    channels_loaded: tuple[str, ...]
    """Input channels whose parameters were taken."""
    channels_new: tuple[str, ...]
    """Input channels that the other model does not have."""
    channels_dropped: tuple[str, ...]
    """Input channels of the other model that are not here."""

    def __str__(self) -> str:
        """Say all of it in a line."""
        return (
            f"{len(self.loaded)} parameters loaded, {_named(self.new, 'new')}, "
            f"{_named(self.dropped, 'dropped')}; {len(self.channels_loaded)} input channels "
            f"loaded, {_named(self.channels_new, 'new')}, "
            f"{_named(self.channels_dropped, 'dropped')}"
        )


@dataclass(frozen=True)
class _Mapped:
    """What a parameter takes from another model: `take` says where `values` count."""

    values: Tensor
    take: Tensor


def start_from(model: ChannelTransformer, path: str | Path) -> StartReport:
    """Copy what fits of another model's weights into a model on this rank.

    Args:
        model: on this rank, with its start values; any mesh.
        path: a run, a checkpoint or an exported model, of whatever task.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it cannot be read, or nothing of it fits.
    """
    source = _read(path)
    mapped, report = _map(source, tensors_of(source), model.config)
    _require_fit(report, source.config, model.config, path)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if (found := mapped.get(plain_name(name))) is not None:
                here = local(parameter)
                take = own_slice(found.take.expand_as(found.values), parameter).to(here.device)
                values = own_slice(found.values, parameter).to(here.device, here.dtype)
                here.copy_(torch.where(take, values, here))
    return report


def preview_start(config: ModelConfig, path: str | Path) -> StartReport:
    """Say what `start_from` would take, reading no tensor.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it cannot be read, or nothing of it fits.
    """
    saved = find_model(path).checkpoint
    with torch.device("meta"):
        source = build_model(from_mapping(ModelConfig, saved.model_config))
        _, report = _map(source, tensors_of(source), config)
    _require_fit(report, source.config, config, path)
    return report


def _require_fit(
    report: StartReport, source: ModelConfig, config: ModelConfig, path: str | Path
) -> None:
    """Refuse weights of which nothing fits, or which would be used otherwise than they learnt."""
    if source.heads != config.heads and source.embed_dim == config.embed_dim:
        raise ValueError(
            f"{path} has {source.heads} attention heads and this model {config.heads}, so that its "
            f"weights would compute something else here: set model.heads to {source.heads}."
        )
    if not report.loaded:
        raise ValueError(
            f"Nothing of {path} fits this model: set training.start_from to a model of the same "
            f"model.size, model.patch and model.aggregation, or leave it out."
        )


def _read(path: str | Path) -> ChannelTransformer:
    """Read a model as one process has it, on the CPU; each rank by itself."""
    saved = find_model(path)
    model = build_model(from_mapping(ModelConfig, saved.checkpoint.model_config))
    saved.load_into(model, alone=True)
    return model


def _map(
    source: ChannelTransformer, tensors: dict[str, Tensor], config: ModelConfig
) -> tuple[dict[str, _Mapped], StartReport]:
    """Find what each parameter of a model takes from another one."""
    with torch.device("meta"):
        target = build_model(config)
    shapes = {name: tuple(p.shape) for name, p in target.named_parameters()}
    here, there = _layouts(target), _layouts(source)
    mapped: dict[str, _Mapped] = {}
    for name, shape in shapes.items():
        values = tensors.get(name)
        if values is None:
            continue
        if name in here and name in there and shape[2:] == values.shape[2:]:
            if (found := _by_channel(values, shape, here[name], there[name])) is not None:
                mapped[name] = found
        elif tuple(values.shape) == shape:
            mapped[name] = _Mapped(values, torch.ones((), dtype=torch.bool))
    was, now = source.config.input_channels, config.input_channels
    return mapped, StartReport(
        loaded=tuple(mapped),
        new=tuple(name for name in shapes if name not in mapped),
        dropped=tuple(name for name in tensors if name not in mapped),
        channels_loaded=tuple(name for name in now if name in was),
        channels_new=tuple(name for name in now if name not in was),
        channels_dropped=tuple(name for name in was if name not in now),
    )


def _by_channel(
    values: Tensor,
    shape: tuple[int, ...],
    here: tuple[ChannelLayout, tuple[str, ...]],
    there: tuple[ChannelLayout, tuple[str, ...]],
) -> _Mapped | None:
    """Move the slices of channels that both models have; None where they have none in common."""
    (layout, names), (old_layout, old_names) = here, there
    where = {name: place for place, name in enumerate(old_names)}
    pairs = [(i, where[name]) for i, name in enumerate(names) if name in where]
    if not pairs:
        return None
    now, was = (torch.tensor(places) for places in zip(*pairs, strict=True))
    slots, old_slots = layout.slot_of_channel[now], old_layout.slot_of_channel[was]
    moved = values.new_zeros(shape).flatten(0, 1)
    take = torch.zeros(len(moved), dtype=torch.bool)
    take[slots] = True
    if not values.is_meta:
        moved[slots] = values.flatten(0, 1)[old_slots]
    return _Mapped(moved.view(shape), take.view(*shape[:2], *[1] * (len(shape) - 2)))


def _layouts(model: ChannelTransformer) -> dict[str, tuple[ChannelLayout, tuple[str, ...]]]:
    """The layout and channels of each parameter that is stacked along channels, by name."""
    config = model.config
    found = {}
    for module_name, module in model.named_modules():
        layout = getattr(module, "layout", None)
        if not isinstance(module, nn.Module) or not isinstance(layout, ChannelLayout):
            continue
        names = [config.input_channels[place] for place in config.base_inputs]
        if module is model.head:
            names = list(config.output_channels)
        elif module_name.startswith(BRANCH):
            names = [config.input_channels[place] for place in config.control_inputs]
        slots = (layout.partitions, layout.slots)
        for name, parameter in module.named_parameters(recurse=False):
            if tuple(parameter.shape[:2]) == slots and layout.channels == len(names):
                found[f"{module_name}.{name}"] = layout, tuple(names)
    return found


def _named(names: Iterable[str], what: str, most: int = 3) -> str:
    """Count names, and give the first ones."""
    names = list(names)
    if not names:
        return f"0 {what}"
    more = ", ..." if len(names) > most else ""
    return f"{len(names)} {what} ({', '.join(names[:most])}{more})"
