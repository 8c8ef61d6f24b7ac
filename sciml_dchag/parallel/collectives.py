"""Communication between ranks inside the model, forward and backward.

Each function is one change of layout of a distributed tensor, from which PyTorch derives the
collective, its backward and what `torch.compile` sees. `mesh` is always the one-dimensional tp
axis.

| function  | forward    | backward   | used where                                           |
| --------- | ---------- | ---------- | ---------------------------------------------------- |
| `gather`  | all-gather | none       | every rank computes the same after it                 |
| `enter`   | none       | all-reduce | before what ranks compute apart                      |
| `leave`   | all-reduce | none       | after it, where each has a part of a sum             |
| `part`    | none       | all-gather | before what each rank does for its own locations     |
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard


def gather(x: Tensor, mesh: DeviceMesh, dim: int) -> Tensor:
    """Join every rank's x along a dimension.

    Backward each rank takes its slice of the gradient: every rank has all of it, because what
    follows is the same on all of them, up to an `enter` that has summed it.
    """
    if x.dtype == torch.bool:  # gloo gathers numbers alone
        return gather(x.to(torch.uint8), mesh, dim).bool()
    whole = DTensor.from_local(x, mesh, [Shard(dim)], run_check=False)
    return whole.redistribute(placements=[Replicate()]).to_local()


def enter(x: Tensor, mesh: DeviceMesh) -> Tensor:
    """Return x, the same on all ranks; backward sum the gradients that ranks find apart."""
    whole = DTensor.from_local(x, mesh, [Replicate()], run_check=False)
    return whole.to_local(grad_placements=[Partial()])


def leave(x: Tensor, mesh: DeviceMesh) -> Tensor:
    """Sum every rank's x; backward the gradient is that of the sum."""
    parts = DTensor.from_local(x, mesh, [Partial()], run_check=False)
    return parts.redistribute(placements=[Replicate()]).to_local()


def part(x: Tensor, mesh: DeviceMesh, dim: int) -> Tensor:
    """Return this rank's slice of x, the same on all ranks; backward join the slices' gradients.

    Raises:
        ValueError: slices would not be even, as `gather` needs them.
    """
    if x.shape[dim] % mesh.size():
        raise ValueError(
            f"parallel.sequence_parallel shares {x.shape[dim]} locations out over tp "
            f"{mesh.size()}, which does not divide them: set it to false, or change parallel.tp "
            f"or how many locations the model sees."
        )
    whole = DTensor.from_local(x, mesh, [Replicate()], run_check=False)
    return whole.redistribute(placements=[Shard(dim)]).to_local()


def own(parameter: Tensor, mesh: DeviceMesh) -> Tensor:
    """Return a parameter's shard, or all of one that every rank holds, to compute apart with."""
    return parameter.to_local() if isinstance(parameter, DTensor) else enter(parameter, mesh)


def gather_channels(x_BCHW: Tensor, mesh: DeviceMesh, counts: list[int], *, apart: bool) -> Tensor:
    """Join every rank's channels, of which each has its own count.

    Args:
        x_BCHW: this rank's.
        mesh: the tp axis.
        counts: of all ranks.
        apart: each rank goes on with channels of its own, so that gradients are summed. Where all
            ranks compute the same with all of them, each finds the whole gradient.
    """
    most = max(counts)
    padded = torch.nn.functional.pad(x_BCHW, (0, 0, 0, 0, 0, most - x_BCHW.shape[1]))
    parts = gather(padded, mesh, 1).split(most, dim=1)
    whole = torch.cat([part[:, :count] for part, count in zip(parts, counts, strict=True)], dim=1)
    return enter(whole, mesh) if apart else whole


def combine(mixed: Tensor, logsumexp: Tensor, mesh: DeviceMesh) -> Tensor:
    """Merge attentions over each rank's own channels into the attention over all of them.

    A softmax over all channels is each rank's softmax times that rank's part of the sum of
    exponentials, as in flash decoding over parts of a sequence.

    Args:
        mixed: (B, L, 1, 1, h, d), weighted means of the values.
        logsumexp: (B, L, 1, 1, h), of the scores.
        mesh: the tp axis.
    """
    share_BLThn = gather(logsumexp, mesh, 2).softmax(2)
    mixed_BLThd = gather(mixed, mesh, 2)
    return (mixed_BLThd * share_BLThn[..., None].to(mixed.dtype)).sum(2, keepdim=True)
