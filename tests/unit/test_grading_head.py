"""The head that grades, and its errors."""

import dataclasses

import pytest
import torch

from sciml_dchag.models.config import ModelConfig, expected_parameters
from sciml_dchag.models.grading import LEAST_RATIO, SHARP, lesion_ratio, split_grading
from sciml_dchag.models.transformer import build_model, count_parameters
from sciml_dchag.objectives.grading import GradingObjective, planned_loss
from sciml_dchag.training.optim import decays

CONFIG = ModelConfig(
    embed_dim=16, depth=1, heads=2, patch=4, partitions=2, pyramid_dim=8, head="grade",
    input_channels=("a", "b", "c"), output_channels=("0", "1", "2", "3"), image_size=(8, 12),
)  # fmt: skip


def objective() -> GradingObjective:
    return GradingObjective(grades=4, lesion_weight=2.0)


def random_images(samples: int) -> torch.Tensor:
    return torch.randn(samples, 3, 8, 12, generator=torch.Generator().manual_seed(0))


def test_parameters_are_those_expected() -> None:
    for channels in (3, 4):
        config = dataclasses.replace(CONFIG, input_channels=tuple("abcd"[:channels]))
        assert count_parameters(build_model(config)) == expected_parameters(config)


def test_thresholds_are_in_order_whatever_is_learnt() -> None:
    """So that no grade is less probable than nothing, and all logits differ by one number."""
    model = build_model(CONFIG)
    torch.nn.init.normal_(model.head.thresholds.steps, std=5.0)
    with torch.no_grad():
        grades, areas = split_grading(model(random_images(6)), 4)
    assert grades.shape == (6, 3) and areas.shape == (6, 4 * 6, 2)
    apart = -grades.diff(dim=1)
    assert bool((apart >= 0).all())
    torch.testing.assert_close(apart, apart[:1].expand(6, -1), rtol=1e-4, atol=1e-4)


def test_a_grade_starts_as_the_logarithm_of_the_ratio_of_lesions() -> None:
    model = build_model(CONFIG).eval()
    torch.nn.init.zeros_(model.head.severity.features.weight)
    with torch.no_grad():
        grades, areas = split_grading(model(random_images(6)), 4)
    ratio = lesion_ratio(areas.sigmoid())
    logarithm = (ratio + LEAST_RATIO).log()
    torch.testing.assert_close(
        grades[:, 0] - grades[0, 0], SHARP * (logarithm - logarithm[0]), rtol=1e-4, atol=1e-5
    )
    assert ratio.std() > 0


def test_the_ratio_is_that_of_sums() -> None:
    areas = torch.tensor([[[1.0, 0.5], [0.5, 0.0], [0.0, 0.0]]])
    torch.testing.assert_close(lesion_ratio(areas), torch.tensor([0.5 / 1.5]))


def test_an_error_of_two_grades_counts_more_than_two_of_one() -> None:
    """Logits of a model that is sure: above 0 and not above 1, that is grade 1."""
    sure, areas = torch.tensor([[6.0, -6.0, -18.0]]), torch.zeros(1, 4, 2)
    unknown = torch.full((1, 2, 2, 2), torch.nan)
    errors = [
        float(objective().parts(sure, areas, torch.tensor([grade]), unknown)["grade"])
        for grade in range(4)
    ]
    assert errors[1] < 0.01 and errors[3] > 2 * errors[2] > 10


@pytest.mark.parametrize("known", ["grades", "areas", "nothing"])
def test_what_is_not_known_counts_nothing(known: str) -> None:
    model, images = build_model(CONFIG), random_images(2)
    grades = torch.tensor([2, -1]) if known == "grades" else torch.tensor([-1, -1])
    areas = torch.full((2, 2, 4, 6), torch.nan)
    if known == "areas":
        areas[0] = torch.rand(2, 4, 6, generator=torch.Generator().manual_seed(1))
    counts = torch.ones(2, dtype=torch.bool)
    error = objective().error(model, images, grades, areas, counts)
    error.backward()
    assert float(objective().weight(counts)) == 2
    steps = model.head.thresholds.steps.grad
    assert bool(steps.abs().sum() > 0) == (known == "grades")
    assert bool(model.head.lesion.bias.grad.abs() > 0) == (known != "nothing")
    alone = objective().error(model, images[:1], grades[:1], areas[:1], counts[:1])
    torch.testing.assert_close(error, alone, rtol=1e-5, atol=1e-6)


def test_slots_without_a_channel_learn_nothing() -> None:
    """Three channels in two partitions of two slots: the fourth holds no pixels of its own."""
    model = build_model(CONFIG)
    model(random_images(2)).square().sum().backward()
    gradient = model.head.pixels.weight.grad
    assert bool((gradient[1, 1] == 0).all()) and bool((gradient[1, 0] != 0).any())
    torch.nn.init.ones_(model.head.pixels.weight[1, 1])
    changed = build_model(CONFIG)
    with torch.no_grad():
        torch.testing.assert_close(model(random_images(2)), changed(random_images(2)))


def test_a_missing_value_is_its_channels_mean() -> None:
    model = build_model(CONFIG).eval()
    images = random_images(1)
    images[0, 1, :4, :4] = torch.nan
    with torch.no_grad():
        said = objective().predict(model, images)
        images[0, 1, :4, :4] = 7.0
        available = torch.ones_like(images, dtype=torch.bool)
        available[0, 1, :4, :4] = False
        again = split_grading(model(images, available_BCHW=available), 4)
    for one, other in zip(said, again, strict=True):
        torch.testing.assert_close(one, other)


def test_a_planned_step_has_gradients_everywhere() -> None:
    model = build_model(CONFIG)
    planned_loss(model, (range(3), range(4)), 2, torch.float32).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_scale_does_not_decay() -> None:
    kept = [name for name, _ in build_model(CONFIG).head.named_parameters() if not decays(name)]
    assert [name for name in kept if not name.endswith("bias") and "norm" not in name] == [
        "severity.ratio", "severity.sharpness", "thresholds.steps",
    ]  # fmt: skip
