"""What the help and the pages tell a user to type is what the command line takes."""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import Result

from sciml_dchag.cli import main
from sciml_dchag.tasks import load_recipe

ROOT = Path(__file__).parents[2]


def leaves(group: click.Group = main, names: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words that call each command."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, (*names, name))
        else:
            yield (*names, name)


@pytest.mark.parametrize("names", [(), *leaves()], ids=lambda names: " ".join(names) or "none")
def test_every_command_has_help_with_an_example_that_parses(
    names: tuple[str, ...], call: Callable[..., Result]
) -> None:
    result = call(*names, "--help")
    assert result.exit_code == 0
    examples = shell_commands(result.output.split("Example:")[1].split("Options:")[0])
    assert any(tuple(example[1 : 1 + len(names)]) == names for example in examples)
    for example in examples:
        parse(example)


@pytest.mark.parametrize(
    "page", ["README.md", "docs/weather.md", "docs/plants.md", "docs/recipes.md"]
)
def test_every_command_of_a_page_parses_and_its_recipes_exist(page: str) -> None:
    blocks = re.findall(r"^ *```(?:bash)?\n(.*?)^ *```", (ROOT / page).read_text(), re.M | re.S)
    found = shell_commands("\n".join(blocks))
    assert len(found) >= 5
    for words in found:
        parse(words)


def shell_commands(text: str) -> list[list[str]]:
    """The lines that call `sciml-dchag`, continued ones joined, as words."""
    joined = re.sub(r"\\\n\s*", " ", text)
    lines = (line.strip() for line in joined.splitlines())
    return [shlex.split(line, comments=True) for line in lines if line.startswith("sciml-dchag ")]


def parse(words: list[str]) -> None:
    """Let click parse a command line as if it were called, and set what `--set` sets."""
    command: click.Command = main
    rest = words[1:]
    while isinstance(command, click.Group):
        assert rest and rest[0] in command.commands, f"no such command: {words}"
        command, rest = command.commands[rest[0]], rest[1:]
    given = command.make_context(words[0], list(rest)).params
    recipe = given.get("recipe")
    if recipe is not None and str(recipe).startswith("pipelines/"):
        load_recipe(ROOT / recipe, given["overrides"])


def test_help_is_quick_because_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, sciml_dchag.cli; print([m for m in ('torch', 'xarray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_recipe_where_nothing_can_be_written(
    call: Callable[..., Result], refused: Callable[[Result], str]
) -> None:
    for place in ("/proc/r.yaml", "/proc/none/r.yaml"):
        why = refused(call("recipe", "new", "forecast", place))
        assert "Nothing can be written in /proc" in why and "Errno" not in why
