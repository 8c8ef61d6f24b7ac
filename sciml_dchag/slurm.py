"""Training as a job of a cluster: a Slurm script filled in from its template, given to `sbatch`.

The templates are scripts that work as they are (`pipelines/slurm/`, carried by the package):
filling one in changes the values of lines that are named here and nothing else. What a recipe
needs is checked before a job waits in a queue for it.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sciml_dchag.checking import check_recipe
from sciml_dchag.config import Recipe
from sciml_dchag.files.atomic import write_text
from sciml_dchag.files.samples import job_template_path
from sciml_dchag.parallel.config import require_divisible
from sciml_dchag.tasks import task_of
from sciml_dchag.training.start import own_samples

TEMPLATES = ("nvidia", "frontier")
"""Templates that the package carries."""

SUBMIT_SECONDS = 120
"""How long `sbatch` may take to answer."""

_NAMES = re.compile(r"[\w.@+-]+(,[\w.@+-]+)*")
_TIME = re.compile(r"(\d+-)?\d{1,3}:[0-5]\d:[0-5]\d")


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is asked of a cluster; None leaves what the template says.

    Raises:
        ValueError: a value that Slurm could not read, or numbers of GPUs that make no whole nodes.
    """

    gpus: int
    """GPUs in all, one rank each."""
    template: str = "nvidia"
    """One of `TEMPLATES`, or a file like them."""
    gpus_per_node: int | None = None
    """GPUs of a node."""
    account: str | None = None
    """Who pays."""
    partition: str | None = None
    """The queue, or several with commas."""
    time: str | None = None
    """Longest time, HH:MM:SS."""

    def __post_init__(self) -> None:
        for name in ("gpus", "gpus_per_node"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} is {value}: ask for at least 1.")
        # Slurm reads its lines word by word, without the shell's quotes.
        for name in ("account", "partition"):
            value = getattr(self, name)
            if value is not None and not _NAMES.fullmatch(value):
                raise ValueError(
                    f"The {name} {value!r} is no name that Slurm knows: letters, digits and . _ - "
                    f"+ @ make one; `sacctmgr show associations` and `sinfo` list yours."
                )
        if self.time is not None and not _TIME.fullmatch(self.time):
            raise ValueError(f"The time {self.time!r} is not HH:MM:SS: write, say, 12:00:00.")


def check_job(recipe: Recipe, runs: Path, ranks: int) -> None:
    """Refuse what would fail on the cluster, reading metadata alone; warn of a store to prepare.

    Raises:
        ValueError: what `sciml-dchag check` finds failing, or what training would say of its
            degrees and batch on that number of ranks.
    """
    for finding in check_recipe(recipe, runs):
        if finding.verdict == "fails":
            raise ValueError(finding.what)
    dp, fsdp, _ = recipe.parallel.sizes(ranks)
    require_divisible(recipe.model, recipe.parallel)
    own_samples(recipe.training, 0, dp * fsdp)
    if not Path(recipe.data.store).exists():
        warnings.warn(
            f"There is no store at {recipe.data.store} yet: prepare it before the job starts.",
            stacklevel=2,
        )


def job_script(recipe: Recipe, arguments: Sequence[str], job: Job) -> str:
    """Fill in a template.

    Args:
        recipe: what is trained; its name becomes the job's.
        arguments: the words of `sciml-dchag train`, the recipe's file first.
        job: what is asked of the cluster.

    Raises:
        FileNotFoundError: there is no such template.
        ValueError: the template lacks a line that is to be filled in, or the GPUs make no whole
            nodes.
    """
    text = _read_template(job.template)
    of_node = job.gpus_per_node or _number(text, "gpus-per-node", job.template)
    ranks_per_node = min(job.gpus, of_node)
    if job.gpus % ranks_per_node:
        whole = job.gpus // of_node * of_node
        raise ValueError(
            f"{job.gpus} GPUs make no whole nodes of {of_node}: ask for {whole} or "
            f"{whole + of_node}, or say what a node has with `gpus_per_node`."
        )
    # A rank's cores are the template's share.
    cores, gpus = (_number(text, k, job.template) for k in ("cpus-per-task", "gpus-per-node"))
    values = {
        "#SBATCH --job-name": re.sub(r"[^\w.-]", "_", recipe.name),
        "#SBATCH --account": job.account,
        "#SBATCH --partition": job.partition,
        "#SBATCH --time": job.time,
        "#SBATCH --nodes": job.gpus // ranks_per_node,
        "#SBATCH --gpus-per-node": ranks_per_node,
        "#SBATCH --cpus-per-task": max(1, cores // gpus) * ranks_per_node,
        "environment": shlex.quote(sys.prefix),
        "arguments": f"({shlex.join(arguments)})",
        "ranks_per_node": ranks_per_node,
    }
    for key, value in values.items():
        if value is not None:
            text = _set_line(text, key, str(value), job.template)
    return text


def submit(recipe: Recipe, script: str, run: Path) -> str:
    """Keep a job's script as `job.sh` in the run folder, and hand it to `sbatch`.

    Returns:
        What `sbatch` answered.

    Raises:
        FileNotFoundError: there is no store to train on, or no `sbatch`; nothing is written then.
        OSError: `sbatch` refused the job or did not answer.
    """
    task_of(recipe).open()
    sbatch = shutil.which("sbatch")
    if sbatch is None:
        raise FileNotFoundError(
            "There is no sbatch on the PATH: call this on a login node of the cluster, or add "
            "`dry_run=True` to print the script and take it there."
        )
    path = run / "job.sh"
    write_text(path, script)
    try:
        done = subprocess.run(
            [sbatch, str(path.absolute())], capture_output=True, text=True, timeout=SUBMIT_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise OSError(
            f"sbatch has not answered within {SUBMIT_SECONDS} s: see with `squeue --me` whether "
            f"the job is queued, else call `sbatch {path}`."
        ) from None
    if done.returncode:
        why = " ".join((done.stderr or done.stdout).split()) or f"status {done.returncode}"
        raise OSError(f"sbatch refused {path} ({why}): fix what it names and submit again.")
    return done.stdout.strip()


def _read_template(template: str) -> str:
    path = job_template_path(template) if template in TEMPLATES else Path(template)
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no template {template!r}: choose {' or '.join(TEMPLATES)}, or name a file "
            f"like those in pipelines/slurm/."
        )
    return path.read_text(encoding="utf-8")


def _number(text: str, key: str, template: str) -> int:
    """Read the whole number that a template's Slurm line sets."""
    found = re.search(rf"^#SBATCH --{key}=(\d+)\s*$", text, re.MULTILINE)
    if found is None or int(found[1]) < 1:
        raise ValueError(
            f"The template {template} has no line `#SBATCH --{key}=NUMBER`: add it; its default is "
            f"read from there."
        )
    return int(found[1])


def _set_line(text: str, key: str, value: str, template: str) -> str:
    """Set what follows `key=` in its one line, which a further `#` may have switched off."""
    line = re.compile(rf"^#?{re.escape(key)}=.*$", re.MULTILINE)
    # As a function, since a replacement's backslashes would be read.
    filled, count = line.subn(lambda _: f"{key}={value}", text)
    if count != 1:
        raise ValueError(
            f"The template {template} has {count} lines `{key}=...` where one is needed to fill in "
            f"{value!r}: compare it with those in pipelines/slurm/."
        )
    return filled
