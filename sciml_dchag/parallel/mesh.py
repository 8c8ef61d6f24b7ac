"""How many ranks do what: the axes of the mesh, from degrees, checked before anything starts.

Axes, outermost first: `dp` copies of everything, `fsdp` ranks that share out the storage of
parameters, `tp` ranks that share out channels, heads and features. Ranks of `tp` are neighbours,
as they talk most. Samples are dealt over `dp` x `fsdp`.
"""

from __future__ import annotations

from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor

from sciml_dchag.models.config import ModelConfig
from sciml_dchag.parallel.config import ParallelConfig

AXES = ("dp", "fsdp", "tp")
"""Names of the mesh's axes, outermost first."""


def sharded_axes(tensor: Tensor) -> dict[str, int]:
    """Tell over which of the mesh's axes a tensor is sharded, and along which dimension."""
    if not isinstance(tensor, DTensor):
        return {}
    names = tensor.device_mesh.mesh_dim_names or ()
    # FSDP's shard of what tp has sharded already is a class of its own; both have a `dim`.
    dims = [getattr(placement, "dim", None) for placement in tensor.placements]
    return {name: dim for name, dim in zip(names, dims, strict=True) if dim is not None}


def require_divisible(model: ModelConfig, config: ParallelConfig) -> None:
    """Refuse a model whose parts cannot be shared out evenly over the tp axis.

    Raises:
        ValueError: which number tp does not divide, and the cure; or a baseline that gathers
            tokens, with a model that forms none.
    """
    tp = config.tp
    if config.channel_stage == "distributed-tokens" and model.implementation == "absorbed":
        raise ValueError(
            "parallel.channel_stage distributed-tokens gathers the tokens of all channels, which "
            "model.implementation absorbed never forms: set it to materialised."
        )
    height, width = (side // model.patch for side in model.image_size)
    if config.sequence_parallel and height * width % tp:
        raise ValueError(
            f"parallel.sequence_parallel shares {height * width} locations out over tp {tp}, which "
            f"does not divide them: set it to false, or change parallel.tp or model.patch."
        )
    for name, count in (("partitions", model.partitions), ("heads", model.heads)):
        if count % tp:
            fitting = [t for t in range(1, count + 1) if count % t == 0]
            raise ValueError(
                f"parallel.tp {tp} does not divide model.{name} {count}: set parallel.tp to one of "
                f"{', '.join(map(str, fitting))}, or model.{name} to a multiple of {tp}."
            )


def build_mesh(config: ParallelConfig, ranks: int, device_type: str) -> DeviceMesh:
    """Build the mesh of all ranks; the process group must have been started.

    Raises:
        ValueError: the degrees do not multiply to the number of ranks.
    """
    return init_device_mesh(device_type, config.sizes(ranks), mesh_dim_names=AXES)
