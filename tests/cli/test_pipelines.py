"""The command line from end to end on a small copy of the demonstration, and what it refuses."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml
from click.testing import CliRunner, Result

from sciml_dchag.cli import main
from sciml_dchag.config import load_recipe
from sciml_dchag.data.samples import recipe_path

ROOT = Path(__file__).parents[2]
SMALL = {
    "model": {"embed_dim": 16, "depth": 1, "heads": 2, "patch": 8, "partitions": 2},
    "training": {"steps": 3, "batch": 2, "warmup_steps": 1, "log_every": 1, "ema_decay": 0.5},
    "evaluation": {"lead_hours": [6, 12], "batch": 8},
}


def call(folder: Path, *arguments: str) -> Result:
    """Run a command as a user would, from a folder of his."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        return CliRunner().invoke(main, list(arguments), env={"COLUMNS": "200"})
    finally:
        os.chdir(before)


def refused(result: Result) -> str:
    """The one line that says why a command refused to work."""
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert result.exit_code == 2, (result.exit_code, result.output, result.exception)
    assert len(errors) == 1 and "Traceback" not in result.stderr, result.stderr
    return errors[0]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the small demonstration has run."""
    folder = tmp_path_factory.mktemp("work")
    recipe = yaml.safe_load(recipe_path("demo_weather").read_text())
    recipe["name"] = "small"
    for section, changes in SMALL.items():
        recipe[section].update(changes)
    (folder / "small.yaml").write_text(yaml.safe_dump(recipe))
    result = call(folder, "run", "small.yaml")
    assert result.exit_code == 0, result.output
    return folder


def test_a_run_leaves_what_others_rely_on(work: Path) -> None:
    run = work / "runs" / "small"
    assert load_recipe(run / "recipe.yaml") == load_recipe(work / "small.yaml")
    assert (run / "checkpoints" / "step-0000003" / "checkpoint.json").is_file()
    steps = [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3]
    header, *rows = (run / "evaluation" / "scores.csv").read_text().splitlines()
    assert header == "channel,lead_hours,metric,model,persistence,climatology"
    assert len(rows) == 2 * 5
    page = (run / "evaluation" / "report.html").read_text()
    assert "Copernicus" in page and not re.search(r"(src|href)=[\"']?https?:", page)
    assert list((run / "evaluation" / "figures").glob("*.png"))
    assert not list(run.rglob("*.partial"))


def test_forecasts_have_weatherbenchs_layout(work: Path) -> None:
    with xr.open_zarr(work / "runs" / "small" / "forecasts" / "test.zarr") as forecasts:
        field = forecasts["mean_sea_level_pressure"]
        assert field.dims == ("time", "prediction_timedelta", "latitude", "longitude")
        assert field.shape == (28, 2, 32, 64)
        assert field.dtype == np.float32 and field.attrs["units"] == "Pa"
        hours = forecasts["prediction_timedelta"].values / np.timedelta64(1, "h")
        assert hours.tolist() == [6, 12]
        assert "Copernicus" in forecasts.attrs["attribution"]
        assert 9e4 < float(field.mean()) < 1.1e5 and bool(field.notnull().all())


def test_scores_are_those_of_the_forecasts_written(work: Path) -> None:
    """The table against `score` on the forecast store: two ways to the same numbers."""
    from sciml_dchag.data.store import Store
    from sciml_dchag.evaluation.metrics import score
    from sciml_dchag.evaluation.report import read_scores_csv

    run = work / "runs" / "small"
    store = Store.open(work / "stores" / "demo_weather.zarr")
    rows = {(r.lead_hours, r.metric): r for r in read_scores_csv(run / "evaluation/scores.csv")}
    with xr.open_zarr(run / "forecasts" / "test.zarr") as written:
        names = {"time": "init_time", "prediction_timedelta": "lead_time"}
        forecast = (
            written.rename(
                names,
            )
            .isel(init_time=slice(0, 26))
            .load()
        )
    truth = store.dataset()["state"].sel(channel="msl", drop=True)
    truth = truth.drop_vars([c for c in truth.coords if c not in truth.dims])
    scores = score(forecast, truth.to_dataset(name="mean_sea_level_pressure"), metrics=("rmse",))
    for i, lead in enumerate((6, 12)):
        value = float(scores["mean_sea_level_pressure"].sel(metric="rmse")[i])
        assert rows[lead, "rmse"].model == pytest.approx(value, rel=1e-6)


def test_finished_steps_are_skipped_and_changed_ones_redone(work: Path) -> None:
    again = call(work, "run", "small.yaml")
    assert again.exit_code == 0
    for step in ("prepare", "train", "predict", "evaluate"):
        assert re.search(f"{step}: .* is there", again.stdout), again.stdout
    other = call(work, "run", "small.yaml", "--set", "evaluation.lead_hours=[6,24]")
    assert re.search("train: .* is there", other.stdout)
    assert "evaluate: scores beside" in other.stdout and "predict: forecasts" in other.stdout
    assert ",24," in (work / "runs/small/evaluation/scores.csv").read_text()
    assert call(work, "run", "small.yaml").exit_code == 0  # back to what the other tests expect


def test_two_runs_are_compared_in_percent(work: Path) -> None:
    result = call(work, "run", "small.yaml", "--set", "name=other", "--set", "seed=1")
    assert result.exit_code == 0, result.output
    compared = call(work, "evaluate", "runs/other", "--against", "runs/small")
    assert compared.exit_code == 0 and "%" in compared.stdout
    header = (work / "runs/other/evaluation/against_small.csv").read_text().splitlines()[0]
    assert header == "channel,lead_hours,metric,run,against,percent"


def test_predict_writes_netcdf_and_goes_on_after_an_interruption(work: Path) -> None:
    from sciml_dchag.inference.predict import predict_period

    options = ["--lead-hours", "6,12", "--batch", "8"]
    assert call(work, "predict", "runs/small", "whole.nc", *options).exit_code == 0

    def stop(done: int, total: int, what: str) -> None:
        if done >= 16:
            raise KeyboardInterrupt

    before = Path.cwd()
    os.chdir(work)
    try:
        with pytest.raises(KeyboardInterrupt):
            predict_period(
                Path("runs/small"), Path("parts.zarr"), lead_hours=[6, 12], batch=8, progress=stop
            )
    finally:
        os.chdir(before)
    assert not (work / "parts.zarr").exists()
    assert "begun with other settings" in refused(
        call(work, "predict", "runs/small", "parts.zarr", "--lead-hours", "6")
    )
    assert call(work, "predict", "runs/small", "parts.zarr", *options).exit_code == 0
    with xr.open_dataset(work / "whole.nc") as whole, xr.open_zarr(work / "parts.zarr") as parts:
        for name in whole.data_vars:
            np.testing.assert_array_equal(whole[name].values, parts[name].values)
    assert "exists" in refused(call(work, "predict", "runs/small", "parts.zarr", *options))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "small.yaml", "--set", "training.stepz=1"), "did you mean 'training.steps'"),
        (("run", "small.yaml", "--set", "model.depth=2"), "other settings in 'model'"),
        (("run", "absent.yaml"), "There is no recipe"),
        (("run", "small.yaml", "--set", "data.train=[2025-12-01,2025-12-10]"), "statistics"),
        (("train", "small.yaml", "--resume", "never"), "already holds a trained run"),
        (("evaluate", "runs/absent"), "is no run folder"),
        (("evaluate", "runs/small", "--set", "evaluation.lead_hours=[9]"), "do not reach"),
        (("evaluate", "runs/small", "--set", "evaluation.metrics=[rms]"), "unknown metric 'rms'"),
        (("evaluate", "runs/small", "--set", "data.test=[2025-12-20,2025-12-31]"), "share 2025-12-20"),
        (("predict", "runs/small", "forecast.grib"), "must end in .zarr or .nc"),
        (("predict", "runs/absent", "f.zarr"), "There is no checkpoint"),
        (("inspect", "absent.nc"), "There is no file"),
        (("prepare", "era5", "absent.nc", "s.zarr", "--channels", "msl"), "There is no file"),
        (("prepare", "era5", "sample:era5_msl", "s.zarr", "--channels", "t2m"), "hold msl"),
        (("prepare", "era5", "sample:era5_msl", "s.zarr", "--channels", "mls"), "did you mean 'msl'"),
        (("prepare", "era5", "sample:era5_msl", "s.zarr", "--channels", "msl", "--grid", "5.6"), "5.6"),
        (("prepare", "era5", "sample:era5_msl", "stores/demo_weather.zarr", "--channels", "msl"),
         "exists"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_one_sentence_and_status_2(
    work: Path, arguments: tuple[str, ...], message: str
) -> None:
    before = sorted(p.name for p in work.iterdir())
    assert message in refused(call(work, *arguments))
    assert sorted(p.name for p in work.iterdir()) == before


def test_debug_shows_the_traceback(work: Path) -> None:
    result = call(work, "inspect", "absent.nc", "--debug")
    assert result.exit_code == 2 and "Traceback" in result.stderr


@pytest.mark.parametrize("recipe", sorted(p.name for p in (ROOT / "pipelines").glob("*.yaml")))
def test_check_reads_every_recipe_of_ours(tmp_path: Path, recipe: str) -> None:
    (tmp_path / "stores").mkdir()
    result = call(tmp_path, "check", str(ROOT / "pipelines" / recipe))
    if recipe == "gcm80_forecast.yaml":  # its source is simulated first
        assert result.exit_code == 2 and "There is no file" in result.stdout
    else:
        assert result.exit_code == 0, result.stdout
    assert "model:" in result.stdout and "lead times" in result.stdout


def test_the_papers_experiment_is_the_papers() -> None:
    recipe = load_recipe(ROOT / "pipelines" / "era5_forecast.yaml")
    model, training = recipe.model, recipe.training
    assert (model.embed_dim, model.depth, model.heads, model.patch) == (512, 16, 16, 4)
    assert (training.learning_rate, training.betas, training.weight_decay) == (
        2e-5, (0.9, 0.95), 1e-5,
    )  # fmt: skip
    assert (training.steps, training.batch, training.warmup_steps) == (20_000, 512, 1_000)
    assert training.final_learning_rate == 1e-8 and model.dropout == 0.1
    assert recipe.task.lead_hours == (1, 719) and recipe.evaluation.lead_hours == (168, 336, 720)
    assert recipe.task.targets == ("z500", "t850", "t2m", "u10", "v10")


def test_check_says_what_would_fail(work: Path) -> None:
    result = call(work, "check", "small.yaml", "--set", "task.targets=[z500]")
    assert result.exit_code == 2 and "'z500' is not among msl" in result.stdout


def test_inspect_knows_what_it_looks_at(work: Path) -> None:
    for path, kind in {
        "stores/demo_weather.zarr": "weather store",
        "runs/small": "checkpoint",
        "runs/small/forecasts/test.zarr": "WeatherBench 2 layout",
        "sample:era5_msl": "raw files",
    }.items():
        assert kind in call(work, "inspect", path).stdout
    facts = json.loads(call(work, "inspect", "runs/small", "--json").stdout)
    assert facts["step"] == 3


def test_every_command_has_help_with_an_example(tmp_path: Path) -> None:
    commands = [("run",), ("train",), ("evaluate",), ("predict",), ("inspect",), ("check",),
                ("simulate",), ("prepare", "era5"), ("demo", "weather"), ()]  # fmt: skip
    for command in commands:
        result = call(tmp_path, *command, "--help")
        assert result.exit_code == 0 and "Example:" in result.stdout, command


def test_no_progress_bar_where_the_output_is_no_terminal(work: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "sciml_dchag", "inspect", "runs/small"],
        cwd=work, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "\x1b" not in process.stdout + process.stderr


def test_help_is_quick_because_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, sciml_dchag.cli; print([m for m in ('torch', 'xarray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
