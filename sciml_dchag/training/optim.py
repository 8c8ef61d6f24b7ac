"""AdamW without decay on embeddings, norms and biases; warm-up and cosine; the gradient's norm;
averaged weights. All of it works on whole parameters as on shards of them.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.optim.adamw import adamw

from sciml_dchag.config import TrainingConfig
from sciml_dchag.config.parts import frozen_of, rates_of
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.hooks import local
from sciml_dchag.models.transformer import build_model
from sciml_dchag.parallel.apply import plain_name
from sciml_dchag.parallel.mesh import sharded_axes, sharded_like
from sciml_dchag.training.precision import exact_modules


def trained_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Return the parameters that are not frozen, under the names that they have on one process."""
    return [(plain_name(n), p) for n, p in model.named_parameters() if p.requires_grad]


def decays(name: str) -> bool:
    """Say whether weight decay applies: to projection weights, not to embeddings, norms, biases.

    The learnt query of an aggregation and a decoder's mask token are embeddings, too; a scale of
    grades is a bias.
    """
    return not (
        "embedding" in name
        or "norm" in name
        or name.endswith(("bias", ".query", "mask_token", "partial.weight", "group_weight"))
        or name.endswith(("thresholds.steps", "severity.ratio", "severity.sharpness"))
    )


@dataclass
class Group:
    """Parameters that are updated with the same decay and rate."""

    names: list[str]
    weight_decay: float
    factor: float
    """Of the run's learning rate."""


class ShardedAdamW:
    """AdamW (Loshchilov and Hutter 2019) on what this process holds of a model's parameters.

    The update treats each element by itself, so that ranks need nothing of each other for it;
    through distributed tensors it gives the same after far more work in Python. Parameters are in
    groups by decay and by their part's rate. Frozen ones are in none. The arithmetic is that of
    `torch.optim`, whose optimizer classes load the compiler: seconds of every command that trains.

    Args:
        model: spread over its ranks already.
        config: rates, decay, betas and epsilon.

    Raises:
        ValueError: a pattern of `training.rates` matches no parameter.
    """

    def __init__(self, model: nn.Module, config: TrainingConfig) -> None:
        factors = rates_of([plain_name(name) for name, _ in model.named_parameters()], config)
        self.config, self.rate = config, config.learning_rate
        self.trained = dict(trained_parameters(model))
        groups: dict[tuple[bool, float], list[str]] = {}
        for name in self.trained:
            groups.setdefault((decays(name), factors[name]), []).append(name)
        self.groups = [
            Group(names, config.weight_decay if decayed else 0.0, factor)
            for (decayed, factor), names in groups.items()
        ]
        self.moments: dict[str, dict[str, Tensor]] = {}
        for name, parameter in self.trained.items():
            own = local(parameter.detach())
            self.moments[name] = {
                "step": torch.zeros((), dtype=torch.float32, device=own.device),
                "exp_avg": torch.zeros_like(own),
                "exp_avg_sq": torch.zeros_like(own),
            }

    def set_rate(self, rate: float) -> None:
        """Learn at a rate from now on, each part at its factor of it."""
        self.rate = rate

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters by their gradients; those without one stay as they are."""
        beta1, beta2 = self.config.betas
        for group in self.groups:
            named = [(n, p) for n in group.names if (p := self.trained[n]).grad is not None]
            if not named:
                continue
            moments = [self.moments[name] for name, _ in named]
            adamw(
                [local(p.detach()) for _, p in named],
                [local(p.grad) for _, p in named if p.grad is not None],
                [moment["exp_avg"] for moment in moments],
                [moment["exp_avg_sq"] for moment in moments],
                [],
                [moment["step"] for moment in moments],
                fused=True,  # in one pass, without temporaries of the parameters' size
                amsgrad=False,
                beta1=beta1,
                beta2=beta2,
                lr=self.rate * group.factor,
                weight_decay=group.weight_decay,
                eps=self.config.epsilon,
                maximize=False,
            )

    def zero_grad(self) -> None:
        """Forget the parameters' gradients."""
        for parameter in self.trained.values():
            parameter.grad = None

    def tensors(self) -> dict[str, Tensor]:
        """Return the moments and counts by parameter, sharded as it is; they share memory."""
        return {
            f"state.{name}.{key}": value if key == "step" else sharded_like(parameter, value)
            for name, parameter in self.trained.items()
            for key, value in self.moments[name].items()
        }


