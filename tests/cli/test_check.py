"""`check` and `inspect`, which look before work starts, and what is wrong in a recipe."""

import json
import re
import shutil
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from fsspec.registry import _registry

from sciml_dchag.tasks import TASKS, load_recipe, recipe_from_mapping

Call = Callable[..., Result]
Refused = Callable[[Result], str]
PIPELINES = Path(__file__).parents[2] / "pipelines"
RECIPES = sorted(PIPELINES.glob("*.yaml"))
ERA5 = PIPELINES / "era5_forecast.yaml"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, and no network."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_is_named_like_its_file_and_explained_in_the_guide(path: Path) -> None:
    assert load_recipe(path).name.replace("-", "_") == path.stem
    assert f"`{path.name}`" in (PIPELINES.parent / "docs" / "recipes.md").read_text()


def test_the_papers_experiment_is_the_papers() -> None:
    recipe = load_recipe(ERA5)
    model, training = recipe.model, recipe.training
    assert (model.embed_dim, model.depth, model.heads, model.patch) == (512, 16, 16, 4)
    assert (training.learning_rate, training.betas, training.weight_decay) == (
        2e-5, (0.9, 0.95), 1e-5,
    )  # fmt: skip
    assert (training.steps, training.batch, training.warmup_steps) == (20_000, 512, 1_000)
    assert training.final_learning_rate == 1e-8 and model.dropout == 0.1
    assert recipe.task.lead_hours == (1, 719) and recipe.evaluation.lead_hours == (168, 336, 720)
    assert recipe.task.targets == ("z500", "t850", "t2m", "u10", "v10")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_check_of_a_recipe_needs_seconds_and_no_network(
    path: Path, elsewhere: Path, call: Call
) -> None:
    call("check", path)  # imports what it needs, for several seconds of CPU on a busy machine
    began = time.process_time()
    result = call("check", path)
    assert time.process_time() - began < 5  # 0.1 s when nothing else runs
    assert "is not there yet: `run` prepares it" in result.stdout
    recipe = load_recipe(path)
    size = r"model: \d[\d,]+,\d{3} parameters"
    if path.stem.startswith("coffee"):  # of bands that the recipe does not name
        size = "the model's size is known once the store is there"
    assert re.search(size, result.stdout), result.stdout
    of_kind = {
        "interpolate": "ok     windows of 12 h", "detect": "objects cover the training period",
        "grade": "258 of 258 images have a grade",
        "detect-plants": "258 of 258 images have a label image",
    }  # fmt: skip
    said = of_kind.get(recipe.task.kind, "ok     lead times")
    masked = recipe.model.head == "masked"
    assert ("locations are seen" if masked else said) in result.stdout
    if path.stem in ("gcm80_forecast", "poplar_masked"):  # their sources are simulated first
        assert result.exit_code == 2 and "There is no" in result.stdout
    else:
        assert result.exit_code == 0, result.stdout
    assert not list(elsewhere.iterdir())


def test_the_papers_masked_autoencoder_is_the_papers() -> None:
    recipe = load_recipe(PIPELINES / "poplar_masked.yaml")
    model, training = recipe.model, recipe.training
    assert (model.embed_dim, model.depth, model.heads, model.patch) == (512, 8, 16, 6)
    assert (model.decoder_dim, model.decoder_depth, model.decoder_heads) == (128, 2, 4)
    assert (training.learning_rate, training.weight_decay, training.batch) == (1.5e-4, 0.05, 8)
    assert recipe.data.image_size == (192, 384) and recipe.task.mask_ratio == 0.75
    assert recipe.prepare.bands == "400-900x500"


@pytest.mark.usefixtures("elsewhere")
def test_the_smaller_era5_that_recipe_and_guide_name_checks_too(call: Call) -> None:
    six_hourly = ("prepare.step_hours=6", "task.lead_hours=[6,714]")
    for setting in six_hourly:
        assert f"--set {setting}" in ERA5.read_text()
    result = call("check", ERA5, overrides=six_hourly)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("task.lead_hours=[6,719]", "task.lead_hours has 719 h"),
        ("data.history_hours=[-3]", "data.history_hours has -3 h"),
        ("evaluation.lead_hours=[100]", "evaluation.lead_hours has 100 h"),
    ],
)
@pytest.mark.usefixtures("elsewhere")
def test_check_refuses_hours_between_the_steps_of_the_store(
    override: str, found: str, call: Call
) -> None:
    settings = ("prepare.step_hours=6", "task.lead_hours=[6,714]", override)
    result = call("check", ERA5, overrides=settings)
    assert result.exit_code == 2
    assert f"fails  {found}, no multiple of the time step of 6 h" in result.output


@pytest.mark.usefixtures("elsewhere")
def test_check_names_the_extra_that_a_url_needs(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)  # not importable, installed or not
    monkeypatch.delitem(_registry, "gs", raising=False)  # loaded by another test
    result = call("check", ERA5)
    assert result.exit_code == 0  # a note: what is not installed now may be when it is run
    assert "pip install 'sciml-dchag[cloud]'" in result.output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trainig: {steps: 3}", "unknown key 'trainig': did you mean 'training'?"),
        ("training: {stepz: 3}", "did you mean 'training.steps'?"),
        ("training: {steps: many}", "training.steps is 'many': it must be"),
        ("training: [3", "is not readable as YAML"),
        ("- a list", "holds a list"),
        ("name: a/b", "must be a plain folder name"),
        ("task: {lead_hours: [6, 6]}\nevaluation: {lead_hours: [7]}", "lead_hours has 7"),
        ("model: {size: enormous}", "model.size 'enormous' is none of"),
        ("data: {history_hours: [6]}", "data.history_hours has 6"),
    ],
)
@pytest.mark.parametrize("command", ["check", "run", "train"])
def test_a_bad_recipe_is_one_sentence(
    command: str, text: str, message: str, elsewhere: Path, call: Call, refused: Refused
) -> None:
    recipe = elsewhere / "bad.yaml"
    recipe.write_text(text)
    assert message in refused(call(command, recipe))
    assert list(elsewhere.iterdir()) == [recipe]


