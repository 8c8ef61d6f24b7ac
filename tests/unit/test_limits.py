"""Memory, shared memory, terminals and encodings: what is too small is said before work starts."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from plant_files import WAVELENGTH_NM, write_envi
from training_runs import recipe

from sciml_dchag.cli.console import plain
from sciml_dchag.cli.main import main
from sciml_dchag.files import memory
from sciml_dchag.plants.read.raw_cube import RawCube
from sciml_dchag.tasks import load_recipe


def header(path: Path, **fields: object) -> Path:
    said = {"samples": 10**9, "lines": 1, "bands": 2, "header offset": 0, "data type": 12,
            "interleave": "bil", "byte order": 0, "wavelength": "{500, 600}",
            "wavelength units": "nm", **fields}  # fmt: skip
    path.write_text("ENVI\n" + "".join(f"{name} = {value}\n" for name, value in said.items()))
    return path


@pytest.mark.parametrize(("samples", "lines"), [(10**9, 1), (10**9, 10**9)])
def test_a_header_of_more_than_its_file_holds_is_refused(
    samples: int, lines: int, tmp_path: Path
) -> None:
    image = header(tmp_path / "i.hdr", samples=samples, lines=lines)
    (tmp_path / "i.raw").write_bytes(bytes(2000))
    said = CliRunner().invoke(main, ["prepare", "plants", str(image), str(tmp_path / "o.zarr")])
    assert said.exit_code == 2 and "has 2000 bytes where its header i.hdr makes them" in said.output


def test_a_sparse_file_that_matches_is_refused_by_the_memory_it_would_take(tmp_path: Path) -> None:
    image = header(tmp_path / "i.hdr", samples=10**11)
    with (tmp_path / "i.raw").open("wb") as file:
        file.truncate(4 * 10**11)
    said = CliRunner().invoke(main, ["prepare", "plants", str(image), str(tmp_path / "o.zarr")])
    assert said.exit_code == 2 and "GiB of memory where" in said.output
    assert not list(tmp_path.glob("o.zarr*"))


def test_the_memory_of_an_image_is_that_of_a_line_and_of_the_map_of_plants() -> None:
    cube = RawCube(
        path=Path("a.raw"), lines=100, samples=10, wavelength_nm=np.arange(5.0),
        dtype=np.dtype("u2"), read_lines=lambda lines: np.zeros(0),
    )  # fmt: skip
    needed = 10 * 5 * (2 + 32) + 16 * 1000
    cube.require_memory(needed)
    with pytest.raises(ValueError, match="lines of 10 samples x 5 bands and 100 of them"):
        cube.require_memory(needed - 1)
    assert 2**28 < memory.memory_bytes() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_shared_memory_that_is_too_small_is_named(tmp_path: Path) -> None:
    memory.require_shared_memory(1, tmp_path)
    with pytest.raises(OSError, match=r"MiB left and loader processes \(data.workers\) need"):
        memory.require_shared_memory(2**60, tmp_path)
    with pytest.raises(OSError, match=r"cannot be written to: set data.workers to 0"):
        memory.require_shared_memory(1, tmp_path / "none")


def test_batches_that_shared_memory_does_not_hold_are_refused(
    msl_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sciml_dchag.pipeline import train
    from sciml_dchag.training import batches

    def small(needed: int) -> None:
        assert needed >= 2**20
        memory.require_shared_memory(needed, tmp_path / "none")

    monkeypatch.setattr(batches, "require_shared_memory", small)
    with pytest.raises(OSError, match="none, which cannot be written to"):
        train(recipe(msl_store, data={"workers": 1}), tmp_path / "run")


@pytest.mark.parametrize(
    "setting",
    ["model.wavelength_nm=[1000]", "model.input_channels=[msl]", "model.image_size=[8,16]"],
)
def test_what_data_fill_in_is_set_by_no_recipe(setting: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("name: r\ndata: {store: s.zarr}\n")
    with pytest.raises(ValueError, match="is filled in from the data: leave it out"):
        load_recipe(path, [setting])


def test_sequences_of_a_file_do_not_reach_the_terminal(tmp_path: Path) -> None:
    assert plain("a\x1b[31mb\u202ec\x07 ä\u00a0µ\n") == "a\\x1b[31mb\\u202ec\\x07 ä\u00a0µ\n"
    values = np.ones((4, 50, 60), np.float32)
    image = write_envi(tmp_path / "i.hdr", values, WAVELENGTH_NM, **{"interleave": "bil\x1b[2J"})
    said = CliRunner().invoke(main, ["inspect", str(image)])
    assert "\x1b" not in said.output and "\\x1b[2J" in said.output


def test_a_recipe_that_names_cannot_follow_says_the_encoding(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("name: r\ndata: {store: störe.zarr}\n", encoding="utf-8")
    code = "from sciml_dchag.tasks import load_recipe; load_recipe('r.yaml')"
    words = [sys.executable, "-X", "utf8=0", "-c", code]
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    said = subprocess.run(
        words, cwd=tmp_path, env={**os.environ, **ascii_only}, capture_output=True, check=False
    )
    assert said.returncode == 1 and b"ValueError: r.yaml has" in said.stderr
    assert b"set PYTHONUTF8=1" in said.stderr


@pytest.mark.parametrize("columns", ["0", "wide", "20"])
def test_columns_that_are_none_hide_nothing(tmp_path: Path, columns: str) -> None:
    words = [sys.executable, "-m", "sciml_dchag", "recipe", "new", "forecast", "a.yaml"]
    environment = {**os.environ, "COLUMNS": columns}
    said = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert said.returncode == 0 and "Recipe: a.yaml" in said.stdout, said


def test_a_closed_standard_output_ends_no_command(tmp_path: Path) -> None:
    words = f"{sys.executable} -m sciml_dchag recipe new forecast a.yaml >&-"
    said = subprocess.run(["bash", "-c", words], cwd=tmp_path, capture_output=True, text=True)
    assert said.returncode == 0 and not said.stderr, said
    assert load_recipe(tmp_path / "a.yaml").name == "a"
    again = subprocess.run(["bash", "-c", words], cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 2 and again.stderr.startswith("Error: a.yaml exists")
