"""Plant stores: what is written is read back, band by band, also after an interruption."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from numpy.typing import NDArray

from sciml_dchag.plants.store.cubes import CubeStore
from sciml_dchag.plants.store.new_cube import NewCube
from sciml_dchag.plants.store.writing import write_cubes

BANDS = 21
WAVELENGTH_NM = np.linspace(400, 900, BANDS)
ATTRS = {"title": "A test", "attribution": "Random numbers.", "simulated": 1}


def image(seed: int, rows: int, columns: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Random reflectance with some NaN, and a mask with two plants."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(0.05, 0.9, (BANDS, rows, columns)).astype(np.float32)
    values[rng.uniform(size=values.shape) < 0.01] = np.nan
    return values, rng.integers(0, 3, (rows, columns), dtype=np.int32)


def new_cube(name: str, seed: int, rows: int = 75, columns: int = 130, **changes: Any) -> NewCube:
    values, mask = image(seed, rows, columns)

    def blocks(lines: int) -> Iterator[NDArray[np.float32]]:
        for first in range(0, rows, lines):
            yield values[:, first : first + lines]

    return NewCube(
        **{
            "name": name, "rows": rows, "columns": columns, "mask": lambda: mask,
            "blocks": blocks, "attrs": lambda: {"source": f"{name}.raw"}, **changes,
        }
    )  # fmt: skip


def table(*names: str, split: tuple[str, ...] = ("train", "train", "test")) -> pd.DataFrame:
    return pd.DataFrame(
        {"split": split[: len(names)], "genotype": ["B73", None, "Mo17"][: len(names)],
         "plot": [4, 5, 6][: len(names)]},
        index=pd.Index(names, name="cube"),
    )  # fmt: skip


def write(path: Path, *cubes: NewCube, **options: Any) -> Path:
    return write_cubes(
        cubes, path, wavelength_nm=WAVELENGTH_NM, table=table(*(cube.name for cube in cubes)),
        attrs=ATTRS, **options,
    )  # fmt: skip


THREE = (("a", 0, 75, 130), ("b-2.x", 1, 9, 5), ("c", 2, 33, 64))
"""Names, seeds, rows and columns: whole and broken tiles."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> CubeStore:
    path = tmp_path_factory.mktemp("cubes") / "three.zarr"
    return CubeStore.open(write(path, *(new_cube(*one) for one in THREE)))


def test_what_is_written_is_read_back(store: CubeStore) -> None:
    assert store.names == ["a", "b-2.x", "c"] and store.split("train") == ["a", "b-2.x"]
    assert list(store.table["genotype"]) == ["B73", "", "Mo17"]
    assert list(store.table["plot"]) == [4, 5, 6]
    np.testing.assert_array_equal(store.wavelength_nm, WAVELENGTH_NM)
    for name, seed, rows, columns in THREE:
        values, mask = image(seed, rows, columns)
        assert store.size(name) == (rows, columns)
        np.testing.assert_array_equal(store.reflectance(name), values)
        np.testing.assert_array_equal(store.plants(name), mask)
        assert store.cube_attrs(name)["source"] == f"{name}.raw"
    values, _ = image(0, 75, 130)
    part = store.reflectance("a", range(12, 19), slice(30, 70), slice(60, 129))
    np.testing.assert_array_equal(part, values[12:19, 30:70, 60:129])
    assert sorted(p.name for p in store.path.parent.iterdir()) == ["three.zarr"]
    assert sorted(p.name for p in store.path.iterdir() if not (p / "zarr.json").exists()) == [
        "checksums.txt",
        "zarr.json",
    ]


