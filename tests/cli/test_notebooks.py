"""The notebooks run from top to bottom; with all of their steps, their scores are worth showing."""

import ast
import json
import math
import re
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pandas as pd
import pytest

import sciml_dchag as sd

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


FEW_STEPS = 6
"""Steps that show that a notebook runs; what it learns in all of its steps is the full tests'."""

WEATHER = (
    "01_weather_forecast.ipynb",
    "{n: float(scores.sel(metric='rmse', lead_time=6, forecast=n))"
    " for n in ('model', 'persistence')}",
)
PLANTS = (
    "02_plant_masked_autoencoder.ipynb",
    "{'centre': [float(v) for v in reflectance[13:18, 19:24].mean((0, 1))"
    "[[abs(nm - at).argmin() for at in (450, 550, 680, 800)]]],"
    " 'mse': maize_scores.loc['mse_masked'].to_dict(),"
    " 'pictures': sorted(path.name for path in figures.glob('*.png')),"
    " 'traits': probed.scores.groupby(['trait', 'features'])['r2'].max()"
    ".unstack().T.to_dict(),"
    " 'synthetic': bool(poplars.simulated)}",
)

NEW_INPUTS = ("04_new_inputs.ipynb", "{'identical': identical, **scores.to_dict()}")
BETWEEN = (
    "05_between_and_lows.ipynb",
    "{'ends': ends, 'lows': len(lows),"
    " **{name: errors[name].loc[12].item() for name in ('linear', 'model')}}",
)


GRADES = (
    "06_lesions_and_grades.ipynb",
    "{'scores': scores[['model', 'commonest', 'colours']].T.to_dict(),"
    " 'drawn': percent.groupby(store.table['severity']).median().tolist(),"
    " 'graded': len(graded), 'seen': [float(seen.min()), float(seen.max())]}",
)

LAWS = (
    "07_laws.ipynb",
    "{'refused': refused, 'slope': [c.formula.constants.get('c') for c in found.candidates"
    " if c.formula.text() == 'c*dz500_dx/f'],"
    " 'held_out': found.law.r2_held_out if found.law else None,"
    " 'tropics': max([c.r2_held_out for c in nothing.candidates], default=-1),"
    " 'nothing': nothing.law is None}",
)


def answer(
    name: str,
    question: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    steps: int | None = None,
    batches: int | None = None,
) -> Any:
    """Run a notebook in a folder and return what an expression gives after its last cell.

    Args:
        name: file in the folder of notebooks.
        question: the expression; JSON can hold its value.
        folder: where the notebook runs.
        monkeypatch: sets IPython's folder.
        steps: training steps of every recipe in the notebook, instead of its own number.
        batches: of small searches for laws, instead of its own patience.
    """
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    if steps is not None:
        replace_in_code(notebook, r"\bsteps=\d+", f"steps={steps}, warmup_steps=1")
        if name == PLANTS[0]:  # a quarter of the pixels, half of the images
            replace_in_code(notebook, r"cubes=32, size=\(48, 64\)", "cubes=16, size=(24, 32)")
        if name == GRADES[0]:  # a sixth of the leaves
            few_leaves(folder)
            replace_in_code(notebook, r'"sample:coffee_leaves",\n', r'"coffee_leaves",\n')
            replace_in_code(notebook, r'"sample:coffee_grades"', r'"coffee_grades.csv"')
    if batches is not None:
        replace_in_code(notebook, r"batch=\d+", "batch=100, rows=60")
        replace_in_code(notebook, r"patience=\d+", f"patience={batches}")
    notebook.cells.append(nbformat.v4.new_code_cell(f"import json; print(json.dumps({question}))"))
    client = nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    return json.loads(notebook.cells[-1].outputs[0]["text"])


def few_leaves(folder: Path) -> None:
    """Write three leaves of each grade and part, and their table, into a folder."""
    table = pd.read_csv(sd.sample("coffee_grades"))
    few = table.groupby(["split", "severity"]).head(3)
    few.to_csv(folder / "coffee_grades.csv", index=False)
    (folder / "coffee_leaves").mkdir()
    for leaf in few["image"]:
        shutil.copy(sd.sample("coffee_leaves") / f"{leaf}.jpg", folder / "coffee_leaves")


