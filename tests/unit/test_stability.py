"""Watched steps: what they see, what they warn of, and the error of a loss that is not finite."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from training_runs import recipe

from sciml_dchag.config import TrainingConfig
from sciml_dchag.inspecting import describe
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.models.transformer import build_model
from sciml_dchag.parallel.runtime import Ranks
from sciml_dchag.pipeline import train
from sciml_dchag.tasks import task_of
from sciml_dchag.training.logbook import WATCHED, read_log
from sciml_dchag.training.loop import TrainingLoop
from sciml_dchag.training.observed import Surprise, read_warnings
from sciml_dchag.training.optim import ShardedAdamW
from sciml_dchag.training.replay import replay
from sciml_dchag.training.stability import Watch

CPU = torch.device("cpu")
CONFIG = ModelConfig(
    embed_dim=16, depth=2, heads=2, patch=2, partitions=2, image_size=(4, 8),
    input_channels=tuple("abcd"), output_channels=tuple("ab"),
)  # fmt: skip


def watched(
    training: TrainingConfig, change: Any = None, dtype: torch.dtype | None = None, steps: int = 3
) -> tuple[torch.nn.Module, Watch, Any]:
    """Some steps of a small model, the last of them watched; `change` is made before it."""
    model = build_model(CONFIG)
    optimizer = ShardedAdamW(model, training)
    watch = Watch(model, optimizer, Ranks(device=CPU), training)
    generator = torch.Generator().manual_seed(0)
    x, hours = torch.randn(2, 4, 4, 8, generator=generator), torch.ones(2)
    for step in range(1, steps + 1):
        if step == steps and change is not None:
            change(model)
        with watch.hooked(), torch.autocast("cpu", dtype or torch.bfloat16, enabled=bool(dtype)):
            out = model(x, hours).float()
        (out.square().mean() * training.loss_scale).backward()
        watch.take_gradients()
        kept = {name: p.grad.clone() for name, p in model.named_parameters()}
        optimizer.set_rate(training.learning_rate)
        optimizer.step()
        watch.take_update()
    model.kept = kept  # type: ignore[assignment]
    return model, watch, watch.finish(steps, training.loss_scale)


def test_outputs_gradients_and_scores_are_those_of_the_step() -> None:
    outputs: dict[str, float] = {}
    scores: list[float] = []

    def listen(model: torch.nn.Module) -> None:
        block = model.backbone.blocks[1]
        block.mlp_in.register_forward_hook(
            lambda _, __, out: outputs.update(mlp_in=float(out.detach().abs().max()))
        )

        def of_scores(_: Any, given: Any, __: Any) -> None:
            q, k = (
                layer(given[0]).unflatten(-1, (2, 8)).transpose(1, 2)
                for layer in (block.attention.query, block.attention.key)
            )
            scores.append(float((q @ k.mT).detach().abs().max() / 8**0.5))

        block.attention.register_forward_hook(of_scores)

    model, _, seen = watched(TrainingConfig(loss_scale=1.0), listen)
    module = seen.modules["backbone.blocks.1.mlp_in"]
    assert module.largest == pytest.approx(outputs["mlp_in"])
    assert not module.sixteen and module.headroom_bits == pytest.approx(
        math.log2(torch.finfo(torch.float32).max / outputs["mlp_in"])
    )
    bound = seen.modules["backbone.blocks.1.attention"].logits
    assert bound is not None and scores[0] <= bound < 20 * scores[0]
    for name, gradient in model.kept.items():
        assert seen.parameters[name].largest == pytest.approx(float(gradient.abs().max())), name
    assert seen.modules["head"].gradient_largest > 0 and seen.warnings() == []


def test_the_update_is_adams_own() -> None:
    training = TrainingConfig(loss_scale=1.0, weight_decay=0.0, learning_rate=1e-2)
    before: dict[str, torch.Tensor] = {}

    def remember(model: torch.nn.Module) -> None:
        before.update({name: p.detach().clone() for name, p in model.named_parameters()})

    model, _, seen = watched(training, remember)
    for name, parameter in model.named_parameters():
        step = float((parameter.detach() - before[name]).norm() / parameter.detach().norm())
        assert seen.parameters[name].update == pytest.approx(step, rel=2e-3), name


def test_gradients_that_float16_rounds_to_zero_are_counted() -> None:
    small = TrainingConfig(precision="float16", loss_scale=2.0**-10)
    model, _, seen = watched(small, dtype=torch.float16)
    exact, _, _ = watched(TrainingConfig(loss_scale=2.0**-10))
    lost = total = 0
    for name, gradient in exact.kept.items():
        zeros = (model.kept[name] == 0) & (gradient != 0)
        lost, total = lost + int(zeros.sum()), total + gradient.count_nonzero().item()
    assert lost / total > 0.05
    # A row that never had a gradient is not counted: it may have none by construction.
    assert 0.6 * lost / total < seen.lost < 1.1 * lost / total
    (warned,) = [w for w in seen.warnings() if w.kind == "lost"]
    assert "rounded to zero at a loss scale of 0.000976562" in warned.text
    assert "raise training.loss_scale" in warned.text
    enough = dataclasses.replace(small, loss_scale=2.0**12)
    _, _, scaled = watched(enough, dtype=torch.float16)
    assert scaled.lost < 1e-3 and scaled.warnings() == []


def test_each_warning_has_its_name_and_remedy() -> None:
    def large_outputs(model: torch.nn.Module) -> None:
        with torch.no_grad():
            model.backbone.blocks[1].mlp_in.weight *= 1e4
            model.backbone.blocks[1].mlp_out.weight *= 1e-4
            model.backbone.blocks[0].attention.query.weight *= 1e3
            model.backbone.blocks[0].attention.key.weight *= 1e3

    half = TrainingConfig(precision="float16", loss_scale=1024.0, epsilon=1.0, learning_rate=1e-4)
    _, _, seen = watched(half, large_outputs, torch.float16, steps=20)
    warned = {w.kind: w for w in seen.warnings()}
    assert warned["headroom"].names[0] == "backbone.blocks.1.mlp_in"
    assert "add these modules to training.float32_modules" in warned["headroom"].text
    assert "backbone.blocks.0.attention" in warned["logits"].names
    assert "lower training.epsilon" in warned["epsilon"].text
    assert "head.weight" in warned["epsilon"].names
    hasty = TrainingConfig(loss_scale=1.0, learning_rate=0.1)

    def small_weights(model: torch.nn.Module) -> None:
        with torch.no_grad():
            model.head.weight *= 1e-3

    (warned_of,) = [w for w in watched(hasty, small_weights, steps=20)[2].warnings()]
    assert warned_of.kind == "update" and "head.weight" in warned_of.names
    assert "lower training.learning_rate" in warned_of.text


def test_a_surprise_lies_far_from_the_steps_before() -> None:
    surprise = Surprise(window=100, least=20)
    values = [1.0 + 0.1 * math.sin(step) for step in range(60)]
    found = surprise.of(list(range(60)), {"loss": values})
    assert found["loss"][1] < 3
    found = surprise.of([60, 61, 62], {"loss": [1.0, 5.0, math.nan]})
    assert found["loss"][0] == 61 and found["loss"][1] > 8
    assert Surprise().of([1, 2], {"loss": [1.0, 9.0]}) == {}


def test_a_block_is_named_long_before_it_overflows(
    msl_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights grow by a fifth a step; the error names it again, and the samples."""
    update = TrainingLoop._update

    def growing(self: TrainingLoop, rate: float) -> None:
        update(self, rate)
        with torch.no_grad():
            block = self.model.backbone.blocks[0]
            block.mlp_out.weight *= 300.0 if self.step == 0 else 1.2

    monkeypatch.setattr(TrainingLoop, "_update", growing)
    said: list[str] = []
    training = {"precision": "float16", "watch_every": 1, "steps": 80, "checkpoint_every": 100}
    with pytest.raises(FloatingPointError) as error:
        train(recipe(msl_store, training=training), tmp_path / "run", console=said.append)
    last = int(str(error.value).split("at step ")[1].split(",")[0])
    first = next(
        record["step"]
        for record in read_log(tmp_path / "run" / WATCHED)
        if any(
            w["kind"] == "headroom" and w["names"][0] == "backbone.blocks.0.mlp_out"
            for w in record["warnings"]
        )
    )
    assert last - first >= 10
    assert any("WARNING" in line and "backbone.blocks.0.mlp_out" in line for line in said)
    message = str(error.value)
    # Of the layer itself, or of the dropout after it, which makes what it keeps larger.
    assert "first in the output of backbone.blocks.0." in message and ", of sample" in message
    assert "2025-12-" in message and "training.float32_modules" in message


