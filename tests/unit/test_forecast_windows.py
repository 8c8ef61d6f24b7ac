from pathlib import Path

import numpy as np
import pytest
import torch

from sciml_dchag.objectives.layout import InputLayout
from sciml_dchag.training.batches import load_batches
from sciml_dchag.weather.store.store import Store
from sciml_dchag.weather.windows import (
    ForecastBatch,
    ForecastWindows,
    require_even_steps,
)

PERIOD = ("2025-12-01", "2025-12-10")


def windows(path: Path, **options: object) -> ForecastWindows:
    store = Store.open(path)
    statistics = store.statistics()
    settings = {
        "mean": statistics.mean,
        "std": statistics.std,
        "targets": ["msl"],
        "lead_hours": (6, 6),
        **options,
    }
    return ForecastWindows(store, PERIOD, **settings)  # type: ignore[arg-type]


def test_a_sample_holds_the_states_it_names(msl_store: Path) -> None:
    w = windows(msl_store, history_hours=[-6], lead_hours=(12, 12), rollout_steps=2)
    sample = w.sample(5, 2)
    raw = w.store.read([5, 4, 7, 9])[:, 0]
    normal = (raw - w.store.statistics().mean[0]) / w.store.statistics().std[0]
    np.testing.assert_allclose(sample.inputs[0], normal[:2], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(sample.now[0], normal[:1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(sample.targets[0, :, 0], normal[2:], rtol=1e-4, atol=1e-4)
    assert sample.lead_hours.tolist() == [12.0]


def test_no_sample_leaves_its_period(msl_store: Path) -> None:
    w = windows(msl_store, history_hours=[-12], lead_hours=(6, 24))
    inside = w.store.time_indices(PERIOD)
    assert w.initial_indices[0] == inside[0] + 2
    assert w.initial_indices[-1] == inside[-1] - 4


def test_samples_depend_on_seed_and_number_alone(msl_store: Path) -> None:
    options = {"lead_hours": (6, 48), "rotate": True}
    one, other = (windows(msl_store, seed=3, **options) for _ in range(2))
    for number in (0, 40, len(one) + 2):  # the last is of the second epoch
        torch.testing.assert_close(one[number].inputs, other[number].inputs, rtol=0, atol=0)
        assert one[number].lead_hours == other[number].lead_hours
    different = windows(msl_store, seed=4, **options)
    assert any(not torch.equal(one[n].inputs, different[n].inputs) for n in range(3))


def test_an_epoch_takes_every_initial_time_once(msl_store: Path) -> None:
    w = windows(msl_store)
    first = torch.cat([w[n].inputs for n in range(len(w))])
    assert len(torch.unique(first.flatten(1), dim=0)) == len(w)


def test_memory_makes_no_difference(msl_store: Path) -> None:
    cached, read = windows(msl_store, memory_mebibytes=100), windows(msl_store)
    for number in range(3):
        torch.testing.assert_close(cached[number].targets, read[number].targets, rtol=0, atol=0)


def test_a_resumed_loader_goes_on_where_it_stopped(msl_store: Path) -> None:
    w = windows(msl_store)
    whole = list(load_batches(w, batch=4, first_step=0, last_step=6, workers=0))
    rest = list(load_batches(w, batch=4, first_step=4, last_step=6, workers=0))
    assert len(whole) == 6
    for a, b in zip(whole[4:], rest, strict=True):
        torch.testing.assert_close(a.inputs, b.inputs, rtol=0, atol=0)


@pytest.mark.slow
def test_loader_processes_give_the_same_batches(msl_store: Path) -> None:
    w = windows(msl_store)
    here = list(load_batches(w, batch=2, first_step=0, last_step=3, workers=0))
    there = list(load_batches(w, batch=2, first_step=0, last_step=3, workers=2))
    for a, b in zip(here, there, strict=True):
        torch.testing.assert_close(a.inputs, b.inputs, rtol=0, atol=0)


def test_rotation_turns_all_fields_alike(msl_store: Path) -> None:
    sample = windows(msl_store, forcings=["sin_solar_time"]).sample(3, 1)
    turned = sample.rotated(7)
    for name in ("inputs", "now", "targets"):
        expected = np.roll(getattr(sample, name).numpy(), 7, axis=-1)
        np.testing.assert_array_equal(getattr(turned, name).numpy(), expected)


def test_inputs_are_of_the_order_of_one(simulated_store: Path) -> None:
    store = Store.open(simulated_store)
    statistics = store.statistics()
    w = ForecastWindows(
        store, (None, None), mean=statistics.mean, std=statistics.std, targets=["z500"],
        lead_hours=(6, 6), forcings=["cos_latitude", "insolation"],
    )  # fmt: skip
    sample = w[0]
    states, constants = sample.inputs[:, :80], sample.inputs[:, 80:]
    assert abs(float(states.mean())) < 0.5
    assert 0.5 < float(states.std()) < 2
    assert float(constants.abs().max()) < 1.1


def test_batches_of_different_sizes_are_refused() -> None:
    on_grid = torch.zeros(2, 1, 2, 2)
    later, targets = torch.zeros(2, 0, 1, 2, 2), torch.zeros(2, 1, 1, 2, 2)
    ForecastBatch(on_grid, on_grid, later, targets, torch.zeros(2))
    with pytest.raises(AssertionError):
        ForecastBatch(on_grid, on_grid, later, targets, torch.zeros(3))


def test_input_channels_are_named_in_the_order_they_are_joined(msl_store: Path) -> None:
    channels = Store.open(msl_store).channels
    layout = InputLayout(
        channels=tuple(channels.names), history_hours=(-6, -12), static=("orography",),
        forcings=("insolation",),
    )  # fmt: skip
    assert list(layout.names) == ["msl", "msl@-6h", "msl@-12h", "orography", "insolation"]


def test_hours_that_do_not_fit_are_refused(msl_store: Path) -> None:
    with pytest.raises(ValueError, match="9 h is no multiple of the store's step of 6 h"):
        windows(msl_store, lead_hours=(9, 9))
    with pytest.raises(ValueError, match="too few for history and lead time"):
        windows(msl_store, lead_hours=(240, 240))


def test_uneven_times_are_refused_with_the_first(series, write, tmp_path: Path) -> None:
    state = series(times=6)
    times = state["time"].values.copy()
    times[4:] += np.timedelta64(1, "h")
    path = write(state.assign_coords(time=times), tmp_path / "uneven.zarr")
    with pytest.raises(ValueError, match="6 h at first but 7 h after 2001-01-01T18:00"):
        require_even_steps(Store.open(path))


def test_ranks_hold_the_whole_sample_between_them(simulated_store: Path) -> None:
    """Each reads its own channels of the states, of history and of the forcings."""
    store = Store.open(simulated_store)
    statistics = store.statistics()
    settings = {
        "mean": statistics.mean, "std": statistics.std, "targets": store.channels.names[3:10],
        "lead_hours": (6, 6), "history_hours": [-6], "forcings": ["cos_latitude", "insolation", "sin_solar_time"],
    }  # fmt: skip
    whole = ForecastWindows(store, (None, None), **settings)[2]
    count = whole.inputs.shape[1]
    for memory in (0, 100):
        parts = [
            ForecastWindows(
                store, (None, None), inputs=inputs, outputs=outputs, memory_mebibytes=memory,
                **settings,
            )[2]
            for inputs, outputs in (
                (range(70), range(4)), (range(70, 161), range(4, 4)), (range(161, count), range(4, 7))
            )
        ]  # fmt: skip
        for name in ("inputs", "now"):
            joined = torch.cat([getattr(part, name) for part in parts], dim=1)
            torch.testing.assert_close(joined, getattr(whole, name), rtol=0, atol=0)
        joined = torch.cat([part.targets for part in parts], dim=2)
        torch.testing.assert_close(joined, whole.targets, rtol=0, atol=0)


def test_ranks_deal_the_samples_of_a_step_among_them(msl_store: Path) -> None:
    w = windows(msl_store)
    options = {"batch": 4, "first_step": 2, "last_step": 5, "workers": 0}
    whole = list(load_batches(w, **options))  # type: ignore[arg-type]
    one, other = (list(load_batches(w, own=own, **options)) for own in (range(2), range(2, 4)))  # type: ignore[arg-type]
    for a, b, both in zip(one, other, whole, strict=True):
        torch.testing.assert_close(torch.cat([a.targets, b.targets]), both.targets)


def test_the_times_of_a_channel_are_neighbours(simulated_store: Path) -> None:
    store = Store.open(simulated_store)
    statistics = store.statistics()
    w = ForecastWindows(
        store, (None, None), mean=statistics.mean, std=statistics.std, targets=["z500"],
        lead_hours=(6, 6), history_hours=[-6, -12],
    )  # fmt: skip
    names = w.layout.names
    normal = (store.read([5, 4, 3]) - statistics.mean[:, None, None]) / statistics.std[
        :, None, None
    ]
    for name in ("t2m", "t2m@-12h", "z500@-6h"):
        channel, _, hours = name.partition("@")
        time = {"": 0, "-6h": 1, "-12h": 2}[hours]
        expected = normal[time, store.channels.names.index(channel)]
        found = w.inputs(5)[names.index(name)]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
