"""Inputs of `prepare plants` that are not what they seem, from files to the store."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter
from plant_files import BANDS, SAMPLES, WAVELENGTH_NM, camera, counts, scene, write_envi
from scipy import io

from sciml_dchag.files.atomic import write_text
from sciml_dchag.plants.prepare.images import prepare_plants
from sciml_dchag.plants.prepare.splits import read_table
from sciml_dchag.plants.read.cube_files import open_cube
from sciml_dchag.plants.store.cubes import CubeStore
from sciml_dchag.plants.traits.index_maps import write_indices

ONES = np.ones((5, SAMPLES, BANDS))


def prepared(source: Path, **options: Any) -> CubeStore:
    given = {"bands": "native", "split": "1", "quicklooks": False}
    return CubeStore.open(prepare_plants(source, source.parent / "s.zarr", **given | options))


@pytest.mark.parametrize("which", ["white", "dark", "scan"])
def test_counts_that_wrapped_are_refused(which: str, tmp_path: Path) -> None:
    """Counts above 32767 under data type 2, 16 bits with a sign, are negative."""
    level = {"white": 2.2 * ONES, "dark": 0 * ONES, "scan": 0.2 * scene()}
    level[which] = (2.2 if which == "white" else 4.0) * (0 * level[which] + 1)
    dark, lamp = camera()
    for name, light in level.items():
        sign = {"data type": 2} if name == which else {}
        write_envi(tmp_path / name, np.round(dark + lamp * light).astype(np.uint16), **sign)
    references = {name: str(tmp_path / f"{name}.hdr") for name in ("white", "dark")}
    with pytest.raises(ValueError, match=rf"{which}.raw holds numbers down to -\d+ in .* a sign"):
        prepared(tmp_path / "scan.hdr", **references)
    assert not (tmp_path / "s.zarr").exists()


def test_small_negative_counts_and_undeclared_nodata(tmp_path: Path) -> None:
    dark, lamp = camera()
    white = np.round(lamp * ONES).astype(np.int16).view(np.uint16)
    scan = (counts(scene()).astype(int) - np.round(dark).astype(int)).astype(np.int16)
    scan[0] -= 60  # noise about a dark that was subtracted
    for name, numbers in (("white", white), ("scan", scan.view(np.uint16))):
        write_envi(tmp_path / name, numbers, **{"data type": 2})
    given = {"white": str(tmp_path / "white.hdr")}
    with pytest.warns(UserWarning, match="has no dark reference"):
        store = prepared(tmp_path / "scan.hdr", **given)
    np.testing.assert_allclose(store.reflectance("scan")[:, 14], scene()[14].T, atol=0.02)
    scan[:4] = -9999
    write_envi(tmp_path / "scan", scan.view(np.uint16), **{"data type": 2})
    with pytest.raises(ValueError, match="which no camera counts: .* with `nodata=-9999`"):
        prepared(tmp_path / "scan.hdr", overwrite=True, **given)


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("kept", [0.2, 0.6, 0.99])
def test_a_matlab_file_that_is_cut_off(compressed: bool, kept: float, tmp_path: Path) -> None:
    """Its last array is not listed any more: what is left looks like a file without it."""
    path, noise = tmp_path / "x.mat", np.random.default_rng(0).normal(0, 0.01, scene().shape)
    io.savemat(
        path, {"cube": scene() + noise, "wavelength_nm": WAVELENGTH_NM}, do_compression=compressed
    )
    assert open_cube(path).bands == BANDS
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ValueError, match=r"x.mat is cut off: it has \d+ bytes where .* ends after"):
        open_cube(path)


@pytest.mark.parametrize("place", [(3, 3), (12, 35)])
def test_one_number_beyond_all_reflectance_is_set_aside(
    place: tuple[int, int], tmp_path: Path
) -> None:
    """On a plant or beside it: its square would end training."""
    values = (scene() + np.random.default_rng(0).normal(0, 0.002, scene().shape)).astype("f4")
    values[*place, 5] = 1e30
    store = prepared(write_envi(tmp_path / "scan", values))
    made = store.reflectance("scan")
    assert np.isnan(made[5, *place]) and np.isnan(made).sum() == 1
    assert store.cube_attrs("scan")["count_missing"] == 1
    assert (store.statistics().maximum < 1).all()


def test_plants_brighter_than_a_panel_are_said(tmp_path: Path) -> None:
    """The white is a grey panel of a quarter, which nobody says."""
    for name, level in (("scan", scene()), ("white", 0.25 * ONES), ("dark", 0 * ONES)):
        write_envi(tmp_path / name, counts(level))
    given = {name: str(tmp_path / f"{name}.hdr") for name in ("white", "dark")}
    with pytest.warns(UserWarning, match="plants of scan.raw reflect 1.8 in the median, more th"):
        prepared(tmp_path / "scan.hdr", **given)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepared(tmp_path / "scan.hdr", overwrite=True, white_reflectance="0.25", **given)


@contextmanager
def files_of_at_most(most: int) -> Iterator[None]:
    """The kernel lets no file grow beyond some bytes, as a full disk does."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_ends_no_process_and_leaves_nothing(tmp_path: Path) -> None:
    """HDF5 ends a process in which it cannot close a file."""
    noise = np.random.default_rng(0).normal(0, 0.002, scene().shape)
    store = prepared(write_envi(tmp_path / "scan", (scene() + noise).astype(np.float32)))
    with files_of_at_most(6000), pytest.raises(OSError) as refused:
        write_indices(store.path, tmp_path / "i")
    assert f"No room to write {tmp_path / 'i'} (file too large): nothing is" in str(refused.value)
    with files_of_at_most(10), pytest.raises(OSError, match="No room to write .*a.txt") as refused:
        write_text(tmp_path / "a.txt", "more than ten bytes")
    assert {path.name for path in tmp_path.iterdir()} == {"scan.raw", "scan.hdr", "s.zarr"}


