"""Kills commands before a change of their files, in children of a process that has imported all.

Of a command that takes 3 s to import and 0.2 s to work, a random moment is nearly always one of the
import. Here the moment is drawn from the command's changes of files: opening one to write, making,
renaming and removing. The child kills itself with SIGKILL right before that change, whatever thread
makes it, and leaves what a killed process leaves. `faults.py --at changes` calls this.
"""

from __future__ import annotations

import importlib
import math
import multiprocessing
import os
import pkgutil
import random
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from mutations import make_all_inputs
from task_inputs import PICTURES

import sciml_dchag

SCANS = (
    "prepare plants many out.zarr --white white.hdr --dark dark.hdr --bands native --no-quicklooks"
)
ERA5 = "prepare era5 s.nc out.zarr --channels msl --grid 22.5 --train-end 2025-12-04"
TRAIN = "train {0}.yaml --runs r --set training.steps=6 --set training.checkpoint_every=1"
COMMANDS = {
    "prepare era5": (ERA5, "out.zarr"),
    "prepare era5, replacing": (f"{ERA5} --overwrite", "out.zarr"),
    "prepare plants": (SCANS, "out.zarr"),
    "prepare plants, pictures": (PICTURES, "out.zarr"),
    "predict": ("predict runs/w w.zarr out.zarr --lead-hours 6,12 --batch 4", "out.zarr"),
    "predict, replacing": (
        "predict runs/w w.zarr out.zarr --lead-hours 6,12 --batch 4 --overwrite", "out.zarr",
    ),
    "predict with a control branch": ("predict runs/c w.zarr out.zarr --lead-hours 6", "out.zarr"),
    "interpolate a store": (
        "interpolate runs/b w.zarr out.zarr --every 3h --window 12h", "out.zarr",
    ),
    "interpolate forecasts": (
        "interpolate runs/b f.zarr out.zarr --every 3h --window 12h", "out.zarr",
    ),
    "predict, objects": ("predict runs/d w.zarr out", "out"),
    "predict, objects in plants": ("predict runs/o g.zarr out.csv", "out.csv"),
    "predict, grades": ("predict runs/g g.zarr out.csv", "out.csv"),
    "objects": ("objects w.zarr out.csv", "out.csv"),
    "reconstruct": ("reconstruct runs/p x.zarr out", "out"),
    "embed": ("embed runs/p x.zarr --out out", "out"),
    "indices": ("indices x.zarr --out out", "out"),
    "probe score": ("probe score x.zarr traits.csv --out out --folds 3", "out"),
    "probe apply": ("probe apply q x.zarr out.csv", "out.csv"),
    "law-table": ("law-table w.zarr out.csv --columns msl,dmsl_dx,f", "out.csv"),
    "export": ("export runs/w out.safetensors", "out.safetensors"),
    **{f"train, task {letter}": (TRAIN.format(letter), f"r/{letter}") for letter in "bcdgmopw"},
}  # fmt: skip
"""A command, and the result by which it is judged."""
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link")


def run(line: str, folder: Path, said: Path, before: int | None = None) -> tuple[int, int]:
    """Run a command in a child.

    Args:
        line: the command.
        folder: where it runs; changes elsewhere do not count.
        said: where its output goes.
        before: the number of the change before which it is killed; None lets it end.

    Returns:
        Its status (-9 where it was killed), and the number of changes where it ended.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        status = 1
        try:
            status = _in_child(line, folder, said, before, writer)
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as file:
        counted = file.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status, int(counted or 0)


def _in_child(line: str, folder: Path, said: Path, before: int | None, writer: int) -> int:
    from sciml_dchag.cli.main import main

    os.chdir(folder)
    out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    torch.set_num_threads(1)
    changes = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal changes
        if not _is_change(event, arguments, folder):
            return
        if changes == before:
            os.kill(os.getpid(), signal.SIGKILL)
        changes += 1

    sys.addaudithook(hook)
    status = 0
    try:
        main(shlex.split(line), standalone_mode=True)
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    sys.stdout.flush()
    os.write(writer, str(changes).encode())
    return status


def _is_change(event: str, arguments: tuple[Any, ...], folder: Path) -> bool:
    if event == "open":
        path, mode, flags = arguments
        if not (flags & _WRITES or (isinstance(mode, str) and set(mode) & set("wax+"))):
            return False
    elif event in _CHANGES:
        path = arguments[0]
    else:
        return False
    if isinstance(path, int):  # a descriptor, opened before
        return False
    return folder in (folder / os.fsdecode(path)).parents


def left_beside(folder: Path) -> list[str]:
    """What a writer should have removed."""
    return [
        p.name
        for p in folder.iterdir()
        if p.name.endswith((".partial", ".former", ".lock", ".new"))
    ]


def kill_commands(
    kills: int,
    names: list[str],
    difference: Callable[[Path, Path], str],
    folder: Path,
    inputs: Path,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Kill each command before changes drawn at random, and repeat it until it ends.

    Args:
        kills: how often, in all.
        names: of `COMMANDS`.
        difference: says how a result differs from one that was not disturbed; empty if not at all.
        folder: for results.
        inputs: what `mutations.make_all_inputs` makes, made if it is not there.

    Yields:
        Of each command its name, kills, chains of it and its repetitions, and what was wrong.
    """
    each = math.ceil(kills / len(names))
    for module in pkgutil.walk_packages(sciml_dchag.__path__, "sciml_dchag."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)  # once, for all children
    if not inputs.exists():  # in a child, as training leaves threads, beside which none is forked
        maker = multiprocessing.get_context("fork").Process(target=make_all_inputs, args=(inputs,))
        maker.start()
        maker.join()
    for name in names:
        line, result = COMMANDS[name]
        whole, work = folder / "whole", folder / "work"
        shutil.copytree(inputs, work)  # the same path, which results may name
        status, changes = run(line, work, folder / "said.txt")
        if status:
            raise RuntimeError(f"{line}: {(folder / 'said.txt').read_text()[-500:]}")
        work.rename(whole)
        done, chains, wrong = 0, 0, []
        while done < each:
            shutil.copytree(inputs, work)
            if "--overwrite" in line:
                shutil.copytree(whole / result, work / result)
            most = min(4, each - done)
            killed, what = _chain(line, work, folder / "said.txt", changes, most)
            done, chains = done + killed, chains + 1
            what = what or difference(work / result, whole / result)
            if what := what or ", ".join(left_beside(work)):
                wrong.append(f"after {killed} kills: {what}")
            shutil.rmtree(work)
        shutil.rmtree(whole)
        print(f"{name}: {done} kills in {chains} chains, {len(wrong)} with a loss", flush=True)
        for what in wrong:
            print(f"  {what}", flush=True)
        yield name, {"kills": done, "chains": chains, "changes": changes, "lost": wrong}


def _chain(line: str, work: Path, said: Path, changes: int, kills: int) -> tuple[int, str]:
    """Kill a command up to so many times, then let it end; how often, and what was wrong."""
    done = 0
    while done < kills:
        status, _ = run(line, work, said, before=random.randrange(changes))
        if status != -signal.SIGKILL:
            break
        done += 1
    else:
        status, _ = run(line, work, said)
    if status and "exists" not in (text := said.read_text()):
        return done, text[-500:]
    return done, ""
