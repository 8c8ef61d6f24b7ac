"""Checksums of checkpoints and exported models, and checkpoints that lost their record."""

import json
import shutil
from pathlib import Path

import pytest
from test_checksums import flip
from training_runs import assert_same_weights, recipe, weights

from sciml_dchag.files.checksums import damages, read_list
from sciml_dchag.pipeline import train
from sciml_dchag.training import export as exporting
from sciml_dchag.training.checkpoint import (
    RECORD,
    find_checkpoint,
    last_checkpoint,
    load_tensors,
    read_checkpoint,
)
from sciml_dchag.training.export import export, find_model, from_pretrained


@pytest.fixture(scope="module")
def run(msl_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sums") / "run"
    train(recipe(msl_store, training={"validate_every": 3}), folder)
    return folder


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """A copy of the run without `best`, so that the last step's checkpoint is taken."""
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("best"))
    return tmp_path / "run"


def test_every_byte_of_a_checkpoint_is_listed(run: Path) -> None:
    folder = run / "checkpoints" / "step-0000006"
    parts = read_list(folder)
    assert parts and not list(damages(folder))
    sizes: dict[str, int] = {}
    for part in sorted(parts):
        assert part.offset == sizes.get(part.path, 0)  # one tensor after the other, without gaps
        sizes[part.path] = part.offset + part.size
    assert {name: (folder / name).stat().st_size for name in sizes} == sizes
    assert len([p for p in parts if p.path.endswith(".distcp")]) > 20
    there = sorted(p.name for p in folder.iterdir())
    assert there == sorted([*sizes, "checksums.txt"])


@pytest.mark.parametrize("name", [RECORD, ".metadata", "__0_0.distcp"])
@pytest.mark.parametrize("damage", ["bit", "cut", "lost"])
def test_a_damaged_checkpoint_is_named(name: str, damage: str, copy: Path) -> None:
    folder = copy / "checkpoints" / "step-0000006"
    file = folder / name
    if damage == "bit":  # in each tensor: a reader compares those that it needs
        for part in read_list(folder) or ():
            if part.path == name:
                flip(file, part.offset + part.size // 2)
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    else:
        file.unlink()
    assert [sentence for sentence in damages(folder) if str(file) in sentence]
    with pytest.raises(ValueError, match="damaged: copy it again, or remove it") as refused:
        weights_of(copy)
    assert name in str(refused.value) and "\n" not in str(refused.value)
    shutil.rmtree(folder)  # the cure
    weights_of(copy)
    assert read_checkpoint(copy).step == 3


def weights_of(run: Path) -> None:
    found = find_checkpoint(run)
    read_checkpoint(found)
    load_tensors(found, {"model": weights(run)})


def test_a_run_resumes_from_the_checkpoint_before_a_damaged_one(
    copy: Path, run: Path, msl_store: Path
) -> None:
    flip(copy / "checkpoints/step-0000006/__0_0.distcp", 4000)
    longer = recipe(msl_store, training={"validate_every": 3})
    shutil.rmtree(copy / "checkpoints/step-0000006")
    train(longer, copy)
    assert_same_weights(run, copy)


@pytest.mark.parametrize("name", ["best", "step-0000006"])
def test_a_checkpoint_without_its_record_is_not_passed_over(
    name: str, run: Path, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run/checkpoints" / name / RECORD).unlink()
    with pytest.raises(ValueError, match=rf"{name} has no checkpoint.json"):
        if name == "best":
            find_checkpoint(tmp_path / "run")
        else:
            last_checkpoint(tmp_path / "run" / "checkpoints")


def test_any_bit_of_an_exported_model(run: Path, tmp_path: Path) -> None:
    path = export(run, tmp_path / "m.safetensors")
    from_pretrained(path)
    assert not list(exporting.damages(path))
    size = path.stat().st_size
    whole = path.read_bytes()
    # Fields stand in any order: their names, and the value of the one that says what the file is.
    words = (b'"format"', b'"checkpoint"', b'"crc32c"', exporting.FORMAT.encode())
    named = [whole.index(word) + at for word in words for at in range(len(word))]
    for place in [*range(3, size, size // 60), *named]:
        path.write_bytes(whole)
        flip(path, place)
        with pytest.raises(ValueError, match=r"m.safetensors .*: (export it|copy it)") as refused:
            from_pretrained(path)
        assert "\n" not in str(refused.value)
        assert len(list(exporting.damages(path))) == 1


def changed_record(path: Path, key: str, value: object) -> None:
    content = json.loads((path / RECORD).read_text())
    content[key] = value
    if value is None:
        del content[key]
    (path / RECORD).write_text(json.dumps(content))
    (path / "checksums.txt").unlink()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("step", None), ("step", "5"), ("recipe", []), ("recipe", {"task": "x"}), ("recipe", {}),
        ("model_config", 3), ("averaged", "yes"), ("data", None), ("best_validation", []),
    ],
)  # fmt: skip
def test_a_record_of_other_kinds_is_refused(key: str, value: object, copy: Path) -> None:
    changed_record(copy / "checkpoints/step-0000006", key, value)
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        find_model(copy)
