"""`submit`: job scripts from the templates, and what a cluster's commands are told.

There is no Slurm here. `sbatch`, `srun`, `scontrol` and `module` are programs of a folder on the
PATH, which do as little of the real ones as the scripts need; bash, torchrun and training are real.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from sciml_dchag.files.samples import job_template_path
from sciml_dchag.slurm import TEMPLATES
from sciml_dchag.training.checkpoint import last_checkpoint
from sciml_dchag.training.logbook import read_log

Call = Callable[..., Result]
Refused = Callable[[Result], str]
SLURM = Path(__file__).parents[2] / "pipelines" / "slurm"
JOB_ID = "987654321"

SRUN = """
while [[ $1 == --* ]]; do
    [[ $1 == --nodes=* ]] && nodes=${1#*=}
    [[ $1 == --ntasks-per-node=* ]] && tasks_per_node=${1#*=}
    shift
done
tasks=$((nodes * tasks_per_node))
for ((i = 0; i < tasks; i++)); do
    SLURM_PROCID=$i SLURM_NTASKS=$tasks "$@" &
    started+=($!)
done
status=0
for task in "${started[@]}"; do wait "$task" || status=$?; done
exit $status
"""
SCONTROL = """
case $1 in
    show) echo localhost ;;
    *) echo "$@" >>"$(dirname "$0")/asked" ;;
esac
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the programs that a cluster has, first on the PATH."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    provide(folder, "srun", SRUN)
    provide(folder, "scontrol", SCONTROL)
    provide(folder, "module", "")
    provide(folder, "scancel", 'echo "$@" >>"$(dirname "$0")/cancelled"')
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return folder


def provide(folder: Path, name: str, body: str) -> None:
    (folder / name).write_text(f"#!/bin/bash\n{body}")
    (folder / name).chmod(0o755)


