import numpy as np
import pytest
import torch
from torch import nn

from sciml_dchag.evaluation.weights import latitude_weights
from sciml_dchag.tasks.forecast import ForecastTask, can_roll_out

LATITUDE = np.array([-67.5, -22.5, 22.5, 67.5])


class Constant(nn.Module):
    """Predicts the same number everywhere, and remembers what it was given."""

    def __init__(self, value: float, targets: int) -> None:
        super().__init__()
        self.value, self.targets = value, targets

    def forward(self, x, hours, available=None):
        self.x, self.available = x, available
        return torch.full((len(x), self.targets, *x.shape[2:]), self.value)


def task(change_std: list[float] | None = None, targets: tuple[int, ...] = (0, 1)) -> ForecastTask:
    std = None if change_std is None else np.array(change_std)
    return ForecastTask(target_indices=targets, change_std=std, latitude=LATITUDE, state_channels=2)


def fields(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, 4, 8, generator=torch.Generator().manual_seed(0))


def test_direct_output_is_the_forecast_and_residual_a_scaled_change() -> None:
    states, constants, hours = fields(3, 1, 2), fields(3, 1), torch.full((3,), 6.0)
    direct = task().step(Constant(0.5, 2), states, constants, hours)
    torch.testing.assert_close(direct, torch.full_like(direct, 0.5))
    residual = task([0.1, 10.0]).step(Constant(0.5, 2), states, constants, hours)
    change = residual - states[:, 0]
    torch.testing.assert_close(change[:, 0], torch.full_like(change[:, 0], 0.05))
    torch.testing.assert_close(change[:, 1], torch.full_like(change[:, 1], 5.0))


def test_loss_is_the_area_weighted_mean_square_over_the_unit_of_each_channel() -> None:
    states, constants, hours = fields(3, 1, 2), fields(3, 1, 1), torch.full((3,), 6.0)
    targets = fields(3, 1, 2).flip(0)
    loss = task([0.1, 10.0]).loss(Constant(0.0, 2), states, constants, targets, hours)
    error = (states[:, 0] - targets[:, 0]).numpy() / np.array([0.1, 10.0])[:, None, None]
    weights = latitude_weights(LATITUDE)[:, None]
    assert float(loss) == pytest.approx(float((error**2 * weights).mean()), rel=1e-5)


def test_missing_targets_do_not_count_and_a_bad_forecast_does() -> None:
    states, constants, hours = fields(2, 1, 2), fields(2, 1, 1), torch.full((2,), 6.0)
    targets = torch.zeros(2, 1, 2, 4, 8)
    targets[:, :, 1] = torch.nan
    loss = task().loss(Constant(2.0, 2), states, constants, targets, hours)
    assert float(loss) == pytest.approx(4.0)
    assert task().loss(Constant(torch.nan, 2), states, constants, targets, hours).isnan()


def test_missing_inputs_are_masked_for_the_model() -> None:
    states = fields(2, 1, 2)
    states[0, 0, 1, 2, 3] = torch.nan
    model = Constant(0.0, 2)
    forecast = task([1.0, 1.0]).step(model, states, fields(2, 1), torch.full((2,), 6.0))
    assert model.x.isfinite().all() and forecast.isfinite().all()
    assert int((~model.available).sum()) == 1 and not model.available[0, 1, 2, 3]


def test_a_rollout_feeds_forecasts_back_and_shifts_history() -> None:
    states = fields(1, 3, 2)
    advanced = task().advance(states, torch.ones(1, 2, 4, 8))
    assert (advanced[:, 0] == 1).all()
    torch.testing.assert_close(advanced[:, 1:], states[:, :2])
    swapped = task(targets=(1, 0)).advance(states, fields(1, 2))
    torch.testing.assert_close(swapped[:, 0], fields(1, 2).flip(1))


def test_which_forecasters_can_be_rolled_out() -> None:
    assert can_roll_out(["a", "b"], ["b", "a"], 6, [-6, -12]) is None
    assert "does not predict 'b'" in str(can_roll_out(["a"], ["a", "b"], 6, []))
    assert "does not shift by 24 h" in str(can_roll_out(["a"], ["a"], 24, [-6]))
