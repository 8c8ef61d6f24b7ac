"""Kills commands at random moments and repeats them: the same bytes or weights must come out.

Each command is started as a user starts it, killed with SIGKILL after a random part of the time
that it takes undisturbed, and repeated until it ends by itself; its results are then compared with
those of the undisturbed run, file by file for stores and forecasts, tensor by tensor for weights.
`verify` must find all of it whole. Nothing is counted that was not done.

    python benchmarks/faults.py --kills 100 --json benchmarks/results/faults.json
    python benchmarks/faults.py --kills 8 --cases prepare-weather,train
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from record import provenance, write_json

from sciml_dchag.training.checkpoint import find_checkpoint, load_tensors, read_checkpoint
from sciml_dchag.verifying import verify

SMALL = (
    "model.embed_dim=16", "model.depth=1", "model.heads=2", "model.partitions=1", "model.patch=8",
    "training.batch=2", "training.warmup_steps=2", "training.log_every=1",
    "training.checkpoint_every=5", "training.steps=60", "name=run",
)  # fmt: skip
RECIPE = """
data: {store: weather.zarr, train: ["2025-12-01", "2025-12-24"]}
evaluation: {lead_hours: [6, 12, 24]}
"""
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@dataclass(frozen=True)
class Case:
    """A command that is killed, with the result by which it is judged."""

    arguments: tuple[str, ...]
    result: str
    ranks: bool = False
    needs: tuple[str, ...] = ()
    """Cases that make what the command reads, done once."""


def _train(*more: str) -> tuple[str, ...]:
    settings = [word for value in (*SMALL, *more) for word in ("--set", value)]
    return ("train", "recipe.yaml", "--runs", "runs", *settings)


CASES = {
    "prepare-weather": Case(
        ("prepare", "era5", "sample:era5_msl", "weather.zarr", "--channels", "msl",
         "--grid", "5.625", "--train-end", "2025-12-24"),
        "weather.zarr",
    ),
    "prepare-plants": Case(
        ("prepare", "plants", "sample:maize_kernel", "plants.zarr", "--white", "sample:maize_white",
         "--dark", "sample:maize_dark", "--index", "brightness"),
        "plants.zarr",
    ),
    "train": Case(_train(), "runs/run", needs=("prepare-weather",)),
    "train-on-2-ranks": Case(
        _train("parallel.dp=2"), "runs/run", ranks=True, needs=("prepare-weather",)
    ),
    "checkpoints": Case(
        _train("training.checkpoint_every=1", "training.steps=20"), "runs/run",
        needs=("prepare-weather",),
    ),
    "predict": Case(
        ("predict", "runs/run", "weather.zarr", "out.zarr", "--lead-hours", "6,12,24",
         "--batch", "4"),
        "out.zarr", needs=("prepare-weather", "train"),
    ),
}  # fmt: skip


def run(case: Case, folder: Path, kill_after: float | None = None) -> tuple[int, float]:
    """Run a command, or kill it after some seconds; its status and how long it took."""
    launcher = TORCHRUN if case.ranks else ()
    command = [sys.executable, *launcher, "-m", "sciml_dchag", *case.arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = time.monotonic()
    with (folder / "said.txt").open("w") as said:
        job = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=said, stderr=said, start_new_session=True
        )
        try:
            job.wait(timeout=kill_after)
        except subprocess.TimeoutExpired:
            _kill(job)
    return job.returncode, time.monotonic() - started


def _kill(job: subprocess.Popen[bytes]) -> None:
    """Kill a command and all that it has started, ranks in sessions of their own among them."""
    family = [job.pid]
    for process in family:  # grows as children are found
        for children in Path(f"/proc/{process}/task").glob("*/children"):
            with contextlib.suppress(OSError):  # it ended meanwhile
                family += map(int, children.read_text().split())
    for process in family:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    job.wait()
    while any(_runs(process) for process in family):
        time.sleep(0.05)


def _runs(process: int) -> bool:
    """Whether a process is there and no zombie, which whoever adopts it may leave for a while."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def content(path: Path) -> dict[str, bytes]:
    """All files of a result by name."""
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def tensors(run_folder: Path) -> dict[str, torch.Tensor]:
    """The weights of a run."""
    from sciml_dchag.config import from_mapping
    from sciml_dchag.models.config import ModelConfig
    from sciml_dchag.models.transformer import build_model
    from sciml_dchag.training.checkpoint import tensors_of

    found = find_checkpoint(run_folder)
    model = build_model(from_mapping(ModelConfig, read_checkpoint(found).model_config))
    weights = tensors_of(model)
    load_tensors(found, {"model": weights})
    return weights


def same(one: Path, other: Path) -> bool:
    """Whether two results are the same."""
    if (one / "checkpoints").is_dir():
        a, b = tensors(one), tensors(other)
        return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    return content(one) == content(other)


def chain(case: Case, work: Path, whole: Path, seconds: float, kills: int) -> tuple[int, str]:
    """Kill a command up to `kills` times; how often it was, and what was wrong."""
    shutil.rmtree(work / case.result, ignore_errors=True)
    done = 0
    while done < kills:
        status, _ = run(case, work, random.uniform(0.2, 1.0) * seconds)
        if status != -signal.SIGKILL:
            break
        done += 1
    status, _ = run(case, work)
    if status:  # the last command may have ended by itself before it was to be killed
        said = (work / "said.txt").read_text()
        if "exists" not in said:
            return done, said[-500:]
    if not same(work / case.result, whole / case.result):
        return done, "another result"
    damaged = [sentence for _, _, said in verify(work / case.result) for sentence in said]
    left = [p.name for p in work.iterdir() if p.name.endswith((".partial", ".former", ".lock"))]
    return done, "; ".join([*damaged, *left])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100, help="in all, shared out over the cases")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    random.seed(options.seed)
    names = options.cases.split(",")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            case, whole, work = CASES[name], Path(folder) / f"{name}-0", Path(folder) / f"{name}-1"
            for place in (whole, work):
                place.mkdir()
                (place / "recipe.yaml").write_text(RECIPE)
                for needed in case.needs:
                    assert run(CASES[needed], place)[0] == 0, (place / "said.txt").read_text()
            status, seconds = run(case, whole)
            assert status == 0, (whole / "said.txt").read_text()
            kills, chains, wrong = 0, 0, []
            while kills < options.kills // len(names):
                left = options.kills // len(names) - kills
                done, what = chain(case, work, whole, seconds, min(left, 4))
                kills, chains = kills + done, chains + 1
                wrong += [what] if what else []
                if chains > 2 * options.kills:
                    wrong.append(f"ended before it could be killed, {chains - kills} times")
                    break
            found[name] = {"kills": kills, "chains": chains, "lost": wrong}
            print(f"{name}: {kills} kills in {chains} chains, {len(wrong)} with a loss", flush=True)
            for what in wrong:
                print(f"  {what}")
    if options.json:
        write_json(options.json, {"machine": provenance(), "cases": found})
    sys.exit(any(case["lost"] for case in found.values()))


if __name__ == "__main__":
    main()