@pytest.mark.usefixtures("work")
def test_check_says_what_would_fail(call: Call) -> None:
    result = call("check", "small.yaml", overrides=("task.targets=[z500]",))
    assert result.exit_code == 2 and "'z500' is not among msl" in result.stdout


@pytest.mark.usefixtures("work")
def test_inspect_knows_what_it_looks_at(call: Call, tmp_path: Path) -> None:
    exported = tmp_path / "small.safetensors"
    assert call("export", "runs/small", exported).exit_code == 0
    for path, kind in {
        "small.yaml": "recipe",
        "stores/msl_forecast.zarr": "weather store",
        "runs/small": "run",
        "runs/small/checkpoints/step-0000003": "checkpoint",
        "runs/small/forecasts/test.zarr": "forecasts, WeatherBench 2 layout",
        "runs/small/evaluation": "scores",
        "runs/small/evaluation/scores.csv": "scores",
        exported: "exported model",
        "sample:era5_msl": "raw files",
    }.items():
        result = call("inspect", path, "--json")
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["kind"] == kind, path


@pytest.mark.usefixtures("work")
def test_inspect_says_when_a_run_ended_and_how_good_it_is(call: Call) -> None:
    facts = json.loads(call("inspect", "runs/small", "--json").stdout)
    assert facts["step"] == "3 of 3"
    assert re.fullmatch(r"ended, written 20\d\d-\d\d-\d\d \d\d:\d\d UTC", facts["training"])
    assert "better than every baseline" in facts["scores"]


@pytest.mark.usefixtures("work")
def test_inspect_says_that_a_run_ended_whose_best_weights_are_earlier(
    call: Call, tmp_path: Path
) -> None:
    shutil.copytree("runs/small", tmp_path / "run")
    checkpoints = tmp_path / "run" / "checkpoints"
    shutil.copytree(checkpoints / "step-0000003", checkpoints / "best")
    record = json.loads((checkpoints / "best" / "checkpoint.json").read_text())
    (checkpoints / "best" / "checkpoint.json").write_text(
        json.dumps(record | {"step": 2, "complete": False})
    )
    (checkpoints / "best" / "checksums.txt").unlink(missing_ok=True)
    facts = json.loads(call("inspect", tmp_path / "run", "--json").stdout)
    assert facts["step"] == "2 of 3" and facts["training"].startswith("ended, written")


@pytest.mark.usefixtures("work")
def test_inspect_of_a_run_that_has_no_checkpoint_yet(call: Call, tmp_path: Path) -> None:
    shutil.copy("runs/small/recipe.yaml", tmp_path / "recipe.yaml")
    facts = json.loads(call("inspect", tmp_path, "--json").stdout)
    assert facts["kind"] == "run" and "no checkpoint yet" in facts["training"]


@pytest.mark.usefixtures("work")
def test_check_says_what_training_would_resume(call: Call) -> None:
    resumed = call("check", "small.yaml")
    assert resumed.exit_code == 0, resumed.output
    assert "`train` resumes from runs/small/checkpoints/step-0000003, step 3 of 3" in resumed.stdout
    assert "not at the" not in resumed.stdout
    longer = call("check", "small.yaml", overrides=("training.steps=30",))
    assert longer.exit_code == 0, longer.output
    assert "the run ended at step 3 of 3: up to step 30 it continues" in longer.stdout
    other = call("check", "small.yaml", overrides=("model.embed_dim=32",))
    assert other.exit_code == 2
    assert "runs/small holds a run with other settings in 'model'" in other.stdout


@pytest.mark.usefixtures("work")
def test_a_validation_that_never_happens(call: Call, refused: Refused) -> None:
    every = ("training.validate_every=2",)
    assert "data.validation is null" in refused(call("check", "small.yaml", overrides=every))
    period = "data.validation=[2025-12-23, 2025-12-24]"
    train = "data.train=[2025-12-01, 2025-12-22]"
    unused = call("check", "small.yaml", overrides=(period, train, "name=other"))
    assert "the run is never validated" in unused.stdout
    late = (period, train, "name=other", "training.validate_every=100")
    assert "is beyond the last of 3 steps" in call("check", "small.yaml", overrides=late).stdout


def test_missing_sources_name_the_command_that_makes_them(
    call: Call, refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, command in (
        ("gcm80_forecast", "`sciml-dchag simulate weather stores/gcm80_native.zarr --days 1520`"),
        ("poplar_masked", "`sciml-dchag simulate poplars raw/poplars --cubes 494`"),
    ):
        recipe = PIPELINES / f"{name}.yaml"
        assert f"Make it with {command}." in call("check", recipe).stdout
        assert f"Make it with {command}." in refused(call("run", recipe))


@pytest.mark.parametrize("kind", TASKS)
def test_a_new_recipe_has_every_knob_and_is_read_as_the_defaults(
    kind: str, call: Call, refused: Refused, tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    assert call("recipe", "new", kind, path).exit_code == 0
    set_by_hand = {"name": "mine", "data": {"store": "stores/mine.zarr"}, "task": {"kind": kind}}
    assert load_recipe(path) == recipe_from_mapping(set_by_hand)
    text = path.read_text(encoding="utf-8")
    assert "  # Peak learning rate of AdamW.\n  learning_rate: 0.0005\n" in text
    assert max(map(len, text.splitlines())) <= 100
    assert "exists: choose another name" in refused(call("recipe", "new", kind, path))
