"""Changes files and settings at random: a command ends with a result or one sentence, and soon.

What a user may hand over is made once, small: an ENVI image, a NetCDF and a Zarr source, a weather
and a plant store with a run of each task, recipes, an exported model, tables, pictures, and what
commands write. Each case changes one of them, by a number that the seed fixes, and runs a command
on it, in a process that worked off cases before, under an alarm and a limit of memory. Nothing but
a result or one sentence may come of it: no traceback, no crash, not more than 5 s of a processor's
time, not more than 1 GiB. Before the first case each command must end with a result on what is not
changed.

    python benchmarks/mutations.py --cases 2000 --json benchmarks/results/mutations.json
    python benchmarks/mutations.py --kinds tasks --first 200 --cases 100      # a slice
    python benchmarks/mutations.py --kinds files --only 137   # one case, with what it printed
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import re
import resource
import shlex
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import mutated_inputs
import task_inputs
from mutated_inputs import KINDS, Kind, make_inputs
from task_inputs import TASK_KINDS, make_task_inputs

SECONDS, AT_MOST = 5, 600
"""Of a processor's time, for a machine may do other things beside; and of time that passes."""
MEMORY = 2**30
"""Bytes that a case may take beside what the process has before it."""


def _unchanged(command: str) -> Kind:
    """A case in which nothing is changed: its command must end with a result."""

    def copied(_: random.Random, inputs: Path, work: Path) -> tuple[str, ...]:
        shutil.copytree(inputs, work, dirs_exist_ok=True)
        return tuple(shlex.split(command))

    return copied


COMMANDS = [*mutated_inputs.UNCHANGED, *task_inputs.UNCHANGED]
GROUPS: dict[str, dict[str, Kind]] = {
    "files": KINDS,
    "tasks": TASK_KINDS,
    "unchanged": {f"unchanged: {command}": _unchanged(command) for command in COMMANDS},
}
"""Kinds of cases; a case's number says which kind of its group it is."""


@dataclass(frozen=True)
class Ending:
    """How a command ended."""

    number: int
    kind: str
    arguments: tuple[str, ...]
    verdict: str
    """`result`, `sentence`, or `traceback`, `lines`, `memory`, `slow` or `crash`."""
    seconds: float
    said: str

    @property
    def bad(self) -> bool:
        """Whether it must not be."""
        return self.verdict not in ("result", "sentence")


class TooSlowError(BaseException):
    """The alarm; no code of ours or of libraries takes it for an error of its own."""


def _alarm(*_: object) -> None:
    raise TooSlowError


def run(number: int, kind: str, arguments: tuple[str, ...], folder: Path) -> Ending:
    """Run a command in this process, in a folder, and judge how it ended."""
    from click.testing import CliRunner

    from sciml_dchag.cli.main import main

    os.chdir(folder)
    started = time.process_time()
    result = CliRunner().invoke(main, list(arguments))
    seconds = time.process_time() - started
    return Ending(number, kind, arguments, _verdict(result), seconds, _said(result))


def _verdict(result: Any) -> str:
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return "traceback"
    left_out = result.exit_code == 1 and re.search(r"^ *Left out: ", result.output, re.M)
    if result.exit_code == 0 or left_out:  # one image of several is left out, and named
        return "result"
    if "The memory is used up" in result.output:
        return "memory"
    _, _, errors = ("\n" + result.output).rpartition("\nError: ")
    errors = errors.strip()
    begins = ("ok ", "note ", "fails ", "Warning:")
    findings = all(line.startswith(begins) for line in errors.splitlines())
    if (errors.count("\n") and not findings) or not errors or len(result.output) > 20_000:
        return "lines"
    return "sentence"


def _said(result: Any) -> str:
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return "".join(traceback.format_exception(result.exception))[-3000:]
    return str(result.output)[-3000:]


def kind_of(number: int, group: str) -> str:
    """Return of which kind a case is."""
    return list(GROUPS[group])[number % len(GROUPS[group])]


def case(number: int, seed: int, inputs: Path, work: Path, group: str) -> Ending:
    """Make a case and run it."""
    rng = random.Random(f"{seed}-{number}")
    kind = kind_of(number, group)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    made = GROUPS[group][kind](rng, inputs, work)
    arguments = tuple(shlex.split(made)) if isinstance(made, str) else made
    started = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, AT_MOST)
    try:
        return run(number, kind, arguments, work)
    except TooSlowError:
        where = traceback.format_exc()[-1500:]
        return Ending(number, kind, arguments, "slow", time.process_time() - started, where)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


