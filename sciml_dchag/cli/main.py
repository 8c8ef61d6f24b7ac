"""The top of the command line: which commands there are."""

from __future__ import annotations

import io
import os
import sys

import click

from sciml_dchag._version import __version__
from sciml_dchag.cli import (
    apply,
    imports,
    launch,
    laws,
    learn,
    look,
    objects,
    plan,
    plants,
    prepare,
    recipe,
    run,
    simulate,
    verify,
)
from sciml_dchag.cli.console import Group, end_as_rank, show_error


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sciml-dchag")
def main() -> None:
    """Channel-heavy vision transformers for weather and plants: prepare, train, evaluate, predict.

    \b
    Example: a whole job on the embedded samples, of ERA5 or of a maize kernel
      sciml-dchag demo weather
      sciml-dchag demo plants
    """


main.add_command(prepare.prepare)
main.add_command(simulate.simulate)
main.add_command(look.inspect)
main.add_command(look.check)
main.add_command(recipe.recipe)
main.add_command(verify.verify)
main.add_command(plan.plan)
main.add_command(learn.train)
main.add_command(launch.submit)
main.add_command(learn.replay)
main.add_command(learn.evaluate)
main.add_command(apply.predict)
main.add_command(apply.interpolate)
main.add_command(apply.reconstruct)
main.add_command(learn.export)
main.add_command(objects.objects)
main.add_command(laws.laws)
main.add_command(laws.law_table)
main.add_command(imports.import_)
main.add_command(plants.indices)
main.add_command(plants.embed)
main.add_command(plants.probe)
main.add_command(run.run)
main.add_command(run.demo)


def start() -> None:
    """Run the command line in this process, be it the only one or one that torchrun started."""
    for stream in (sys.stdout, sys.stderr):  # a terminal without a letter must end no command
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        main()
    from sciml_dchag.parallel.errors import report_when_stopped

    report_when_stopped(show_error)
    try:
        main(standalone_mode=False)
    except Exception as error:
        end_as_rank(error)
