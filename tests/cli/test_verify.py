"""`verify`: what is whole, what is damaged, and what says nothing of itself."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sciml_dchag.cli import main
from sciml_dchag.config import from_mapping
from sciml_dchag.pipeline import train
from sciml_dchag.training.export import export
from sciml_dchag.weather.forecast.config import ForecastRecipe
from sciml_dchag.weather.forecast.predict import predict_period


def verify(path: Path) -> Result:
    return CliRunner().invoke(main, ["verify", str(path)])


def flip(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


@pytest.fixture(scope="module")
def results(msl_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store, a run, its export, and forecasts in Zarr and NetCDF."""
    folder = tmp_path_factory.mktemp("verify")
    shutil.copytree(msl_store, folder / "store.zarr")
    recipe = from_mapping(
        ForecastRecipe,
        {
            "name": "run",
            "data": {"store": str(folder / "store.zarr"), "train": ["2025-12-01", "2025-12-24"]},
            "model": {"embed_dim": 8, "depth": 1, "heads": 2, "patch": 8, "partitions": 1},
            "training": {
                "steps": 2,
                "batch": 1,
                "warmup_steps": 0,
                "checkpoint_every": 1,
                "log_every": 1,
            },
        },
    )
    train(recipe, folder / "run")
    export(folder / "run", folder / "model.safetensors")
    period = ("2025-12-01", "2025-12-01")
    for suffix in ("zarr", "nc"):
        predict_period(folder / "run", folder / f"out.{suffix}", period=period, lead_hours=[6, 12])
    return folder


def test_all_that_is_whole_is_said_to_be(results: Path) -> None:
    result = verify(results)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert all(line.startswith("ok ") for line in lines) and len(lines) == 7, result.output
    for name in (
        "model.safetensors", "out.nc", "out.zarr", "run/checkpoints/step-0000001",
        "run/checkpoints/step-0000002", "run/log.jsonl", "store.zarr",
    ):  # fmt: skip
        assert sum(f"{results / name}: " in line for line in lines) == 1, name


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("store.zarr/state/c/0/0/0/0", 1000),
        ("store.zarr/statistics/mean/c/0", 9),
        ("out.zarr/mean_sea_level_pressure/c/0/1/0/0", 99),
        ("run/checkpoints/step-0000001/__0_0.distcp", 5000),
        ("run/checkpoints/step-0000002/checkpoint.json", 50),
        ("model.safetensors", -9),
        ("run/log.jsonl", 1),
    ],
)
def test_a_changed_bit_is_found(name: str, place: int, results: Path, tmp_path: Path) -> None:
    shutil.copytree(results, tmp_path / "copy")
    flip(tmp_path / "copy" / name, place)
    result = verify(tmp_path / "copy")
    assert result.exit_code == 2
    (line,) = (line for line in result.output.splitlines() if line.startswith("fails"))
    assert str(tmp_path / "copy" / name) in line


def test_a_damaged_chunk_of_netcdf_is_found(results: Path, tmp_path: Path) -> None:
    import h5py

    path = tmp_path / "out.nc"
    shutil.copy(results / "out.nc", path)
    with h5py.File(path) as file:
        chunk = file["mean_sea_level_pressure"].id.get_chunk_info(0)
    flip(path, chunk.byte_offset + chunk.size // 2)
    result = verify(path)
    assert result.exit_code == 2 and "in its variable mean_sea_level_pressure" in result.output


def test_a_lost_chunk_of_forecasts_is_refused_where_they_are_opened(
    results: Path, tmp_path: Path
) -> None:
    import sciml_dchag as sd

    shutil.copytree(results / "out.zarr", tmp_path / "out.zarr")
    (tmp_path / "out.zarr/mean_sea_level_pressure/c/0/1/0/0").unlink()
    with pytest.raises(ValueError, match="c/0/1/0/0 is missing"):
        sd.open(tmp_path / "out.zarr")


def test_a_store_without_a_list_is_told_of(
    results: Path, tmp_path: Path, refused: Callable[[Result], str]
) -> None:
    shutil.copytree(results / "store.zarr", tmp_path / "a" / "store.zarr")
    (tmp_path / "a/store.zarr/checksums.txt").unlink()
    result = verify(tmp_path / "a")
    assert result.exit_code == 0 and "carries no checksums" in result.output
    assert "nothing that carries checksums" in refused(verify(Path(__file__).parent))
    assert "There is nothing at" in refused(verify(tmp_path / "absent"))


def test_letters_that_a_terminal_lacks_end_no_command(results: Path, tmp_path: Path) -> None:
    """`verify` names a folder with an umlaut where the output knows ASCII alone."""
    folder = tmp_path / "Größe 5 [b]"
    shutil.copytree(results / "store.zarr", folder / "store.zarr")
    done = subprocess.run(
        [sys.executable, "-m", "sciml_dchag", "verify", str(folder)],
        env={**os.environ, "PYTHONIOENCODING": "ascii", "TZ": "Pacific/Apia"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Gr??e 5 [b]/store.zarr: " in done.stdout and "as they were written" in done.stdout