def parts_in_words(config: ModelConfig, training: TrainingConfig) -> str:
    """Say in a line what of a model is trained, and how fast; nothing of it is allocated.

    Raises:
        ValueError: a pattern matches no parameter or module, or all are frozen.
    """
    with torch.device("meta"):
        sizes = {name: p.numel() for name, p in build_model(config).named_parameters()}
    names = list(sizes)
    frozen, factors = frozen_of(names, training), rates_of(names, training)
    learns = {name: size for name, size in sizes.items() if name not in frozen}
    said = f"trained: {sum(learns.values()):,} of {sum(sizes.values()):,} parameters"
    for factor in sorted({factors[name] for name in learns} - {1.0}):
        slower = sum(size for name, size in learns.items() if factors[name] == factor)
        said += f", {slower:,} at {factor:g} of the learning rate"
    if exact := exact_modules(config, training):
        said += f"; {len(exact)} modules in float32"
    return said


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Rate of the update after so many: linear warm-up, then a cosine to the final rate."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    fall = 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    return config.final_learning_rate + (config.learning_rate - config.final_learning_rate) * fall


@torch.no_grad()
def scale_and_clip_gradient(
    parameters: Iterable[nn.Parameter], scale: Tensor, limit: float, mesh: DeviceMesh | None
) -> Tensor:
    """Scale the gradient, then to a norm of at most `limit`; return the norm between, in float64.

    The norm of the whole model's gradient: a shard counts on its own rank, and a copy that
    several ranks hold counts once.

    Args:
        parameters: the model's.
        scale: what the gradient is multiplied by, in float64.
        limit: 0 for none.
        mesh: all ranks; None for one process.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    # Sums of squares by whether gradients are sharded over fsdp and over tp.
    squares = torch.zeros(2, 2, dtype=torch.float64, device=gradients[0].device)
    for gradient in gradients:
        sharded = sharded_axes(gradient)
        # Rows in the gradient's precision, their sum in float64: no copy of the whole is made.
        norms = torch.linalg.vector_norm(local(gradient), dim=-1).double()
        squares[int("fsdp" in sharded), int("tp" in sharded)] += norms.square().sum()
    if mesh is not None:
        for axis, sharded_over_it in (("tp", squares[:, 1]), ("fsdp", squares[1])):
            total = sharded_over_it.clone()
            dist.all_reduce(total, group=mesh.get_group(axis))
            sharded_over_it.copy_(total)
    norm = squares.sum().sqrt() * scale
    factor = scale * (limit / (norm + 1e-6)).clamp(max=1.0) if limit else scale
    for gradient in gradients:
        local(gradient).mul_(factor.to(gradient.dtype))
    return norm


@torch.no_grad()
def all_finite(tensors: Any) -> bool:
    """Whether nested dicts of tensors, or this rank's shards, hold no infinity and no NaN."""
    if isinstance(tensors, dict):
        return all(all_finite(value) for value in tensors.values())
    if not isinstance(tensors, Tensor):
        return True
    return bool(local(tensors).isfinite().all())


class AveragedWeights:
    """An exponential moving average of a model's parameters, shard by shard.

    Frozen ones are their own average, in the same memory.

    Args:
        model: the model whose parameters are averaged.
        decay: d in average = d * average + (1 - d) * weight; the first weights are taken whole.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self.average = {
            plain_name(name): sharded_like(p, local(p.detach()).clone())
            if p.requires_grad
            else p.detach()
            for name, p in model.named_parameters()
        }

    @torch.no_grad()
    def update(self) -> None:
        """Take the model's present weights into the average."""
        for name, parameter in trained_parameters(self.model):
            local(self.average[name]).lerp_(local(parameter), 1 - self.decay)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the model have the averaged weights for as long as the context lasts."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in trained_parameters(self.model):
            average = local(self.average[name])
            kept = local(parameter).clone()
            local(parameter).copy_(average)
            average.copy_(kept)