def test_xarray_opens_it_with_names_and_units(store: CubeStore) -> None:
    root = xr.open_zarr(store.path)
    assert root["wavelength"].attrs["standard_name"] == "radiation_wavelength"
    assert root["wavelength"].attrs["units"] == "nm"
    cube = xr.open_zarr(store.path, group="cubes/a")
    assert cube["reflectance"].dims == ("wavelength", "y", "x")
    assert cube["reflectance"].attrs["units"] == "1"
    np.testing.assert_array_equal(cube["reflectance"].values, image(0, 75, 130)[0])
    near = cube["reflectance"].sel(wavelength=551, method="nearest")
    assert near["wavelength"] == 550
    assert set(xr.open_zarr(store.path, group="statistics").data_vars) >= {"mean", "std"}


def test_a_rank_reads_its_own_bands_and_nothing_else(tmp_path: Path) -> None:
    """What lies in the chunks of the other half of the bands has no influence."""
    store = CubeStore.open(write(tmp_path / "s.zarr", new_cube("a", 0, rows=20)))
    array = store._array("a", "reflectance")
    assert array.chunks == (11, 20, 44) and array.shards == (22, 20, 132)
    file = store.path / "cubes" / "a" / "reflectance" / "c" / "0" / "0" / "0"
    content = bytearray(file.read_bytes())
    chunk = 4 * 11 * 20 * 44 + 4  # with its checksum
    second_half = slice(3 * chunk, 6 * chunk)
    content[second_half] = b"\xff" * (second_half.stop - second_half.start)
    file.write_bytes(content)
    values, _ = image(0, 20, 130)
    np.testing.assert_array_equal(store.reflectance("a", range(11)), values[:11])
    with pytest.raises(ValueError, match="reflectance/c/0/0/0 has changed"):
        store.reflectance("a", range(11, 21))


def test_statistics_are_of_plant_pixels_of_training_images(store: CubeStore) -> None:
    pixels = []
    for name, seed, rows, columns in THREE[:2]:
        assert name in store.split("train")
        values, mask = image(seed, rows, columns)
        pixels.append(values[:, mask > 0].astype(np.float64))
    together = np.concatenate(pixels, axis=1)
    found = store.statistics()
    # One pass with merged moments in float64 against two passes over all values at once.
    np.testing.assert_allclose(found.mean, np.nanmean(together, axis=1), rtol=1e-13)
    np.testing.assert_allclose(found.std, np.nanstd(together, axis=1), rtol=1e-12)
    np.testing.assert_array_equal(found.minimum, np.nanmin(together, axis=1))
    np.testing.assert_array_equal(found.maximum, np.nanmax(together, axis=1))
    np.testing.assert_array_equal(found.count, np.isfinite(together).sum(axis=1))
    assert found.cubes == ("a", "b-2.x")


def test_goes_on_after_the_last_finished_image(tmp_path: Path, store: CubeStore) -> None:
    path = tmp_path / "three.zarr"

    def interrupted(lines: int) -> Iterator[NDArray[np.float32]]:
        yield image(1, 9, 5)[0][:, :lines]
        raise KeyboardInterrupt

    a, b, c = (new_cube(*one) for one in THREE)
    with pytest.raises(KeyboardInterrupt):
        write(path, a, new_cube(*THREE[1], blocks=interrupted), c)
    assert not path.exists()
    with pytest.raises(FileNotFoundError, match="was begun"):
        CubeStore.open(path)
    with pytest.raises(ValueError, match="not finished"):
        CubeStore.open(tmp_path / "three.zarr.partial")

    def not_again(lines: int) -> Iterator[NDArray[np.float32]]:
        raise AssertionError("computed twice")

    write(path, new_cube(*THREE[0], blocks=not_again), b, c)
    again = CubeStore.open(path)
    np.testing.assert_array_equal(again.statistics().std, store.statistics().std)
    for name in again.names:
        np.testing.assert_array_equal(again.reflectance(name), store.reflectance(name))
        assert again.cube_attrs(name) == store.cube_attrs(name)


