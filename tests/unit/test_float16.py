"""Training in float16: loss scale, modules in float32, Adam's epsilon."""

import math
from pathlib import Path

import pytest
import torch
from training_runs import assert_same_weights, recipe, stored

from sciml_dchag.config import TrainingConfig
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.transformer import build_model
from sciml_dchag.parallel.exact import keep_exact
from sciml_dchag.pipeline import train
from sciml_dchag.training.checkpoint import last_checkpoint, read_checkpoint
from sciml_dchag.training.logbook import read_log
from sciml_dchag.training.optim import ShardedAdamW, parts_in_words
from sciml_dchag.training.precision import LossScale, exact_modules
from sciml_dchag.weather.forecast.forecaster import Forecaster
from sciml_dchag.weather.store.store import Store

CONFIG = ModelConfig(
    embed_dim=16, depth=2, heads=2, patch=2, partitions=2, image_size=(4, 8),
    input_channels=tuple("abcd"), output_channels=tuple("ab"),
)  # fmt: skip


def test_the_scale_is_halved_at_once_and_doubled_after_good_steps() -> None:
    scale = LossScale(TrainingConfig(precision="float16", loss_scale=1024.0, loss_scale_steps=3))
    assert scale.overflowed() and scale.value == 512
    for value in (512, 512, 1024, 1024, 1024, 2048):
        scale.passed(1e-9)
        assert scale.value == value
    assert scale.overflowed() and scale.value == 1024 and scale.steps == 0
    still = LossScale(TrainingConfig(precision="float16", loss_scale=1.0, loss_scale_steps=0))
    for _ in range(9):
        still.passed(1e-9)
    assert still.value == 1
    assert sum(still.overflowed() for _ in range(30)) == 24  # then no scale helps
    assert not LossScale(TrainingConfig(precision="float32")).overflowed()
    first = LossScale(TrainingConfig(precision="float16", loss_scale=1.0))
    for _ in range(30):  # up to a norm of 1024, unless something overflows before
        first.passed(2.0**-3)
    assert first.value == 2**13
    assert first.overflowed()
    first.passed(1e-9)
    assert first.value == 2**12


def test_small_gradients_survive_by_the_scale(msl_store: Path, tmp_path: Path) -> None:
    """At the same steps, gradients of a tiny scale are partly zero, and scaled ones are not."""
    lost = {}
    for scale in (2.0**-10, 2.0**14):
        run = tmp_path / f"{scale:g}"
        small = {"precision": "float16", "loss_scale": scale, "checkpoint_every": 1, "steps": 2}
        train(recipe(msl_store, training=small), run)
        moment = stored(run, "optimizer")[
            "optimizer.state.backbone.blocks.0.mlp_out.weight.exp_avg_sq"
        ]
        lost[scale] = float((moment == 0).double().mean())
    assert lost[2.0**-10] > 0.01 > 1e-3 > lost[2.0**14]


def test_overflow_skips_and_halves_and_a_resumed_run_is_the_same(
    msl_store: Path, tmp_path: Path
) -> None:
    def half(folder: str, stop_after: int | None = None) -> Path:
        class StopError(Exception):
            pass

        def stop(done: int, total: int, what: str) -> None:
            if done == stop_after:
                raise StopError

        training = {"precision": "float16", "loss_scale": 2.0**24, "loss_scale_steps": 2,
                    "steps": 16, "checkpoint_every": 6}  # fmt: skip
        run = tmp_path / folder
        if stop_after is not None:
            with pytest.raises(StopError):
                train(recipe(msl_store, training=training), run, progress=stop)
        train(recipe(msl_store, training=training), run)
        return run

    whole, resumed = half("whole"), half("resumed", stop_after=9)
    records = read_log(whole / "log.jsonl")
    overflowed = [r["step"] for r in records if "gradient_norm" not in r]
    saved = last_checkpoint(whole / "checkpoints")
    assert saved is not None
    found = read_checkpoint(saved)
    assert 0 < len(overflowed) == found.overflowed_steps == records[-1]["overflowed_steps"] < 14
    assert overflowed[0] == 1 and all(math.isfinite(r["loss"]) for r in records)
    # Every scale is that before, halved after an overflow and doubled after two good steps.
    assert found.loss_scale == records[-1]["loss_scale"]
    assert math.frexp(found.loss_scale)[0] == 0.5
    assert_same_weights(whole, resumed)
    for name, value in stored(whole, "optimizer").items():
        assert torch.equal(value, stored(resumed, "optimizer")[name]), name
    scales = [[r["loss_scale"] for r in read_log(run / "log.jsonl")] for run in (whole, resumed)]
    assert scales[0] == scales[1]


