"""Jobs of torchrun that fail: soon, with a status, and with one sentence that says why."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import run_workers
import xarray as xr
import yaml
from rank_launcher import on_ranks

from sciml_dchag._version import __version__
from sciml_dchag.files.checksums import damages
from sciml_dchag.files.locks import locked
from sciml_dchag.training.checkpoint import last_checkpoint, read_checkpoint
from sciml_dchag.weather.store.statistics import compute_statistics

WORKER = Path(__file__).with_name("failing_rank.py")
SECONDS = 60
"""How soon a job must have ended after a rank failed, or after the ranks were started."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe, whose store is a relative path."""
    folder = tmp_path_factory.mktemp("failing")
    recipe = {
        "name": "failing",
        "data": {"store": "weather.zarr"},
        "model": {"embed_dim": 8, "depth": 1, "heads": 4, "patch": 2, "partitions": 2},
        "task": {"lead_hours": [6, 6]},
        "training": {
            "steps": 40,
            "batch": 2,
            "warmup_steps": 2,
            "log_every": 1,
            "checkpoint_every": 5,
        },
        "parallel": {"tp": 2},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder


@pytest.fixture
def store(
    workplace: Path, series: Callable[..., xr.DataArray], write: Callable[..., Path]
) -> Callable[..., Path]:
    def write_store(folder: Path = workplace, **options: Any) -> Path:
        folder.mkdir(exist_ok=True)
        options = {"channels": "t2m,msl", **options}
        path = write(series(**options), folder / "weather.zarr", overwrite=True)
        compute_statistics(path)
        return path

    return write_store


def recipe_of(workplace: Path) -> dict[str, Any]:
    """The recipe of the workplace."""
    return dict(yaml.safe_load((workplace / "recipe.yaml").read_text()))


def apart(stderr: str) -> tuple[str, str]:
    """Split what ranks say from torchrun's report, which comes when all of them have ended.

    Its warning that it stops the other ranks may come before or after the sentence of one.
    """
    said, mark, report = re.compile(r"^(E\d{4} )", re.MULTILINE).split(stderr, maxsplit=1)
    assert "torch/distributed/elastic" in report, report
    own = [line for line in said.splitlines() if "torch/distributed/elastic" not in line]
    return "\n".join(own), mark + report


def failed_job(workplace: Path, *arguments: str, **environment: str) -> list[str]:
    """Start two ranks, which must fail in time; return what they say, without torchrun's report."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(WORKER),
        "train", str(workplace / "recipe.yaml"), "--runs", str(workplace / "runs"), *arguments,
    ]  # fmt: skip
    note = workplace / "failed_at"
    done = subprocess.run(  # which also waits for whatever the ranks have started
        command, cwd=workplace, capture_output=True, text=True, timeout=4 * SECONDS,
        # Ranks that all fail alike end at once; on a busy machine one may be slow to get there.
        env={
            **os.environ, "OMP_NUM_THREADS": "1", "NOTE": str(note),
            "SCIML_DCHAG_GRACE_SECONDS": "30", **environment,
        },
    )  # fmt: skip
    seconds = time.time() - float(note.read_text())
    print(f"ended after {seconds:.1f} s")
    assert seconds < SECONDS
    assert done.returncode != 0
    said, report = apart(done.stderr)
    errors = [line for line in said.splitlines() if "Error" in line]
    assert len(errors) == 1 and "Traceback" not in said, said
    assert errors[0].removeprefix("Error: ") in report, report  # the last that a user sees
    return errors


def test_a_rank_that_raises_is_named_and_a_checkpoint_in_writing_holds_nobody(
    workplace: Path, store: Callable[..., Path]
) -> None:
    store()
    # The other rank never fails as this one did, so that waiting for it longer changes nothing.
    grace = {"SCIML_DCHAG_GRACE_SECONDS": "0.5"}
    errors = failed_job(workplace, RANK_1_DOES="raise", IN_STEP="10", **grace)
    assert errors == ["Error: Rank 1 of 2: a rank's own error"]
    assert list((workplace / "runs/failing/checkpoints").glob("step-*[0-9]"))


def test_a_killed_rank_ends_the_job_and_its_loaders(
    workplace: Path, store: Callable[..., Path]
) -> None:
    store()
    (error,) = failed_job(
        workplace, "--set", "name=killed", "--set", "data.workers=1",
        RANK_1_DOES="kill", IN_STEP="7",
    )  # fmt: skip
    assert error.startswith("Error: Rank 0 of 2: another rank was killed")


def test_an_error_of_all_ranks_is_said_once(
    workplace: Path, store: Callable[..., Path], tmp_path: Path
) -> None:
    store()
    store(tmp_path, seed=1)
    (error,) = failed_job(workplace, "--set", "name=differing", FOLDER_OF_RANK_1=str(tmp_path))
    assert error.startswith("Error: The ranks see different statistics in the store: statistics ")
    assert not (workplace / "runs" / "differing").exists()


@pytest.mark.parametrize(
    ("changes", "rank_1", "message"),
    [
        (
            {"parallel": {"tp": 3}},
            {},
            r"parallel.dp x fsdp x tp is 1 x auto x 3, which does not make 2",
        ),
        ({"model": {"partitions": 1}}, {}, "parallel.tp 2 does not divide model.partitions 1"),
        ({}, {"folder": "empty"}, "On rank 1 of 2: There is no store at weather.zarr"),
        (
            {},
            {"version": "9.9"},
            f"The ranks see different versions of sciml-dchag: {__version__} on rank 0, 9.9 on rank "
            "1; install the same on every machine.",
        ),
    ],
    ids=["degrees", "partitions", "store", "version"],
)
def test_ranks_that_do_not_fit_together_do_not_begin(
    workplace: Path, store: Callable[..., Path], tmp_path: Path,
    changes: dict[str, Any], rank_1: dict[str, str], message: str,
) -> None:  # fmt: skip
    store()
    if folder := rank_1.get("folder"):
        (tmp_path / folder).mkdir()
        rank_1 = {"folder": str(tmp_path / folder)}
    begun = run_workers.changed(recipe_of(workplace), **changes)
    run = workplace / "runs" / "unfit"
    said = on_ranks(2, run_workers.refusal, begun, str(run), str(workplace), rank_1)
    assert said[0] == said[1]
    assert said[0].startswith(message)
    assert not run.exists()


def test_what_was_begun_goes_on_with_nothing_but_its_own_model_and_store(
    workplace: Path, store: Callable[..., Path]
) -> None:
    store()
    begun, run = recipe_of(workplace), workplace / "runs" / "begun"
    begun["training"]["steps"] = 5
    place = (str(run), str(workplace), {})
    assert on_ranks(2, run_workers.refusal, begun, *place) == ["", ""]
    wider = run_workers.changed(begun, model={"embed_dim": 16})
    said = on_ranks(2, run_workers.refusal, wider, *place)
    assert said[0] == said[1]
    assert "holds a run with other settings in 'model': restore them" in said[0]
    store(channels="t2m,msl,u10")
    said = on_ranks(2, run_workers.refusal, begun, *place)
    assert said[0] == said[1]
    assert "whose store had 2 channels where weather.zarr has 3 and adds u10" in said[0]
    assert said[0].startswith(str(run))


def training_job(folder: Path, name: str) -> tuple[subprocess.Popen[bytes], Path, Path]:
    """Start a training that does not end by itself, on two ranks.

    Returns:
        The job, the run's log, and the file of what the job prints.
    """
    runs, said = folder / f"runs-{name}", folder / f"{name}.txt"
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "-m", "sciml_dchag", "train", "recipe.yaml", "--runs", str(runs),
        "--set", "training.steps=100000", "--set", "training.checkpoint_every=100000",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with said.open("w") as output:
        job = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    return job, runs / "failing" / "log.jsonl", said


def wait_for_steps(job: subprocess.Popen[bytes], log: Path, said: Path) -> None:
    """Wait until a job has taken some steps."""
    started = time.monotonic()
    while not (log.exists() and log.read_text().count("\n") > 2):
        assert job.poll() is None, said.read_text()
        assert time.monotonic() - started < 3 * SECONDS, said.read_text()
        time.sleep(0.2)


def test_ranks_end_when_torchrun_is_killed(workplace: Path, store: Callable[..., Path]) -> None:
    """Else they would train on beside those of the same command, given again."""
    store()
    job, log, said = training_job(workplace, "orphans")
    try:
        wait_for_steps(job, log, said)
    finally:
        job.kill()
        job.wait()
    lock = log.parent / ".lock"
    started = time.monotonic()
    while True:
        try:
            with locked(lock, log.parent):  # nobody holds the run any more
                break
        except ValueError:
            assert time.monotonic() - started < SECONDS
    size = log.stat().st_size
    time.sleep(2)
    assert log.stat().st_size == size


@pytest.mark.parametrize("whom", ["torchrun", pytest.param("rank 1", marks=pytest.mark.full)])
def test_all_ranks_stop_after_one_step_when_one_is_told(
    whom: str, workplace: Path, store: Callable[..., Path]
) -> None:
    store()
    job, log, said = training_job(workplace, f"stopped-{whom[-1]}")
    try:
        wait_for_steps(job, log, said)
        if whom == "torchrun":
            job.terminate()
        else:
            children = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
            ranks = [c for c in children if b"RANK=1" in Path(f"/proc/{c}/environ").read_bytes()]
            os.kill(int(ranks[-1]), signal.SIGUSR1)
        assert job.wait(timeout=3 * SECONDS) != 0
    finally:
        job.kill()
    (line,) = (x for x in said.read_text().splitlines() if x.startswith("Error: "))
    last = last_checkpoint(log.parent / "checkpoints")
    assert last is not None and not list(damages(last))
    assert f"Stopped by a signal after step {read_checkpoint(last).step} of 100000" in line
