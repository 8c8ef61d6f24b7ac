"""`prepare plants` as a user calls it; bad input is one sentence, status 2, and leaves nothing."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from scipy.io import savemat

from sciml_dchag.plants.store.cubes import CubeStore

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from plant_files import (
    BANDS,
    LINES,
    SAMPLES,
    WAVELENGTH_NM,
    counts,
    scene,
    write_envi,
    write_scan,
)

Call = Callable[..., Result]
Refused = Callable[[Result], str]


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    write_scan(tmp_path / "scans")
    return tmp_path / "scans"


def arguments(scans: Path, *options: str | Path) -> list[str | Path]:
    white, dark = scans / "white.hdr", scans / "dark.hdr"
    chosen = [] if "--bands" in options else ["--bands", "400-900x80"]
    return ["prepare", "plants", scans / "scan.hdr", scans.parent / "s.zarr", "--white", white,
            "--dark", dark, *chosen, *options]  # fmt: skip


def test_the_summary_says_what_was_prepared(scans: Path, call: Call) -> None:
    result = call(*arguments(scans, "--clip", "0,0.45", "--split", "spatial:0.7,guard=3"))
    assert result.exit_code == 0, result.output
    assert "2 images (1 train, 0 validation, 1 test), 80 bands from 400 to 900 nm" in result.output
    assert "scan_train: 40 x 33, 2 plants on" in result.output and "(ndvi)" in result.output
    assert "clipped" in result.output
    assert sorted(p.name for p in scans.parent.iterdir()) == ["s.zarr", "scans"]
    told = call("inspect", scans.parent / "s.zarr")
    assert told.exit_code == 0, told.output
    assert "plant store" in told.output and "scan_train (train, 40 x 33, 2 plants)" in told.output
    again = call(*arguments(scans))
    assert again.exit_code == 2 and "--overwrite" in again.stderr


def test_the_embedded_sample(tmp_path: Path, call: Call) -> None:
    result = call(
        "prepare", "plants", "sample:maize_kernel", tmp_path / "m.zarr", "--white",
        "sample:maize_white", "--dark", "sample:maize_dark", "--split", "spatial:0.62,guard=4",
        "--index", "brightness",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "byte order" in result.stderr and result.stderr.count("Warning: ") == 3
    assert "500 bands" in result.output


def narrow_white(scans: Path) -> list[str | Path]:
    write_envi(scans / "white", counts(np.ones((5, SAMPLES, BANDS)))[:, :9])
    return []


def other_exposure(scans: Path) -> list[str | Path]:
    write_envi(scans / "scan", counts(scene()), **{"exposure": 10})
    return []


def background(scans: Path) -> list[str | Path]:
    write_envi(scans / "scan", counts(scene(plants=False)))
    return []


def table_without(scans: Path) -> list[str | Path]:
    (scans / "t.csv").write_text("file,genotype\nother,B73\n")
    return ["--table", scans / "t.csv"]


def mask_of_another_size(scans: Path) -> list[str | Path]:
    np.save(scans / "m.npy", np.ones((LINES, SAMPLES + 1)))
    return ["--mask", scans / "m.npy"]


def cut_short(scans: Path) -> list[str | Path]:
    content = (scans / "scan.raw").read_bytes()
    (scans / "scan.raw").write_bytes(content[:-100])
    return []


def no_wavelengths(scans: Path) -> list[str | Path]:
    write_envi(scans / "scan", counts(scene()), **{"wavelength": None})
    return []


def nothing_finite(scans: Path) -> list[str | Path]:
    write_envi(scans / "scan", np.full((LINES, SAMPLES, BANDS), np.nan, np.float32))
    return []


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (narrow_white, "white.raw is 9 pixels wide"),
        (other_exposure, "exposure of 10 ms"),
        (background, "nothing but background"),
        (table_without, "no row of scan.raw"),
        (mask_of_another_size, "40 x 51 values"),
        (cut_short, "bytes where its header"),
        (no_wavelengths, "says no wavelengths"),
        (nothing_finite, "nothing but background"),
    ],
)
def test_bad_files_are_one_sentence_and_leave_nothing(
    scans: Path, call: Call, refused: Refused, spoil: Callable[[Path], list[str | Path]], what: str
) -> None:
    more = spoil(scans)
    sources = [path for path in more if str(path).endswith(".hdr")]
    words = arguments(scans, *(path for path in more if path not in sources))
    words[3:3] = sources
    assert what in refused(call(*words))
    assert not list(scans.parent.glob("s.zarr*"))


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("--bands", "300-900x50"), "covers 395 to 905 nm"),
        (("--bands", "400-900x500"), "too few to make 500"),
        (("--bands", "all"), "is no band set"),
        (("--split", "0.5/0.4"), "three parts that sum to 1"),
        (("--group-by", "genotype"), "needs such a column"),
        (("--white-reflectance", "99"), "as a fraction"),
        (("--clip", "1,0"), "lower bound first"),
        (("--smooth", "4,2"), "--smooth WINDOW,ORDER"),
        (("--plants", "0"), "at least 1"),
        (("--mask", "none.png"), "no mask none.png"),
        (("--table", "none.csv"), "no table none.csv"),
    ],
)
def test_bad_settings_are_one_sentence_and_leave_nothing(
    scans: Path, call: Call, refused: Refused, options: tuple[str, ...], what: str
) -> None:
    assert what in refused(call(*arguments(scans, *options)))
    assert not list(scans.parent.glob("s.zarr*"))


def test_counts_without_references_are_refused(scans: Path, call: Call, refused: Refused) -> None:
    words = ("prepare", "plants", scans / "scan.hdr", scans.parent / "s.zarr")
    result = call(*words, "--no-own-references", "--bands", "native")
    assert "--white" in refused(result) and not list(scans.parent.glob("s.zarr*"))


def test_numbers_that_are_no_pair(scans: Path, call: Call) -> None:
    result = call(*arguments(scans, "--clip", "0-1"))
    assert (
        result.exit_code == 2
        and "'0-1' is not 2 values (numbers) separated by commas" in result.stderr
    )


def test_the_cure_that_is_named_works(tmp_path: Path, call: Call, refused: Refused) -> None:
    path, out = tmp_path / "x.mat", tmp_path / "s.zarr"
    noisy = scene() + np.random.default_rng(0).normal(0, 0.002, scene().shape)
    savemat(path, {"img": np.round(noisy * 10000).astype("u2"), "wavelength_nm": WAVELENGTH_NM})
    words = ("prepare", "plants", path, out, "--bands", "native", "--no-quicklooks")
    assert "with `--scale 10000`" in refused(call(*words))
    assert call(*words, "--scale", "10000").exit_code == 0
    values = CubeStore.open(out).reflectance("x").transpose(1, 2, 0)
    np.testing.assert_allclose(values, noisy, atol=6e-5)


def test_images_left_out_are_listed_at_the_end_and_in_the_exit_status(
    scans: Path, call: Call
) -> None:
    for name in ("first", "second", "third"):
        write_scan(scans / name)
    (scans / "third" / "scan.hdr").write_text("ENVI\n")
    white, dark = scans / "white.hdr", scans / "dark.hdr"
    result = call("prepare", "plants", scans, scans.parent / "s.zarr", "--white", white, "--dark",
                  dark, "--bands", "native", "--no-quicklooks")  # fmt: skip
    assert result.exit_code == 1, result.output
    assert "Left out: scan.raw: The header" in result.stdout
    assert "to use those given for all, add `--no-own-references`" in result.stderr.lower()
    for name in ("scans_scan", "first_scan", "second_scan"):
        assert f"  {name}: 40 x 50, 2 plants on" in result.stdout
