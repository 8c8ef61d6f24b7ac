"""Which device a process computes on, and what is said where it is not there."""

from pathlib import Path

import pytest
import torch

from sciml_dchag.checking import check_recipe
from sciml_dchag.config import from_mapping
from sciml_dchag.parallel.config import ParallelConfig
from sciml_dchag.parallel.runtime import choose_device, joined
from sciml_dchag.weather.forecast.config import ForecastRecipe


@pytest.fixture
def gpu_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch answer as its build for CUDA does on a machine without a GPU."""
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda *_: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)


@pytest.mark.usefixtures("gpu_build")
def test_a_build_for_gpus_computes_on_the_cpu_where_there_is_none() -> None:
    assert choose_device() == torch.device("cpu")
    with joined(ParallelConfig()) as ranks:
        assert ranks.device.type == "cpu"


def test_a_device_that_is_not_there_is_refused() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    if torch.accelerator.is_available():
        pytest.fail("this test is for machines without an accelerator")
    message = "parallel.device is cuda.*finds on this machine is none: set parallel.device to auto"
    with (
        pytest.raises(ValueError, match=message),
        joined(ParallelConfig(device="cuda")),
    ):
        pass
    with pytest.raises(ValueError, match="parallel.device is 'tpu': it must be one of auto, cpu"):
        from_mapping(ForecastRecipe, {"name": "a", "parallel": {"device": "tpu"}})


def test_more_processes_than_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda *_: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_device() == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match="Process 3 of this machine finds 2 device"):
        choose_device()


def test_check_notes_a_device_that_this_machine_lacks(msl_store: Path) -> None:
    """A job may have it where the login node has not."""
    recipe = from_mapping(
        ForecastRecipe,
        {
            "name": "a",
            "data": {"store": str(msl_store), "train": ["2025-12-01", "2025-12-24"]},
            "model": {"size": "tiny", "partitions": 1},
            "parallel": {"device": "cuda"},
        },
    )
    notes = [f.what for f in check_recipe(recipe) if f.verdict == "note"]
    assert any("parallel.device is cuda" in note for note in notes)
