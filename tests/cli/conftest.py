"""The command line as a user calls it, and a folder in which the small demonstration has run."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from sciml_dchag.cli import console, main
from sciml_dchag.files.samples import recipe_path

SMALL = {
    "model": {"embed_dim": 16, "depth": 1, "heads": 2, "patch": 8, "partitions": 2},
    "training": {"steps": 3, "batch": 2, "warmup_steps": 1, "log_every": 1, "ema_decay": 0.5},
    "evaluation": {"lead_hours": [6, 12], "batch": 8},
}


@pytest.fixture(scope="session", autouse=True)
def _wide_console() -> Iterator[None]:
    """Keep sentences on one line, whatever the terminal that the tests run in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(console.out, "_width", 400)
        patch.setattr(console.err, "_width", 400)
        yield


@pytest.fixture(scope="session")
def call() -> Callable[..., Result]:
    """Call `sciml-dchag` with some words, and with what `--set` is to set."""

    def run(*words: str | Path, overrides: tuple[str, ...] = ()) -> Result:
        options = [part for setting in overrides for part in ("--set", setting)]
        return CliRunner().invoke(main, [*map(str, words), *options])

    return run


@pytest.fixture(scope="session")
def refused() -> Callable[[Result], str]:
    """Return the one line that says why a command refused to work; assert that it is one."""

    def why(result: Result) -> str:
        lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
        assert result.exit_code == 2 and len(lines) == 1, (result.output, result.exception)
        assert "Traceback" not in result.output
        return lines[0]

    return why


def modified(folder: Path) -> dict[str, int]:
    """When each file below a folder was last written."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in files}


@pytest.fixture(scope="session")
def changed_files() -> Callable[[Path], Callable[[], set[str]]]:
    """Watch a folder: what is returned tells which files were written or removed since."""

    def watch(folder: Path) -> Callable[[], set[str]]:
        before = modified(folder)
        return lambda: {name for name, _ in before.items() ^ modified(folder).items()}

    return watch


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, call: Callable[..., Result]) -> Path:
    """A folder in which the small demonstration has run; tests use it as `work` or `own_work`."""
    folder = tmp_path_factory.mktemp("finished")
    recipe = yaml.safe_load(recipe_path("msl_forecast").read_text())
    recipe["name"] = "small"
    for section, changes in SMALL.items():
        recipe[section].update(changes)
    (folder / "small.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = call("run", "small.yaml")
    assert result.exit_code == 0, result.output
    (folder / "printed.txt").write_text(result.output)
    return folder


@pytest.fixture
def work(
    finished: Path,
    monkeypatch: pytest.MonkeyPatch,
    changed_files: Callable[[Path], Callable[[], set[str]]],
) -> Iterator[Path]:
    """Stand where the small demonstration has run; at the end, see that nothing was changed."""
    monkeypatch.chdir(finished)
    changes = changed_files(finished)
    yield finished
    assert not changes()


@pytest.fixture
def own_work(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a copy of it, which may be changed."""
    folder = tmp_path / "work"
    shutil.copytree(finished, folder)
    monkeypatch.chdir(folder)
    return folder
