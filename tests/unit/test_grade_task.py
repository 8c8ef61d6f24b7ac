"""`task.kind: grade` end to end: pictures and a table in, grades, lesions and scores out."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from picture_stores import SPLITS, command, prepared, scores_of_standardised_spectra
from PIL import Image
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score

import sciml_dchag as sd
from sciml_dchag.pipeline import train
from sciml_dchag.plants.grade.grader import Grader, probabilities
from sciml_dchag.plants.grade.labels import UNKNOWN, LesionImages, grades_of
from sciml_dchag.plants.grade.scores import grade_scores
from sciml_dchag.plants.grade.training import GradeStore
from sciml_dchag.plants.prepare.images import prepare_plants
from sciml_dchag.plants.store.cubes import CubeStore
from sciml_dchag.plants.whole_images import area_means, plant_box
from sciml_dchag.tasks import recipe_from_mapping, task_of
from sciml_dchag.training.evaluation import Evaluation

IMAGES, ROWS, COLUMNS = 60, 32, 48
BOUNDS = (0.005, 0.05)
"""Fractions of lesions from which on a drawn leaf has grade 1 and 2."""


def drawn_leaf(draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A green ellipse on white with brown spots: colours (rows, columns, 3), and labels."""
    y, x = np.mgrid[:ROWS, :COLUMNS]
    leaf = ((y - 15.5) / draw.uniform(10, 15)) ** 2 + ((x - 23.5) / draw.uniform(16, 23)) ** 2 < 1
    spots = np.zeros_like(leaf)
    for _ in range(int(draw.integers(0, 4))):
        side = draw.uniform(1.0, 4.5)
        spots |= np.hypot(y - draw.uniform(9, 22), x - draw.uniform(12, 35)) < side
    labels = leaf.astype(np.uint8) + (leaf & spots)
    colours = np.array([[225, 225, 220], [70, 140, 50], [120, 75, 40]])[labels]
    noisy = colours * draw.uniform(0.85, 1.1) + draw.normal(0, 6, colours.shape)
    return noisy.clip(0, 255).astype(np.uint8), labels


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, label images of a third of them, a table with a few grades missing, a store."""
    folder, draw, rows = tmp_path_factory.mktemp("grade"), np.random.default_rng(3), []
    (folder / "images").mkdir()
    (folder / "lesions").mkdir()
    for number in range(IMAGES):
        picture, labels = drawn_leaf(draw)
        name = f"leaf{number:02d}"
        Image.fromarray(picture).save(folder / "images" / f"{name}.png")
        if number % 3 == 0:
            Image.fromarray(labels).save(folder / "lesions" / f"{name}.png")
        ratio = (labels == 2).sum() / (labels > 0).sum()
        rows.append(
            {"image": f"{name}.png", "severity": int(np.searchsorted(BOUNDS, ratio, "right")),
             "split": SPLITS[number // 3 % 6]}
        )  # fmt: skip
    table = pd.DataFrame(rows)
    table["severity"] = table["severity"].astype(object)
    table.loc[[0, 7], "severity"] = ""  # one with drawn lesions, one without any label
    table.to_csv(folder / "grades.csv", index=False)
    return prepared(folder, "grades.csv")


def mapping(folder: Path, **sections: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "leaves",
        "data": {"store": str(folder / "leaves.zarr"), "lesions": str(folder / "lesions"),
                 "image_size": [ROWS, COLUMNS]},
        "model": {"embed_dim": 16, "depth": 1, "heads": 2, "patch": 4, "aggregation": "single",
                  "partitions": 1, "pyramid_dim": 16},
        "task": {"kind": "grade", "column": "severity", "grades": 3},
        "training": {"steps": 120, "batch": 8, "warmup_steps": 10, "learning_rate": 8e-3,
                     "validate_every": 60},
        **sections,
    }  # fmt: skip


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    train(recipe_from_mapping(mapping(folder)), folder / "run")
    return folder / "run"


def test_a_run_grades_what_it_was_not_shown(run: Path) -> None:
    done = command("evaluate", run)
    assert done.exit_code == 0, done.output
    found = Evaluation.read(run)
    scores = found.table.set_index("metric")
    assert found.baselines == ["commonest", "colours"]
    assert scores.loc["accuracy", "model"] > scores.loc["accuracy", "commonest"] + 0.15
    assert scores.loc["kappa", "model"] > 0.6 and scores.loc["kappa", "commonest"] == 0
    assert scores.loc["ratio_error", "model"] < 0.5 * scores.loc["ratio_error", "commonest"]
    table = pd.read_csv(run / "evaluation" / "grades.csv", index_col="cube")
    assert len(table) == 18 and table["true_lesion_percent"].notna().sum() == 6
    np.testing.assert_allclose(table.filter(like="probability_").sum(axis=1), 1, atol=1e-3)
    report = (run / "evaluation" / "report.html").read_text(encoding="utf-8")
    assert "Weighted kappa" in report and "histogram of hue" in report.lower()
    for name in ("grades", "lesions"):
        assert (run / "evaluation" / "figures" / f"{name}.png").stat().st_size > 5000
    assert "severity, 0 to 2" in command("inspect", run).output


def test_predict_writes_a_table(run: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "grades.csv"
    words = ("predict", run, folder / "leaves.zarr", out)
    done = command(*words)
    assert done.exit_code == 0 and "of grade 0" in done.output, done.output
    table = pd.read_csv(out, index_col="cube")
    assert len(table) == IMAGES and set(table["grade"]) <= {0, 1, 2}
    by_hand = Grader(run, CubeStore.open(folder / "leaves.zarr")).grade(["leaf04"])
    assert table.at["leaf04", "lesion_percent"] == pytest.approx(
        by_hand.at["leaf04", "lesion_percent"], abs=1e-3
    )
    again = command(*words)
    assert again.exit_code == 2 and "exists" in again.output
    for option in ("--start-time=2001", "--score=0.5", "--lead-hours=24", "--tp=2"):
        refused = command(*words, "--overwrite", option)
        assert refused.exit_code == 2 and "has no meaning" in " ".join(refused.output.split())
    assert command("predict", run, folder / "leaves.zarr", tmp_path / "x.txt").exit_code == 2
    drawn = sd.open(run).lesions(folder / "leaves.zarr", "leaf04")
    assert drawn.shape == (16, 24) and drawn.y[0] == 1 and drawn.x[-1] == 47
    assert 0 <= float(drawn.min()) < float(drawn.max()) <= 1
    same = sd.open(run).grade(folder / "leaves.zarr", tmp_path / "again.csv")
    np.testing.assert_allclose(same["severity"], table["severity"], atol=1e-3)


def test_samples_keep_lesions_where_they_are(folder: Path) -> None:
    """Mirrored or not, cells that are drawn as lesion are brown, and a sample comes back."""
    recipe = recipe_from_mapping(mapping(folder))
    opened = GradeStore(recipe)
    samples = opened.samples("train", turned=True)
    plain = opened.samples("train")
    turned = 0
    for number in range(30):
        sample, same, still = samples[number], samples[number], plain[number]
        for one, other in zip(sample.tensors, same.tensors, strict=True):
            torch.testing.assert_close(one, other, equal_nan=True)
        turned += not torch.equal(sample.images, still.images)
        lesion = sample.areas[0, 1] == 1
        if bool(lesion.any()):
            pixels = lesion.repeat_interleave(2, 0).repeat_interleave(2, 1)
            green = sample.images[0, 1]  # bands ascend: blue, green, red
            assert green[pixels].mean() < green[~pixels].mean()
    assert 15 < turned < 30
    graded = [number for number in range(len(plain)) if plain[number].grades[0] != UNKNOWN]
    assert len(plain) == 32 and len(graded) == 31  # the one without any label is left out


def test_a_grader_learns_from_one_kind_of_label_alone(folder: Path, tmp_path: Path) -> None:
    short = {"steps": 2, "batch": 4, "warmup_steps": 1}
    alone = mapping(folder, training=short)
    alone["data"] = {**alone["data"], "lesions": ""}
    train(recipe_from_mapping(alone), tmp_path / "grades")
    table = Grader(tmp_path / "grades", CubeStore.open(folder / "leaves.zarr")).grade(["leaf00"])
    assert "lesion_percent" not in table
    drawn = mapping(folder, training=short)
    bare = pd.read_csv(folder / "grades.csv").assign(severity="")
    bare.to_csv(tmp_path / "bare.csv", index=False)
    with pytest.warns(UserWarning, match="Pictures of three colours"):
        prepare_plants(
            folder / "images", tmp_path / "bare.zarr", table=str(tmp_path / "bare.csv"),
            bands="native", mask="none", quicklooks=False,
        )  # fmt: skip
    drawn["data"] = {**drawn["data"], "store": str(tmp_path / "bare.zarr")}
    recipe = recipe_from_mapping(drawn)
    train(recipe, tmp_path / "drawn")
    found = task_of(recipe).evaluate(tmp_path / "drawn").table.set_index("metric")
    assert np.isfinite(found.loc["ratio_error", "model"]) and np.isnan(found.loc["kappa", "model"])


def test_values_that_are_no_reflectance_have_no_baseline_of_colours(
    folder: Path, tmp_path: Path
) -> None:
    found = scores_of_standardised_spectra(mapping(folder, training={"batch": 4}), tmp_path)
    assert found.baselines == ["commonest"] and "of the best baseline (commonest)" in found.summary
    assert "which has no colours to grade by" in found.notes[-1]


def test_check_and_plan_know_the_task(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "leaves.yaml"
    path.write_text(yaml.safe_dump(mapping(folder)), encoding="utf-8")
    done = command("check", path)
    assert done.exit_code == 0, done.output
    assert "31 of 33 training images have a grade, 11 drawn lesions" in done.output
    assert command("plan", path, "--gpus", "1").exit_code == 0
    for override, said in (
        ("model.patch=1", "must be even"),
        ("task.column=colour", "has no column 'colour' with grades"),
        ("task.grades=2", "whole numbers from 0 to 1"),
        ("task.grades=1", "at least 2"),
        ("data.lesions=nothing", "is no folder"),
        (f"data.lesions={tmp_path}", "has no PNG, TIFF or NPY called as an image"),
    ):
        done = command("check", path, "--set", override)
        assert done.exit_code != 0 and said in " ".join(done.output.split()), done.output
    before = mapping(folder)
    before["data"] = {**before["data"], "store": str(tmp_path / "none.zarr")}
    before["prepare"] = {
        "sources": [str(folder / "images")], "table": str(folder / "grades.csv"),
        "bands": "native", "mask": "none",
    }  # fmt: skip
    path.write_text(yaml.safe_dump(before), encoding="utf-8")
    done = command("check", path)
    assert done.exit_code == 0, done.output
    assert "58 of 60 images have a grade, 20 drawn lesions" in done.output
    done = command("check", path, "--set", "task.grades=2")
    assert done.exit_code != 0 and "whole numbers from 0 to 1" in " ".join(done.output.split())


def test_label_images_that_are_none_are_refused(tmp_path: Path) -> None:
    def saved(labels: list[list[int]]) -> LesionImages:
        np.save(tmp_path / "a.npy", np.array(labels))
        return LesionImages(tmp_path, ["a"])

    assert saved([[0, 1], [2, 2]]).read("a", (2, 2)) is not None
    for labels, said in (
        ([[0, 255], [1, 2]], "holds 255: it must be 0 for background, 1 for plant and 2"),
        ([[0, 0], [0, 0]], "is all background"),
        ([[0, 1, 2]], "has 1 x 3 values and the image 2 x 2"),
    ):
        with pytest.raises(ValueError, match=said):
            saved(labels).read("a", (2, 2))
    Image.new("L", (2, 2), 1).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="a.npy and a.png for the image a: keep one"):
        LesionImages(tmp_path, ["a"])


def test_other_grades_are_another_run(run: Path, folder: Path, tmp_path: Path) -> None:
    other = mapping(folder)
    other["data"] = {**other["data"], "lesions": ""}
    with pytest.raises(ValueError, match="had other grades or lesions than"):
        task_of(recipe_from_mapping(other)).evaluate(run)


def test_a_store_of_other_bands_is_refused(run: Path, tmp_path: Path) -> None:
    cube = np.random.default_rng(0).uniform(0.1, 0.5, (8, 9, 4)).astype(np.float32)
    np.savez(tmp_path / "a.npz", cube=cube, wavelength=np.array([450.0, 550, 650, 800]))
    with pytest.warns(UserWarning, match="taken as nm"):
        prepare_plants(
            tmp_path / "a.npz", tmp_path / "a.zarr", bands="native", mask="none", quicklooks=False
        )
    with pytest.raises(ValueError, match="was trained on 3 bands, r460.0 to r640.0"):
        Grader(run, CubeStore.open(tmp_path / "a.zarr"))


def test_scores_are_scikit_learns() -> None:
    draw = np.random.default_rng(0)
    truth = draw.integers(0, 5, 200)
    said = np.clip(truth + draw.integers(-1, 2, 200), 0, 3)
    scores = grade_scores(said, truth, 5)
    assert scores["accuracy"] == pytest.approx(accuracy_score(truth, said))
    assert scores["kappa"] == pytest.approx(cohen_kappa_score(truth, said, weights="quadratic"))
    assert scores["macro_f1"] == pytest.approx(f1_score(truth, said, average="macro"))
    assert scores["within_one"] == pytest.approx((abs(truth - said) <= 1).mean())
    assert np.isnan(grade_scores(np.zeros(3, int), np.zeros(3, int), 5)["kappa"])


def test_probabilities_of_grades_are_differences() -> None:
    above = np.array([[0.9, 0.4, 0.1]])
    np.testing.assert_allclose(probabilities(above), [[0.1, 0.5, 0.3, 0.1]])


def test_means_leave_out_what_is_not_known() -> None:
    values = torch.tensor([[[1.0, torch.nan], [3.0, 5.0], [torch.nan, torch.nan], [2.0, 4.0]]])
    found = area_means(values, (2, 1))
    torch.testing.assert_close(found, torch.tensor([[[3.0], [3.0]]]))
    none = area_means(torch.full((1, 2, 2), torch.nan), (1, 1))
    assert bool(none.isnan().all())


def test_the_box_is_that_of_all_plants() -> None:
    plants = np.zeros((6, 8), np.int32)
    plants[2, 3], plants[4, 5] = 1, 2
    assert plant_box(plants) == (slice(2, 5), slice(3, 6))
    assert plant_box(np.zeros((6, 8), np.int32)) == (slice(0, 6), slice(0, 8))


def test_grades_are_whole_numbers_or_empty() -> None:
    table = pd.DataFrame({"grade": [0, 2.0, np.nan, None, "1"]}, index=list("abcde"))
    assert grades_of(table, "grade", 3, "table").tolist() == [0, 2, UNKNOWN, UNKNOWN, 1]
    with pytest.raises(ValueError, match=r"'1.5' as grade of b"):
        grades_of(pd.DataFrame({"grade": [1, 1.5]}, index=["a", "b"]), "grade", 3, "table")
