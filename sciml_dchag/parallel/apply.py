"""`parallelize`: the one place where a model learns that there are other ranks.

In a fixed order, each step with its reason; a model's own code stays as it is on one process.
"""

from __future__ import annotations

import itertools
import warnings
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInput,
    RowwiseParallel,
    parallelize_module,
)

from sciml_dchag.models.aggregation import ChannelAggregation, PartialCrossAttention, PartialLinear
from sciml_dchag.models.heads import ChannelHead, ForecastHead
from sciml_dchag.models.layers import SelfAttention, TransformerBlock
from sciml_dchag.models.presets import ChannelTransformer
from sciml_dchag.parallel import collectives
from sciml_dchag.parallel.mesh import ParallelConfig, require_divisible


def parallelize(model: ChannelTransformer, mesh: DeviceMesh | None, config: ParallelConfig) -> None:
    """Spread a model over the ranks of a mesh, in place; it may be on the meta device.

    Afterwards it takes this rank's input channels and returns this rank's output channels, as
    `own_channels` gives them. Without a mesh, for one process, recomputation and compilation are
    what is left.

    Raises:
        ValueError: tp does not divide the model's partitions or heads.
    """
    if mesh is not None and (tp := mesh["tp"]).size() > 1:
        require_divisible(model.config, tp.size())
        # D-CHAG first: it changes which channels and parameters a rank has.
        _split_channels(model.aggregation, tp)
        _split_output(model.head, tp)
        # Then heads and features, Megatron's way, of what all ranks compute on the same tokens.
        _split_trunk(model, tp)
    # Recomputation wraps what is sharded, so that it repeats a block's collectives with it.
    if config.activation_checkpointing == "blocks":
        for blocks in model.block_lists:
            for name, block in blocks.named_children():
                blocks.register_module(name, checkpoint_wrapper(block))
    # Compiled after wrapping: the graph then holds the recomputation. For one shape at a time, as
    # the decoder's is not the backbone's and sharded tensors cannot be traced with sizes left open.
    if config.compile:
        for block in itertools.chain(*model.block_lists):
            block.compile(dynamic=False)
    # Last, as it hooks into the modules as they will be called.
    if mesh is not None and mesh["dp", "fsdp"].size() > 1:
        _shard_storage(model, mesh["dp", "fsdp"])


def own_channels(model: ChannelTransformer, mesh: DeviceMesh | None) -> tuple[range, range]:
    """Positions of the input and the output channels that this rank works on."""
    layouts = model.aggregation.full_layout, model.head.full_layout
    rank, ranks = (0, 1) if mesh is None else (mesh["tp"].get_local_rank(), mesh["tp"].size())
    inputs, outputs = (layout.channel_range(rank, ranks) for layout in layouts)
    return inputs, outputs


def plain_name(name: str) -> str:
    """Return the name that a parameter has in a model that is not spread over ranks."""
    return name.replace("_checkpoint_wrapped_module.", "")


def _split_channels(aggregation: ChannelAggregation, tp: DeviceMesh) -> None:
    """Give each rank its partitions; tokens are gathered once, or attentions merged."""
    own_layout = aggregation.full_layout.part(tp.get_local_rank(), tp.size())
    aggregation.layout = aggregation.tokenizer.layout = own_layout
    for name in ("weight", "bias", "channel_embedding"):
        _shard(aggregation.tokenizer, name, tp, 0)
    stage = aggregation.partial
    if aggregation.final is None:
        # One attention over all channels: its weights are needed whole on every rank.
        assert isinstance(stage, PartialCrossAttention)
        stage.own = partial(collectives.own, mesh=tp)
        stage.combine = partial(collectives.combine, mesh=tp)
        return
    if isinstance(stage, PartialLinear):
        stage.layout = own_layout
    for name, _ in list(stage.named_parameters()):
        _shard(stage, name, tp, 0)
    aggregation.gather = partial(collectives.gather, mesh=tp, dim=2)
    _split_heads(aggregation.final, tp)


def _split_heads(attention: PartialCrossAttention, tp: DeviceMesh) -> None:
    """Let each rank compute its heads over the same tokens."""
    for name in ("query_weight", "key_weight", "value_weight"):
        _shard(attention, name, tp, 2)
    _shard(attention, "output_weight", tp, 1)
    attention.own = partial(collectives.own, mesh=tp)
    attention.enter = partial(collectives.enter, mesh=tp)
    attention.leave = partial(collectives.leave, mesh=tp)


def _split_output(head: ChannelHead, tp: DeviceMesh) -> None:
    """Let each rank predict its own channels."""
    head.layout = head.full_layout.part(tp.get_local_rank(), tp.size())
    for name in ("weight", "bias"):
        _shard(head, name, tp, 0)
    head.enter = partial(collectives.enter, mesh=tp)


def _split_trunk(model: ChannelTransformer, tp: DeviceMesh) -> None:
    """Split the blocks' and the head's hidden layers: columns, then rows, one all-reduce a pair.

    Every rank holds all of a parameter now and cuts its own slice; nothing is sent. A masked
    autoencoder's decoder is left whole: it is small, and every rank computes it alike up to the
    head's `enter`, which gives each of them its whole gradient.
    """
    plan: dict[str, ParallelStyle] = {
        # The attention's input is entered once for its three layers.
        "attention": PrepareModuleInput(
            input_layouts=(Replicate(),), desired_input_layouts=(Replicate(),)
        ),
        "attention.query": ColwiseParallel(),
        "attention.key": ColwiseParallel(),
        "attention.value": ColwiseParallel(),
        "attention.output": RowwiseParallel(),
        "mlp_in": ColwiseParallel(),
        "mlp_out": RowwiseParallel(),
    }
    for block in model.backbone.blocks:
        parallelize_module(block, tp, plan, src_data_rank=None)
        assert isinstance(block, TransformerBlock)
        _own_randomness(block.attention, tp)
    hidden: dict[str, ParallelStyle] = {"0": ColwiseParallel(), "2": RowwiseParallel()}
    if isinstance(model.head, ForecastHead):
        parallelize_module(model.head.hidden, tp, hidden, src_data_rank=None)


def _own_randomness(attention: SelfAttention, tp: DeviceMesh) -> None:
    """Let each rank drop entries of its heads of its own, and stay in step with the others."""
    forward = attention.forward

    def with_own_randomness(x_BLD: Tensor) -> Tensor:
        if not (attention.training and attention.dropout):
            return forward(x_BLD)
        seed = int(torch.randint(2**31, ()))  # the same on all ranks
        with torch.random.fork_rng():
            torch.manual_seed(seed * tp.size() + tp.get_local_rank())
            return forward(x_BLD)

    attention.forward = with_own_randomness  # type: ignore[method-assign]


def _shard_storage(model: ChannelTransformer, mesh: DeviceMesh) -> None:
    """FSDP2: parameters are gathered module by module, gradients averaged over the mesh."""
    # Each module's output is a view of what it computed, and nothing changes it in place.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    for module in (model.aggregation, *itertools.chain(*model.block_lists), model.head, model):
        # Resharded after every forward, the root too: a validation has no backward to do it.
        fully_shard(module, mesh=mesh, reshard_after_forward=True)


@torch.no_grad()
def _shard(module: nn.Module, name: str, mesh: DeviceMesh, dim: int) -> None:
    """Replace a parameter by this rank's slice of it; every rank holds all of it now."""
    whole = getattr(module, name)
    sharded = distribute_tensor(whole.detach(), mesh, [Shard(dim)], src_data_rank=None)
    setattr(module, name, nn.Parameter(sharded))
