"""`parallelize`: the one place where a model learns that there are other ranks.

In a fixed order, each step with its reason; a model's own code stays as it is on one process.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Collection
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInput,
    RowwiseParallel,
    parallelize_module,
)
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

from sciml_dchag.models.aggregation import ChannelAggregation, PartialCrossAttention, PartialLinear
from sciml_dchag.models.control import ControlBranch, ZeroLinear
from sciml_dchag.models.detection import DetectionHead
from sciml_dchag.models.grading import GradeHead
from sciml_dchag.models.heads import ChannelHead, ForecastHead
from sciml_dchag.models.layers import LayerNorm, TransformerBlock
from sciml_dchag.models.spectral import WavelengthHead, WavelengthTokenizer
from sciml_dchag.models.tokenizer import ChannelLayout
from sciml_dchag.models.transformer import ChannelTransformer
from sciml_dchag.parallel import collectives
from sciml_dchag.parallel.config import ParallelConfig, require_divisible
from sciml_dchag.parallel.exact import WRAPPED, keep_exact, named_exactly, within
from sciml_dchag.parallel.mesh import sharded_axes


def parallelize(
    model: ChannelTransformer,
    mesh: DeviceMesh | None,
    config: ParallelConfig,
    compute_dtype: torch.dtype | None = None,
    exact: Collection[str] = (),
) -> None:
    """Spread a model over the ranks of a mesh, in place; it may be on the meta device.

    Afterwards it takes this rank's input channels and returns this rank's output channels, as
    `own_channels` gives them. Without a mesh, for one process, recomputation and compilation are
    what is left.

    Args:
        model: as `build_model` gives it.
        mesh: of all ranks, or None.
        config: what is asked for.
        compute_dtype: what FSDP gathers parameters in; None for their own precision.
        exact: names of modules that are to compute in float32, of `may_be_exact`.

    Raises:
        ValueError: tp does not divide the model's partitions, heads or locations.
    """
    if mesh is not None and (tp := mesh["tp"]).size() > 1:
        require_divisible(model.config, config)
        # The channel stage first: it changes which channels and parameters a rank has.
        CHANNEL_STAGES[config.channel_stage](model.aggregation, tp)
        if isinstance(model.head, DetectionHead | GradeHead):
            _split_pixels(model.head, model.aggregation, tp)
        else:
            _split_output(model.head, tp)
        # Then heads and features, Megatron's way, of what all ranks compute on the same tokens.
        _split_trunk(model, tp, config.sequence_parallel)
        if model.control is not None:
            _split_control(model, model.control, tp, config.sequence_parallel)
    keep_exact(model, exact)
    # Recomputation wraps what is sharded, so that it repeats a block's collectives with it.
    if config.activation_checkpointing != "none":
        for blocks in model.block_lists:
            for name, block in blocks.named_children():
                wrapped = checkpoint_wrapper(block, **_RECOMPUTED[config.activation_checkpointing])
                blocks.register_module(name, wrapped)
    # Compiled after wrapping: the graph then holds the recomputation. For one shape at a time, as
    # the decoder's is not the backbone's and sharded tensors cannot be traced with sizes left open.
    if config.compile:
        for block in itertools.chain(*model.block_lists):
            block.compile(dynamic=False)
    # Last, as it hooks into the modules as they will be called.
    if mesh is not None and mesh["dp", "fsdp"].size() > 1:
        _shard_storage(model, mesh["dp", "fsdp"], compute_dtype, exact)


def own_channels(model: ChannelTransformer, mesh: DeviceMesh | None) -> tuple[range, range]:
    """Positions of the input and the output channels that this rank works on."""
    rank, ranks = (0, 1) if mesh is None else (mesh["tp"].get_local_rank(), mesh["tp"].size())
    if isinstance(model.head, DetectionHead | GradeHead):  # every rank finds all classes
        outputs = range(len(model.config.output_channels))
    else:
        outputs = model.head.full_layout.channel_range(rank, ranks)
    if model.control is not None:  # whose inputs every rank needs, and which lie between others
        return range(len(model.config.input_channels)), outputs
    return _tokenized(model.aggregation, rank, ranks), outputs


def _tokenized(aggregation: ChannelAggregation, rank: int, ranks: int) -> range:
    """Positions of the channels that a rank tokenizes, among all of this channel stage."""
    layout = aggregation.full_layout
    if aggregation.tokenizer.layout is layout:  # all of them
        return range(layout.channels)
    return layout.channel_range(rank, ranks)


def plain_name(name: str) -> str:
    """Return the name that a parameter has in a model that is not spread over ranks."""
    return name.replace("_checkpoint_wrapped_module.", "")


def freeze(model: nn.Module, names: Collection[str]) -> None:
    """Let the parameters of some names, as they are on one process, have no gradient."""
    for name, parameter in model.named_parameters():
        if plain_name(name) in names:
            parameter.requires_grad_(False)


def _split_channels(aggregation: ChannelAggregation, tp: DeviceMesh) -> None:
    """D-CHAG: each rank has its partitions; tokens are gathered once, or attentions merged."""
    _split_tokenizer(aggregation, tp)
    aggregation.layout = aggregation.tokenizer.layout
    stage = aggregation.partial
    if aggregation.final is None:
        # One attention over all channels: its weights are needed whole on every rank.
        assert isinstance(stage, PartialCrossAttention)
        stage.own = partial(collectives.own, mesh=tp)
        stage.combine = partial(collectives.combine, mesh=tp)
        return
    if isinstance(stage, PartialLinear):
        stage.layout = aggregation.layout
    for name, _ in list(stage.named_parameters()):
        _shard(stage, name, tp, 0)
    aggregation.gather = partial(collectives.gather, mesh=tp, dim=2)
    _split_heads(aggregation.final, tp)


def _split_tokens(aggregation: ChannelAggregation, tp: DeviceMesh) -> None:
    """Baseline: each rank tokenizes its channels, all tokens are gathered, heads are split."""
    _split_tokenizer(aggregation, tp)
    aggregation.gather_channel_tokens = partial(collectives.gather, mesh=tp, dim=2)
    _split_aggregation(aggregation, tp)


def _split_aggregation(aggregation: ChannelAggregation, tp: DeviceMesh) -> None:
    """Baseline: tensor parallelism alone; each rank tokenizes all channels, heads are split."""
    for attention in (aggregation.partial, aggregation.final):
        if isinstance(attention, PartialCrossAttention):
            _split_heads(attention, tp)


CHANNEL_STAGES = {
    "dchag": _split_channels,
    "distributed-tokens": _split_tokens,
    "tp-only": _split_aggregation,
}
"""How tp ranks share out the channel stage, by `ParallelConfig.channel_stage`."""


def _split_tokenizer(aggregation: ChannelAggregation, tp: DeviceMesh) -> None:
    layout = aggregation.full_layout.part(tp.get_local_rank(), tp.size())
    tokenizer = aggregation.tokenizer
    tokenizer.layout = layout
    if isinstance(tokenizer, WavelengthTokenizer):
        _split_bands(tokenizer, aggregation.full_layout, tp)
        return
    for name in ("weight", "bias", "channel_embedding"):
        _shard(tokenizer, name, tp, 0)


def _split_bands(
    module: WavelengthTokenizer | WavelengthHead, layout: ChannelLayout, tp: DeviceMesh
) -> None:
    """Let each rank compute its bands' parameters out of what all ranks hold and learn together."""
    bands = layout.channel_range(tp.get_local_rank(), tp.size())
    module.wavelength_nm = module.wavelength_nm[bands.start : bands.stop]
    module.own = module.band.own = partial(collectives.own, mesh=tp)


