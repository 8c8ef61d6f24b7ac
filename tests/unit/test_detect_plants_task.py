"""`task.kind: detect-plants` end to end: pictures and label images in, boxes and scores out."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from picture_stores import SPLITS, command, prepared, scores_of_standardised_spectra
from PIL import Image

import sciml_dchag as sd
from sciml_dchag.pipeline import train
from sciml_dchag.plants.detect.boxes import Found, Window, boxes_of
from sciml_dchag.plants.detect.detector import PlantDetector
from sciml_dchag.plants.detect.evaluate import choose_score
from sciml_dchag.plants.detect.scores import BoxSums, count_scores
from sciml_dchag.plants.detect.training import BoxStore
from sciml_dchag.plants.store.cubes import CubeStore
from sciml_dchag.tasks import recipe_from_mapping, task_of
from sciml_dchag.training.detection import TRIED
from sciml_dchag.training.evaluation import Evaluation

IMAGES, SIDE = 48, 48


def drawn_leaf(draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A green ellipse on white with brown spots and yellow ones, which are none: colours, labels."""
    y, x = np.mgrid[:SIDE, :SIDE]
    labels = (((y - 24) / 22) ** 2 + ((x - 24) / 21) ** 2 < 1).astype(np.uint8)
    places = draw.permutation([(a, b) for a in (14, 24, 34) for b in (14, 24, 34)])[:6]
    for number, (row, column) in enumerate(places + draw.integers(-1, 2, places.shape)):
        near = np.hypot(y - row, x - column) < draw.uniform(2.0, 4.0)
        labels[near] = 2 if number < 3 else 3
    colours = np.array([[225, 225, 220], [70, 140, 50], [130, 60, 40], [170, 160, 60]])[labels]
    noisy = colours * draw.uniform(0.85, 1.1) + draw.normal(0, 6, colours.shape)
    return noisy.clip(0, 255).astype(np.uint8), np.where(labels == 3, 1, labels)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, label images of all but a few, and a store."""
    folder, draw, rows = tmp_path_factory.mktemp("spots"), np.random.default_rng(3), []
    (folder / "images").mkdir()
    (folder / "lesions").mkdir()
    for number in range(IMAGES):
        picture, labels = drawn_leaf(draw)
        name = f"leaf{number:02d}"
        Image.fromarray(picture).save(folder / "images" / f"{name}.png")
        if number % 12 != 11:
            Image.fromarray(labels.astype(np.uint8)).save(folder / "lesions" / f"{name}.png")
        split = SPLITS[number % 6]
        rows.append({"image": f"{name}.png", "split": split})
    pd.DataFrame(rows).to_csv(folder / "splits.csv", index=False)
    return prepared(folder, "splits.csv")


def mapping(folder: Path, **sections: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "spots",
        "data": {"store": str(folder / "leaves.zarr"), "objects": str(folder / "lesions"),
                 "image_size": [SIDE, SIDE]},
        "model": {"embed_dim": 16, "depth": 1, "heads": 2, "patch": 8, "aggregation": "single",
                  "partitions": 1, "pyramid_dim": 16},
        "task": {"kind": "detect-plants", "label": 2, "least_pixels": 4, "max_objects": 8},
        "training": {"steps": 150, "batch": 6, "warmup_steps": 10, "learning_rate": 8e-3,
                     "validate_every": 0},
        **sections,
    }  # fmt: skip


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    train(recipe_from_mapping(mapping(folder)), folder / "run")
    return folder / "run"


def test_a_run_finds_what_it_was_not_shown(run: Path) -> None:
    done = command("evaluate", run)
    assert done.exit_code == 0, done.output
    found = Evaluation.read(run)
    scores = found.table.set_index("metric")
    assert found.baselines == ["threshold", "watershed", "mean_number"]
    assert scores.loc["f1", "model"] > 0.6 > scores.loc["f1", "watershed"]
    assert scores.loc["ap50", "model"] > 0.5
    assert np.isnan(scores.loc["f1", "mean_number"])
    assert np.isfinite(scores.loc["count_percent", "mean_number"])
    assert "from the highest F1 on the validation images" in " ".join(found.notes)
    boxes = pd.read_csv(run / "evaluation" / "boxes.csv")
    assert (boxes["x1"] > boxes["x0"]).all() and boxes["cube"].nunique() > 5
    assert (run / "evaluation" / "figures" / "objects.png").stat().st_size > 5000
    assert "objects" in command("inspect", run).output


def test_the_least_probability_may_be_that_of_the_best_counts(run: Path, folder: Path) -> None:
    """No other one that is tried counts better on the validation images."""
    recipe = recipe_from_mapping(mapping(folder, evaluation={"choose_by": "counts"}))
    opened = BoxStore(recipe)
    detector = PlantDetector(run, opened.store)
    score, chosen_on = choose_score(opened, detector)
    assert chosen_on == "the least absolute error of counts on the validation images"
    truth = opened.known("validation")
    number = np.array([len(boxes) for boxes in truth.values()])
    found = detector.find(list(truth))
    errors = {
        tried: float(np.abs([len(one.at_least(tried)) for one in found] - number).mean())
        for tried in TRIED
    }
    assert errors[score] == min(errors.values()) < max(errors.values())


def test_values_that_are_no_reflectance_are_counted_by_the_mean_number(
    folder: Path, tmp_path: Path
) -> None:
    found = scores_of_standardised_spectra(mapping(folder, training={"batch": 4}), tmp_path)
    assert found.baselines == ["mean_number"] and "of the best baseline (mean" in found.summary
    assert "which has no colours to find by" in found.notes[-1]


def test_predict_writes_a_table(run: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "boxes.csv"
    words = ("predict", run, folder / "leaves.zarr", out, "--score", "0.3")
    done = command(*words)
    assert done.exit_code == 0 and "Objects:" in done.output, done.output
    table = pd.read_csv(out)
    by_hand = PlantDetector(run, CubeStore.open(folder / "leaves.zarr")).find(["leaf04"])[0]
    likely = by_hand.at_least(0.3)
    own = table[table["cube"] == "leaf04"]
    np.testing.assert_allclose(own[["x0", "y0", "x1", "y1"]], likely.boxes, atol=0.01)
    again = command(*words)
    assert again.exit_code == 2 and "exists" in again.output
    refused = command(*words, "--overwrite", "--start-time=2001")
    assert refused.exit_code == 2 and "has no meaning" in " ".join(refused.output.split())
    assert command("predict", run, folder / "leaves.zarr", tmp_path / "x.txt").exit_code == 2
    same = sd.open(run).find_objects(folder / "leaves.zarr", tmp_path / "again.csv", score=0.3)
    assert len(same) == len(table)


def test_samples_keep_boxes_where_objects_are(folder: Path) -> None:
    """Mirrored or turned, what is in a box is brown, and a sample comes back."""
    opened = BoxStore(recipe_from_mapping(mapping(folder)))
    samples, plain, turned = opened.samples("train", turned=True), opened.samples("train"), 0
    for number in range(40):
        sample, same = samples[number], samples[number]
        for one, other in zip(sample.tensors, same.tensors, strict=True):
            torch.testing.assert_close(one, other, equal_nan=True)
        turned += not torch.equal(sample.images, plain[number].images)
        for box in sample.boxes[0][sample.classes[0] == 0].round().int().tolist():
            x0, y0, x1, y1 = box
            green = sample.images[0, 1]  # bands ascend: blue, green, red
            assert green[(y0 + y1) // 2, (x0 + x1) // 2] < green[4:-4, 4:-4].median()
    assert 25 < turned <= 40 and len(plain) == 24


def test_boxes_are_those_of_pieces_or_of_numbers() -> None:
    labels = np.array([[2, 0, 0, 5], [0, 2, 0, 5], [0, 0, 0, 0], [2, 2, 1, 1]])
    assert boxes_of(labels, 2, 1).tolist() == [[0, 0, 2, 2], [0, 3, 2, 4]]
    assert boxes_of(labels, 0, 1).tolist() == [[2, 3, 4, 4], [0, 0, 2, 4], [3, 0, 4, 2]]
    assert boxes_of(labels, 0, 3).tolist() == [[0, 0, 2, 4]]
    assert boxes_of(labels, 7, 1).shape == (0, 4)
    assert boxes_of(np.full((2, 3), 4), 0, 1).tolist() == [[0, 0, 3, 2]]


def test_windows_go_there_and_back() -> None:
    window = Window.of((slice(2, 12), slice(None)), (20, 30), (40, 60))
    assert window.to_model(np.array([[3.0, 2.0, 6.0, 7.0]])).tolist() == [[6, 0, 12, 20]]
    boxes = np.random.default_rng(0).uniform(0, 30, (5, 4))
    np.testing.assert_allclose(window.to_image(window.to_model(boxes)), boxes)


def test_scores_count_pairs() -> None:
    truth = np.array([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    found = Found(
        boxes=np.array([[0.0, 0, 10, 9], [0, 0, 10, 10], [40, 40, 50, 50]]),
        scores=np.array([0.9, 0.8, 0.1]),
    )
    sums = BoxSums()
    sums.add(found, truth, 0.5)
    scores = sums.scores()
    assert (sums.hits, sums.found, sums.truth) == (1, 2, 2)
    assert scores["f1"] == scores["precision"] == scores["recall"] == 0.5
    assert scores["count_error"] == 0 and scores["count_percent"] == 0
    assert scores["ap50"] == pytest.approx(51 / 101)
    counts = count_scores(np.array([1.0, -2.0, 0.0]), 10)
    assert counts["count_percent"] == pytest.approx(30)
    assert counts["count_error"] == pytest.approx(-1 / 3)


@pytest.mark.full
def test_plan_knows_the_task(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "spots.yaml"
    path.write_text(yaml.safe_dump(mapping(folder)), encoding="utf-8")
    assert command("plan", path, "--gpus", "1").exit_code == 0


def test_check_knows_the_task(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "spots.yaml"
    path.write_text(yaml.safe_dump(mapping(folder)), encoding="utf-8")
    done = command("check", path)
    assert done.exit_code == 0, done.output
    assert "objects in 24 of 24 training images" in done.output
    np.save(tmp_path / "leaf00.npy", np.full((SIDE, SIDE), 0.5))
    for override, said in (
        ("data.objects=''", "data.objects is empty"),
        ("data.objects=nothing", "is no folder"),
        (f"data.objects={tmp_path}", "save whole numbers"),
        ("task.label=9", "No training image"),
        ("task.max_objects=1", "raise it to"),
        ("task.least_pixels=0", "at least 1"),
    ):
        done = command("check", path, "--set", override)
        assert done.exit_code != 0 and said in " ".join(done.output.split()), done.output
    before = mapping(folder)
    before["data"] = {**before["data"], "store": str(tmp_path / "none.zarr")}
    before["prepare"] = {
        "sources": [str(folder / "images")], "table": str(folder / "splits.csv"),
        "bands": "native", "mask": "none",
    }  # fmt: skip
    path.write_text(yaml.safe_dump(before), encoding="utf-8")
    done = command("check", path)
    assert done.exit_code == 0 and "44 of 48 images have a label image" in done.output, done.output


def test_other_objects_are_another_run(run: Path, folder: Path) -> None:
    other = mapping(folder)
    other["task"] = {**other["task"], "least_pixels": 20}
    with pytest.raises(ValueError, match="had other objects than"):
        task_of(recipe_from_mapping(other)).evaluate(run)
