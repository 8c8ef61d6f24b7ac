"""A model that starts on its ranks: no process ever holds more of it than its share and one module.

Start values are those of `build_model` on one process, whatever the mesh.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.hooks import local
from sciml_dchag.models.transformer import ChannelTransformer, build_model, draw_start_values
from sciml_dchag.parallel.apply import parallelize, plain_name
from sciml_dchag.parallel.config import ParallelConfig
from sciml_dchag.parallel.mesh import sharded_axes
from sciml_dchag.parallel.runtime import Ranks


def build_on_ranks(
    config: ModelConfig,
    seed: int | None,
    ranks: Ranks,
    parallel: ParallelConfig,
    compute_dtype: torch.dtype | None = None,
    exact: Collection[str] = (),
) -> ChannelTransformer:
    """Build a model on this rank's device, or this rank's share of it.

    Args:
        config: the architecture, complete.
        seed: of the start values; None where a checkpoint's are loaded instead.
        ranks: this process and the others.
        parallel: how blocks are computed; the degrees are those of the ranks' mesh.
        compute_dtype: what FSDP gathers parameters in; None for their own precision.
        exact: names of modules that are to compute in float32.

    Raises:
        ValueError: the config is incomplete, or tp does not divide partitions or heads.
    """
    if ranks.mesh is None:
        model = build_model(config, seed or 0).to(ranks.device)
        parallelize(model, None, parallel, exact=exact)
        return model
    with torch.device("meta"):
        model, reference = build_model(config), build_model(config)
    parallelize(model, ranks.mesh, parallel, compute_dtype, exact)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.to_empty(device=ranks.device)
    for name, buffer in model.named_buffers():
        buffer.copy_(buffers[name])
    if seed is not None:
        _fill(model, reference, seed)
    return model


@torch.no_grad()
def _fill(model: nn.Module, reference: nn.Module, seed: int) -> None:
    """Draw one module after the other as a whole and keep this rank's slices."""
    parameters = {plain_name(name): p for name, p in model.named_parameters()}
    with torch.random.fork_rng(devices=[]):
        for name, module in reference.named_modules():
            whole = {key: torch.empty(p.shape) for key, p in module.named_parameters(recurse=False)}
            for key, value in whole.items():
                setattr(module, key, nn.Parameter(value))
            draw_start_values(module, name, seed)
            for key in whole:
                parameter = parameters[f"{name}.{key}".removeprefix(".")]
                local(parameter).copy_(own_slice(getattr(module, key), parameter))
                setattr(module, key, nn.Parameter(torch.empty(0, device="meta")))


def own_slice(whole: Tensor, parameter: Tensor) -> Tensor:
    """Cut what this rank holds of a parameter out of the whole of it."""
    sharded = sharded_axes(parameter)
    for axis in ("tp", "fsdp"):  # FSDP splits what tp leaves
        if axis in sharded:
            assert isinstance(parameter, DTensor)
            mesh, dim = parameter.device_mesh, sharded[axis]
            chunks = whole.chunk(mesh[axis].size(), dim)
            rank = mesh.get_local_rank(axis)
            whole = chunks[rank] if rank < len(chunks) else whole.narrow(dim, 0, 0)
    return whole
