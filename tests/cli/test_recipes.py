"""The guide to the recipes and the recipes themselves: what they say works, what is wrong is refused.

Running a recipe is `test_pipelines`' concern; nothing here trains but the smallest run.
"""

from __future__ import annotations

import csv
import re
import shlex
import shutil
import socket
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from sciml_dchag.cli import console
from sciml_dchag.cli.main import main
from sciml_dchag.config import load_recipe

ROOT = Path(__file__).parents[2]
PIPELINES = ROOT / "pipelines"
DEMO = PIPELINES / "demo_weather.yaml"
ERA5 = PIPELINES / "era5_forecast.yaml"
SMALL = (
    "training.steps=3", "training.batch=2", "training.warmup_steps=1", "training.log_every=1",
    "model.embed_dim=16", "model.depth=1", "model.heads=2", "model.patch=4",
    "evaluation.lead_hours=[6,12]",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _wide_console() -> Iterator[None]:
    """Keep sentences on one line, whatever the terminal that the tests run in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(console.out, "_width", 400)
        patch.setattr(console.err, "_width", 400)
        yield


def call(*arguments: str | Path, overrides: tuple[str, ...] = ()) -> Result:
    options = [part for setting in overrides for part in ("--set", setting)]
    return CliRunner().invoke(main, [*map(str, arguments), *options])


def assert_refused(result: Result, message: str) -> None:
    """Exit status 2, and one line that says what is wrong, with no traceback."""
    assert result.exit_code == 2, result.output
    lines = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1 and message in lines[0], result.output
    assert "Traceback" not in result.output


# The recipes


@pytest.mark.parametrize("path", sorted(PIPELINES.glob("*.yaml")), ids=lambda path: path.stem)
def test_recipe_is_named_like_its_file_and_explained_in_the_guide(path: Path) -> None:
    assert load_recipe(path).name.replace("-", "_") == path.stem
    assert f"`{path.name}`" in (PIPELINES / "README.md").read_text()


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, and no network."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_check_of_the_papers_experiment_needs_seconds_and_no_network(elsewhere: Path) -> None:
    started = time.monotonic()
    result = call("check", ERA5)
    assert result.exit_code == 0, result.output
    assert "is not there yet: `run` prepares it" in result.output
    assert re.search(r"model: \d\d,\d{3},\d{3} parameters", result.output)
    # 0.1 s when all is imported; an order of magnitude and more for a busy machine.
    assert time.monotonic() - started < 5
    assert not list(elsewhere.iterdir())


def test_the_smaller_era5_that_recipe_and_guide_name_checks_too(elsewhere: Path) -> None:
    six_hourly = ("prepare.step_hours=6", "task.lead_hours=[6,714]")
    for setting in six_hourly:
        assert f"--set {setting}" in ERA5.read_text()
    result = call("check", ERA5, overrides=six_hourly)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("task.lead_hours=[6,719]", "task.lead_hours has 719 h"),
        ("data.history_hours=[-3]", "data.history_hours has -3 h"),
        ("evaluation.lead_hours=[100]", "evaluation.lead_hours has 100 h"),
    ],
)
@pytest.mark.usefixtures("elsewhere")
def test_check_refuses_hours_between_the_steps_of_the_store(override: str, found: str) -> None:
    settings = ("prepare.step_hours=6", "task.lead_hours=[6,714]", override)
    result = call("check", ERA5, overrides=settings)
    assert result.exit_code == 2
    assert f"fails  {found}, no multiple of the time step of 6 h" in result.output


def test_check_names_the_extra_that_a_url_needs(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    def missing(scheme: str) -> None:
        raise ImportError(scheme)

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    result = call("check", ERA5)
    assert result.exit_code == 0  # a note: what is not installed now may be when it is run
    assert "pip install 'sciml-dchag[cloud]'" in result.output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trainig: {steps: 3}", "unknown key 'trainig': did you mean 'training'?"),
        ("training: {stepz: 3}", "did you mean 'training.steps'?"),
        ("training: {steps: many}", "training.steps is 'many': it must be"),
        ("training: [3", "is not readable as YAML"),
        ("- a list", "holds a list"),
        ("name: a/b", "must be a plain folder name"),
        ("task: {lead_hours: [6, 6]}\nevaluation: {lead_hours: [7]}", "lead_hours has 7"),
        ("model: {size: enormous}", "model.size 'enormous' is none of"),
        ("data: {history_hours: [6]}", "data.history_hours has 6"),
    ],
)
@pytest.mark.parametrize("command", ["check", "run", "train"])
def test_a_bad_recipe_is_one_sentence(
    command: str, text: str, message: str, elsewhere: Path
) -> None:
    recipe = elsewhere / "bad.yaml"
    recipe.write_text(text)
    assert_refused(call(command, recipe), message)
    assert list(elsewhere.iterdir()) == [recipe]


# The guide and the help


def leaves(group: click.Group = main, names: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words that call each command."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, (*names, name))
        else:
            yield (*names, name)


@pytest.mark.parametrize("names", list(leaves()), ids=" ".join)
def test_the_example_of_every_command_parses(names: tuple[str, ...]) -> None:
    result = call(*names, "--help")
    assert result.exit_code == 0
    examples = shell_commands(result.output.split("Example:")[1].split("Options:")[0])
    assert any(tuple(example[1 : 1 + len(names)]) == names for example in examples)
    for example in examples:
        parse(example)


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


@pytest.mark.parametrize("page", ["README.md", "pipelines/README.md"])
def test_every_command_of_a_page_parses_and_its_recipes_exist(page: str) -> None:
    blocks = re.findall(r"^ *```(?:bash)?\n(.*?)^ *```", (ROOT / page).read_text(), re.M | re.S)
    found = shell_commands("\n".join(blocks))
    assert len(found) >= 5
    for words in found:
        parse(words)


# What a finished run tolerates


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the small demonstration's store and finished run."""
    folder = tmp_path_factory.mktemp("finished")
    result = again(folder, folder)
    assert result.exit_code == 0, result.output
    return folder


def again(home: Path, store: Path, *overrides: str, command: str = "run") -> Result:
    """Run the small demonstration with its store in one folder and its run in another."""
    settings = ("name=small", f"data.store={store / 'msl.zarr'}", *SMALL, *overrides)
    return call(command, DEMO, "--runs", home / "runs", overrides=settings)


def modified(folder: Path) -> dict[str, int]:
    """When each file below a folder was last written."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in files}


def test_a_second_run_writes_nothing_but_its_recipe(finished: Path) -> None:
    before = modified(finished)
    assert again(finished, finished).exit_code == 0
    after = modified(finished)
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    assert changed <= {"runs/small/recipe.yaml"}


@pytest.mark.parametrize("command", ["run", "train"])
@pytest.mark.parametrize(
    ("override", "section"),
    [
        ("model.depth=2", "model"),
        ("seed=1", "seed"),
        ("data.rotate=false", "data"),
        ("task.output=direct", "task"),
        ("training.learning_rate=1.0e-5", "training"),
    ],
)
def test_another_training_in_the_same_folder_is_refused(
    command: str, override: str, section: str, finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished / "runs", tmp_path / "runs")
    before = modified(tmp_path)
    result = again(tmp_path, finished, override, command=command)
    assert_refused(result, f"holds a run with other settings in '{section}'")
    assert modified(tmp_path) == before


def test_half_the_error_is_minus_fifty_percent(finished: Path, tmp_path: Path) -> None:
    for name in ("small", "other"):
        shutil.copytree(finished / "runs" / "small", tmp_path / name)
    path = tmp_path / "other" / "evaluation" / "scores.csv"
    with path.open() as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "model": repr(2 * float(row["model"]))} for row in rows)
    result = call("evaluate", tmp_path / "small", "--against", tmp_path / "other")
    assert result.exit_code == 0, result.output
    with (tmp_path / "small" / "evaluation" / "against_other.csv").open() as file:
        percent = {
            (r["lead_hours"], r["metric"]): float(r["percent"]) for r in csv.DictReader(file)
        }
    assert percent["6", "rmse"] == pytest.approx(-50) == percent["12", "acc_wb2"]


def test_the_report_refers_to_nothing_outside_itself(finished: Path) -> None:
    links: list[str] = []

    class Links(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            links.extend(v or "" for k, v in attrs if k in ("src", "href", "srcset", "data"))

    page = (finished / "runs" / "small" / "evaluation" / "report.html").read_text()
    Links().feed(page)
    assert links and all(link.startswith(("data:", "#")) for link in links)
    assert "url(http" not in page and "@import" not in page
