"""What each rank does in the tests of this folder; started by `rank_launcher.on_ranks`."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from sciml_dchag.models import ChannelTransformer, ModelConfig, build_model
from sciml_dchag.models.tokenizer import patchify
from sciml_dchag.parallel.apply import own_channels, parallelize
from sciml_dchag.parallel.mesh import ParallelConfig, build_mesh

CONFIG = ModelConfig(embed_dim=16, depth=2, heads=4, patch=2, partitions=4, image_size=(4, 8))
BATCH = 4


def config(kind: str, channels: int, tree: int, implementation: str) -> ModelConfig:
    return dataclasses.replace(
        CONFIG, aggregation=kind, tree=tree, implementation=implementation,
        input_channels=tuple(f"i{i}" for i in range(channels)),
        output_channels=tuple(f"o{i}" for i in range(max(4, channels // 2))),
    )  # fmt: skip


def model_and_data(
    model_config: ModelConfig, dtype: torch.dtype
) -> tuple[ChannelTransformer, Tensor, Tensor, Tensor]:
    model = build_model(model_config, seed=3).to(dtype)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # biases start at zero, which would hide a mistake in them
        for name, parameter in model.named_parameters():
            if "bias" in name:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator).to(dtype)
    shape = (BATCH, len(model_config.input_channels), *model_config.image_size)
    x = torch.randn(shape, generator=generator).to(dtype)
    target = torch.randn(
        (BATCH, len(model_config.output_channels), *shape[2:]), generator=generator
    )
    return model, x, target.to(dtype), torch.tensor([6.0, 24.0, 48.0, 120.0])


def whole(parameter: Tensor) -> Tensor:
    parameter = parameter.detach()
    return parameter.full_tensor() if isinstance(parameter, DTensor) else parameter


def three_steps(
    kind: str, channels: int, tree: int, implementation: str, dtype: torch.dtype,
    parallel: dict[str, Any] | None,
) -> dict[str, Tensor]:  # fmt: skip
    """Train three steps on one process (parallel None) or as a rank; return all that was found."""
    model, x, target, hours = model_and_data(config(kind, channels, tree, implementation), dtype)
    samples, inputs, outputs, data_ranks = slice(None), slice(None), slice(None), 1
    mesh = None
    if parallel is not None:
        degrees = ParallelConfig(**parallel)
        mesh = build_mesh(degrees, torch.distributed.get_world_size(), "cpu")
        parallelize(model, mesh, degrees)
        of_inputs, of_outputs = own_channels(model, mesh)
        inputs = slice(of_inputs.start, of_inputs.stop)
        outputs = slice(of_outputs.start, of_outputs.stop)
        data = mesh["dp", "fsdp"]
        data_ranks = data.size()
        dp, fsdp = data.get_coordinate()
        number, share = dp * data.size(1) + fsdp, BATCH // data_ranks
        samples = slice(number * share, (number + 1) * share)
    # Its usual epsilon of 1e-8 would turn gradients that are rounding alone, as those of an
    # attention's key bias are, into whole steps.
    optimizer = torch.optim.AdamW(groups(model), lr=1e-3, eps=1e-5)
    found: dict[str, Tensor] = {}
    for step in range(3):
        optimizer.zero_grad()
        out = model(x[samples, inputs], hours[samples])
        loss = (out - target[samples, outputs]).square().sum() * data_ranks / target.numel()
        loss.backward()
        if step == 0:
            found["forward"] = out.detach()
            for name, parameter in model.named_parameters():
                assert parameter.grad is not None, name
                found[f"gradient of {clean(name)}"] = whole(parameter.grad)
        optimizer.step()
    found.update({f"weight of {clean(n)}": whole(p) for n, p in model.named_parameters()})
    return found


def clean(name: str) -> str:
    return name.replace("_checkpoint_wrapped_module.", "")


def groups(model: nn.Module) -> list[dict[str, list[nn.Parameter]]]:
    """Parameters by mesh, which one call of a fused update cannot mix."""
    by_mesh: dict[object, list[nn.Parameter]] = {}
    for parameter in model.parameters():
        by_mesh.setdefault(getattr(parameter, "device_mesh", None), []).append(parameter)
    return [{"params": parameters} for parameters in by_mesh.values()]


def all_cases(cases: list[tuple[Any, ...]], parallel: dict[str, Any]) -> list[dict[str, Tensor]]:
    return [three_steps(*case, parallel) for case in cases]


def without_enter(case: tuple[Any, ...]) -> dict[str, Tensor]:
    """What comes out where ranks do not sum the gradients that their heads find."""
    from sciml_dchag.parallel import collectives

    collectives.enter = lambda x, mesh: x
    return three_steps(*case, {"tp": 2})


def train_run(mapping: dict[str, Any], run: str) -> int:
    """Train a recipe as one of the ranks; return the bytes of states that this rank read."""
    from sciml_dchag.config import Recipe, from_mapping
    from sciml_dchag.data.store import Store
    from sciml_dchag.training.trainer import train

    read, whole_read = [], Store.read

    def counted(self: Store, *arguments: Any) -> Any:
        states = whole_read(self, *arguments)
        read.append(states.nbytes)
        return states

    Store.read = counted  # type: ignore[method-assign]
    try:
        train(from_mapping(Recipe, mapping), Path(run))
    finally:
        Store.read = whole_read  # type: ignore[method-assign]
    return sum(read)


def train_runs(mappings: list[dict[str, Any]], runs: str) -> None:
    """Train recipes one after the other, each into a folder of its name."""
    for mapping in mappings:
        train_run(mapping, f"{runs}/{mapping['name']}")


def train_until_step_6(mapping: dict[str, Any], run: str) -> None:
    """Train, and stop every rank in the sixth step, after the checkpoint of the fourth."""
    from sciml_dchag.training import trainer

    gradients = trainer._Trainer._gradients

    def stopping(self: Any, batch: Any) -> Any:
        if self.step == 5:
            for _ in range(300):  # the checkpoint is written in the background
                if (Path(run) / "checkpoints" / "step-0000004").is_dir():
                    break
                time.sleep(0.1)
            raise InterruptedError("stopped on purpose")
        return gradients(self, batch)

    trainer._Trainer._gradients = stopping  # type: ignore[method-assign]
    train_run(mapping, run)


def on_tp(model_config: ModelConfig, dtype: torch.dtype) -> tuple[ChannelTransformer, slice]:
    """A model spread over all ranks of the test, and the input channels of this one."""
    world = torch.distributed.get_world_size()
    degrees = ParallelConfig(tp=world)
    mesh = build_mesh(degrees, world, "cpu")
    model = model_and_data(model_config, dtype)[0]
    parallelize(model, mesh, degrees)
    inputs, _ = own_channels(model, mesh)
    return model, slice(inputs.start, inputs.stop)


def channels_without_effect(cases: list[tuple[str, int, int]]) -> list[list[int]]:
    """Change one input channel a sample; return the channels that leave this rank's output alone."""
    found = []
    for kind, channels, tree in cases:
        small = dataclasses.replace(
            config(kind, channels, tree, "absorbed"), image_size=(2, 2), depth=1
        )
        model, own = on_tp(small, torch.float64)
        base = torch.randn(
            1, channels, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64
        )
        x = base.repeat(channels + 1, 1, 1, 1)
        x[torch.arange(channels), torch.arange(channels)] += 1  # the last sample stays as it is
        with torch.no_grad():
            out = model(x[:, own], torch.full((channels + 1,), 6.0, dtype=torch.float64))
        change = (out[:-1] - out[-1:]).flatten(1).abs().amax(1)
        found.append((change < 1e-9).nonzero().flatten().tolist())
    return found


