"""The examples run as they stand, with few training steps, and use the public API alone."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SHOWN = {
    "weather_forecast": ["1 days", "persistence"],
    "score_any_forecast": ["acc_wb2", "rmse"],
    "regrid": ["bilinear: {", "32, 'longitude': 64}"],
    "plant_indices": ["NDVI of the kernel: ", "REP_mean"],
    "plant_embeddings": ["root mean square error 0.", "patches"],
    "many_ranks": ["kernel-on-2", "step 3"],
}
"""Part of what each prints."""
IN_NOTEBOOKS = ("weather_forecast", "plant_embeddings")
"""Examples whose calls notebooks 01 and 02 make, too."""


def run(name: str, folder: Path, *launcher: str) -> str:
    """Run an example in a folder, with 3 training steps, and return what it prints."""
    source = (EXAMPLES / f"{name}.py").read_text()
    few = re.sub(r"\bsteps=\d+", "steps=3, warmup_steps=1", source)
    assert few != source or "train" not in source
    (folder / "example.py").write_text(few)
    done = subprocess.run(
        [sys.executable, *launcher, "example.py"],
        cwd=folder, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.full] if name in IN_NOTEBOOKS else [])
        for name in SHOWN
        if name != "many_ranks"
    ],
)
def test_an_example_runs(name: str, tmp_path: Path) -> None:
    printed = run(name, tmp_path)
    assert all(part in printed for part in SHOWN[name]), printed


@pytest.mark.full
def test_the_example_of_many_ranks_runs_on_two(tmp_path: Path) -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    printed = run("many_ranks", tmp_path, *launcher)
    assert all(part in printed for part in SHOWN["many_ranks"]), printed


def test_examples_are_short_and_import_nothing_of_the_package_but_its_top() -> None:
    scripts = sorted(EXAMPLES.glob("*.py"))
    assert {script.stem for script in scripts} == set(SHOWN)
    for script in scripts:
        source = script.read_text()
        assert len(source.splitlines()) <= 30, script.name
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom):
                raise AssertionError(f"{script.name} imports from {node.module}")
            if isinstance(node, ast.Import):
                names = {alias.name for alias in node.names}
                assert names <= {"sciml_dchag", "xarray", "numpy", "os"}, script.name
