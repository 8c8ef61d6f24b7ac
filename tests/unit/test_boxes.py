"""Overlap of boxes, suppression of duplicates, and which cell is to find which object."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from sciml_dchag.models.detection import BINS, cells_of
from sciml_dchag.objectives.assigner import CELLS, assign
from sciml_dchag.objectives.boxes import complete_iou, intersection_over_union, suppressed
from sciml_dchag.objectives.detection import DetectionObjective

SIZE, PATCH = (8, 16), 2


def drawn_boxes(*shape: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    middle = torch.rand(*shape, 2, generator=draw) * torch.tensor([16.0, 8.0])
    half = 0.4 + 2 * torch.rand(*shape, 2, generator=draw)
    return torch.cat([middle - half, middle + half], dim=-1).double()


def by_hand(one: list[float], other: list[float], period: float) -> float:
    """IoU of two boxes, the largest over all ways to turn one of them."""
    found = 0.0
    for turn in (-2, -1, 0, 1, 2) if period else (0,):
        x0, x1 = other[0] + turn * period, other[2] + turn * period
        wide = max(0.0, min(one[2], x1) - max(one[0], x0))
        high = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
        areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (one, other)]
        found = max(found, wide * high / (sum(areas) - wide * high))
    return found


@pytest.mark.parametrize("period", [0.0, 16.0])
def test_overlap_is_that_of_the_nearest_turn(period: float) -> None:
    one, other = drawn_boxes(20), drawn_boxes(20, seed=1)
    other[:, [0, 2]] += 16.0 * torch.arange(20).remainder(3)[:, None] if period else 0.0
    found = intersection_over_union(one, other, period)
    expected = [by_hand(*pair, period) for pair in zip(one.tolist(), other.tolist(), strict=True)]
    assert found.tolist() == pytest.approx(expected, abs=1e-12)
    assert found.max() > 0.1


def test_complete_iou_is_its_formula() -> None:
    """IoU - d^2 / c^2 - a v by hand, and a gradient where boxes do not touch."""
    one = torch.tensor([0.0, 0.0, 4.0, 2.0], dtype=torch.float64)
    other = torch.tensor([1.0, 0.0, 3.0, 4.0], dtype=torch.float64)
    iou = 4 / 12
    v = 4 / math.pi**2 * (math.atan(4 / 2) - math.atan(2 / 4)) ** 2
    expected = iou - (0.0 + 1.0) / (16 + 16) - v / (1 - iou + v) * v
    assert float(complete_iou(one, other)) == pytest.approx(expected, abs=1e-12)
    away = (other + 10).requires_grad_()
    complete_iou(one, away).backward()
    assert away.grad is not None and away.grad.abs().min() >= 0 and away.grad.abs().max() > 1e-3
    # Across the seam, as inside.
    turned = torch.tensor([16.0, 0.0, 16.0, 0.0])
    assert torch.equal(complete_iou(one, other + turned, 16.0), complete_iou(one, other))


def test_duplicates_are_dropped_by_class_and_across_the_seam() -> None:
    boxes = torch.tensor(
        [[-1.0, 0, 1, 2], [15.2, 0, 17.2, 2], [15.2, 0, 17.2, 2], [5, 0, 7, 2], [-1.2, 0, 0.8, 2]]
    )
    scores, classes = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5]), torch.tensor([0, 0, 1, 0, 0])
    assert suppressed(boxes, scores, classes, 0.5, 16.0).tolist() == [0, 2, 3]
    assert suppressed(boxes, scores, classes, 0.5).tolist() == [0, 1, 2, 3]
    assert suppressed(boxes[:0], scores[:0], classes[:0], 0.5).tolist() == []


def brute_force(
    scores: Tensor, boxes: Tensor, objects: Tensor, classes: Tensor, period: float
) -> tuple[list[int], list[float]]:
    """The assignment of one sample, cell by cell and object by object."""
    centres, _ = cells_of(SIZE, PATCH)
    suits: dict[tuple[int, int], float] = {}
    overlaps: dict[tuple[int, int], float] = {}
    for number, (box, kind) in enumerate(zip(objects.tolist(), classes.tolist(), strict=True)):
        if kind < 0:
            continue
        inside = {}
        for cell, (x, y) in enumerate(centres.tolist()):
            turns = (-1, 0, 1, 2) if period else (0,)
            near = min((x - (box[0] + box[2]) / 2 - t * period for t in turns), key=abs)
            wide, high = (max(box[2] - box[0], 1.0), max(box[3] - box[1], 1.0))
            if abs(near) <= wide / 2 and abs(y - (box[1] + box[3]) / 2) <= high / 2:
                overlap = by_hand(box, boxes[cell].tolist(), period)
                inside[cell] = float(scores[cell, kind]) ** 0.5 * overlap**6, overlap
        for cell in sorted(inside, key=lambda c: -inside[c][0])[:CELLS]:
            suits[cell, number], overlaps[cell, number] = inside[cell]
    given, score = [-1] * len(centres), [0.0] * len(centres)
    for cell in range(len(centres)):
        wanted = [n for n in range(len(objects)) if (cell, n) in overlaps]
        if wanted:
            given[cell] = max(wanted, key=lambda n: overlaps[cell, n])
    for number in range(len(objects)):
        own = [cell for cell in range(len(centres)) if given[cell] == number]
        if own:
            most = max(suits[c, number] for c in own)
            best = max(overlaps[c, number] for c in own)
            for cell in own:
                score[cell] = suits[cell, number] / max(most, 1e-12) * best
    return given, score


@pytest.mark.parametrize("period", [0.0, 16.0])
def test_assignment_is_that_of_brute_force(period: float) -> None:
    centres, sides = cells_of(SIZE, PATCH)
    draw = torch.Generator().manual_seed(3)
    scores = torch.rand(3, len(centres), 2, generator=draw).double()
    away = 1.5 * torch.rand(3, len(centres), 4, generator=draw).double()
    boxes = torch.cat([centres - away[..., :2], centres + away[..., 2:]], dim=-1)
    objects, classes = drawn_boxes(3, 7, seed=5), torch.tensor([[0, 1, 0, 1, 0, -1, -1]] * 3)
    objects[0, 0] = torch.tensor([3.1, 3.1, 3.3, 3.3])  # smaller than a cell
    classes[2] = -1
    found = assign(scores, boxes, centres, sides, objects, classes, period)
    for sample in range(3):
        given, score = brute_force(
            scores[sample], boxes[sample], objects[sample], classes[sample], period
        )
        assert found.objects[sample].tolist() == given
        assert found.scores[sample].tolist() == pytest.approx(score, abs=1e-6)
    assert 0 in found.objects[0].tolist() and found.objects[2].max() == -1
    none = assign(scores, boxes, centres, sides, objects, torch.full_like(classes, -1), period)
    assert none.objects.max() == -1 and none.scores.max() == 0


def perfect_answer(objective: DetectionObjective, box: list[float], cell: int) -> Tensor:
    """What a model says that finds one object at one cell, (1, A, N) of one class."""
    said = torch.full((1, len(objective.centres), 4 * BINS + 1), -12.0)
    x, y = objective.centres[cell].tolist()
    side = float(objective.sides[cell])
    away = [(x - box[0]) / side, (y - box[1]) / side, (box[2] - x) / side, (box[3] - y) / side]
    logits = torch.full((4, BINS), -30.0)
    for number, distance in enumerate(away):
        below = math.floor(distance)
        logits[number, below] = math.log(max(1 - (distance - below), 1e-9))
        logits[number, below + 1] = math.log(max(distance - below, 1e-9))
    said[0, cell, : 4 * BINS] = logits.flatten()
    said[0, cell, -1] = 12.0
    return said


@pytest.mark.parametrize("box", [[5.0, 2.2, 7.6, 5.0], [-1.3, 2.2, 1.3, 5.0]])
def test_a_perfect_answer_is_read_back_and_costs_little(box: list[float]) -> None:
    """Also across the seam, where the box is written a turn further on."""
    objective = DetectionObjective(image_size=SIZE, patch=PATCH, classes=1, wraps=True)
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    away = objective.centres - torch.tensor([x, y])
    cell = int(away[: 8 * 16].square().sum(1).argmin())
    said = perfect_answer(objective, box, cell)
    found = objective.detections(said, least_score=0.5, most_overlap=0.5, most=10)[0]
    assert found.boxes.tolist() == [pytest.approx(box, abs=1e-4)]
    turned = [box[0] + 16, box[1], box[2] + 16, box[3]]
    truth, classes = torch.tensor([[turned]]), torch.tensor([[0]])
    parts = objective.parts(said, truth, classes, torch.empty(1, 1, 0))
    assert parts["box"] < 1e-3 and parts["class"] < 0.01
    other = objective.parts(
        said, truth + torch.tensor([0, 1.0, 0, 1.0]), classes, torch.empty(1, 1, 0)
    )
    assert other["box"] > 0.1 and other["distance"] > parts["distance"]


def test_errors_add_up_over_samples_and_leave_out_what_counts_nothing() -> None:
    objective = DetectionObjective(image_size=SIZE, patch=PATCH, classes=2, wraps=False)
    draw = torch.Generator().manual_seed(0)
    said = torch.randn(4, len(objective.centres), 4 * BINS + 3, generator=draw)
    boxes, attributes = drawn_boxes(4, 3).float(), torch.randn(4, 3, 1, generator=draw)
    attributes[0, 0] = math.nan
    classes = torch.tensor([[0, 1, -1]] * 4)

    def model(images: Tensor, **_: object) -> Tensor:
        return said[images[:, 0, 0, 0].long()]

    def error(samples: list[int], counts: list[bool]) -> float:
        images = torch.tensor(samples, dtype=torch.float32)[:, None, None, None].expand(
            -1, 1, 8, 16
        )
        return float(
            objective.error(
                model, images, boxes[samples], classes[samples], attributes[samples],
                torch.tensor(counts),
            )  # type: ignore[arg-type]
        )  # fmt: skip

    each = [error([sample], [True]) for sample in range(4)]
    assert error([0, 1, 2, 3], [True] * 4) == pytest.approx(sum(each), rel=1e-5)
    assert error([0, 1, 2, 3], [True, True, False, True]) == pytest.approx(
        sum(each) - each[2], rel=1e-5
    )
    assert all(math.isfinite(one) for one in each)
    counted = torch.tensor([True, True, False, True])
    assert float(objective.weight(classes, counted)) == 6
    shares = []
    for rank, count in itertools.product(range(2), [2]):
        objective.own_samples = slice(rank, None, count)
        shares.append(error([0, 1, 2, 3], [True] * 4))
    assert sum(shares) == pytest.approx(sum(each), rel=1e-5)