def replace_in_code(notebook: nbformat.NotebookNode, pattern: str, replacement: str) -> None:
    """Replace what the notebook's code has once or more, such as the number of steps."""
    changed = 0
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source, count = re.subn(pattern, replacement, cell.source)
            changed += count
    assert changed, f"{pattern} was not found in the notebook"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_weather_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rmse = answer(*WEATHER, tmp_path, monkeypatch, FEW_STEPS)
    assert 0 < rmse["model"] < 10 * rmse["persistence"]
    assert rmse["persistence"] == pytest.approx(247, abs=1)


@pytest.mark.full
@pytest.mark.timeout(900)
def test_the_weather_notebook_beats_persistence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rmse = answer(*WEATHER, tmp_path, monkeypatch)
    # 300 steps reached 0.60 (149 of 247 Pa); other processors round otherwise.
    assert rmse["model"] < 0.85 * rmse["persistence"]


def require_what_needs_no_training(found: dict[str, Any], folder: Path) -> None:
    # The kernel's centre as measured when the sample was chosen.
    assert found["centre"] == pytest.approx([0.18, 0.54, 0.82, 0.86], abs=0.03)
    assert "reconstructions.png" in found["pictures"]
    assert found["synthetic"]
    # What the text says of the winners: 0.98 and 0.98.
    chlorophyll = found["traits"]["cab_ug_cm2"]
    assert min(chlorophyll["mean spectrum"], chlorophyll["indices"]) > 0.95
    assert chlorophyll["none"] < 0.05
    assert not list(folder.glob("*.png")) and not list(folder.glob("*.zarr"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_plant_notebook_runs_and_reads_traits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = answer(*PLANTS, tmp_path, monkeypatch, FEW_STEPS)
    require_what_needs_no_training(found, tmp_path)
    assert 0 < found["mse"]["pca"] < found["mse"]["mean_spectrum"]
    assert 0 < found["mse"]["model"] < math.inf
    assert math.isfinite(found["traits"]["cab_ug_cm2"]["embedding"])


@pytest.mark.full
@pytest.mark.timeout(900)
def test_the_plant_notebook_beats_the_mean_spectrum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = answer(*PLANTS, tmp_path, monkeypatch)
    require_what_needs_no_training(found, tmp_path)
    # 200 steps reached a factor of 5.7; other processors round otherwise.
    assert found["mse"]["model"] < found["mse"]["mean_spectrum"] / 4
    assert found["mse"]["pca"] < found["mse"]["model"]
    # What the text says: 0.95 or so.
    chlorophyll = found["traits"]["cab_ug_cm2"]
    assert 0.7 < chlorophyll["embedding"] < chlorophyll["indices"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_notebook_of_new_inputs_keeps_its_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = answer(*NEW_INPUTS, tmp_path, monkeypatch, FEW_STEPS)
    assert found["identical"]
    assert found["persistence"] == pytest.approx(251.8, abs=0.1)
    assert found["control"] != found["base"] and 0 < found["fine-tuned"] < 2 * found["base"]


@pytest.mark.full
@pytest.mark.timeout(900)
def test_the_notebook_of_new_inputs_gains_by_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = answer(*NEW_INPUTS, tmp_path, monkeypatch)
    # 0.88 and 0.81 with all steps; other processors round otherwise.
    assert found["identical"] and found["control"] < 0.94 * found["base"]
    assert found["fine-tuned"] < 0.9 * found["base"] < 0.8 * found["persistence"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_notebook_of_times_between_beats_linear_interpolation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ridge does it, so that few steps are enough."""
    found = answer(*BETWEEN, tmp_path, monkeypatch, FEW_STEPS)
    assert found["ends"] and found["lows"] == 1183
    assert found["linear"] == pytest.approx(241.4, abs=0.1)
    assert found["model"] < 0.6 * found["linear"]


def require_grades_without_training(found: dict[str, Any]) -> None:
    assert found["graded"] == 258
    # Of the label images: the severity is a step of the fraction of lesions.
    assert found["drawn"] == pytest.approx([0, 2.5, 6.2, 11.1, 17.4], abs=0.2)
    scores = found["scores"]
    assert scores["kappa"]["commonest"] == 0 and scores["kappa"]["colours"] > 0.4
    assert scores["accuracy"]["commonest"] == pytest.approx(0.557, abs=0.001)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_notebook_of_grades_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = answer(*GRADES, tmp_path, monkeypatch, FEW_STEPS)
    assert found["graded"] == 42 and 0 <= found["seen"][0] < found["seen"][1] <= 1
    # Of the label images: the severity is a step of the fraction of lesions.
    assert found["drawn"] == sorted(found["drawn"]) and found["drawn"][0] == 0
    scores = found["scores"]
    assert scores["kappa"]["commonest"] == 0
    assert scores["accuracy"]["commonest"] == pytest.approx(3 / 14)
    assert all(math.isfinite(score) for score in scores["ratio_error"].values())


@pytest.mark.full
@pytest.mark.timeout(900)
def test_the_notebook_of_grades_beats_colours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = answer(*GRADES, tmp_path, monkeypatch)
    require_grades_without_training(found)
    scores = found["scores"]
    # 0.70 of 0.63, and 0.80 of 0.56; other processors round otherwise.
    assert scores["accuracy"]["model"] > scores["accuracy"]["colours"]
    assert scores["kappa"]["model"] > scores["kappa"]["colours"] + 0.1
    assert scores["ratio_error"]["model"] < 0.8 * scores["ratio_error"]["colours"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_notebook_of_laws_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One batch of each search."""
    found = answer(*LAWS, tmp_path, monkeypatch, batches=1)
    assert "add a constant in m s-1" in found["refused"]
    assert found["tropics"] < 0.3


@pytest.mark.full
@pytest.mark.timeout(900)
def test_the_notebook_of_laws_finds_the_geostrophic_wind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = answer(*LAWS, tmp_path, monkeypatch)
    assert found["slope"] == pytest.approx([1.04], abs=0.03) and found["held_out"] > 0.9
    assert found["nothing"] and found["tropics"] < 0.3


def test_the_scale_notebook_imports_what_is_there() -> None:
    """All of it runs in the full tests; parity and plans are tested by themselves."""
    notebook = nbformat.read(NOTEBOOKS / "03_scale_with_dchag.ipynb", as_version=4)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    trees = [ast.parse(re.sub(r"(?m)^%.*$", "", source)) for source in code]
    imports = [
        node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
    ]
    ours = [node for node in imports if (node.module or "").startswith("sciml_dchag")]
    assert len(ours) > 3
    for node in ours:
        for name in node.names:
            assert hasattr(import_module(str(node.module)), name.name) or import_module(
                f"{node.module}.{name.name}"
            )


@pytest.mark.full
@pytest.mark.timeout(900)
def test_the_scale_notebook_shows_parity_and_what_dchag_saves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = answer(
        "03_scale_with_dchag.ipynb",
        "{'forecasts': [float(abs(f['forecast'] - reference['forecast']).max())"
        " for f in both[0].values()],"
        " 'gradients': max(apart.values()) / whole_expected,"
        " 'gathers': {'/'.join(way): [s for s in f['sent'] if 'gather' in s[1]]"
        " for way, f in both[0].items()},"
        " 'planned': [way.memory.total() for way in layouts.values()],"
        " 'paper': [[memory[run, 'TP alone', form] for form in list(colours)[:2]]"
        " for run in PAPER]}",
        tmp_path,
        monkeypatch,
    )
    assert len(found["forecasts"]) == 4
    assert max(found["forecasts"]) < 1e-5
    assert found["gradients"] < 1e-5
    one_token_a_partition = 2 * 128 * 2 * 128 * 4  # B, L, G, D and the bytes of float32
    stage, name = "forward channel stage", "all-gather over tp"
    assert found["gathers"] == {
        "tp-only/materialised": [],
        "distributed-tokens/materialised": [[stage, name, 40 * one_token_a_partition, 1]],
        "dchag/materialised": [[stage, name, one_token_a_partition, 1]],
        "dchag/absorbed": [[stage, name, one_token_a_partition, 1]],
    }
    alone, materialised, absorbed = found["planned"]
    assert absorbed < 0.8 * materialised < 0.8 * 0.3 * alone
    for measured, simulated in found["paper"]:
        assert simulated == pytest.approx(measured, rel=0.03)


def test_notebooks_are_kept_without_outputs() -> None:
    for path in NOTEBOOKS.glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            assert not cell.get("outputs") and not cell.get("execution_count"), path.name
