"""`submit`: training as a job of a cluster."""

from __future__ import annotations

from pathlib import Path

import click

from sciml_dchag.cli.console import Command, out
from sciml_dchag.cli.options import recipe_options


@click.command(cls=Command)
@recipe_options
@click.option("--gpus", type=click.IntRange(min=1), required=True, help="Ranks in all, one a GPU.")
@click.option(
    "--template",
    default="nvidia",
    show_default=True,
    help="nvidia, frontier, or a file like those in pipelines/slurm/.",
)
@click.option(
    "--gpus-per-node",
    type=click.IntRange(min=1),
    default=None,
    help="GPUs of a node; the template's by default.",
)
@click.option("--account", default=None, help="Who pays.")
@click.option("--partition", default=None, help="The queue; the template's by default.")
@click.option(
    "--time", default=None, metavar="HH:MM:SS", help="Longest time; the template's by default."
)
@click.option("--dry-run", is_flag=True, help="Print the job script and submit nothing.")
def submit(
    recipe: Path, overrides: tuple[str, ...], runs: Path, gpus: int, template: str,
    gpus_per_node: int | None, account: str | None, partition: str | None, time: str | None,
    dry_run: bool,
) -> None:  # fmt: skip
    """Train RECIPE as a Slurm job, whose script is kept as runs/NAME/job.sh.

    \b
    Example:
      sciml-dchag submit pipelines/era5_forecast.yaml --gpus 8 --account ABC123 --dry-run
      sciml-dchag submit RECIPE --template frontier --gpus 16 --set parallel.tp=2 --time 02:00:00
    """
    from sciml_dchag.slurm import Job, check_job, job_script
    from sciml_dchag.slurm import submit as submit_job
    from sciml_dchag.tasks import load_recipe

    loaded = load_recipe(recipe, overrides)
    job = Job(
        gpus=gpus, template=template, gpus_per_node=gpus_per_node, account=account,
        partition=partition, time=time,
    )  # fmt: skip
    check_job(loaded, runs, gpus)
    settings = [part for setting in overrides for part in ("--set", setting)]
    script = job_script(loaded, [str(recipe), "--runs", str(runs), *settings], job)
    if dry_run:
        click.echo(script, nl=False)
        return
    answer = submit_job(loaded, script, runs / loaded.name)
    out.print(answer, highlight=False, markup=False)
    out.print(f"Script: {runs / loaded.name / 'job.sh'}", highlight=False, markup=False)
