import numpy as np
import pytest
import torch
from torch import nn

from sciml_dchag.objectives.forecast import ForecastObjective, can_roll_out
from sciml_dchag.objectives.layout import InputLayout
from sciml_dchag.weather.area import latitude_weights

LATITUDE = np.array([-67.5, -22.5, 22.5, 67.5])


class Constant(nn.Module):
    """Predicts the same number everywhere, and remembers what it was given."""

    def __init__(self, value: float, targets: int) -> None:
        super().__init__()
        self.value, self.targets = value, targets

    def forward(self, x, hours, available=None):
        self.x, self.available = x, available
        return torch.full((len(x), self.targets, *x.shape[2:]), self.value)


def task(
    change_std: list[float] | None = None,
    targets: tuple[int, ...] = (0, 1),
    history: tuple[int, ...] = (),
) -> ForecastObjective:
    std = None if change_std is None else np.array(change_std)
    return ForecastObjective(
        target_indices=targets, change_std=std, area_weights=latitude_weights(LATITUDE),
        layout=InputLayout(channels=("a", "b"), history_hours=history, forcings=("insolation",)),
    )  # fmt: skip


def fields(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, 4, 8, generator=torch.Generator().manual_seed(0))


def loss(task: ForecastObjective, model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor):
    hours, later = torch.full((len(inputs),), 6.0), fields(len(inputs), targets.shape[1] - 1, 1)
    error = task.squared_error(model, inputs, inputs[:, :2], later, targets, hours)
    return float(error / task.weight(targets))


def test_direct_output_is_the_forecast_and_residual_a_scaled_change() -> None:
    inputs, hours = fields(3, 2), torch.full((3,), 6.0)
    direct = task().step(Constant(0.5, 2), inputs, inputs, hours)
    torch.testing.assert_close(direct, torch.full_like(direct, 0.5))
    change = task([0.1, 10.0]).step(Constant(0.5, 2), inputs, inputs, hours) - inputs
    torch.testing.assert_close(change[:, 0], torch.full_like(change[:, 0], 0.05))
    torch.testing.assert_close(change[:, 1], torch.full_like(change[:, 1], 5.0))


def test_loss_is_the_area_weighted_mean_square_over_the_unit_of_each_channel() -> None:
    inputs, targets = fields(3, 3), fields(3, 1, 2).flip(0)
    found = loss(task([0.1, 10.0]), Constant(0.0, 2), inputs, targets)
    error = (inputs[:, :2] - targets[:, 0]).numpy() / np.array([0.1, 10.0])[:, None, None]
    weights = latitude_weights(LATITUDE)[:, None]
    assert found == pytest.approx(float((error**2 * weights).mean()), rel=1e-5)


def test_missing_targets_do_not_count_and_a_bad_forecast_does() -> None:
    targets = torch.zeros(2, 1, 2, 4, 8)
    targets[:, :, 1] = torch.nan
    assert loss(task(), Constant(2.0, 2), fields(2, 3), targets) == pytest.approx(4.0)
    assert np.isnan(loss(task(), Constant(torch.nan, 2), fields(2, 3), targets))


def test_missing_inputs_are_masked_for_the_model() -> None:
    inputs = fields(2, 2)
    inputs[0, 1, 2, 3] = torch.nan
    model = Constant(0.0, 2)
    forecast = task([1.0, 1.0]).step(model, inputs, inputs, torch.full((2,), 6.0))
    assert model.x.isfinite().all() and forecast.isfinite().all()
    assert int((~model.available).sum()) == 1 and not model.available[0, 1, 2, 3]
    task().step(model, fields(2, 2), inputs, torch.full((2,), 6.0))
    assert model.available is None


def test_a_rollout_feeds_forecasts_back_and_shifts_history() -> None:
    states, constants = fields(1, 6), fields(1, 1)
    inputs = torch.cat([states, torch.zeros(1, 1, 4, 8)], dim=1)
    advanced = task(history=(-6, -12)).advance(inputs, torch.ones(1, 2, 4, 8), constants)
    assert advanced.shape == inputs.shape and (advanced[:, [0, 3]] == 1).all()
    for channel in (0, 3):  # each channel's times lie side by side
        torch.testing.assert_close(
            advanced[:, channel + 1 : channel + 3], states[:, channel : channel + 2]
        )
    torch.testing.assert_close(advanced[:, 6:], constants)
    swapped = task(targets=(1, 0), history=(-6, -12)).advance(inputs, fields(1, 2), constants)
    torch.testing.assert_close(swapped[:, [0, 3]], fields(1, 2).flip(1))


def test_the_loss_of_a_rollout_counts_every_step() -> None:
    """A model that adds 1 each step is off by 1, 2 and 3 from a state that stays."""
    inputs = fields(2, 3)
    targets = inputs[:, None, :2].expand(-1, 3, -1, -1, -1)
    found = loss(task([1.0, 1.0]), Constant(1.0, 2), inputs, targets)
    assert found == pytest.approx((1 + 4 + 9) / 3, rel=1e-5)


def test_which_forecasters_can_be_rolled_out() -> None:
    assert can_roll_out(["a", "b"], ["b", "a"], 6, [-6, -12]) is None
    assert "does not predict 'b'" in str(can_roll_out(["a"], ["a", "b"], 6, []))
    assert "does not shift by 24 h" in str(can_roll_out(["a"], ["a"], 24, [-6]))
