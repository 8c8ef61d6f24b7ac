"""The top of the command line: which commands there are."""

from __future__ import annotations

import os

import click

from sciml_dchag._version import __version__
from sciml_dchag.cli import launch, learn, look, plan, prepare, run, simulate
from sciml_dchag.cli.console import Group, end_as_rank, tell


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sciml-dchag")
def main() -> None:
    """Channel-heavy vision transformers for weather: prepare, train, evaluate, predict.

    \b
    Example: the whole weather job on the embedded ERA5 sample
      sciml-dchag demo weather
    """


main.add_command(prepare.prepare)
main.add_command(simulate.simulate)
main.add_command(look.inspect)
main.add_command(look.check)
main.add_command(plan.plan)
main.add_command(learn.train)
main.add_command(launch.submit)
main.add_command(learn.evaluate)
main.add_command(learn.predict)
main.add_command(learn.export)
main.add_command(run.run)
main.add_command(run.demo)


def start() -> None:
    """Run the command line in this process, be it the only one or one that torchrun started."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        main()
    from sciml_dchag.parallel.errors import tell_when_stopped

    tell_when_stopped(tell)
    try:
        main(standalone_mode=False)
    except Exception as error:
        end_as_rank(error)