def _split_heads(attention: PartialCrossAttention, tp: DeviceMesh) -> None:
    """Let each rank compute its heads over the same tokens."""
    for name in ("query_weight", "key_weight", "value_weight"):
        _shard(attention, name, tp, 2)
    _shard(attention, "output_weight", tp, 1)
    attention.own = partial(collectives.own, mesh=tp)
    attention.enter = partial(collectives.enter, mesh=tp)
    attention.leave = partial(collectives.leave, mesh=tp)


def _split_output(head: ChannelHead | WavelengthHead, tp: DeviceMesh) -> None:
    """Let each rank predict its own channels."""
    head.layout = head.full_layout.part(tp.get_local_rank(), tp.size())
    head.enter = partial(collectives.enter, mesh=tp)
    if isinstance(head, WavelengthHead):
        _split_bands(head, head.full_layout, tp)
        return
    for name in ("weight", "bias"):
        _shard(head, name, tp, 0)


def _split_pixels(
    head: DetectionHead | GradeHead, aggregation: ChannelAggregation, tp: DeviceMesh
) -> None:
    """Let each rank map its own channels' pixels; the rest is small and whole on every rank.

    All compute the same with it up to `enter`, after which each adds up the errors of its own
    samples (`own_samples`).
    """
    head.enter = partial(collectives.enter, mesh=tp)
    if aggregation.tokenizer.layout is aggregation.full_layout:  # every rank has all channels
        return
    pixels = head.pixels
    pixels.layout = pixels.full_layout.part(tp.get_local_rank(), tp.size())
    _shard(pixels, "weight", tp, 0)
    pixels.leave = partial(collectives.leave, mesh=tp)


