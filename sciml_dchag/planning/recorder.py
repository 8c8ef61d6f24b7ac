"""What one process allocates, sends and computes, phase by phase of a training step.

A `StepRecorder` watches operators as they are called, on real tensors or on fake ones that have
shapes and no values; it changes nothing. What an operator allocates inside itself and frees before
it returns is not seen.
"""

from __future__ import annotations

import functools
import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._sharding_prop import ShardingPropagator
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from sciml_dchag.models.hooks import local
from sciml_dchag.planning.allocator import Event

Bytes = Counter[str]
"""Bytes by kind of memory."""

STEADY = ("parameters", "gradients", "optimizer")
"""Kinds that outlast a step; all others are activations by stage, and `communication`."""


@dataclass
class Phase:
    """One stretch of a step, such as the forward pass of a block."""

    name: str
    """`forward` or `backward` and the stage, or what else is done."""
    start: Bytes
    """What is allocated when it begins."""
    peak: Bytes
    """What is allocated at its worst moment."""
    flops: int = 0
    """Multiplications and additions of its products."""
    sent: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Calls by collective and bytes, of what is gathered or of what is reduced, whole."""


class StepRecorder(TorchDispatchMode):
    """Records the phases of what runs in its context.

    Args:
        model: whose parameters and gradients are distinguished from activations.
        stage_of: names the stage of the modules that are one; others belong to the one around.
    """

    def __init__(self, model: nn.Module, stage_of: dict[nn.Module, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.phases: list[Phase] = []
        self.events: list[Event] = []
        self._model = model
        self._stage = "batch"
        self._live: Bytes = Counter()
        self._deliberating = False
        self._entries: dict[int, tuple[str, int]] = {}  # kind and bytes by storage
        self._hooks = [
            hook for module, stage in stage_of.items() for hook in self._mark(module, stage)
        ]
        for parameter in model.parameters():
            self._take(_storage(parameter), "parameters")
        self.begin("start", "batch")

    def begin(self, name: str, stage: str) -> None:
        """Begin a phase; what is allocated in it counts for a stage."""
        for parameter in self._model.parameters():
            if parameter.grad is not None:
                self._take(_storage(parameter.grad), "gradients")
        self._stage = stage
        self.phases.append(Phase(name, self._live.copy(), self._live.copy()))

    def _mark(self, module: nn.Module, stage: str) -> Iterable[Any]:
        kind = "blocks" if stage.startswith("block ") else stage

        def before(*_: Any) -> None:
            self.begin(f"forward {stage}", kind)

        def after(_: nn.Module, __: Any, output: Tensor) -> None:
            if output.requires_grad:
                output.register_hook(lambda gradient: self.begin(f"backward {stage}", kind))

        return module.register_forward_pre_hook(before), module.register_forward_hook(after)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if DTensor in types:  # seen again as what it does to this rank's part
            return NotImplemented
        out = func(*args, **kwargs)
        given, made = _tensors((args, kwargs)), _tensors(out)
        if self._deliberating:
            return out
        phase, packet, kind = self.phases[-1], func._overloadpacket, self._stage
        count = _flop_rule(packet)
        if count is not None:
            phase.flops += int(count(*args, **kwargs, out_val=out))
        if func.namespace in ("_c10d_functional", "c10d", "fsdp"):
            kind = "communication"
            if name := _COLLECTIVES.get(func._opname):
                phase.sent[name, max(tensor.nbytes for tensor in (*given, *made))] += 1
            if func.namespace == "fsdp":  # its buffers are made by plain operators just before
                for tensor in given:
                    self._take(_storage(tensor), kind)
        for tensor in made:
            if _storage(tensor)._cdata not in self._entries:
                self._take(_storage(tensor), kind)
        return out

    def _take(self, storage: torch.UntypedStorage, kind: str) -> None:
        """Count a storage under a kind, whatever it counted under before."""
        key, size = storage._cdata, storage.nbytes()
        known = self._entries.get(key)
        if known is not None and known[0] in STEADY and kind not in STEADY:
            kind = known[0]
        if kind != "parameters" and (known is None or known[1] != size):
            self.events.append((key, size))
        if known is None:
            weakref.finalize(storage, self._drop, key).atexit = False
        else:
            self._live[known[0]] -= known[1]
        self._entries[key] = kind, size
        self._live[kind] += size
        if self.phases and self._live.total() > self.phases[-1].peak.total():
            self.phases[-1].peak = self._live.copy()

    def _drop(self, key: int) -> None:
        kind, size = self._entries.pop(key)
        self._live[kind] -= size
        if kind != "parameters":
            self.events.append((key, 0))

    def __enter__(self) -> StepRecorder:
        # FSDP frees and fills its buffers by resizing their storage, which is no operator.
        self._resize = torch.UntypedStorage.resize_
        recorder = self

        def resize(storage: torch.UntypedStorage, size: int) -> Any:
            result = recorder._resize(storage, size)
            if storage._cdata in recorder._entries:
                recorder._take(storage, recorder._entries[storage._cdata][0])
            return result

        # DTensor finds a result's shape by an operator on whole fake tensors, the first time in a
        # process that it meets these shapes.
        self._propagate = ShardingPropagator._propagate_tensor_meta_non_cached

        def propagate(propagator: ShardingPropagator, schema: Any) -> Any:
            recorder._deliberating = True
            try:
                return recorder._propagate(propagator, schema)
            finally:
                recorder._deliberating = False

        torch.UntypedStorage.resize_ = resize  # type: ignore[assignment, method-assign]
        ShardingPropagator._propagate_tensor_meta_non_cached = propagate  # type: ignore
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, traceback)  # type: ignore[no-untyped-call]
        torch.UntypedStorage.resize_ = self._resize  # type: ignore[method-assign]
        ShardingPropagator._propagate_tensor_meta_non_cached = self._propagate  # type: ignore
        for hook in self._hooks:
            hook.remove()


_COLLECTIVES = {
    "all_gather_into_tensor": "all-gather over tp",
    "reduce_scatter_tensor": "reduce-scatter over tp",
    "all_reduce": "all-reduce over tp",
    "_allgather_base_": "all-gather over fsdp",
    "_reduce_scatter_base_": "reduce-scatter over fsdp",
}
"""Ours over tp are functional collectives, FSDP's are not."""


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def _storage(tensor: Tensor) -> torch.UntypedStorage:
    return local(tensor).untyped_storage()


@functools.cache
def _flop_rule(packet: Any) -> Callable[..., int] | None:
    """The rule registered for an operator, or for the one of torch's that it is a variant of.

    `addmm_` is `addmm` in place; the CPU's attention counts as the accelerators' does.
    """
    if packet in flop_registry:
        return flop_registry[packet]
    name = packet.__name__.replace("_for_cpu", "")
    names = (name, name.removesuffix("_"))
    found = [getattr(torch.ops.aten, n) for n in names if n and hasattr(torch.ops.aten, n)]
    return next((flop_registry[p] for p in found if p in flop_registry), None)
