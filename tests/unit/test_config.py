from pathlib import Path

import pytest

from sciml_dchag.config import from_mapping, save_recipe, to_mapping
from sciml_dchag.tasks import load_recipe
from sciml_dchag.weather.forecast.config import ForecastRecipe

MINIMAL = "name: small\ndata:\n  store: a.zarr\n"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


def test_a_recipe_survives_writing_and_reading(tmp_path: Path) -> None:
    recipe = load_recipe(
        write(tmp_path, MINIMAL + "  train: [1979-01-01, '2015']\n  validation: [2016, 2016]\n"),
        ["task.lead_hours=[6,720]", "training.learning_rate=2e-5", "model.aggregation=single"],
    )
    assert recipe.data.train == ("1979-01-01", "2015")
    assert recipe.data.validation == ("2016", "2016")
    assert recipe.training.learning_rate == 2e-5
    assert recipe.model.aggregation == "single"
    save_recipe(recipe, tmp_path / "again.yaml")
    assert load_recipe(tmp_path / "again.yaml") == recipe
    assert from_mapping(ForecastRecipe, to_mapping(recipe)) == recipe


def test_a_recipe_without_name_is_called_after_its_file(tmp_path: Path) -> None:
    assert load_recipe(write(tmp_path, "data: {store: a.zarr}")).name == "recipe"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.lr=3", "did you mean 'training.learning_rate'"),
        ("training.device=cpu", "did you mean 'parallel.device'"),
        ("device=cpu", "did you mean 'parallel.device'"),
        ("data.lead_hours=[6]", "did you mean 'task.lead_hours'"),
        ("model.patch_size=2", "did you mean 'model.patch'"),
        ("prepare.variables=t2m", "did you mean 'prepare.channels'"),
        ("training.stepz=3", "unknown key 'training.stepz': did you mean 'training.steps'"),
        ("trainig.steps=3", "unknown key 'trainig': did you mean 'training'"),
        ("training.steps=many", "training.steps is 'many': it must be a whole number"),
        ("training.steps=true", "training.steps is True: it must be a whole number"),
        ("training.steps=0", "training.steps is 0"),
        ("training.ema_decay=1", "must be in"),
        ("training.patience=3", "needs training.validate_every"),
        ("training.warmup_steps=5000", "lower it or train longer"),
        ("training.learning_rate=0", "training.learning_rate is 0.0 .*must be above 0"),
        ("training.learning_rate=-1", "training.learning_rate is -1.0 .*must be above 0"),
        ("training.learning_rate=.nan", "training.learning_rate is nan .*must be above 0"),
        ("training.micro_batch=-1", "training.micro_batch is -1: it must be at least 0"),
        ("training.clip_norm=-1", "training.clip_norm is -1.0: it must be at least 0"),
        ("training.patience=-1", "training.patience is -1: it must be at least 0"),
        ("training.validate_every=-1", "training.validate_every is -1: it must be at least 0"),
        ("training.betas=[0.9,1]", "training.betas are .*must be in"),
        ("seed=-1", "seed is -1: it must be at least 0"),
        ("data.workers=-1", "data.workers is -1: it must be at least 0"),
        ("evaluation.batch=0", "evaluation.batch is 0: it must be at least 1"),
        ("evaluation.batch=-1", "evaluation.batch is -1: it must be at least 1"),
        ("model.heads=-2", "model.heads -2 must be at least 1"),
        (
            "parallel={tp: 2, compile: true, activation_checkpointing: blocks}",
            "compile with parallel.activation_checkpointing blocks fails within PyTorch",
        ),
        ("prepare.method=nearest", "one of bilinear, conservative"),
        ("model.aggregation=dchag", "one of single, dchag-c, dchag-l"),
        ("model.size=huge", "is none of tiny, small, base"),
        ("model.head=masked", "the recipe's task is forecasting"),
        ("model.decoder_heads=5", "decoder_dim 128 must be a multiple of model.decoder_heads 5"),
        ("data.train=[2000]", "a list of 2"),
        ("data.history_hours=[6]", "before the initial time"),
        ("data.history_hours=[-6,-6]", "repeats -6"),
        ("task.lead_hours=[24,6]", "the shortest first"),
        ("task.rollout_steps=0", "use at least 1"),
        ("evaluation.lead_hours=[6,9]", "which steps of 6 h .* do not reach"),
        ("evaluation.lead_hours=[]", "give one or more"),
        ("name=a/b", "plain folder name"),
        ("data=3", "data is 3: it must be a section"),
        ("steps", "is not KEY=VALUE"),
        ("name.x=1", "'name' is no section"),
    ],
)
def test_a_wrong_knob_is_refused_in_one_sentence(
    tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        load_recipe(write(tmp_path, MINIMAL), [override])
    assert "\n" not in str(refused.value)


def test_a_random_lead_time_has_no_rollout(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="only with a fixed step"):
        load_recipe(write(tmp_path, MINIMAL), ["task.lead_hours=[6,24]", "task.rollout_steps=2"])


def test_files_that_are_no_recipes(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="There is no recipe"):
        load_recipe(tmp_path / "absent.yaml")
    with pytest.raises(ValueError, match="not readable as YAML"):
        load_recipe(write(tmp_path, "a: [1"))
    with pytest.raises(ValueError, match="holds a list"):
        load_recipe(write(tmp_path, "- 1"))
