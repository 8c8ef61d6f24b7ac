"""Average precision equals that of pycocotools, which the `dev` extra brings."""

import contextlib
import io

import numpy as np
import pytest
import torch

from sciml_dchag.objectives.boxes import intersection_over_union
from sciml_dchag.training.average_precision import average_precision, judge


def coco(
    images: list[tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> tuple[float, float]:
    """AP50:95 and AP50 of (true boxes, boxes, scores) by image, by pycocotools."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def wide(box: np.ndarray) -> list[float]:
        return [box[0], box[1], box[2] - box[0], box[3] - box[1]]

    truth, found = [], []
    for number, (true, boxes, scores) in enumerate(images, start=1):
        for box in true:
            truth.append({
                "id": len(truth) + 1, "image_id": number, "category_id": 1, "iscrowd": 0,
                "bbox": wide(box), "area": wide(box)[2] * wide(box)[3],
            })  # fmt: skip
        found += [
            {"image_id": number, "category_id": 1, "bbox": wide(box), "score": float(score)}
            for box, score in zip(boxes, scores, strict=True)
        ]
    with contextlib.redirect_stdout(io.StringIO()):
        data = COCO()
        data.dataset = {
            "images": [{"id": n} for n in range(1, len(images) + 1)], "annotations": truth,
            "categories": [{"id": 1}],
        }  # fmt: skip
        data.createIndex()
        scorer = COCOeval(data, data.loadRes(found), "bbox")
        scorer.evaluate()
        scorer.accumulate()
        scorer.summarize()
    return float(scorer.stats[0]), float(scorer.stats[1])


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_is_that_of_pycocotools(seed: int) -> None:
    draw = np.random.default_rng(seed)
    images, judged = [], []
    for number in range(12):
        middle = draw.uniform(0, 60, (draw.integers(0, 12), 2))
        half = draw.uniform(2, 6, (len(middle), 2))
        true = np.concatenate([middle - half, middle + half], axis=1)
        near = true[draw.random(len(true)) < 0.8]
        boxes = np.concatenate([near + draw.normal(0, 1, near.shape), near[:3] + 0.5])
        away = draw.uniform(0, 60, (130 if number == 0 else 3, 2))
        boxes = np.concatenate([boxes, np.concatenate([away, away + 6], axis=1)])
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 0.5)
        scores = np.round(draw.random(len(boxes)), 2)  # equal ones, too
        images.append((true, boxes, scores))
        overlap = intersection_over_union(
            torch.from_numpy(boxes)[:, None], torch.from_numpy(true)[None]
        ).numpy()
        judged.append(judge(scores, overlap))
    ours = average_precision(judged)
    assert (float(ours.mean()), float(ours[0])) == pytest.approx(coco(images), abs=1e-6)
    assert 0.05 < ours[0] < 0.95


def test_what_has_no_average_precision() -> None:
    nothing = judge(np.array([0.5]), np.empty((1, 0)))
    assert not nothing.hits.any() and np.isnan(average_precision([nothing])).all()
    missed = judge(np.empty(0), np.empty((0, 3)))
    assert (average_precision([missed]) == 0).all()
    perfect = judge(np.array([0.5, 0.9]), np.eye(2))
    assert average_precision([perfect]) == pytest.approx(np.ones(10))
