"""ClimaX's published checkpoints as models of ours.

ClimaX (Nguyen et al., arXiv 2301.10343; names as in its `arch.py`) aggregates all variables by one
cross-attention with a learnt query, as our `aggregation: single` does. Both are one function:

    keys     q . (t_c Wk + bk) = q . t_c Wk + q . bk, of which the second term is the same for all
             channels, so that the softmax over channels does not see it
    query    query Wq + bq = query Wq', with Wq' = Wq + query^T bq / |query|^2, a rank-one term
    values   attention weights sum to one, so that bv Wo goes into the output's bias

Position embedding, lead time in hours / 100, blocks (LayerNorm of eps 1e-5, GELU by the error
function, an MLP of four times the width) and head are the same as they stand.

Shapes: V variables, D embedding, P pixels of a patch, L locations.
"""

from __future__ import annotations

import dataclasses
import math
import os
import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint

from sciml_dchag.channels import Channel
from sciml_dchag.config import to_mapping
from sciml_dchag.files.digests import sampled_digest
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.heads import ForecastHead
from sciml_dchag.models.transformer import ChannelTransformer, build_model
from sciml_dchag.training.checkpoint import Checkpoint
from sciml_dchag.training.export import require_place, write_model
from sciml_dchag.weather.channels import VARIABLES, level_name
from sciml_dchag.weather.forecast.config import DataConfig, ForecastConfig, ForecastRecipe

_LEVELS = (50, 250, 500, 600, 700, 850, 925)
_ON_LEVELS = (
    "geopotential", "u_component_of_wind", "v_component_of_wind", "temperature",
    "relative_humidity", "specific_humidity",
)  # fmt: skip
PUBLISHED = (
    "land_sea_mask", "orography", "lattitude", "2m_temperature", "10m_u_component_of_wind",
    "10m_v_component_of_wind", *(f"{name}_{level}" for name in _ON_LEVELS for level in _LEVELS),
)  # fmt: skip
"""The variables of the published checkpoints, which do not name them, in order."""
PUBLISHED_HEADS = 16
"""Attention heads of the published checkpoints, which do not say how many."""
HEAD_LAYERS = 2
"""Hidden layers of our head, and of the published ones'."""


def import_climax(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    variables: Sequence[str] = (),
    heads: int = PUBLISHED_HEADS,
    rows: int = 0,
    overwrite: bool = False,
) -> Path:
    """Write a ClimaX checkpoint's weights as an exported model, to be started from.

    Args:
        checkpoint: PyTorch Lightning's file, such as `5.625deg.ckpt`; tensors alone are read, and
            nothing in it is run.
        out: a file that ends in .safetensors.
        variables: ClimaX's names, in the order of its `default_vars`; none for the published ones.
        heads: attention heads, which the file does not say.
        rows: of the grid; 0 for half as many as columns, as on the globe.
        overwrite: replace what is there.

    Raises:
        FileNotFoundError: no checkpoint.
        FileExistsError: `out` exists and `overwrite` is off.
        ValueError: it is no such file, or holds what our model cannot compute exactly.

    Example:
        >>> sd.weather.import_climax("5.625deg.ckpt", "climax.safetensors")  # doctest: +SKIP
    """
    path, place = Path(checkpoint), Path(out)
    require_place(place, overwrite)
    state = _read(path)
    config, tensors = convert(state, variables=variables, heads=heads, rows=rows, path=path)
    recipe = ForecastRecipe(
        name=f"climax-{path.stem}"[:200],
        model=dataclasses.replace(config, input_channels=(), output_channels=(), image_size=(0, 0)),
        data=DataConfig(
            static=tuple(n for n in config.input_channels if _kind(n) == "static"),
            forcings=tuple(n for n in config.input_channels if _kind(n) == "forcing"),
        ),
        task=ForecastConfig(output="direct", lead_hours=(6, 168)),
    )
    record = Checkpoint(
        step=0, recipe=to_mapping(recipe), model_config=to_mapping(config), averaged=False,
        complete=True, best_validation=None, validations_since_best=0,
        data={"imported": f"ClimaX's {path.name}", "sampled_digest": sampled_digest(path)},
    )  # fmt: skip
    single = {name: tensor.float().contiguous() for name, tensor in tensors.items()}
    return write_model(place, record, single)