@pytest.fixture
def no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PATH of bash alone."""
    (tmp_path / "bash").symlink_to("/bin/bash")
    monkeypatch.setenv("PATH", str(tmp_path))


def job_environment(nodes: int) -> dict[str, str]:
    """What Slurm tells a job; its nodes are all this machine."""
    return {
        **os.environ, "SLURM_JOB_ID": JOB_ID, "SLURM_JOB_NUM_NODES": str(nodes),
        "SLURM_JOB_NODELIST": "localhost", "SLURM_CPUS_PER_TASK": "4",
    }  # fmt: skip


def lines(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    checked = subprocess.run(["bash", "-n"], input=result.stdout, text=True, capture_output=True)
    assert checked.returncode == 0 and not checked.stderr, checked.stderr
    return result.stdout.splitlines()


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_are_scripts_and_ship_with_the_package(name: str) -> None:
    template = SLURM / f"{name}.sh"
    subprocess.run(["bash", "-n", str(template)], check=True)
    assert os.access(template, os.X_OK)
    assert job_template_path(name).read_text() == template.read_text()


@pytest.mark.usefixtures("work", "no_cluster")
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--gpus", "8"), ("--nodes=2", "--gpus-per-node=4", "--cpus-per-task=32")),
        (("--gpus", "2"), ("--nodes=1", "--gpus-per-node=2", "--cpus-per-task=16")),
        (
            ("--gpus", "16", "--gpus-per-node", "8", "--account", "climate_1", "--partition", "a,b"),
            ("--nodes=2", "--gpus-per-node=8", "--cpus-per-task=64", "--account=climate_1", "--partition=a,b"),
        ),
        (
            ("--gpus", "16", "--template", "frontier", "--time", "12:30:00"),
            ("--nodes=2", "--gpus-per-node=8", "--cpus-per-task=56", "--time=12:30:00", "--partition=batch"),
        ),
    ],
)  # fmt: skip
def test_dry_run_prints_a_script_with_what_was_asked_for(
    options: tuple[str, ...], expected: tuple[str, ...], call: Call
) -> None:
    settings = ("training.batch=16", "name=it's new")
    script = lines(call("submit", "small.yaml", *options, "--dry-run", overrides=settings))
    for directive in (*expected, "--job-name=it_s_new", "--requeue"):
        assert script.count(f"#SBATCH {directive}") == 1, directive
    ranks = min(int(options[1]), 8 if "8" in options[2:] or "frontier" in options else 4)
    assert f"ranks_per_node={ranks}" in script and f"environment={sys.prefix}" in script
    # Read by bash as it will be on the cluster.
    (arguments,) = (line for line in script if line.startswith("arguments="))
    said = subprocess.run(
        ["bash", "-c", f"{arguments}; printf '%s\\n' \"${{arguments[@]}}\""],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert said.stdout.splitlines() == [
        "small.yaml", "--runs", "runs", "--set", settings[0], "--set", settings[1],
    ]  # fmt: skip


@pytest.mark.usefixtures("work")
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_script_differs_from_its_template_in_values_alone(name: str, call: Call) -> None:
    script = lines(call("submit", "small.yaml", "--gpus", "2", "--template", name, "--dry-run"))
    template = (SLURM / f"{name}.sh").read_text().splitlines()
    for one, other in zip(template, script, strict=True):
        key = re.sub("^##", "#", one).partition("=")[0]
        assert one == other or other.startswith(f"{key}="), other


@pytest.mark.usefixtures("work", "cluster")  # `work` sees that nothing is written
@pytest.mark.parametrize("also", [(), ("--dry-run",)], ids=["submit", "dry-run"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--gpus", "2", "--set", "parallel.tp=4"), "which does not make 2 rank(s)"),
        (("--gpus", "3", "--set", "parallel.tp=3"), "parallel.tp 3 does not divide model.partitions 2"),
        (("--gpus", "4"), "training.batch 2 cannot be dealt to 4 rank(s)"),
        (("--gpus", "6", "--set", "training.batch=6", "--set", "name=six"), "6 GPUs make no whole nodes of 4: ask for 4 or 8"),
        (("--gpus", "2", "--account", "a; rm -rf ~"), "is no name that Slurm knows"),
        (("--gpus", "2", "--account", "$(id)"), "is no name that Slurm knows"),
        (("--gpus", "2", "--partition", "a\n#SBATCH --qos=b"), "is no name that Slurm knows"),
        (("--gpus", "2", "--time", "2 hours"), "is not HH:MM:SS"),
        (("--gpus", "2", "--template", "absent.sh"), "There is no template 'absent.sh'"),
        (("--gpus", "2", "--set", "evaluation.metrics=[rms]"), "unknown metric 'rms'"),
        (("--gpus", "2", "--set", "training.stepz=1"), "did you mean 'training.steps'"),
    ],
)  # fmt: skip
def test_what_would_fail_is_refused_before_anything_is_written(
    options: tuple[str, ...], message: str, also: tuple[str, ...], call: Call, refused: Refused
) -> None:
    result = call("submit", "small.yaml", *options, *also)
    assert message in refused(result) and not result.stdout


@pytest.mark.usefixtures("work")
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("##SBATCH --account=PROJECT", "has 0 lines `#SBATCH --account=...`"),
        ("#SBATCH --gpus-per-node=4", "has no line `#SBATCH --gpus-per-node=NUMBER`"),
        ("arguments=(pipelines/demo_weather.yaml --runs runs)", "has 0 lines `arguments=...`"),
    ],
)
def test_a_template_without_a_line_to_fill_in_is_refused(
    line: str, message: str, tmp_path: Path, call: Call, refused: Refused
) -> None:
    template = tmp_path / "mine.sh"
    text = job_template_path("nvidia").read_text()
    assert text.count(f"\n{line}\n") == 1
    template.write_text(text.replace(f"\n{line}\n", "\n"))
    result = call("submit", "small.yaml", "--gpus", "2", "--account", "x", "--template", template)
    assert message in refused(result)


@pytest.mark.usefixtures("work", "no_cluster")
def test_without_sbatch_it_says_what_to_do(call: Call, refused: Refused) -> None:
    message = refused(call("submit", "small.yaml", "--gpus", "2"))
    assert "no sbatch on the PATH" in message and "--dry-run" in message


@pytest.mark.usefixtures("cluster")
def test_a_store_that_is_not_there_is_refused_or_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call, refused: Refused
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    recipe = SLURM.parent / "era5_forecast.yaml"
    printed = call("submit", recipe, "--gpus", "8", "--dry-run")
    assert lines(printed)[0] == "#!/bin/bash"
    assert "prepare it before the job starts" in printed.stderr
    assert "There is no store at" in refused(call("submit", recipe, "--gpus", "8"))
    assert not list(empty.iterdir())


def test_a_job_is_kept_and_handed_to_sbatch(own_work: Path, cluster: Path, call: Call) -> None:
    provide(
        cluster,
        "sbatch",
        f'echo "$@" >{cluster}/told; pwd >>{cluster}/told; echo Submitted batch job 7',
    )
    options = ("--gpus", "2", "--account", "abc", "--set", "name=new")
    result = call("submit", "small.yaml", *options)
    assert result.exit_code == 0 and "Submitted batch job 7" in result.stdout, result.output
    assert (cluster / "told").read_text() == f"{own_work}/runs/new/job.sh\n{own_work}\n"
    dry = call("submit", "small.yaml", *options, "--dry-run")
    assert (own_work / "runs/new/job.sh").read_text() == dry.stdout
    assert [path.name for path in (own_work / "runs/new").iterdir()] == ["job.sh"]


def test_a_refusal_of_sbatch_is_passed_on(
    own_work: Path, cluster: Path, call: Call, refused: Refused
) -> None:
    provide(cluster, "sbatch", "echo 'error: Invalid account' >&2; exit 1")
    message = refused(call("submit", "small.yaml", "--gpus", "2", "--set", "name=new"))
    assert "sbatch refused runs/new/job.sh (error: Invalid account)" in message
    assert (own_work / "runs/new/job.sh").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "nodes"),
    [
        ("nvidia", 2),
        pytest.param("frontier", 1, marks=pytest.mark.full),
        pytest.param("frontier by srun", 2, marks=pytest.mark.full),
    ],
)
def test_a_job_trains_on_its_ranks(
    launcher: str, nodes: int, own_work: Path, cluster: Path, tmp_path: Path, call: Call
) -> None:
    template = tmp_path / "template.sh"
    text = job_template_path(launcher.split()[0]).read_text()
    if launcher.endswith("by srun"):
        assert text.count("\nlauncher=torchrun\n") == 1
        text = text.replace("\nlauncher=torchrun\n", "\nlauncher=srun\n")
    # Gloo over the network of this machine, which has no Slingshot.
    template.write_text(text.replace("GLOO_SOCKET_IFNAME=hsn0", "GLOO_SOCKET_IFNAME=lo"))
    provide(cluster, "sbatch", "echo Submitted")
    settings = ("name=job", "parallel.tp=2")
    options = ("--gpus", "2", "--gpus-per-node", str(2 // nodes), "--template", template)
    assert call("submit", "small.yaml", *options, overrides=settings).exit_code == 0
    try:
        done = subprocess.run(
            ["bash", "runs/job/job.sh"], env=job_environment(nodes), capture_output=True, text=True,
            timeout=300,
        )  # fmt: skip
    finally:
        shutil.rmtree(f"/tmp/miopen-{JOB_ID}", ignore_errors=True)
    assert done.returncode == 0, (done.stdout, done.stderr[:3000], done.stderr[-3000:])
    records = [r for r in read_log(own_work / "runs/job/log.jsonl") if "loss" in r]
    assert [record["step"] for record in records] == [1, 2, 3]
    # The small demonstration was trained by one process: the same numbers, from two ranks.
    alone = [r["loss"] for r in read_log(own_work / "runs/small/log.jsonl") if "loss" in r]
    assert [r["loss"] for r in records] == pytest.approx(alone, rel=1e-5)
    assert last_checkpoint(own_work / "runs/job/checkpoints") is not None
    assert done.stdout.count("Score it:") == 1, done.stdout


@pytest.mark.parametrize(("restarts", "requeued"), [("0", True), ("20", False)])
def test_a_job_whose_time_is_nearly_up_goes_back_into_the_queue(
    restarts: str, requeued: bool, cluster: Path
) -> None:
    """The signal neither ends the script before the training nor hides how the training ended."""
    provide(cluster, "srun", f"touch {cluster}/training; sleep 2; exit 7")
    script = subprocess.Popen(
        ["bash", str(SLURM / "nvidia.sh")], stdout=subprocess.PIPE, text=True,
        env={**job_environment(1), "SLURM_RESTART_COUNT": restarts},
    )  # fmt: skip
    while not (cluster / "training").exists():
        assert script.poll() is None
        time.sleep(0.05)
    time.sleep(0.3)
    script.send_signal(signal.SIGUSR1)
    printed, _ = script.communicate(timeout=30)
    assert script.returncode == 7 and ("Requeueing" in printed) is requeued
    # The step of the ranks is told, and nothing is requeued before they have ended.
    assert (cluster / "cancelled").read_text() == f"--signal=USR1 {JOB_ID}.0\n"
    asked = cluster / "asked"
    assert (asked.read_text() if asked.exists() else "") == (
        f"requeue {JOB_ID}\n" if requeued else ""
    )
