"""What each rank does in the tests of this folder; started by `rank_launcher.on_ranks`."""

import dataclasses
import os
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from sciml_dchag.models.config import ControlConfig, ModelConfig
from sciml_dchag.models.hooks import local
from sciml_dchag.models.tokenizer import patchify
from sciml_dchag.models.transformer import ChannelTransformer, build_model
from sciml_dchag.objectives.masked import MaskedObjective
from sciml_dchag.parallel.apply import own_channels, parallelize
from sciml_dchag.parallel.build import build_on_ranks
from sciml_dchag.parallel.config import ParallelConfig
from sciml_dchag.parallel.mesh import build_mesh
from sciml_dchag.parallel.runtime import Ranks

CONFIG = ModelConfig(
    embed_dim=16, depth=2, heads=4, patch=2, partitions=4, image_size=(4, 8),
    decoder_dim=8, decoder_heads=2,
)  # fmt: skip
BATCH = 4
DEVICE = torch.device(os.environ.get("SCIML_DCHAG_TEST_DEVICE", "cpu"))
"""Where parity is tested; all ranks may share one accelerator, as gloo joins them there too."""


def config(
    kind: str, channels: int, tree: int, implementation: str, head: str = "forecast"
) -> ModelConfig:
    """A model of a kind.

    `bands` is a masked autoencoder that knows channels by wavelength, `control` a forecaster with a
    branch for three further inputs, and of `dchag-l` for all.
    """
    inputs = tuple(f"i{i}" for i in range(channels))
    by_wavelength = head == "bands"
    head = "masked" if by_wavelength else head
    spectral: dict[str, Any] = {}
    if by_wavelength:
        nm = tuple(400.0 + 60 * i for i in range(channels))
        spectral = {"channel_embedding": "wavelength", "wavelength_nm": nm}
    outputs = tuple(f"o{i}" for i in range(max(4, channels // 2)))
    if head == "control":
        head, new = "forecast", ("n0", "n1", "n2")
        inputs = (*new[:1], *inputs[:5], *new[1:2], *inputs[5:], *new[2:])
        control = ControlConfig(
            base="runs/base", channels=new[::-1], blocks=1, with_base=kind == "dchag-l"
        )
        spectral = {"control": control}
    return dataclasses.replace(
        CONFIG, aggregation=kind, tree=tree, implementation=implementation, head=head,
        input_channels=inputs, output_channels=inputs if head == "masked" else outputs, **spectral,
    )  # fmt: skip


def model_and_data(
    model_config: ModelConfig, dtype: torch.dtype
) -> tuple[ChannelTransformer, Tensor, Tensor, Tensor]:
    model = build_model(model_config, seed=3).to(dtype)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # biases start at zero, which would hide a mistake in them
        for name, parameter in model.named_parameters():
            if "bias" in name or name.startswith(("control.enter", "control.leave")):
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator).to(dtype)
    shape = (BATCH, len(model_config.input_channels), *model_config.image_size)
    x = torch.randn(shape, generator=generator).to(dtype)
    target = torch.randn(
        (BATCH, len(model_config.output_channels), *shape[2:]), generator=generator
    )
    hours = torch.tensor([6.0, 24.0, 48.0, 120.0])
    return model.to(DEVICE), x.to(DEVICE), target.to(DEVICE, dtype), hours.to(DEVICE)


def run(
    model: ChannelTransformer, x: Tensor, hours: Tensor, available: Tensor | None = None
) -> Tensor:
    """Forecast, or reconstruct from every other location."""
    if model.decoder is None:
        return model(x, hours, available)
    every_other = torch.arange(0, model.decoder.rows * model.decoder.columns, 2, device=x.device)
    visible = every_other.expand(len(x), -1)
    return model(x, available_BCHW=available, visible_BV=visible)


def mesh_of(degrees: ParallelConfig) -> DeviceMesh:
    """The mesh of all ranks: once for all cases of a call, as each holds threads that wake up."""
    return build_mesh(degrees, torch.distributed.get_world_size(), DEVICE.type)


def whole(parameter: Tensor) -> Tensor:
    parameter = parameter.detach()
    return (parameter.full_tensor() if isinstance(parameter, DTensor) else parameter).cpu()


def three_steps(
    kind: str, channels: int, tree: int, implementation: str, dtype: torch.dtype,
    parallel: dict[str, Any] | None, head: str = "forecast", mesh: DeviceMesh | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """Train three steps on one process (parallel None) or as a rank; return all that was found."""
    model_config = config(kind, channels, tree, implementation, head)
    model, x, target, hours = model_and_data(model_config, dtype)
    samples, inputs, outputs, data_ranks = slice(None), slice(None), slice(None), 1
    if parallel is not None:
        degrees = ParallelConfig(**parallel)
        mesh = mesh or mesh_of(degrees)
        parallelize(model, mesh, degrees)
        of_inputs, of_outputs = own_channels(model, mesh)
        inputs = slice(of_inputs.start, of_inputs.stop)
        outputs = slice(of_outputs.start, of_outputs.stop)
        data = mesh["dp", "fsdp"]
        data_ranks = data.size()
        dp, fsdp = data.get_coordinate()
        number, share = dp * data.size(1) + fsdp, BATCH // data_ranks
        samples = slice(number * share, (number + 1) * share)
    learn = {"forecast": forecast_loss, "control": control_loss}.get(head, masked_loss)
    # Its usual epsilon of 1e-8 would turn gradients that are rounding alone into whole steps. AdamW treats each element by itself; on distributed
    # tensors its operations take most of a test's time. Runs on ranks prove the trainer's own.
    own_parts = [nn.Parameter(local(parameter.detach())) for parameter in model.parameters()]
    optimizer = torch.optim.AdamW(own_parts, lr=1e-3, eps=1e-5)
    found: dict[str, Tensor] = {}
    for step in range(3):
        model.zero_grad()
        out, loss = learn(model, x, target, hours, samples, inputs, outputs)
        (loss * data_ranks).backward()
        if step == 0:
            found["forward"] = out.detach().cpu()
            for name, parameter in model.named_parameters():
                assert parameter.grad is not None, name
                found[f"gradient of {clean(name)}"] = whole(parameter.grad)
        for part, parameter in zip(own_parts, model.parameters(), strict=True):
            part.grad = local(parameter.grad)
        optimizer.step()
    found.update({f"weight of {clean(n)}": whole(p) for n, p in model.named_parameters()})
    return found


def forecast_loss(
    model: nn.Module, x: Tensor, target: Tensor, hours: Tensor,
    samples: slice, inputs: slice, outputs: slice,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """This rank's output, and its part of the loss."""
    out = model(x[samples, inputs], hours[samples])
    return out, (out - target[samples, outputs]).square().sum() / target.numel()


def control_loss(
    model: nn.Module, x: Tensor, target: Tensor, hours: Tensor,
    samples: slice, inputs: slice, outputs: slice,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The same with gaps, and with a sample that has none of the new inputs."""
    available = x < 2
    new = [model.config.input_channels.index(name) for name in model.config.control.channels]
    available[1, new] = False
    out = model(x[samples, inputs], hours[samples], available[samples, inputs])
    return out, (out - target[samples, outputs]).square().sum() / target.numel()


def masked_loss(
    model: nn.Module, x: Tensor, target: Tensor, hours: Tensor,
    samples: slice, inputs: slice, outputs: slice,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The same of a masked autoencoder: locations and channels hidden, plants weighted, gaps."""
    images = x.masked_fill(target > 2, torch.nan)
    plants = target[:, 1].sigmoid()
    task = MaskedObjective(
        seed=5, image_size=CONFIG.image_size, patch=CONFIG.patch, channels=x.shape[1],
        mask_ratio=0.5, channel_mask_ratio=0.25, channel_groups=4,
    )  # fmt: skip
    masks = [mask.to(DEVICE) for mask in task.draw([(1, index) for index in range(BATCH)])]
    weight = task.weights(images, *masks, plants)[0]  # of all channels and samples
    task.own_inputs, task.own_outputs = (range(x.shape[1])[own] for own in (inputs, outputs))
    task.complete = lambda available: False  # as ranks agree where one of them finds a gap
    visible, hidden = (mask[samples] for mask in masks)
    own = images[samples, inputs]
    with torch.no_grad():
        out = task.reconstruct(model, own, visible, hidden)
    errors = task.squared_errors(model, own, visible, hidden, plants[samples])
    return out, errors[0] / weight.to(errors.dtype)


def clean(name: str) -> str:
    return name.replace("_checkpoint_wrapped_module.", "")


def all_cases(
    cases: list[tuple[Any, ...]], parallel: dict[str, Any], head: str
) -> list[dict[str, Tensor]]:
    mesh = mesh_of(ParallelConfig(**parallel))
    return [three_steps(*case, parallel, head, mesh) for case in cases]


def without_enter(case: tuple[Any, ...], head: str) -> dict[str, Tensor]:
    """What comes out where ranks do not sum the gradients that they find apart."""
    from sciml_dchag.parallel import collectives

    with mock.patch.object(collectives, "enter", lambda x, mesh: x):
        return three_steps(*case, {"tp": 2}, head)


def tp_of_all() -> ParallelConfig:
    return ParallelConfig(tp=torch.distributed.get_world_size())


def on_tp(
    model_config: ModelConfig, dtype: torch.dtype, mesh: DeviceMesh
) -> tuple[ChannelTransformer, slice]:
    """A model spread over all ranks of the test, and the input channels of this one."""
    degrees = tp_of_all()
    model = model_and_data(model_config, dtype)[0]
    parallelize(model, mesh, degrees)
    inputs, _ = own_channels(model, mesh)
    return model, slice(inputs.start, inputs.stop)


MASKED = ("dchag-c", 9, 0, "absorbed", "masked")


def uneven_locations() -> str:
    """What is said of 3 of 8 locations that two ranks are to share out."""
    degrees = ParallelConfig(tp=2, sequence_parallel=True)
    model = build_model(config(*MASKED), seed=3)
    mesh = mesh_of(degrees)
    parallelize(model, mesh, degrees)
    inputs, _ = own_channels(model, mesh)
    try:
        model(torch.zeros(1, len(inputs), *CONFIG.image_size), visible_BV=torch.tensor([[0, 1, 5]]))
    except ValueError as error:
        return str(error)
    return "nothing"


def start_values(parallel: dict[str, Any]) -> dict[str, Tensor]:
    """The start of a model that is built on its ranks."""
    degrees = ParallelConfig(**parallel)
    mesh = mesh_of(degrees)
    ranks = Ranks(device=torch.device("cpu"), mesh=mesh)
    model = build_on_ranks(config(*MASKED), 3, ranks, degrees)
    return {name: whole(parameter) for name, parameter in model.named_parameters()}


def with_dropout(parallel: dict[str, Any]) -> dict[str, Tensor]:
    """What goes into the head, with and without dropout, and every gradient with it."""
    model_config = dataclasses.replace(config(*MASKED), dropout=0.3)
    model, x, _, hours = model_and_data(model_config, torch.float64)
    degrees = ParallelConfig(**parallel)
    mesh = mesh_of(degrees)
    parallelize(model, mesh, degrees)
    inputs, _ = own_channels(model, mesh)
    seen: list[Tensor] = []
    model.head.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].detach()))
    torch.manual_seed(7)
    run(model, x[:, inputs.start : inputs.stop], hours).square().sum().backward()
    run(model.eval(), x[:, inputs.start : inputs.stop], hours)
    gradients = {clean(name): whole(p.grad) for name, p in model.named_parameters()}
    return {"features": seen[0], "features without dropout": seen[1], **gradients}


def channels_without_effect(cases: list[tuple[str, int, int]], head: str) -> list[list[int]]:
    """Change one input channel a sample; return the channels that leave this rank's output alone."""
    found, mesh = [], mesh_of(tp_of_all())
    image_size = (2, 4) if head == "masked" else (2, 2)  # one location that is seen
    for kind, channels, tree in cases:
        small = dataclasses.replace(
            config(kind, channels, tree, "absorbed", head), image_size=image_size, depth=1
        )
        model, own = on_tp(small, torch.float64, mesh)
        generator = torch.Generator().manual_seed(1)
        base = torch.randn(1, channels, *image_size, generator=generator, dtype=torch.float64)
        x = base.repeat(channels + 1, 1, 1, 1)
        x[torch.arange(channels), torch.arange(channels)] += 1  # the last sample stays as it is
        with torch.no_grad():
            out = run(model, x[:, own], torch.full((channels + 1,), 6.0, dtype=torch.float64))
        change = (out[:-1] - out[-1:]).flatten(1).abs().amax(1)
        found.append((change < 1e-9).nonzero().flatten().tolist())
    return found


def alone_and_in_company(kinds: list[str], head: str) -> list[float]:
    """Greatest difference between a sample's output in a batch and by itself."""
    found, mesh = [], mesh_of(tp_of_all())
    for kind in kinds:
        model_config = config(kind, 9, 0, "absorbed", head)
        model, own = on_tp(model_config, torch.float64, mesh)
        _, x, _, hours = model_and_data(model_config, torch.float64)
        with torch.no_grad():
            together = run(model, x[:, own], hours)
            apart = [run(model, x[i : i + 1, own], hours[i : i + 1]) for i in range(BATCH)]
        found.append(float((together - torch.cat(apart)).abs().max()))
    return found


def with_missing(kinds: list[str], over_ranks: bool, head: str) -> list[tuple[Tensor, Tensor]]:
    """Output and the gradient of a query, where whole partitions and single values are missing."""
    found, mesh = [], mesh_of(tp_of_all()) if over_ranks else None
    for kind in kinds:
        model_config = config(kind, 9, 0, "absorbed", head)
        model, x, _, hours = model_and_data(model_config, torch.float64)
        available = torch.rand(x.shape, generator=torch.Generator().manual_seed(2)) > 0.1
        available[0] = False  # nothing at all
        available[1, :5] = False  # the first rank's channels
        own = slice(None)
        if mesh is not None:
            model, own = on_tp(model_config, torch.float64, mesh)
        out = run(model, x[:, own], hours, available[:, own])
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


def collectives_of_a_step(
    kind: str, implementation: str, head: str = "forecast"
) -> dict[str, list[tuple[str, int]]]:
    """What one rank hands to collectives: by the channel stage alone, and by the whole model."""
    model_config = config(kind, 9, 0, implementation, head)
    model, own = on_tp(model_config, torch.float32, mesh_of(tp_of_all()))
    _, x, _, hours = model_and_data(model_config, torch.float32)
    found = {}
    pixels = patchify(x[:, own], model_config.patch)
    for name, call in {
        "stage": lambda: model.aggregation(pixels),
        "model": lambda: run(model, x[:, own], hours),
    }.items():
        with Collectives() as forward:
            out = call()
        with Collectives() as backward:
            out.square().sum().backward()
        found[f"{name} forward"], found[f"{name} backward"] = forward.seen, backward.seen
    return found


def what_dropout_leaves(rate: float, parallel: dict[str, Any], seed: int = 5) -> dict[str, Tensor]:
    """Features of all ranks, and what this rank's block drops, in training."""
    model_config = dataclasses.replace(config("dchag-c", 8, 0, "absorbed"), dropout=rate)
    degrees = ParallelConfig(**parallel)
    mesh = mesh_of(degrees)
    model, x = model_and_data(model_config, torch.float32)[:2]
    parallelize(model, mesh, degrees)
    inputs, _ = own_channels(model, mesh)
    found: dict[str, Tensor] = {}

    def keep(name: str, value: Tensor) -> None:
        found.setdefault(name, getattr(value, "_local_tensor", value).detach().clone())

    model.backbone.blocks[0].dropout.register_forward_hook(
        lambda *call: keep("dropped", call[-1] == 0)
    )
    model.backbone.register_forward_hook(lambda *call: keep("features", call[-1]))
    model.train()
    torch.manual_seed(seed)
    model(x[:, inputs.start : inputs.stop], torch.full((BATCH,), 6.0))
    return found