def convert(
    state: Mapping[str, Tensor],
    *,
    variables: Sequence[str] = (),
    heads: int = PUBLISHED_HEADS,
    rows: int = 0,
    path: Path = Path("the checkpoint"),
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Map ClimaX's parameters onto ours.

    Args:
        state: by ClimaX's names, `token_embeds.0.proj.weight` and so on.
        variables, heads, rows: as of `import_climax`.
        path: for messages.

    Returns:
        The architecture, and its parameters in float64. Channels that are forecast come first, then
        static ones, then forcings, as the inputs of our forecasters are laid out; all but the last
        two are predicted.

    Raises:
        ValueError: a parameter is missing, unknown or of another shape.
    """
    given = _Given(state, path)
    names = list(variables or PUBLISHED)
    channels = [_channel(name) for name in names]
    config = _architecture(given, names, channels, heads, rows)
    tensors = dict(_parameters(given, config, channels))
    if rest := given.rest():
        raise ValueError(
            f"{path} holds {rest[0]!r}, which ClimaX's published architecture does not have, so "
            f"that the import would not be exact: import a checkpoint of that architecture."
        )
    return config, tensors


def _read(path: Path) -> dict[str, Tensor]:
    """Read the state dict of a Lightning checkpoint without running what it may hold."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}: check the path.")
    try:
        unsafe = get_unsafe_globals_in_checkpoint(path)
        found = {} if unsafe else torch.load(path, "cpu", weights_only=True, mmap=True)
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read as a PyTorch Lightning checkpoint ({type(error).__name__}): "
            f"download it again, or name ClimaX's .ckpt file, saved by PyTorch 1.6 or newer."
        ) from error
    if unsafe:
        raise ValueError(
            f"{path} holds {sorted(unsafe)[0]} beside tensors, which could run code when it is "
            f"read: where you trust it, write its state_dict alone with torch.save(dict("
            f"state_dict=...), NEW) and import that."
        )
    state = found.get("state_dict", found) if isinstance(found, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(
            f"{path} has no state_dict of tensors, so that it is no checkpoint of PyTorch "
            f"Lightning: name ClimaX's .ckpt file."
        )
    plain = {_WRAPPERS.sub("", str(name)): tensor for name, tensor in state.items()}
    if len(plain) < len(state) or not any(
        name.startswith("net.") or name in ("var_embed", "channel_embed") for name in plain
    ):
        raise ValueError(
            f"{path} has no parameters that begin with 'net.', as ClimaX's do: name ClimaX's .ckpt "
            f"file."
        )
    for name, tensor in plain.items():
        _require_weights(name, tensor, path)
    return {name.removeprefix("net."): tensor for name, tensor in plain.items()}


_WRAPPERS = re.compile(r"(?:(?<=\.)|^)(?:module|_orig_mod)\.")
"""What DataParallel and torch.compile put into names."""


def _require_weights(name: str, tensor: Tensor, path: Path) -> None:
    """Refuse a parameter that is no array of finite floating-point numbers."""
    if tensor.layout != torch.strided or tensor.is_meta or not tensor.is_floating_point():
        kind = str(tensor.dtype if tensor.layout == torch.strided else tensor.layout)
        raise ValueError(
            f"{path} holds {name!r} as {'no values' if tensor.is_meta else kind[6:]}, where "
            f"floating-point numbers are needed: import the checkpoint that it was made from."
        )
    if not bool(torch.isfinite(tensor).all()):
        raise ValueError(
            f"{path} holds values in {name!r} that are not finite, as where training diverged or "
            f"float16 overflowed: import an earlier checkpoint, or one in float32."
        )


class _Given:
    """ClimaX's parameters, each taken once and its shape checked."""

    def __init__(self, state: Mapping[str, Tensor], path: Path) -> None:
        # Older files call variables channels.
        self.state = {re.sub("^channel_", "var_", name): t for name, t in state.items()}
        self.path = path
        self._taken: set[str] = set()

    def shape(self, name: str, dims: int) -> tuple[int, ...]:
        """Shape of a parameter that must be there and have so many dimensions."""
        if name not in self.state:
            raise ValueError(
                f"{self.path} lacks {name!r}, which ClimaX has: name a checkpoint of ClimaX."
            )
        shape = tuple(self.state[name].shape)
        if len(shape) != dims:
            raise self._other(name, shape, f"{dims} dimensions are needed")
        return shape

    def take(self, name: str, *shape: int) -> Tensor:
        """A parameter of a shape, in float64."""
        found = self.shape(name, len(shape))
        if found != shape:
            raise self._other(name, found, f"{' x '.join(map(str, shape))} is needed")
        self._taken.add(name)
        return self.state[name].to(torch.float64)

    def rest(self) -> list[str]:
        """What was not taken."""
        return sorted(set(self.state) - self._taken)

    def _other(self, name: str, found: tuple[int, ...], needed: str) -> ValueError:
        return ValueError(
            f"{self.path} has {name!r} of {' x '.join(map(str, found))} where {needed}: give the "
            f"variables, heads and rows of that checkpoint, or name one of ClimaX's."
        )


def _architecture(
    given: _Given, names: list[str], channels: list[str], heads: int, rows: int
) -> ModelConfig:
    """Read the architecture off the shapes."""
    _, count, dim = given.shape("var_embed", 3)
    if count != len(names):
        raise ValueError(
            f"{given.path} has {count} variables where {len(names)} are named: give the {count} "
            f"names of its default_vars, in order, with --variables."
        )
    if repeated := [name for name in channels if channels.count(name) > 1]:
        raise ValueError(f"The variables name {repeated[0]} twice: give each once.")
    if heads < 1 or dim % heads:
        raise ValueError(f"{heads} heads do not divide the width {dim}: give the right --heads.")
    parallel = "token_embeds.proj_weights" in given.state
    patch = (
        given.shape("token_embeds.proj_weights", 5)
        if parallel
        else given.shape("token_embeds.0.proj.weight", 4)
    )[-1]
    locations = given.shape("pos_embed", 3)[1]
    rows = rows or patch * math.isqrt(locations // 2)
    if rows < patch or rows % patch or locations % (rows // patch):
        raise ValueError(
            f"{given.path} has {locations} locations of {patch} x {patch} cells, which do not make "
            f"{rows} rows: give the right --rows."
        )
    layers = {int(m[1]) for n in given.state if (m := re.fullmatch(r"head\.(\d+)\.weight", n))}
    if layers != {0, 2, 4}:
        raise ValueError(
            f"{given.path} has a head of {max(len(layers) - 1, 0)} hidden layers, and ours has "
            f"{HEAD_LAYERS}: import a checkpoint with decoder_depth {HEAD_LAYERS}."
        )
    blocks = {int(m[1]) for n in given.state if (m := re.match(r"blocks\.(\d+)\.", n))}
    order = {"static": 1, "forcing": 2}
    inputs = sorted(channels, key=lambda name: order.get(_kind(name), 0))
    return ModelConfig(
        embed_dim=dim, depth=len(blocks), heads=heads, patch=patch, aggregation="single",
        partitions=min(4, count), input_channels=tuple(inputs),
        output_channels=tuple(n for n in inputs if _kind(n) not in order),
        image_size=(rows, patch * (locations // (rows // patch))),
    )  # fmt: skip


def _parameters(
    given: _Given, config: ModelConfig, channels: list[str]
) -> Iterator[tuple[str, Tensor]]:
    """Yield our parameters by name."""
    with torch.device("meta"):
        model = build_model(config)
    D, L = config.embed_dim, math.prod(config.image_size) // config.patch**2
    yield from _channel_stage(given, config, model, channels)
    yield "backbone.position_embedding", given.take("pos_embed", 1, L, D)[0]
    yield "backbone.lead_time_embedding.weight", given.take("lead_time_embed.weight", D, 1)
    yield "backbone.lead_time_embedding.bias", given.take("lead_time_embed.bias", D)
    for number in range(config.depth):
        ours, theirs = f"backbone.blocks.{number}", f"blocks.{number}"
        for of_ours, of_theirs, shape in (
            ("attention_norm", "norm1", (D,)), ("mlp_norm", "norm2", (D,)),
            ("attention.output", "attn.proj", (D, D)), ("mlp_in", "mlp.fc1", (4 * D, D)),
            ("mlp_out", "mlp.fc2", (D, 4 * D)),
        ):  # fmt: skip
            yield f"{ours}.{of_ours}.weight", given.take(f"{theirs}.{of_theirs}.weight", *shape)
            yield f"{ours}.{of_ours}.bias", given.take(f"{theirs}.{of_theirs}.bias", shape[0])
        for kind, shape in (("weight", (3 * D, D)), ("bias", (3 * D,))):
            parts = given.take(f"{theirs}.attn.qkv.{kind}", *shape).chunk(3)
            for name, part in zip(("query", "key", "value"), parts, strict=True):
                if (name, kind) == ("key", "bias"):  # which has no effect, and we have none
                    continue
                yield f"{ours}.attention.{name}.{kind}", part
    for kind in ("weight", "bias"):
        yield f"backbone.norm.{kind}", given.take(f"norm.{kind}", D)
    yield from _head(given, config, model, channels)


def _channel_stage(
    given: _Given, config: ModelConfig, model: ChannelTransformer, channels: list[str]
) -> Iterator[tuple[str, Tensor]]:
    """Tokenizer and aggregation."""
    V, D, side = len(channels), config.embed_dim, config.patch
    if "token_embeds.proj_weights" in given.state:
        weight = given.take("token_embeds.proj_weights", V, D, 1, side, side)
        bias = given.take("token_embeds.proj_biases", V, D)
    else:
        each = [f"token_embeds.{number}.proj" for number in range(V)]
        weight = torch.stack([given.take(f"{name}.weight", D, 1, side, side) for name in each])
        bias = torch.stack([given.take(f"{name}.bias", D) for name in each])
    stage = {
        "weight": weight.flatten(2).transpose(1, 2),  # (V, P, D)
        "bias": bias,
        "channel_embedding": given.take("var_embed", 1, V, D)[0],
    }
    place = [channels.index(name) for name in config.input_channels]
    layout = model.aggregation.full_layout
    for name, values in stage.items():
        slots = values.new_zeros(layout.partitions * layout.slots, *values.shape[1:])
        slots[layout.slot_of_channel] = values[place]
        yield f"aggregation.tokenizer.{name}", slots.unflatten(0, (layout.partitions, -1))
    query = given.take("var_query", 1, 1, D)[0, 0]
    projections = given.take("var_agg.in_proj_weight", 3 * D, D).chunk(3)
    query_weight, key_weight, value_weight = (part.t() for part in projections)
    query_bias, _, value_bias = given.take("var_agg.in_proj_bias", 3 * D).chunk(3)
    output_weight = given.take("var_agg.out_proj.weight", D, D).t()
    output_bias = given.take("var_agg.out_proj.bias", D) + value_bias @ output_weight
    wanted = query @ query_weight + query_bias
    # A query of zeros has nothing to multiply; any other one can be given the same product.
    query = query if bool(query.any()) else torch.ones_like(query)
    lacking = (wanted - query @ query_weight) / query.square().sum()
    found = {
        "query": query, "query_weight": query_weight + torch.outer(query, lacking),
        "key_weight": key_weight, "value_weight": value_weight, "output_weight": output_weight,
        "output_bias": output_bias,
    }  # fmt: skip
    yield from ((f"aggregation.partial.{name}", values[None]) for name, values in found.items())


def _head(
    given: _Given, config: ModelConfig, model: ChannelTransformer, channels: list[str]
) -> Iterator[tuple[str, Tensor]]:
    """Two hidden layers, and of the last one the rows of what is predicted."""
    V, D, P = len(channels), config.embed_dim, config.patch**2
    for layer in ("0", "2"):
        yield f"head.hidden.{layer}.weight", given.take(f"head.{layer}.weight", D, D)
        yield f"head.hidden.{layer}.bias", given.take(f"head.{layer}.bias", D)
    # Their last layer's outputs are by pixel, then by variable.
    stage = {
        "weight": given.take("head.4.weight", P * V, D).unflatten(0, (P, V)).permute(1, 2, 0),
        "bias": given.take("head.4.bias", P * V).unflatten(0, (P, V)).t(),
    }
    place = [channels.index(name) for name in config.output_channels]
    assert isinstance(model.head, ForecastHead)
    layout = model.head.full_layout
    for name, values in stage.items():
        slots = values.new_zeros(layout.partitions * layout.slots, *values.shape[1:])
        slots[layout.slot_of_channel] = values[place]
        yield f"head.{name}", slots.unflatten(0, (layout.partitions, -1))


def _channel(name: str) -> str:
    """Our name of one of ClimaX's variables, which are those of WeatherBench but one."""
    if name == "lattitude":  # their spelling
        return "latitude_degrees"
    long = {variable.long: variable for variable in VARIABLES.values()}
    if match := re.fullmatch(r"(.+)_(\d+)", name):
        variable = long.get(match[1])
        if variable is not None and variable.kind == "level":
            return level_name(variable.short, int(match[2]))
    variable = long.get(name) or VARIABLES.get(name)
    if variable is None or variable.kind == "level":
        raise ValueError(
            f"{name!r} is no variable of ClimaX that this package knows: give names such as "
            f"2m_temperature, geopotential_500 or lattitude."
        )
    return variable.short


def _kind(channel: str) -> str:
    return Channel.parse(channel).kind