def test_other_settings_do_not_go_on_there(tmp_path: Path) -> None:
    def interrupted(lines: int) -> Iterator[NDArray[np.float32]]:
        raise KeyboardInterrupt
        yield

    path = tmp_path / "s.zarr"
    with pytest.raises(KeyboardInterrupt):
        write(path, new_cube("a", 0), new_cube("b", 1, blocks=interrupted))
    with pytest.raises(ValueError, match="other settings"):
        write(path, new_cube("a", 0, rows=10), new_cube("b", 1))
    write(path, new_cube("a", 0, rows=10), new_cube("b", 1), overwrite=True)
    assert CubeStore.open(path).size("a") == (10, 130)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        write(path, new_cube("a", 0))


def test_a_refused_image_leaves_nothing(tmp_path: Path) -> None:
    def refused() -> NDArray[np.int32]:
        raise ValueError("nothing but background")

    with pytest.raises(ValueError, match="nothing but background"):
        write(tmp_path / "s.zarr", new_cube("a", 0), new_cube("b", 1, mask=refused))
    assert list(tmp_path.iterdir()) == []


def test_a_band_that_is_the_same_everywhere_is_refused(tmp_path: Path) -> None:
    values, _ = image(0, 75, 130)
    values[4] = 0.5
    with pytest.raises(ValueError, match="500 nm has one value"):
        write(tmp_path / "s.zarr", new_cube("a", 0, blocks=lambda lines: (
            values[:, first : first + lines] for first in range(0, 75, lines)
        )))  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_a_pixel_of_1e30_is_named_with_its_band(tmp_path: Path) -> None:
    values, _ = image(0, 75, 130)
    values[4] = 1e30 * (1 + values[3])
    with pytest.raises(ValueError, match=r"band at 500 nm has values of up to .*e\+30"):
        write(tmp_path / "s.zarr", new_cube("a", 0, blocks=lambda lines: (
            values[:, first : first + lines] for first in range(0, 75, lines)
        )))  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_no_other_kind_of_store_is_overwritten(tmp_path: Path, msl_store: Path) -> None:
    before = sorted(msl_store.rglob("*"))
    with pytest.raises(FileExistsError, match="not only, a plant store"):
        write(msl_store, new_cube("a", 0), overwrite=True)
    assert sorted(msl_store.rglob("*")) == before


def test_without_training_images_there_are_no_statistics(tmp_path: Path) -> None:
    path = write_cubes(
        [new_cube("a", 0)], tmp_path / "s.zarr", wavelength_nm=WAVELENGTH_NM,
        table=table("a", split=("test",)), attrs=ATTRS,
    )  # fmt: skip
    with pytest.raises(FileNotFoundError, match="none of its images is for training"):
        CubeStore.open(path).statistics()


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as Linux does")
@pytest.mark.parametrize("how", ["killed", "full"])
def test_survives_a_kill_and_a_full_disk(tmp_path: Path, how: str) -> None:
    """The first image is finished; in the second the process is killed or files may not grow."""
    path = tmp_path / "s.zarr"
    end = (
        "os.kill(os.getpid(), signal.SIGKILL)"
        if how == "killed"
        else "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))"
    )
    script = textwrap.dedent(f"""
        import os, resource, signal, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_cube_writing import Path, image, new_cube, write
        def stop():
            {end}
            return image(1, 75, 130)[1]
        try:
            write(Path({str(path)!r}), new_cube("a", 0), new_cube("b", 1, mask=stop))
        except OSError as error:
            print(error)
        """)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True,
        env={**os.environ, "PYTHONWARNINGS": "error::RuntimeWarning"},
    )  # fmt: skip
    if how == "killed":
        assert done.returncode == -signal.SIGKILL, done.stderr
    else:
        assert "1 of 2 images are kept" in done.stdout, done.stderr
    assert not path.exists()
    write(path, new_cube("a", 0), new_cube("b", 1))
    np.testing.assert_array_equal(CubeStore.open(path).reflectance("b"), image(1, 75, 130)[0])
