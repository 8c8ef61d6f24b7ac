"""ClimaX's weights in our model: the same function, to rounding, or a refusal."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

import sciml_dchag as sd
from sciml_dchag.cli.main import main
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.transformer import ChannelTransformer, build_model
from sciml_dchag.training.checkpoint import tensors_of
from sciml_dchag.training.start_from import start_from
from sciml_dchag.weather.climax import PUBLISHED, convert, import_climax
from sciml_dchag.weather.store.store import Store
from sciml_dchag.weather.windows import ForecastWindows

NAMES = ("land_sea_mask", "lattitude", "2m_temperature", "geopotential_500", "temperature_850")
OURS = ("t2m", "z500", "t850", "lsm", "latitude_degrees")
DIM, DEPTH, HEADS, PATCH, ROWS, COLUMNS = 16, 2, 4, 2, 4, 8


def climax_state(
    names: tuple[str, ...] = NAMES, dtype: torch.dtype = torch.float64, seed: int = 0
) -> dict[str, Tensor]:
    """Random weights in the layout of ClimaX's `arch.py`; no bias is zero."""
    draw = torch.Generator().manual_seed(seed)
    V, D, P, L = len(names), DIM, PATCH**2, ROWS * COLUMNS // PATCH**2
    shapes: dict[str, tuple[int, ...]] = {
        "var_embed": (1, V, D), "var_query": (1, 1, D), "pos_embed": (1, L, D),
        "var_agg.in_proj_weight": (3 * D, D), "var_agg.in_proj_bias": (3 * D,),
        "var_agg.out_proj.weight": (D, D), "var_agg.out_proj.bias": (D,),
        "lead_time_embed.weight": (D, 1), "lead_time_embed.bias": (D,),
        "norm.weight": (D,), "norm.bias": (D,),
        "head.0.weight": (D, D), "head.0.bias": (D,), "head.2.weight": (D, D), "head.2.bias": (D,),
        "head.4.weight": (V * P, D), "head.4.bias": (V * P,),
    }  # fmt: skip
    for v in range(V):
        shapes |= {f"token_embeds.{v}.proj.weight": (D, 1, PATCH, PATCH)}
        shapes |= {f"token_embeds.{v}.proj.bias": (D,)}
    for i in range(DEPTH):
        block = {
            "norm1.weight": (D,), "norm1.bias": (D,), "norm2.weight": (D,), "norm2.bias": (D,),
            "attn.qkv.weight": (3 * D, D), "attn.qkv.bias": (3 * D,), "attn.proj.weight": (D, D),
            "attn.proj.bias": (D,), "mlp.fc1.weight": (4 * D, D), "mlp.fc1.bias": (4 * D,),
            "mlp.fc2.weight": (D, 4 * D), "mlp.fc2.bias": (D,),
        }  # fmt: skip
        shapes |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}
    return {
        name: torch.randn(*shape, generator=draw, dtype=torch.float64).to(dtype) / 3
        for name, shape in shapes.items()
    }


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of several heads, written out: (..., M, D) each."""
    q, k, v = (x.unflatten(-1, (HEADS, -1)).transpose(-2, -3) for x in (q, k, v))
    weights = (q @ k.transpose(-1, -2) / math.sqrt(DIM // HEADS)).softmax(-1)
    return (weights @ v).transpose(-2, -3).flatten(-2)


def climax(w: dict[str, Tensor], x_BVHW: Tensor, hours_B: Tensor, variables: list[int]) -> Tensor:
    """ClimaX's published formula on some of its variables, (B, V, H, W) of all of them."""
    tokens = [
        F.conv2d(x_BVHW[:, [n]], w[f"token_embeds.{v}.proj.weight"],
                 w[f"token_embeds.{v}.proj.bias"], stride=PATCH).flatten(2).transpose(1, 2)
        + w["var_embed"][:, v]
        for n, v in enumerate(variables)
    ]  # fmt: skip
    x_BLVD = torch.stack(tokens, dim=2)
    qkv = zip(w["var_agg.in_proj_weight"].chunk(3), w["var_agg.in_proj_bias"].chunk(3), strict=True)
    query = w["var_query"].expand(*x_BLVD.shape[:2], 1, DIM)
    q, k, v = (F.linear(of, *wb) for of, wb in zip((query, x_BLVD, x_BLVD), qkv, strict=True))
    x = F.linear(attend(q, k, v), w["var_agg.out_proj.weight"], w["var_agg.out_proj.bias"])[:, :, 0]
    lead = F.linear(hours_B[:, None] / 100, w["lead_time_embed.weight"], w["lead_time_embed.bias"])
    x = x + w["pos_embed"] + lead[:, None]
    for i in range(DEPTH):
        of = {
            n.removeprefix(f"blocks.{i}."): t for n, t in w.items() if n.startswith(f"blocks.{i}.")
        }
        y = F.layer_norm(x, (DIM,), of["norm1.weight"], of["norm1.bias"], 1e-5)
        y = attend(*F.linear(y, of["attn.qkv.weight"], of["attn.qkv.bias"]).chunk(3, dim=-1))
        x = x + F.linear(y, of["attn.proj.weight"], of["attn.proj.bias"])
        y = F.layer_norm(x, (DIM,), of["norm2.weight"], of["norm2.bias"], 1e-5)
        y = F.gelu(F.linear(y, of["mlp.fc1.weight"], of["mlp.fc1.bias"]))
        x = x + F.linear(y, of["mlp.fc2.weight"], of["mlp.fc2.bias"])
    x = F.layer_norm(x, (DIM,), w["norm.weight"], w["norm.bias"], 1e-5)
    for layer in (0, 2):
        x = F.gelu(F.linear(x, w[f"head.{layer}.weight"], w[f"head.{layer}.bias"]))
    x = F.linear(x, w["head.4.weight"], w["head.4.bias"])
    x = x.reshape(len(x), ROWS // PATCH, COLUMNS // PATCH, PATCH, PATCH, -1)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(len(x), -1, ROWS, COLUMNS)


def ours(config: ModelConfig, tensors: dict[str, Tensor], **changes: Any) -> ChannelTransformer:
    model = build_model(dataclasses.replace(config, **changes)).double().eval()
    model.load_state_dict(tensors)
    return model


def fields(count: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(7)
    x = torch.randn(3, count, ROWS, COLUMNS, generator=draw, dtype=torch.float64)
    return x, torch.tensor([6.0, 72.0, 168.0], dtype=torch.float64)


@pytest.mark.parametrize("implementation", ["absorbed", "materialised"])
@pytest.mark.parametrize("query", ["random", "zero"])
@torch.no_grad()
def test_the_model_is_climax_to_rounding(implementation: str, query: str) -> None:
    state = climax_state()
    if query == "zero":  # as before the first step: what it is multiplied by cannot make a bias
        state["var_query"].zero_()
    config, tensors = convert(state, variables=NAMES, heads=HEADS)
    assert config.input_channels == OURS and config.output_channels == OURS[:3]
    assert config.image_size == (ROWS, COLUMNS) and config.aggregation == "single"
    model = ours(config, tensors, implementation=implementation)
    x, hours = fields(len(NAMES))
    order = [NAMES.index(n) for n in (*NAMES[2:], "land_sea_mask", "lattitude")]
    expected = climax(state, x, hours, list(range(len(NAMES))))[:, order[:3]]
    found = model(x[:, order], hours)
    assert float((found - expected).abs().max()) < 1e-12 * float(expected.abs().max())
    # ClimaX takes any of its variables; ours does where the others are missing.
    few = [2, 3]
    expected = climax(state, x[:, few], hours, few)[:, order[:3]]
    there = torch.zeros_like(x[:, order], dtype=torch.bool)
    there[:, :2] = True
    found = model(x[:, order], hours, there)
    assert float((found - expected).abs().max()) < 1e-12 * float(expected.abs().max())


def lightning(state: dict[str, Tensor], path: Path, **more: Any) -> Path:
    named = {f"net.{name}": tensor for name, tensor in state.items()}
    torch.save({"state_dict": named, "epoch": 3, "hyper_parameters": {"lr": 5e-4}, **more}, path)
    return path


def older(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of the published files."""
    return {
        "channel" + name[3:] if name.startswith("var_") else name: tensor
        for name, tensor in state.items()
    }


@torch.no_grad()
def test_a_file_is_imported_opened_and_started_from(tmp_path: Path) -> None:
    state = climax_state(dtype=torch.float32)
    path = lightning(older(state), tmp_path / "5.625deg.ckpt")
    out = tmp_path / "climax.safetensors"
    command = ["import", "climax", str(path), str(out), "--heads", str(HEADS)]
    ran = CliRunner().invoke(main, [*command, "--variables", ",".join(NAMES)])
    assert ran.exit_code == 0 and str(out) in ran.output, ran.output
    opened = sd.from_pretrained(out)
    assert "ClimaX's 5.625deg.ckpt" in repr(opened)
    looked = CliRunner().invoke(main, ["inspect", str(out)])
    assert looked.exit_code == 0 and "latitude_degrees" in looked.output, looked.output
    x, hours = (tensor.float() for tensor in fields(2))
    few = [NAMES.index("2m_temperature"), NAMES.index("geopotential_500")]
    expected = climax(state, x, hours, few)[:, few]
    # A model of fewer channels, in another order and in other partitions, takes its share.
    config = ModelConfig(
        embed_dim=DIM, depth=DEPTH, heads=HEADS, patch=PATCH, aggregation="single", partitions=2,
        input_channels=("z500", "t2m"), output_channels=("z500", "t2m"), image_size=(ROWS, COLUMNS),
    )  # fmt: skip
    model = build_model(config, seed=5).eval()
    report = start_from(model, out)
    assert not report.new and report.channels_dropped == ("t850", "lsm", "latitude_degrees")
    found = model(x[:, [1, 0]], hours)[:, [1, 0]]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match=r"no statistics of data.*training\.start_from"):
        opened.saved.checkpoint.read_data(object, out)
    with pytest.raises(FileExistsError):
        import_climax(path, out, variables=NAMES, heads=HEADS)


def test_latitudes_are_normalised_over_rows(msl_store: Path) -> None:
    store = Store.open(msl_store)
    windows = ForecastWindows(
        store, None, mean=np.zeros(1), std=np.ones(1), targets=["msl"], lead_hours=(6, 6),
        forcings=["cos_latitude", "latitude_degrees"],
    )  # fmt: skip
    found = windows.inputs(0)[2]
    expected = store.latitude / store.latitude.std()
    np.testing.assert_allclose(found, np.broadcast_to(expected[:, None], found.shape), rtol=1e-5)


def test_parallel_patch_embeddings_are_the_same_ones() -> None:
    state = climax_state()
    stacked = {n: t for n, t in state.items() if not n.startswith("token_embeds")}
    for ours_, theirs in (("proj_weights", "weight"), ("proj_biases", "bias")):
        each = [state[f"token_embeds.{v}.proj.{theirs}"] for v in range(len(NAMES))]
        stacked[f"token_embeds.{ours_}"] = torch.stack(each)
    one = convert(state, variables=NAMES, heads=HEADS)
    other = convert(stacked, variables=NAMES, heads=HEADS)
    assert one[0] == other[0]
    assert all(torch.equal(one[1][name], other[1][name]) for name in one[1])


def test_the_published_variables_are_channels_of_ours() -> None:
    config, tensors = convert(climax_state(PUBLISHED), heads=HEADS)
    assert len(PUBLISHED) == 48 and len(config.input_channels) == 48
    assert config.input_channels[:5] == ("t2m", "u10", "v10", "z50", "z250")
    assert config.input_channels[-3:] == ("lsm", "orography", "latitude_degrees")
    assert {n: t.shape for n, t in tensors.items()} == {
        n: t.shape for n, t in tensors_of(build_model(config)).items()
    }


class Code:
    """A pickle that would run something."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path("ran").touch, ())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"var_query": None}, "lacks 'var_query'"),
        ({"time_query": torch.zeros(1, 1, DIM)}, "holds 'time_query', which ClimaX's published"),
        ({"blocks.0.ls1.gamma": torch.zeros(DIM)}, r"holds 'blocks\.0\.ls1\.gamma'"),
        ({"blocks.1.mlp.fc1.weight": torch.zeros(2 * DIM, DIM)}, r"of 32 x 16 where 64 x 16"),
        ({"head.6.weight": torch.zeros(DIM, DIM)}, "head of 3 hidden layers, and ours has 2"),
        ({"blocks.0.attn.qkv.bias": None}, r"lacks 'blocks\.0\.attn\.qkv\.bias'"),
    ],
)
def test_what_cannot_be_exact_is_refused(change: dict[str, Any], message: str) -> None:
    state = {**climax_state(), **change}
    with pytest.raises(ValueError, match=message):
        convert({n: t for n, t in state.items() if t is not None}, variables=NAMES, heads=HEADS)


def test_wrong_settings_are_refused() -> None:
    state = climax_state()
    for settings, message in (
        ({}, "has 5 variables where 48 are named"),
        ({"variables": NAMES, "heads": 3}, "3 heads do not divide the width 16"),
        ({"variables": NAMES, "heads": HEADS, "rows": 6}, "do not make 6 rows"),
        ({"variables": (*NAMES[:4], "warmth"), "heads": HEADS}, "'warmth' is no variable"),
        ({"variables": (*NAMES[:4], NAMES[0]), "heads": HEADS}, "name lsm twice"),
    ):
        with pytest.raises(ValueError, match=message):
            convert(state, **settings)  # type: ignore[arg-type]


def test_files_that_are_none_of_climax_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plain = lightning(climax_state(), Path("good.ckpt"))
    lightning(climax_state(), Path("code.ckpt"), callbacks=Code())
    torch.save({"weights": 1}, "other.ckpt")
    torch.save({"state_dict": {"encoder.weight": torch.zeros(2)}}, "vit.ckpt")
    torch.save([1, 2], "list.ckpt")
    Path("text.ckpt").write_text("no checkpoint")
    Path("cut.ckpt").write_bytes(plain.read_bytes()[:5000])
    for name, message in (
        ("code.ckpt", "could run code"),
        ("other.ckpt", "has no state_dict of tensors"),
        ("list.ckpt", "has no state_dict of tensors"),
        ("vit.ckpt", r"begin with 'net\.'"),
        ("text.ckpt", "cannot be read as a PyTorch Lightning checkpoint"),
        ("cut.ckpt", "cannot be read as a PyTorch Lightning checkpoint"),
    ):
        with pytest.raises(ValueError, match=message) as refused:
            import_climax(name, "out.safetensors", variables=NAMES, heads=HEADS)
        assert str(refused.value).count(". ") == 0 and not Path("out.safetensors").exists()
    with pytest.raises(FileNotFoundError, match="There is no file"):
        import_climax("absent.ckpt", "out.safetensors")
    with pytest.raises(ValueError, match=r"must end in \.safetensors"):
        import_climax("good.ckpt", "out.ckpt")
    assert not Path("ran").exists()


def test_files_that_wrap_the_same_weights(tmp_path: Path) -> None:
    """DataParallel, torch.compile and plain state dicts; the file that is written is the same."""
    state = climax_state(dtype=torch.float32)
    path, out = tmp_path / "a.ckpt", tmp_path / "a.safetensors"
    import_climax(lightning(state, path), out, variables=NAMES, heads=HEADS, rows=ROWS)
    expected = load_file(out)
    for prefix in ("module.net.", "net.module.", "net._orig_mod.", "_orig_mod.net.", ""):
        for names in (state, older(state)):
            kept = {prefix + name: tensor for name, tensor in names.items()}
            torch.save(kept if prefix else {"state_dict": kept}, path)
            import_climax(path, out, variables=NAMES, heads=HEADS, rows=ROWS, overwrite=True)
            found = load_file(out)
            assert found.keys() == expected.keys()
            assert all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: (10 * t).to(torch.int8), "as int8, where floating-point numbers are needed"),
        (lambda t: t.to(torch.complex64), "as complex64, where floating-point numbers are"),
        (lambda t: t.to_sparse(), "as sparse_coo, where floating-point numbers are needed"),
        (lambda t: t.to("meta"), "as no values, where floating-point numbers are needed"),
        (lambda t: (t + 1e6).half(), "not finite, as where training diverged or float16 over"),
    ],
)
def test_weights_that_are_no_numbers_are_refused(
    tmp_path: Path, change: Callable[[Tensor], Tensor], message: str
) -> None:
    state = climax_state(dtype=torch.float32)
    state["norm.bias"] = change(state["norm.bias"])
    torch.save({"state_dict": {f"net.{name}": t for name, t in state.items()}}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=f"'net.norm.bias' .*{message}|values in .*{message}"):
        import_climax(tmp_path / "a.ckpt", tmp_path / "o.safetensors", variables=NAMES, heads=HEADS)