def _split_trunk(model: ChannelTransformer, tp: DeviceMesh, sequence_parallel: bool) -> None:
    """Split the blocks' and the head's hidden layers: columns, then rows, one all-reduce a pair.

    With `sequence_parallel` the all-reduce is a reduce-scatter, after which each rank goes on with
    its own locations, and an all-gather before the next product (Korthikanti et al. 2022).
    Every rank holds all of a parameter now and cuts its own slice; nothing is sent. A masked
    autoencoder's decoder is left whole: it is small, and every rank computes the same up to the
    head's `enter`, which gives each of them its whole gradient.
    """
    _split_blocks(model.backbone.blocks, tp, sequence_parallel)
    hidden: dict[str, ParallelStyle] = {"0": ColwiseParallel(), "2": RowwiseParallel()}
    if isinstance(model.head, ForecastHead):
        parallelize_module(model.head.hidden, tp, hidden, src_data_rank=None)
    if sequence_parallel:
        model.backbone.part = partial(collectives.part, mesh=tp, dim=1)
        model.backbone.meet = partial(collectives.gather, mesh=tp, dim=1)
        _use_apart(model.backbone, tp)


def _split_control(
    model: ChannelTransformer, control: ControlBranch, tp: DeviceMesh, sequence_parallel: bool
) -> None:
    """Split a branch as the base beside it; its channel stage by heads, as new inputs are few.

    Every rank is given all inputs, and aggregates its own of the base's.
    """
    _split_aggregation(control.aggregation, tp)
    _split_blocks(control.blocks, tp, sequence_parallel)
    own = _tokenized(model.aggregation, tp.get_local_rank(), tp.size())
    if len(own) < len(model.base_places):
        model.base_places = model.base_places[own.start : own.stop]
        # A gradient of the inputs, in a rollout, is then the sum over ranks.
        model.enter_base = partial(collectives.enter, mesh=tp)
    if sequence_parallel:
        control.part = partial(collectives.part, mesh=tp, dim=1)
        _use_apart(control.blocks, tp)
        _use_apart(control.leave, tp)


def _use_apart(modules: nn.Module, tp: DeviceMesh) -> None:
    """Let each rank use the parameters that all hold on its own locations, and learn together."""
    for module in modules.modules():
        if isinstance(module, LayerNorm | ZeroLinear):
            module.own = partial(collectives.own, mesh=tp)


def _split_blocks(blocks: nn.ModuleList, tp: DeviceMesh, sequence_parallel: bool) -> None:
    between: Placement = Shard(1) if sequence_parallel else Replicate()
    plan: dict[str, ParallelStyle] = {
        # The attention's input is entered once for its three layers.
        "attention": PrepareModuleInput(
            input_layouts=(between,), desired_input_layouts=(Replicate(),)
        ),
        "attention.query": ColwiseParallel(),
        "attention.key": ColwiseParallel(),
        "attention.value": ColwiseParallel(),
        "attention.output": RowwiseParallel(output_layouts=between),
        "mlp_in": ColwiseParallel(input_layouts=between),
        "mlp_out": RowwiseParallel(output_layouts=between),
    }
    for block in blocks:
        assert isinstance(block, TransformerBlock)
        parallelize_module(block, tp, plan, src_data_rank=None)
        if sequence_parallel:
            _own_randomness(block.dropout, tp)


