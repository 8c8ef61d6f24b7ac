"""The command line: `sciml-dchag`, or `python -m sciml_dchag`.

Commands read arguments, call the package and show results; heavy imports are inside them, so
that `--help` is quick. Errors of use are one sentence and exit status 2.
"""

from sciml_dchag.cli.main import main, start

__all__ = ["main", "start"]
