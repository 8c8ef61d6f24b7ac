"""A real training step on a rank, and the memory that it allocates."""

from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from sciml_dchag.config import TrainingConfig
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.objectives.forecast import ForecastObjective
from sciml_dchag.objectives.layout import InputLayout
from sciml_dchag.parallel.apply import own_channels
from sciml_dchag.parallel.build import build_on_ranks
from sciml_dchag.parallel.config import ParallelConfig
from sciml_dchag.parallel.mesh import build_mesh
from sciml_dchag.parallel.runtime import Ranks
from sciml_dchag.training.optim import ShardedAdamW, scale_and_clip_gradient
from sciml_dchag.training.precision import autocast
from sciml_dchag.weather.area import latitude_weights


def measured_peaks(cases: list[tuple[ModelConfig, dict[str, Any], int, str]]) -> list[int]:
    return [measured_peak(*case) for case in cases]


def measured_peak(
    config: ModelConfig, parallel: dict[str, Any], samples: int, precision: str
) -> int:
    """Bytes that a step allocates at its worst moment, as the CPU's allocator tells it.

    Parameters, optimizer and batch are there before; gradients are not.
    """
    degrees = ParallelConfig(**parallel)
    cpu = torch.device("cpu")
    mesh = build_mesh(degrees, torch.distributed.get_world_size(), "cpu")
    model = build_on_ranks(config, 0, Ranks(device=cpu, mesh=mesh), degrees)
    inputs, outputs = own_channels(model, mesh)
    size = config.image_size
    task = ForecastObjective(
        change_std=None, area_weights=latitude_weights(np.linspace(-80, 80, size[0])),
        target_indices=range(len(outputs)), layout=InputLayout(channels=config.output_channels),
    )  # fmt: skip
    optimizer = ShardedAdamW(model, TrainingConfig())
    batch = (
        torch.randn(samples, len(inputs), *size), torch.randn(samples, len(outputs), *size),
        torch.empty(samples, 0, 0, *size), torch.randn(samples, 1, len(outputs), *size),
        torch.ones(samples),
    )  # fmt: skip

    def step() -> None:
        with autocast(precision, cpu):
            loss = task.squared_error(model, *batch)
        loss.backward()
        del loss
        unscaled = torch.ones((), dtype=torch.float64)
        scale_and_clip_gradient(model.parameters(), unscaled, 1.0, mesh)
        optimizer.step()
        optimizer.zero_grad()

    step()  # the optimizer's moments, and what is made once
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    changes = np.array([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())])
    return int(changes.cumsum().max())
