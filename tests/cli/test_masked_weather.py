"""A masked autoencoder of weather as a newcomer meets it: a recipe, its run, and what it is not for."""

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from sciml_dchag.cli import main
from sciml_dchag.tasks import TASKS, load_recipe


def command(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, " ".join(done.output.split())


@pytest.fixture(scope="module")
def recipe(msl_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `recipe new` writes, with the data's store and a model that trains in a second."""
    path = tmp_path_factory.mktemp("masked") / "mask.yaml"
    assert command("recipe", "new", "masked-weather", path)[0] == 0
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert values["model"]["head"] == "masked"
    values["data"] |= {
        "store": str(msl_store), "train": ["2025-12-01", "2025-12-24"],
        "test": ["2025-12-28", "2025-12-31"],
    }  # fmt: skip
    values["model"] |= {"embed_dim": 16, "depth": 1, "heads": 2, "patch": 8, "partitions": 1,
                        "decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2}  # fmt: skip
    values["training"] |= {"steps": 2, "batch": 2, "warmup_steps": 1}
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(recipe: Path) -> Path:
    status, said = command("train", recipe, "--runs", recipe.parent / "runs")
    assert status == 0, said
    return recipe.parent / "runs" / "mask"


@pytest.mark.parametrize("kind", TASKS)
def test_a_new_recipe_says_what_its_task_takes(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "new.yaml"
    assert command("recipe", "new", kind, path)[0] == 0
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["model"]["head"] == (
        load_recipe(path).model.head
    )


def test_it_is_scored_exported_and_described(run: Path, tmp_path: Path) -> None:
    status, said = command("evaluate", run, "--set", "evaluation.every_hours=24")
    assert status == 0 and " 4 times, 2025-12-28" in said, said
    assert "1 time, 2025" in command("evaluate", run, "--set", "evaluation.every_hours=600")[1]
    status, said = command("evaluate", run, "--set", "evaluation.every_hours=5")
    assert status == 2 and "evaluation.every_hours is 5 and times are 6 h apart" in said
    assert "hidden locations 0.75, channel groups 0.0" in command("inspect", run)[1]
    assert command("export", run, tmp_path / "m.safetensors")[0] == 0
    for path in (run, tmp_path / "m.safetensors"):
        status, said = command("verify", path)
        assert status == 0 and "as they were written" in said


@pytest.mark.parametrize(
    "words", [("embed",), ("reconstruct", "out"), ("predict", "out.zarr"),
              ("interpolate", "out.zarr", "--every", "3h")],
)  # fmt: skip
def test_commands_of_other_tasks_name_its_task(
    words: tuple[str, ...], run: Path, msl_store: Path
) -> None:
    name, *rest = words
    status, said = command(name, run, msl_store, *rest)
    assert status == 2 and "is a model of task 'masked-weather'" in said
    assert "use `sciml-dchag evaluate`" in said


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("data.forcings=[cos_latitude]", "belongs to task.kind forecast or interpolate or detect"),
        (
            "task.kind=masked",
            "which belongs to task.kind forecast or masked-weather or interpolate",
        ),
        ("training.lr=1", "did you mean 'training.learning_rate'"),
        ("task.mask_ratio=1", "hides 32 of 32 locations"),
        ("evaluation.every_hours=7", "give a multiple"),
    ],
)
def test_wrong_settings_are_refused(setting: str, said: str, recipe: Path) -> None:
    status, found = command("check", recipe, "--set", setting, "--runs", recipe.parent / "none")
    assert status == 2 and said in found, found
