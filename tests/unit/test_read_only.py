"""File systems on which nothing can be written: refused before work starts, or read all the same."""

import errno
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
from training_runs import recipe

from sciml_dchag.cli.console import describe
from sciml_dchag.config import save_recipe
from sciml_dchag.files.locks import locked
from sciml_dchag.files.writable import require_writable
from sciml_dchag.pipeline import train

Ended = dict[str, tuple[int, str]]
PREFIXES = (
    ["unshare", "--mount"],
    ["unshare", "--map-root-user", "--mount"],
    ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"],
    [],
)
"""Ways to a process for which a folder can be made read-only: as root with a namespace of mounts,
as a user with one, as root whom permissions bind, as a user."""


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


WRITES = {
    "prepare era5 sample:era5_msl place/o.zarr --channels msl --grid 22.5": "o.zarr",
    "prepare plants sample:maize_kernel place/new/o.zarr": "o.zarr",
    "train place/w.yaml --runs place/runs": "place/runs/",
    "run place/w.yaml --runs place/runs": "recipe.yaml",
    "evaluate place/run": "scores.csv",
    "predict place/run place/w.zarr place/o.zarr --lead-hours 6": "o.zarr",
    "predict place/run place/w.zarr place/o.nc --lead-hours 6": "o.nc",
    "objects place/w.zarr place/o.csv": "o.csv",
    "law-table place/w.zarr place/o.csv --columns msl": "o.csv",
    "export place/run place/o.safetensors": "o.safetensors",
    "simulate poplars place/o --cubes 1": "o",
    "recipe new forecast place/new/o.yaml": "o.yaml",
}
READS = (
    "prepare era5 sample:era5_msl o.zarr --channels msl --grid 22.5",
    "check place/w.yaml --runs place/runs",
    "inspect place/run",
    "inspect place/w.zarr",
    "verify place",
    "predict place/run place/w.zarr f.zarr --lead-hours 6",
    "objects place/w.zarr o.csv",
    "train place/w.yaml --runs r --set training.steps=2 --set training.warmup_steps=1",
)


@pytest.fixture(scope="module")
def ended(msl_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """Status and words of all commands, run beside a read-only folder of store, run and recipe."""
    folder = tmp_path_factory.mktemp("read_only")
    place = folder / "place"
    shutil.copytree(msl_store, place / "w.zarr")
    settings = recipe(place / "w.zarr")
    train(settings, place / "run")
    save_recipe(settings, place / "w.yaml")
    before, commands = content(place), [*WRITES, *READS]
    words = json.dumps([shlex.split(command) for command in commands])
    script = Path(__file__).with_name("read_only_commands.py")
    fonts = {"MPLCONFIGDIR": matplotlib.get_cachedir()}  # looked for anew otherwise, for seconds
    for prefix in PREFIXES:
        if prefix and shutil.which(prefix[0]) is None:
            continue
        done = subprocess.run(
            [*prefix, sys.executable, str(script), str(place)],
            input=words, capture_output=True, text=True, check=False, env={**os.environ, **fonts},
        )  # fmt: skip
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stderr
    assert content(place) == before
    return {
        command: (status, said if "SystemExit" in error or status == 0 else error)
        for command, (status, said, error) in zip(
            commands, json.loads(done.stdout[done.stdout.index("[[") :]), strict=True
        )
    }


@pytest.mark.slow
def test_what_would_be_written_there_is_refused_before_work_starts(ended: Ended) -> None:
    for command, what in WRITES.items():
        status, said = ended[command]
        errors = said[said.index("Error: ") :]
        assert status == 2 and errors.count("\n") == 1, (command, said)
        assert "Nothing can be written in " in errors, (command, said)
        assert f"choose another place for {what}" in errors, (command, said)


@pytest.mark.slow
def test_what_lies_there_is_read_without_a_home(ended: Ended) -> None:
    assert [(command, ended[command]) for command in READS if ended[command][0] != 0] == []


def test_messages_name_the_place(tmp_path: Path) -> None:
    read_only = OSError(errno.EROFS, os.strerror(errno.EROFS), "/mnt/a.nc")
    assert describe(read_only) == "/mnt/a.nc is on a read-only file system: choose another place."
    denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/mnt/a.nc")
    assert "There is no permission for /mnt/a.nc" in describe(denied)
    require_writable(tmp_path / "new" / "folder" / "a.nc")
    with locked(tmp_path / "new" / ".lock", tmp_path / "new"):
        pass
    assert not list(tmp_path.iterdir())