def _own_randomness(dropout: nn.Module, tp: DeviceMesh) -> None:
    """Let each rank drop entries of its own locations, and stay in step with the others."""
    forward = dropout.forward

    def with_own_randomness(x: Tensor) -> Tensor:
        if not (dropout.training and dropout.p):
            return forward(x)
        with _disable_current_modes():  # a plan's tensors have no values to draw
            seed = int(torch.randint(2**31, ()))  # the same on all ranks
        with torch.random.fork_rng():
            torch.manual_seed(seed * tp.size() + tp.get_local_rank())
            return forward(x)

    dropout.forward = with_own_randomness


def _keep_products(context: Any, operator: Any, *_: Any, **__: Any) -> CheckpointPolicy:
    """Keep what a product or a collective has made; everything else is cheap to make again."""
    namespace, name = str(operator).split(".")[:2]
    kept = namespace == "_c10d_functional" or name in _PRODUCTS or "attention" in name
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE


_PRODUCTS = {"mm", "addmm", "bmm", "baddbmm"}
_RECOMPUTED: dict[str, dict[str, Any]] = {
    "blocks": {},
    "selective": {"context_fn": partial(create_selective_checkpoint_contexts, _keep_products)},
}


def _shard_storage(
    model: ChannelTransformer,
    mesh: DeviceMesh,
    compute_dtype: torch.dtype | None,
    exact: Collection[str],
) -> None:
    """FSDP2: parameters are gathered module by module, gradients averaged over the mesh.

    Parameters travel in the precision that is computed in, gradients in their own.
    """
    # Each module's output is a view of what it computed, and nothing changes it in place.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    stages = [model.aggregation] + ([] if model.control is None else [model.control.aggregation])
    units: list[nn.Module] = [*stages, *itertools.chain(*model.block_lists), model.head]
    inner = {id(getattr(unit, WRAPPED, unit)): unit for unit in units}
    # What is exact within a unit is stored apart before it, what is around some after them.
    apart = [m for m in named_exactly(model, exact) if id(m) not in inner]
    apart = [m for m in apart if next(m.parameters(), None) is not None]
    around = [m for m in apart if any(id(part) in inner for part in m.modules())]
    in_float32 = within(model, exact)
    for module in (*(m for m in apart if m not in around), *units, *around, model):
        exactly = id(getattr(module, WRAPPED, module)) in in_float32
        policy = MixedPrecisionPolicy(
            param_dtype=None if exactly else compute_dtype,
            reduce_dtype=torch.float32 if compute_dtype else None,
            cast_forward_inputs=False,  # autocast's choice; hours of lead time need their digits
        )
        # Resharded after every forward, the root too: a validation has no backward to do it.
        fully_shard(
            module, mesh=mesh, mp_policy=policy, reshard_after_forward=True,
            shard_placement_fn=lambda p: Shard(_storage_dim(p, mesh["fsdp"].size())),
        )  # fmt: skip


def _storage_dim(parameter: Tensor, ranks: int) -> int:
    split_over_tp = sharded_axes(parameter).get("tp")
    return storage_dim(own_shape(parameter), split_over_tp, ranks)


def own_shape(parameter: Tensor) -> tuple[int, ...]:
    """The shape that a rank computes with: its share over tp, all that fsdp stores apart."""
    shape = list(parameter.shape)
    sharded = sharded_axes(parameter)
    if isinstance(parameter, DTensor) and "tp" in sharded:
        shape[sharded["tp"]] //= parameter.device_mesh["tp"].size()
    return tuple(shape)


def storage_dim(shape: tuple[int, ...], split_over_tp: int | None, ranks: int) -> int:
    """Along which dimension FSDP should split what a rank computes with.

    Parameters stacked along few partitions would leave most ranks nothing to store along
    dimension 0; any other is split evenly or not at all.
    """
    if shape[0] % ranks == 0:
        return 0
    even = [d for d in range(1, len(shape)) if shape[d] % ranks == 0 and d != split_over_tp]
    return max(even, key=lambda d: shape[d], default=0)


@torch.no_grad()
def _shard(module: nn.Module, name: str, mesh: DeviceMesh, dim: int) -> None:
    """Replace a parameter by this rank's slice of it; every rank holds all of it now."""
    whole = getattr(module, name)
    sharded = distribute_tensor(whole.detach(), mesh, [Shard(dim)], src_data_rank=None)
    setattr(module, name, nn.Parameter(sharded))