def test_drawings_are_said_once(tmp_path: Path) -> None:
    drawn = Image.fromarray(np.where(scene()[..., 50] > 0.3, 255, 0).astype(np.uint8))
    (tmp_path / "masks").mkdir()
    for name in "abcde":
        noise = np.random.default_rng(0).normal(0, 0.002, scene().shape)
        write_envi(tmp_path / name, (scene() + noise).astype(np.float32))
        drawn.filter(ImageFilter.GaussianBlur(1)).save(tmp_path / "masks" / f"{name}.png")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        prepare_plants(
            tmp_path, tmp_path / "s.zarr", mask=str(tmp_path / "masks"), bands="native", split="1",
            quicklooks=False,
        )  # fmt: skip
    (once,) = [str(one.message) for one in said]
    assert once.startswith("a.png, b.png, c.png and 2 others: masks that are drawings in black and")


@pytest.mark.parametrize("turned", [False, True])
def test_a_mask_that_is_not_that_of_the_image_is_said(turned: bool, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.002, scene().shape)
    header = write_envi(tmp_path / "scan", (scene() + noise).astype(np.float32))
    labels = 3 * (scene()[..., 50] > 0.3)
    np.save(tmp_path / "m.npy", labels[::-1, ::-1] if turned else labels)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        prepared(header, mask=str(tmp_path / "m.npy"))
    assert len(said) == turned
    assert all("green pixels on its plants, and" in str(one.message) for one in said)


def test_a_mask_with_exchanged_labels_is_refused(tmp_path: Path) -> None:
    labels = np.zeros(scene().shape[:2], np.uint8)
    labels[5:25, 30:45], labels[10:18, 6:16] = 3, 7
    Image.fromarray(255 - labels).save(tmp_path / "m.png")
    header = write_envi(tmp_path / "scan", scene().astype(np.float32))
    with pytest.raises(ValueError, match=r"no background \(0\), and numbers from 248 to 255"):
        prepared(header, mask=str(tmp_path / "m.png"))


def test_groups_are_text(tmp_path: Path) -> None:
    """`1.10` is another plot than `1.1`."""
    (tmp_path / "t.csv").write_text("file,plot\na,1.10\nb,1.1\nc,1.2\n")
    images = [Path(f"{name}.raw") for name in "abc"]
    found = read_table(tmp_path / "t.csv", images, list("abc"), "plot")
    assert list(found["plot"]) == ["1.10", "1.1", "1.2"]