def _worker(
    pipe: Connection, numbers: list[int], seed: int, inputs: Path, work: Path, group: str
) -> None:
    """Work off cases, told of each before it begins and after it ended."""
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    from sciml_dchag.cli.main import main  # noqa: F401 - counted before the limit is set

    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, _alarm)
    signal.signal(signal.SIGPROF, _alarm)
    run(0, "warm", ("inspect", str(inputs / "w.zarr")), inputs)
    run(0, "warm", ("inspect", str(inputs / "runs/w")), inputs)
    with Path("/proc/self/statm").open() as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))
    with open(os.devnull, "w") as nothing:  # noqa: PTH123 - libraries in C print to descriptors
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)
    for number in numbers:
        pipe.send(number)
        pipe.send(case(number, seed, inputs, work, group))


def _wait(pipe: Connection, pid: int | None) -> None:
    """Wait for a worker, but not for one in which no alarm ends a case, as in a loop within C."""
    before, started = _processor_seconds(pid), time.monotonic()
    while not pipe.poll(1):
        used, passed = _processor_seconds(pid) - before, time.monotonic() - started
        if used > 4 * SECONDS or passed > 2 * AT_MOST:
            raise EOFError(f"hangs after {used:.0f} s of a processor's time, and no alarm ends it")


def _processor_seconds(pid: int | None) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def endings(
    numbers: list[int], seed: int, inputs: Path, work: Path, group: str
) -> Iterator[Ending]:
    """Run cases in one process after another; one that ends or hangs in a case is replaced."""
    left, context = list(numbers), multiprocessing.get_context("spawn")
    while left:
        ours, theirs = context.Pipe()
        chunk = left[:200]
        worker = context.Process(target=_worker, args=(theirs, chunk, seed, inputs, work, group))
        worker.start()
        theirs.close()
        current: int | None = None
        try:
            while left and left[0] in chunk:
                if current is not None:
                    _wait(ours, worker.pid)
                found = ours.recv()
                if isinstance(found, Ending):
                    left.pop(0)
                    current = None
                    yield found
                else:
                    current = found
        except (EOFError, OSError) as error:
            worker.kill()
            worker.join()
            if current is None:
                raise RuntimeError(f"A worker ended before its first case: {error}") from error
            left.pop(0)
            kind = kind_of(current, group)
            yield Ending(current, kind, (), "crash", 0.0, f"{error} (status {worker.exitcode})")
        worker.join()


def make_all_inputs(inputs: Path) -> None:
    """Make what is changed, of all groups."""
    inputs.mkdir(parents=True)
    make_inputs(inputs)
    make_task_inputs(inputs)


def report(ending: Ending) -> None:
    """Print a case and what it said."""
    print(f"{ending.number} {ending.kind}: {ending.verdict}, {' '.join(ending.arguments)}")
    print("  " + ending.said.replace("\n", "\n  "), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=2000, help="shared out over the groups")
    parser.add_argument("--first", type=int, default=0, help="number of the first case of a group")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", choices=list(GROUPS), help="one group; all by default")
    parser.add_argument("--only", help="numbers of cases, with commas")
    parser.add_argument("--inputs", type=Path, help="a folder of inputs, made if it is not there")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    groups = [options.kinds] if options.kinds else list(GROUPS)
    counts: dict[str, Counter[str]] = {}
    bad, slowest, ran = [], 0.0, 0
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        inputs, work = (options.inputs or Path(folder) / "inputs").absolute(), Path(folder) / "work"
        if not inputs.exists():
            make_all_inputs(inputs)
        os.chdir(home)
        for group in reversed(groups):  # what is not changed first
            share = options.cases // max(1, len(groups) - 1)
            some = range(options.first, options.first + share)
            if group == "unchanged":
                some = range(len(COMMANDS))
            numbers = [int(n) for n in options.only.split(",")] if options.only else list(some)
            for ending in endings(numbers, options.seed, inputs, work, group):
                ran += 1
                slowest = max(slowest, ending.seconds)
                counts.setdefault(ending.kind, Counter())[ending.verdict] += 1
                if ending.bad or (group == "unchanged" and ending.verdict != "result"):
                    bad.append(ending)
                    report(ending)
                elif options.only:
                    report(ending)
    for kind, count in counts.items():
        print(f"{kind}: {', '.join(f'{n} {verdict}' for verdict, n in count.most_common())}")
    print(f"{len(bad)} of {ran} must not be; the slowest took {slowest:.1f} s")
    if options.json:
        from record import provenance, write_json

        kept = {key: value for key, value in vars(options).items() if key not in ("json", "inputs")}
        named = [f"{e.number} {e.kind}: {e.verdict}, {' '.join(e.arguments)}" for e in bad]
        found = {"endings": counts, "bad": named, "slowest": slowest}
        write_json(options.json, {"machine": provenance(), "settings": kept, **found})
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