def test_a_skipped_step_changes_nothing(msl_store: Path, tmp_path: Path) -> None:
    """The first step overflows: weights are those that the second one starts from."""
    steps = {"precision": "float16", "loss_scale": 2.0**24, "steps": 1, "warmup_steps": 0}
    result = train(recipe(msl_store, training=steps), tmp_path / "run")
    assert result.overflowed_steps == 1
    moments = stored(tmp_path / "run", "optimizer")
    assert all(not value.any() for value in moments.values())


def test_half_precision_follows_float32(msl_store: Path, tmp_path: Path) -> None:
    losses = []
    for precision in ("float32", "float16"):
        kind = {"precision": precision, "steps": 20, "loss_scale": 2.0**12}
        train(recipe(msl_store, training=kind), tmp_path / precision)
        losses.append([r["loss"] for r in read_log(tmp_path / precision / "log.jsonl")])
    exact, half = (torch.tensor(loss) for loss in losses)
    torch.testing.assert_close(half, exact, rtol=5e-3, atol=0)
    assert not torch.equal(half, exact)


def overflowing() -> torch.nn.Module:
    """A block whose hidden layer goes beyond 65504, and comes back."""
    model = build_model(CONFIG).eval()
    with torch.no_grad():
        block = model.backbone.blocks[1]
        block.mlp_in.weight *= 2e5
        block.mlp_out.weight *= 5e-6
    return model


def test_a_module_kept_in_float32_does_not_overflow() -> None:
    x, hours = torch.randn(2, 4, 4, 8, generator=torch.Generator().manual_seed(0)), torch.ones(2)
    exact = overflowing()(x, hours)
    with torch.autocast("cpu", torch.float16), torch.no_grad():
        assert not overflowing()(x, hours).isfinite().all()
        model = overflowing()
        names = exact_modules(CONFIG, TrainingConfig(float32_modules=("backbone.blocks.1",)))
        keep_exact(model, names)
        kept = model(x, hours)
    assert names == {"backbone.blocks.1"}
    assert (kept - exact).abs().max() < 2e-2 * exact.abs().max()


def test_predictions_keep_in_float32_what_training_kept(msl_store: Path, tmp_path: Path) -> None:
    kept = recipe(
        msl_store,
        training={"precision": "float16", "steps": 2, "float32_modules": ["head", "*.mlp_out"]},
    )
    train(kept, tmp_path / "run")
    forecaster = Forecaster(tmp_path / "run", Store.open(msl_store))
    given: dict[str, set[torch.dtype]] = {}
    for name in ("head", "backbone.blocks.0.mlp_out", "backbone.blocks.0.mlp_in"):
        module = forecaster.model.get_submodule(name)
        module.register_forward_hook(
            lambda _, __, out, name=name: given.setdefault(name, set()).add(out.dtype)
        )
    list(forecaster.forecast(forecaster.windows(), [100], [6]))
    assert given == {
        "head": {torch.float32}, "backbone.blocks.0.mlp_out": {torch.float32},
        "backbone.blocks.0.mlp_in": {torch.float16},
    }  # fmt: skip


@pytest.mark.parametrize("pattern", ["backbone.block.1", "aggregation.tokenizer", "head.hidden"])
def test_modules_that_are_not_there_or_not_called_are_refused(pattern: str) -> None:
    training = TrainingConfig(float32_modules=(pattern,))
    for said in (exact_modules, parts_in_words):
        with pytest.raises(ValueError, match="matches no module of the model: the nearest are"):
            said(CONFIG, training)


def test_what_a_recipe_says_of_precision_is_said_and_checked() -> None:
    assert "; 1 modules in float32" in parts_in_words(
        CONFIG, TrainingConfig(float32_modules=("head",))
    )
    for key, value in (("loss_scale", 1000.0), ("loss_scale", 0.0), ("epsilon", 0.0)):
        with pytest.raises(ValueError, match=f"training.{key} is "):
            TrainingConfig(**{key: value})


def test_epsilon_is_adams() -> None:
    model = build_model(CONFIG)
    for epsilon in (1e-8, 1e6):
        optimizer = ShardedAdamW(model, TrainingConfig(epsilon=epsilon, weight_decay=0.0))
        before = model.head.weight.detach().clone()
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.set_rate(1e-2)
        optimizer.step()
        step = (model.head.weight.detach() - before).abs().max()
        assert step == pytest.approx(1e-2 / (1 + epsilon), rel=0.2)
