"""Watches one step in many: how near a run is to what its number format cannot hold.

Hooks are on the model for that step alone. Every figure is a largest value or a ratio of two sums,
so that ranks that own shards, copies or samples of their own need one reduction of each kind: what
is held in copies counts as often above as below.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sciml_dchag.config import TrainingConfig
from sciml_dchag.models.hooks import local
from sciml_dchag.models.layers import SelfAttention, TransformerBlock
from sciml_dchag.parallel.apply import plain_name
from sciml_dchag.parallel.runtime import Ranks
from sciml_dchag.training.not_finite import eagerly
from sciml_dchag.training.observed import (
    EARLY,
    ModuleState,
    Observed,
    ParameterState,
    Surprise,
    with_silent_ones,
)
from sciml_dchag.training.optim import ShardedAdamW

SMALLEST_NORMAL = 2.0**-14
"""Of float16: what is smaller has fewer digits, and below half of 2^-24 none."""
_OF_A_PARAMETER = (
    "elements", "zeros", "lost_rows", "live", "subnormal", "moments", "below_epsilon", "update",
    "weight",
)  # fmt: skip


class Watch:
    """What is looked at in a watched step.

    Args:
        model: on its ranks.
        optimizer: its AdamW.
        ranks: this process and the others.
        training: how often, and AdamW's constants.
    """

    def __init__(
        self, model: nn.Module, optimizer: ShardedAdamW, ranks: Ranks, training: TrainingConfig
    ) -> None:
        self.model, self.optimizer, self.ranks, self.training = model, optimizer, ranks, training
        self.surprise = Surprise()
        modules = {plain_name(f"{name}.")[:-1]: module for name, module in model.named_modules()}
        self.modules = {
            name: module for name, module in modules.items() if _is_watched(name, module)
        }
        self.attentions = {n: m for n, m in self.modules.items() if isinstance(m, SelfAttention)}
        self._steps: deque[tuple[int, Tensor, Tensor, float]] = deque(maxlen=1000)
        self._begin()

    def _begin(self) -> None:
        zero = torch.zeros((), dtype=torch.float64, device=self.ranks.device)
        self._most: dict[tuple[str, str], Tensor] = {
            (name, kind): zero for name in self.modules for kind in ("largest", "gradient")
        } | {(name, kind): zero for name in self.attentions for kind in ("query", "key", "logits")}
        self._most |= {(name, "gradient"): zero for name in self.optimizer.trained}
        self._sums: dict[tuple[str, str], Tensor] = {
            (name, kind): zero for name in self.modules for kind in ("elements", "subnormal")
        } | {(name, kind): zero for name in self.optimizer.trained for kind in _OF_A_PARAMETER}
        self._most |= {(name, "limit"): zero for name in self.modules}

    def due(self, step: int) -> bool:
        """Whether a step, counted from 1, is watched."""
        every = self.training.watch_every
        return bool(every) and (step == EARLY or step % every == 0)

    def passed(self, step: int, error: Tensor, weight: Tensor, norm: float) -> None:
        """Keep this rank's error and the norm of a step's gradient, for the next watched step."""
        if self.training.watch_every:
            self._steps.append((step, error, weight, norm))

    @contextlib.contextmanager
    def hooked(self) -> Iterator[None]:
        """Watch modules for as long as the context lasts."""
        self._begin()
        handles = [
            module.register_forward_hook(self._forward_hook(name))
            for name, module in self.modules.items()
        ]
        for name, attention in self.attentions.items():
            for kind in ("query", "key"):
                hook = self._norm_hook(name, kind, attention.head_dim)
                handles.append(getattr(attention, kind).register_forward_hook(hook))
        try:
            with eagerly(self.model):
                yield
        finally:
            _remove(handles)

    def _forward_hook(self, name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if not isinstance(output, Tensor) or not output.numel():
                return
            out = local(output.detach())
            self._raise(name, "largest", _largest(out))
            self._raise(name, "limit", out.new_tensor(torch.finfo(out.dtype).max))
            if output.requires_grad:
                output.register_hook(lambda gradient: self._take_gradient(name, local(gradient)))

        return hook

    def _norm_hook(self, name: str, kind: str, head_dim: int) -> Any:
        """Bound |q . k| / sqrt(d) by the largest |q| times the largest |k| of each head."""

        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            heads = local(output.detach()).unflatten(-1, (-1, head_dim))
            norms = torch.linalg.vector_norm(heads, dim=-1, dtype=torch.float32)
            self._most[name, kind] = norms.flatten(0, -2).amax(0).double()
            if kind == "key":  # which comes after the query
                product = self._most[name, "query"] * self._most[name, "key"]
                self._raise(name, "logits", product.max() / head_dim**0.5)

        return hook

    @torch.no_grad()
    def _take_gradient(self, name: str, gradient: Tensor) -> None:
        self._raise(name, "gradient", _largest(gradient))
        size = gradient.abs()
        self._add(name, "elements", (size > 0).sum())
        self._add(name, "subnormal", ((size > 0) & (size < SMALLEST_NORMAL)).sum())

    def _raise(self, name: str, kind: str, value: Tensor) -> None:
        self._most[name, kind] = torch.maximum(self._most[name, kind], value.double())

    def _add(self, name: str, kind: str, value: Tensor) -> None:
        self._sums[name, kind] = self._sums[name, kind] + value.double()

    @torch.no_grad()
    def take_gradients(self) -> None:
        """Look at the parameters' gradients, still at their loss scale."""
        for name, parameter in self.optimizer.trained.items():
            if parameter.grad is None or not (gradient := local(parameter.grad)).numel():
                continue
            rows = gradient.reshape(-1, gradient.shape[-1]).abs()
            second = self.optimizer.moments[name]["exp_avg_sq"]
            moved = second.reshape(-1, gradient.shape[-1]) > 0
            zero = rows == 0
            some = ~zero.all(-1)
            # A row that is zero throughout may be a channel or location that the batch lacks.
            lost_rows = moved.any(-1) & ~some
            width = gradient.shape[-1]
            # FSDP averages over the ranks of different samples, where a sum is wanted.
            self._raise(name, "gradient", rows.max() * self.ranks.data[1])
            for kind, value in (
                ("elements", torch.tensor(gradient.numel(), device=rows.device)),
                ("zeros", (zero & some[:, None]).sum()),
                ("lost_rows", lost_rows.sum() * width),
                ("live", some.sum() * width),
                ("subnormal", (~zero & (rows < SMALLEST_NORMAL)).sum()),
            ):
                self._add(name, kind, value)

    @torch.no_grad()
    def take_update(self) -> None:
        """Look at what the optimizer has done: its moments, and its update over the weights."""
        for group in self.optimizer.groups:
            for name in group.names:
                self._take_update_of(name, self.optimizer.rate * group.factor)

    def _take_update_of(self, name: str, rate: float) -> None:
        own, state = local(self.optimizer.trained[name]), self.optimizer.moments[name]
        (beta1, beta2), epsilon = self.optimizer.config.betas, self.optimizer.config.epsilon
        steps = state["step"].double().clamp(min=1)
        root = (state["exp_avg_sq"] / (1 - beta2**steps).to(own.dtype)).sqrt()
        self._add(name, "moments", (root > 0).sum())
        self._add(name, "below_epsilon", ((root > 0) & (root < 10 * epsilon)).sum())
        mean = state["exp_avg"] / (1 - beta1**steps).to(own.dtype)
        update = rate * mean / (root + epsilon)
        self._add(name, "update", update.double().square().sum())
        self._add(name, "weight", own.double().square().sum())

    def finish(self, step: int, scale: float) -> Observed:
        """Bring together what all ranks saw of a step; every rank calls it.

        Args:
            step: counted from 1.
            scale: the loss scale that its gradients had.
        """
        kinds = [key for key in self._most if key[1] not in ("query", "key")]
        most = self.ranks.most(torch.stack([self._most[key] for key in kinds]))
        largest = dict(zip(kinds, most.tolist(), strict=True))
        summed = self.ranks.sum(torch.stack(list(self._sums.values())))
        sums = dict(zip(self._sums, summed.tolist(), strict=True))
        half = self.training.precision == "float16"
        modules = {
            name: ModuleState.of(
                largest[name, "largest"], largest[name, "limit"], largest[name, "gradient"],
                sums[name, "elements"], sums[name, "subnormal"],
                largest.get((name, "logits")),
            )
            for name in self.modules
        }  # fmt: skip
        parameters = {
            name: ParameterState.of(
                largest[name, "gradient"], {kind: sums[name, kind] for kind in _OF_A_PARAMETER},
                matrix=self.optimizer.trained[name].dim() > 1, rounded=half and step >= EARLY,
                normal=SMALLEST_NORMAL,
            )
            for name in self.optimizer.trained
        }  # fmt: skip
        return Observed(
            step=step, loss_scale=scale, modules=modules,
            parameters=with_silent_ones(parameters) if half else parameters,
            surprises=self._surprises(),
        )  # fmt: skip

    def _surprises(self) -> dict[str, tuple[int, float]]:
        """How far losses and norms since the last watched step lie from those before."""
        if not self._steps:
            return {}
        errors = self.ranks.sum(torch.stack([error for _, error, _, _ in self._steps]))
        weights = torch.stack([weight for _, _, weight, _ in self._steps]).double()
        losses = (errors / weights.to(errors.device)).tolist()
        norms = [norm for _, _, _, norm in self._steps]
        steps = [step for step, *_ in self._steps]
        self._steps.clear()
        return self.surprise.of(steps, {"loss": losses, "gradient_norm": norms})


def _is_watched(name: str, module: nn.Module) -> bool:
    """Whether a module's output is looked at: those of products, and the parts of the model."""
    last = name.rpartition(".")[-1]
    products = ("mlp_in", "mlp_out", "aggregation", "head", "norm", "narrow")
    return isinstance(module, TransformerBlock | SelfAttention) or last in products


def _largest(x: Tensor) -> Tensor:
    """Return the largest magnitude, without a copy of x; NaN where there is one."""
    return torch.linalg.vector_norm(x.flatten(), float("inf")).double()


def _remove(handles: list[RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()
