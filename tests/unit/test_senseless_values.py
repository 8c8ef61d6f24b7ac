"""Values that make no sense, and damaged records: refused where they are read, in one line."""

import re
import time
from pathlib import Path

import pytest
import yaml
from training_runs import recipe

from sciml_dchag.config import from_mapping, save_recipe
from sciml_dchag.tasks import load_recipe
from sciml_dchag.training.logbook import Logbook, read_log
from sciml_dchag.weather.forecast.config import ForecastRecipe
from sciml_dchag.weather.store.store import Store


@pytest.mark.parametrize(
    "setting",
    [
        "training.batch=0", "training.batch=-1", "training.batch=1000000000000",
        "training.batch=1e12", "training.micro_batch=-1", "training.steps=0",
        "training.steps=10000000000", "training.learning_rate=-1", "training.learning_rate=0",
        f"training.learning_rate=1{'0' * 400}", "training.learning_rate=.inf",
        "training.learning_rate=.nan", "training.patience=-1", "training.clip_norm=-1",
        "seed=-1", "seed=100000000000000000000", f"seed=1{'0' * 5000}", "data.workers=-1",
        "data.workers=100000", "model.heads=-2", "model.depth=100000", "model.depth=-1",
        "model.embed_dim=1048576", "model.embed_dim=-4", "model.dropout=1.5", "model.patch=0",
        "evaluation.batch=0", "evaluation.batch=-1", "evaluation.batch=1000000000000",
        "evaluation.lead_hours=[-6]", "evaluation.lead_hours=[0]", "evaluation.lead_hours=[6000000]",
        "task.lead_hours=[0,0]", "task.lead_hours=[6000000,6000000]", "task.kind={a: 1}",
        "name=2017-13-01", f"data.store=[{'[' * 3000}",
    ],
)  # fmt: skip
def test_a_senseless_value_is_refused_in_a_line(setting: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("name: r\ndata: {store: s.zarr}\n")
    key = setting.partition("=")[0].rpartition(".")[2]
    with pytest.raises(ValueError, match=re.escape(key)) as refused:
        load_recipe(path, [setting])
    said = str(refused.value)
    assert "\n" not in said and len(said) < 600, said


BOMB = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(9)
)


@pytest.mark.parametrize(
    "text",
    [
        BOMB + "seed: *j\nname: r\n",
        "name: &x [*x]\n",
        "seed: " + "[" * 5000 + "\n",
        "name: " + "{a: " * 2000 + "\n",
        "!!python/object/apply:os.system ['true']\n",
        "seed: 2017-13-45\n",
    ],
)
def test_yaml_that_unfolds_without_end_is_refused_at_once(text: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    started = time.process_time()
    with pytest.raises(ValueError, match=r"r.yaml is not readable as YAML") as refused:
        load_recipe(path)
    assert time.process_time() - started < 5 and len(str(refused.value)) < 500


def test_aliases_of_a_usual_size_are_read(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("name: r\ndata: {train: &p ['2001', '2002'], validation: *p}\n")
    read = load_recipe(path)
    assert isinstance(read, ForecastRecipe) and read.data.validation == ("2001", "2002")


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(ValueError, match="must be a whole number") as refused:
        from_mapping(ForecastRecipe, {"name": "r", "seed": ["x" * 100] * 10000})
    assert len(str(refused.value)) < 300


def test_a_saved_recipe_cut_short_is_noticed(msl_store: Path, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    whole = recipe(msl_store)
    save_recipe(whole, path)
    assert load_recipe(path) == whole
    content = path.read_text()
    lines = content.splitlines(keepends=True)
    for kept in range(2, len(lines)):
        path.write_text("".join(lines[:kept]))
        with pytest.raises(ValueError, match=r"recipe.yaml is cut short|r.yaml|task.kind|name"):
            load_recipe(path)
    path.write_text(yaml.safe_dump(yaml.safe_load(content)))  # edited by hand: no mark, no refusal
    assert load_recipe(path) == whole


@pytest.mark.parametrize("line", ["5", "[]", '{"loss": 1}', "{", '{"step": "x"}'])
def test_a_damaged_log_is_named(line: str, tmp_path: Path) -> None:
    with Logbook(tmp_path) as log:
        log.record(1, loss=1.0)
        log.record(2, loss=0.5)
    path = tmp_path / "log.jsonl"
    first, second = path.read_text().splitlines()
    path.write_text(f"{first}\n{second}\n{{")  # cut short by a crash
    assert [r["step"] for r in read_log(path)] == [1, 2]
    path.write_text(f"{first}\n{line}\n{second}\n")
    with pytest.raises(ValueError, match=r"log.jsonl is damaged in line 2"):
        Logbook(tmp_path, first_step=2)


@pytest.mark.parametrize("content", ["{", "{}", "[]", "5", '{"fingerprint": 1, "done": 0}'])
def test_a_damaged_progress_is_no_store_s(content: str, msl_store: Path, tmp_path: Path) -> None:
    partial = tmp_path / "x.zarr.partial"
    partial.mkdir()
    (partial / "progress.json").write_text(content)
    with pytest.raises(ValueError, match="was only begun"):
        Store.open(partial)