def alone_and_in_company(kinds: list[str]) -> list[float]:
    """Greatest difference between a sample's output in a batch and by itself."""
    found = []
    for kind in kinds:
        model_config = config(kind, 9, 0, "absorbed")
        model, own = on_tp(model_config, torch.float64)
        _, x, _, hours = model_and_data(model_config, torch.float64)
        with torch.no_grad():
            together = model(x[:, own], hours)
            apart = [model(x[i : i + 1, own], hours[i : i + 1]) for i in range(BATCH)]
        found.append(float((together - torch.cat(apart)).abs().max()))
    return found


def with_missing(kinds: list[str], over_ranks: bool) -> list[tuple[Tensor, Tensor]]:
    """Output and the gradient of a query, where whole partitions and single values are missing."""
    found = []
    for kind in kinds:
        model_config = config(kind, 9, 0, "absorbed")
        model, x, _, hours = model_and_data(model_config, torch.float64)
        available = torch.rand(x.shape, generator=torch.Generator().manual_seed(2)) > 0.1
        available[0] = False  # nothing at all
        available[1, :5] = False  # the first rank's channels
        own = slice(None)
        if over_ranks:
            model, own = on_tp(model_config, torch.float64)
        out = model(x[:, own], hours, available[:, own])
        out.square().sum().backward()
        query = model.aggregation.final or model.aggregation.partial
        assert query.query.grad is not None
        found.append((out.detach(), whole(query.query.grad)))
    return found


class Collectives(TorchDispatchMode):
    """Notes the name and the bytes that a rank hands in, of every collective."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        namespace, name = str(func).split(".")[:2]
        moves = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast")
        if namespace == "_c10d_functional" and name.startswith(moves):
            self.seen.append((name, args[0].nbytes))
        return func(*args, **(kwargs or {}))


def collectives_of_a_step(kind: str, implementation: str) -> dict[str, list[tuple[str, int]]]:
    """What one rank hands to collectives: by the channel stage alone, and by the whole model."""
    model_config = config(kind, 9, 0, implementation)
    model, own = on_tp(model_config, torch.float32)
    _, x, _, hours = model_and_data(model_config, torch.float32)
    found = {}
    pixels = patchify(x[:, own], model_config.patch)
    for name, call in {
        "stage": lambda: model.aggregation(pixels),
        "model": lambda: model(x[:, own], hours),
    }.items():
        with Collectives() as forward:
            out = call()
        with Collectives() as backward:
            out.square().sum().backward()
        found[f"{name} forward"], found[f"{name} backward"] = forward.seen, backward.seen
    return found