def test_a_loss_that_is_not_finite_names_module_and_samples(
    msl_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gradients = TrainingLoop._gradients

    def breaking(self: TrainingLoop, batch: Any) -> Any:
        if self.step == 3:
            self.model.backbone.blocks[0].attention.register_forward_hook(last_of_part)
        return gradients(self, batch)

    def last_of_part(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
        spoilt = output.clone()
        spoilt[-1] = math.inf
        return spoilt

    monkeypatch.setattr(TrainingLoop, "_gradients", breaking)
    training = {"batch": 4, "micro_batch": 2, "watch_every": 0}
    with pytest.raises(FloatingPointError) as error:
        train(recipe(msl_store, training=training), tmp_path / "run")
    message = str(error.value)
    assert "The loss is nan at step 4, first in the output of backbone.blocks.0" in message
    assert "of samples 13 (2025-12-" in message and "), 15 (2025-12-" in message
    assert "resumes from" in message
    assert "float32_modules" not in message  # nothing is in 16 bits
    assert read_log(tmp_path / "run" / WATCHED) == []


def test_a_step_is_replayed_as_it_was(msl_store: Path, tmp_path: Path) -> None:
    training = {"precision": "float16", "steps": 12, "checkpoint_every": 4, "watch_every": 5}
    made = recipe(msl_store, training=training)
    train(made, tmp_path / "run")
    records = {record["step"]: record for record in read_log(tmp_path / "run" / WATCHED)}
    assert list(records) == [2, 5, 10]
    files = sorted((tmp_path / "run").rglob("*"))
    told: list[str] = []
    for step, begin in ((10, "step-0000008"), (5, "the start")):
        again = replay(task_of(made), tmp_path / "run", step, console=told.append).record()
        assert begin in told[-1]
        for key in ("modules", "parameters", "loss_scale"):
            assert again[key] == records[step][key], key
    assert sorted((tmp_path / "run").rglob("*")) == files
    with pytest.raises(ValueError, match="Step 13 is not one of the run's: name one from 1 to 12"):
        replay(task_of(made), tmp_path / "run", 13)


def test_a_run_without_trouble_warns_of_nothing(msl_store: Path, tmp_path: Path) -> None:
    for precision in ("float16", "float32"):
        run = tmp_path / precision
        training = {"precision": precision, "steps": 30, "watch_every": 1, "checkpoint_every": 30}
        train(recipe(msl_store, training=training), run)
        assert read_warnings(run) == []
        assert len(read_log(run / WATCHED)) == 30
        assert not any("warning" in key for key in describe(str(run)))


def test_inspect_prints_the_warnings_of_a_run(msl_store: Path, tmp_path: Path) -> None:
    training = {"precision": "float16", "loss_scale": 2.0**-10, "loss_scale_steps": 0, "steps": 3}
    train(recipe(msl_store, training=training), tmp_path / "run")
    facts = describe(str(tmp_path / "run"))
    assert facts["warning (lost)"].startswith("step 2: ")
    assert "raise training.loss_scale" in facts["warning (lost)"]


def test_recomputed_blocks_are_watched_alike(msl_store: Path, tmp_path: Path) -> None:
    records = []
    for kind in ("none", "blocks", "selective"):
        made = recipe(msl_store, training={"steps": 2}, parallel={"activation_checkpointing": kind})
        train(made, tmp_path / kind)
        records.append(read_log(tmp_path / kind / WATCHED)[0])
    assert records[0] == records[1] == records[2]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # torch's compiler warns of its own internals
def test_a_compiled_block_is_watched_as_it_is_written(msl_store: Path, tmp_path: Path) -> None:
    """Compiled code has no hooks: a watched step does without it."""
    largest = []
    for compiled in (False, True):
        still = {"dropout": 0.0}  # compiled code draws other numbers
        made = recipe(msl_store, training={"steps": 2}, model=still, parallel={"compile": compiled})
        run = tmp_path / str(compiled)
        train(made, run)
        (record,) = read_log(run / WATCHED)
        largest.append(record["modules"]["backbone.blocks.0.mlp_in"]["largest"])
    assert largest[1] == pytest.approx(largest[0], rel=1e-4)


def test_the_tokenizer_of_many_channels_is_named_within_five_steps(
    simulated_store: Path, tmp_path: Path
) -> None:
    """Mean losses over 80 channels have gradients that float16 loses without a scale."""
    overall = {}
    for scale in (1.0, 2.0**14):
        made = recipe(
            simulated_store,
            data={"train": ["2000-04-10T06", "2000-04-13T00"], "validation": None, "test": None,
                  "forcings": []},
            model={"embed_dim": 64, "depth": 2, "heads": 4, "patch": 4, "partitions": 4},
            task={"lead_hours": [6, 6]},
            training={"precision": "float16", "loss_scale": scale, "loss_scale_steps": 0,
                      "steps": 5, "watch_every": 1, "learning_rate": 5e-4, "ema_decay": 0.0,
                      "log_every": 5, "checkpoint_every": 5},
        )  # fmt: skip
        run = tmp_path / f"{scale:g}"
        train(made, run)
        last = read_log(run / WATCHED)[-1]
        parts = last["parameters"].values()
        live = sum(part["live"] for part in parts)
        overall[scale] = sum(part["lost"] * part["live"] for part in parts) / live
        named = {name for warned in read_warnings(run) for name in warned.names}
        assert ("aggregation.tokenizer.weight" in named) == (scale == 1)
    assert overall[1.0] > 0.03 and overall[2.0**14] < 1e-3
