"""SIGTERM and SIGUSR1 while training: the step's checkpoint is kept, and nothing is lost."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from training_runs import assert_same_weights, recipe

from sciml_dchag.config import save_recipe
from sciml_dchag.parallel.stopping import STATUS, StoppedError, asked, note
from sciml_dchag.pipeline import train
from sciml_dchag.training.checkpoint import last_checkpoint, read_checkpoint
from sciml_dchag.training.logbook import read_log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_stops_after_the_step_and_the_run_ends_alike(
    number: signal.Signals, msl_store: Path, tmp_path: Path
) -> None:
    def told(done: int, total: int, what: str) -> None:
        if done == 1:  # noted in step 2, whose end comes after
            os.kill(os.getpid(), number)

    former = signal.getsignal(number)
    settings = recipe(msl_store, training={"checkpoint_every": 6, "validate_every": 6})
    with pytest.raises(StoppedError, match="after step 2 of 6, .*the same command resumes"):
        train(settings, tmp_path / "stopped", progress=told)
    assert signal.getsignal(number) is former and not note()
    last = last_checkpoint(tmp_path / "stopped" / "checkpoints")
    assert last is not None and last.name == "step-0000002"
    assert not read_checkpoint(last).complete
    train(settings, tmp_path / "stopped")
    train(settings, tmp_path / "whole")
    assert_same_weights(tmp_path / "stopped", tmp_path / "whole")
    steps = [r["step"] for r in read_log(tmp_path / "stopped/log.jsonl") if "loss" in r]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_a_signal_in_the_last_step_ends_as_usual(msl_store: Path, tmp_path: Path) -> None:
    def told(done: int, total: int, what: str) -> None:
        if done == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    result = train(recipe(msl_store), tmp_path / "run", progress=told)
    assert result.steps == 6 and read_checkpoint(tmp_path / "run").complete


def test_training_in_a_thread_handles_no_signals(msl_store: Path, tmp_path: Path) -> None:
    failed: list[BaseException] = []

    def work() -> None:
        try:
            train(recipe(msl_store, training={"steps": 2}), tmp_path / "run")
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failed and read_checkpoint(tmp_path / "run").step == 2 and not asked()


@pytest.mark.slow
def test_the_command_ends_with_the_status_of_what_can_be_repeated(
    msl_store: Path, tmp_path: Path
) -> None:
    save_recipe(recipe(msl_store, training={"steps": 100000}), tmp_path / "recipe.yaml")
    command = [sys.executable, "-m", "sciml_dchag", "train", "recipe.yaml", "--runs", "runs"]
    job = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "runs" / "test" / "log.jsonl"
    try:
        started = time.monotonic()
        while not (log.exists() and log.read_text().count("\n") > 2):
            assert job.poll() is None and time.monotonic() - started < 300
            time.sleep(0.1)
        job.terminate()
        _, said = job.communicate(timeout=120)
    finally:
        job.kill()
    assert job.returncode == STATUS == 75
    assert said.count("Error: Stopped by a signal after step") == 1 and "Traceback" not in said
    last = last_checkpoint(tmp_path / "runs/test/checkpoints")
    assert last is not None and f"after step {read_checkpoint(last).step} of 100000" in said
    shutil.rmtree(tmp_path / "runs")
