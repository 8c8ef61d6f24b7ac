"""Kills commands at random moments and repeats them: the same bytes or weights must come out.

Each command is started as a user starts it, killed with SIGKILL after a random part of the time
that it takes undisturbed, and repeated until it ends by itself; its results are then compared with
those of the undisturbed run, file by file for stores and forecasts, tensor by tensor for weights.
`verify` must find all of it whole. Nothing is counted that was not done. With `--at changes` all
commands that write are killed before changes of their files (`killed_commands.py`), which takes a
tenth of the time.

    python benchmarks/faults.py --kills 100 --json benchmarks/results/faults.json
    python benchmarks/faults.py --kills 8 --cases prepare-weather,train
    python benchmarks/faults.py --at changes --kills 100 --json benchmarks/results/killed.json
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from killed_commands import COMMANDS, kill_commands, left_beside
from record import provenance, write_json

from sciml_dchag.files.checksums import LIST
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
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in files}


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
    left = ", ".join(left_beside(work))
    return done, difference(work / case.result, whole / case.result) or left


def difference(made: Path, whole: Path) -> str:
    """Say what is wrong with a result, beside one that was not disturbed; empty if nothing is."""
    if not made.exists():
        return "no result"
    if not same(made, whole):
        return "another result"
    if not (made / LIST).exists() and not (made / "checkpoints").exists():
        return ""
    return "; ".join(sentence for _, _, said in verify(made) for sentence in said)


def kill_at_moments(
    kills: int, names: list[str], root: Path
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Kill commands as they are started, at moments drawn at random."""
    each = math.ceil(kills / len(names))
    for name in names:
        case, whole, work = CASES[name], root / f"{name}-0", root / f"{name}-1"
        for place in (whole, work):
            place.mkdir()
            (place / "recipe.yaml").write_text(RECIPE)
            for needed in case.needs:
                assert run(CASES[needed], place)[0] == 0, (place / "said.txt").read_text()
        status, seconds = run(case, whole)
        assert status == 0, (whole / "said.txt").read_text()
        done, chains, wrong = 0, 0, []
        while done < each:
            more, what = chain(case, work, whole, seconds, min(each - done, 4))
            done, chains = done + more, chains + 1
            wrong += [what] if what else []
            if chains > 2 * kills:
                wrong.append(f"ended before it could be killed, {chains - done} times")
                break
        print(f"{name}: {done} kills in {chains} chains, {len(wrong)} with a loss", flush=True)
        for what in wrong:
            print(f"  {what}")
        yield name, {"kills": done, "chains": chains, "lost": wrong}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--at", choices=["moments", "changes"], default="moments")
    parser.add_argument("--kills", type=int, default=100, help="in all, shared out over the cases")
    parser.add_argument("--cases", help="names, with commas; all by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--inputs", type=Path, help="of --at changes: made if it is not there")
    parser.add_argument("--json", type=Path, help="written after each case")
    options = parser.parse_args()
    random.seed(options.seed)
    every = CASES if options.at == "moments" else COMMANDS
    names = [n for n in every if options.cases is None or n in options.cases.split(",")]
    settings, cases = {"at": options.at, "seed": options.seed}, {}
    with tempfile.TemporaryDirectory() as folder:
        if options.at == "moments":
            results = kill_at_moments(options.kills, names, Path(folder))
        else:
            inputs = (options.inputs or Path(folder) / "inputs").absolute()
            results = kill_commands(options.kills, names, difference, Path(folder), inputs)
        for name, result in results:
            cases[name] = result
            if options.json:
                whole = {"machine": provenance(), "settings": settings, "cases": cases}
                write_json(options.json, whole)
    sys.exit(any(case["lost"] for case in cases.values()))


if __name__ == "__main__":
    main()
