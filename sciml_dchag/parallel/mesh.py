"""How many ranks do what: the axes of the mesh, from degrees, checked before anything starts.

Axes, outermost first: `dp` copies of everything, `fsdp` ranks that share out the storage of
parameters, `tp` ranks that share out channels, heads and features. Ranks of `tp` are neighbours,
as they talk most. Samples are dealt over `dp` x `fsdp`.
"""

from __future__ import annotations

from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor

from sciml_dchag.parallel.config import ParallelConfig

AXES = ("dp", "fsdp", "tp")
"""Names of the mesh's axes, outermost first."""


def sharded_axes(tensor: Tensor) -> dict[str, int]:
    """Return over which of the mesh's axes a tensor is sharded, and along which dimension."""
    if not isinstance(tensor, DTensor):
        return {}
    names = tensor.device_mesh.mesh_dim_names or ()
    # FSDP's shard of what tp has sharded already is a class of its own; both have a `dim`.
    dims = [getattr(placement, "dim", None) for placement in tensor.placements]
    return {name: dim for name, dim in zip(names, dims, strict=True) if dim is not None}


def sharded_like(parameter: Tensor, own: Tensor) -> Tensor:
    """Make one tensor of all ranks' parts, sharded as a parameter is; it shares their memory."""
    if not isinstance(parameter, DTensor):
        return own
    return DTensor.from_local(
        own, parameter.device_mesh, parameter.placements, run_check=False,
        shape=parameter.shape, stride=parameter.stride(),
    )  # fmt: skip


def build_mesh(config: ParallelConfig, ranks: int, device_type: str) -> DeviceMesh:
    """Build the mesh of all ranks; the process group must have been started.

    Raises:
        ValueError: the degrees do not multiply to the number of ranks.
    """
    return init_device_mesh(device_type, config.sizes(ranks), mesh_dim_names=AXES)
