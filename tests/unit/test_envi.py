"""ENVI images against NumPy: layouts, headers as cameras write them, and what is refused."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sciml_dchag.plants.read.cube_files import expand_cubes, open_cube
from sciml_dchag.plants.read.envi import DATA_SUFFIXES, DATA_TYPES
from sciml_dchag.plants.read.envi_fields import exposure_ms

LINES, SAMPLES, BANDS = 5, 4, 6
NM = np.array([450.0, 400.5, 550.0, 500.0, 650.0, 600.0])
ODD = Path(__file__).parents[1] / "data/plants/odd_headers"
# A cube in (lines, samples, bands) is stored with its axes in this order.
STORED = {"bil": (0, 2, 1), "bip": (0, 1, 2), "bsq": (2, 0, 1)}


def smooth(dtype: Any = np.uint16, shape: tuple[int, int, int] = (LINES, SAMPLES, BANDS)) -> Any:
    """A cube whose neighbours are alike, with numbers that need more than one byte."""
    line, sample, band = np.ogrid[: shape[0], : shape[1], : shape[2]]
    values = 700 + 13 * line + 7 * sample + 3 * band
    return (values % 250 if np.dtype(dtype).itemsize == 1 else values).astype(dtype)


def write(
    path: Path,
    cube: Any,
    *,
    interleave: str = "bil",
    order: str = "<",
    offset: int = 0,
    leave_out: tuple[str, ...] = (),
    header: Path | None = None,
    fields: Mapping[str, object] | None = None,
) -> Path:
    codes = {name: code for code, name in DATA_TYPES.items()}
    stored = cube.transpose(STORED[interleave.lower()]).astype(cube.dtype.newbyteorder(order))
    path.write_bytes(b"\xff" * offset + stored.tobytes())
    said: dict[str, object] = {
        "samples": cube.shape[1],
        "lines": cube.shape[0],
        "bands": cube.shape[2],
        "header offset": offset,
        "file type": "ENVI Standard",
        "data type": codes[cube.dtype.name],
        "interleave": interleave,
        "byte order": int(order == ">"),
        "wavelength units": "nm",
        "wavelength": "{" + ", ".join(map(str, NM[: cube.shape[2]])) + "}",
    }
    said |= fields or {}
    lines = [f"{name} = {value}" for name, value in said.items() if name not in leave_out]
    (header or path.with_suffix(".hdr")).write_text("\n".join(["ENVI", *lines]) + "\n")
    return path


@pytest.mark.parametrize("interleave", ["bil", "bip", "bsq", "BIL"])
@pytest.mark.parametrize("dtype", DATA_TYPES.values())
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("offset", [0, 37])
def test_every_layout(tmp_path: Path, interleave: str, dtype: str, order: str, offset: int) -> None:
    truth = smooth(dtype)
    path = write(tmp_path / "x.raw", truth, interleave=interleave, order=order, offset=offset)
    cube = open_cube(path)
    assert (cube.lines, cube.samples, cube.bands) == truth.shape
    assert cube.dtype == np.dtype(dtype) and not cube.remarks
    np.testing.assert_array_equal(cube.wavelength_nm, NM)
    for lines in (slice(None), slice(1, 3), slice(4, 5)):
        read = cube.read_lines(lines)
        assert read.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(read, truth[lines])


@pytest.mark.parametrize("named", ["numbers", "header"])
@pytest.mark.parametrize("suffix", ["", *(f".{suffix}" for suffix in DATA_SUFFIXES), ".RAW"])
@pytest.mark.parametrize("whole", [False, True], ids=["x.hdr", "x.raw.hdr"])
def test_names_of_files(tmp_path: Path, suffix: str, named: str, whole: bool) -> None:
    path = tmp_path / f"plant.2024{suffix}" if whole or suffix else tmp_path / "plant"
    header = path.with_name(f"{path.name}.hdr") if whole else path.with_suffix(".hdr")
    write(path, smooth(), header=header)
    cube = open_cube(path if named == "numbers" else header)
    assert cube.path == path
    np.testing.assert_array_equal(cube.read_lines(slice(None)), smooth())


@pytest.mark.parametrize("interleave", ["bil", "bip", "bsq"])
@pytest.mark.parametrize(
    "dtype", ["int16", "uint16", "int32", "uint32", "uint64", "float32", "float64"]
)
@pytest.mark.parametrize("order", ["<", ">"])
def test_missing_fields_are_decided_by_the_file(
    tmp_path: Path, interleave: str, dtype: str, order: str
) -> None:
    truth = smooth(dtype, (9, 11, 6))
    lacking = ("byte order", "header offset", "file type")
    path = write(
        tmp_path / "x.raw", truth, interleave=interleave, order=order, offset=17, leave_out=lacking
    )
    before = path.with_suffix(".hdr").read_bytes()
    cube = open_cube(path)
    np.testing.assert_array_equal(cube.read_lines(slice(None)), truth)
    (remark,) = cube.remarks
    assert "header offset 17" in remark and "file type ENVI Standard" in remark
    assert f"byte order {'little' if order == '<' else 'big'} endian" in remark
    assert path.with_suffix(".hdr").read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.hdr", "x.raw"]


def test_noise_does_not_tell_the_order_of_bytes(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 2**16, (20, 20, 6)).astype(np.uint16)
    cube = open_cube(write(tmp_path / "x.raw", noise, leave_out=("byte order",)))
    np.testing.assert_array_equal(cube.read_lines(slice(None)), noise)
    assert "little endian (the numbers do not show it)" in cube.remarks[0]


def test_one_byte_has_no_order(tmp_path: Path) -> None:
    cube = open_cube(write(tmp_path / "x.raw", smooth("uint8"), leave_out=("byte order",)))
    assert not cube.remarks


def test_the_sample_and_its_references() -> None:
    (path,) = expand_cubes(["sample:maize_kernel"])
    cube = open_cube(path)
    assert (cube.lines, cube.samples, cube.bands) == (31, 43, 580)
    assert cube.wavelength_nm[0] == 366.551 and cube.wavelength_nm[-1] == 1048.421
    assert "little endian (neighbouring numbers are alike)" in cube.remarks[0]
    truth = np.fromfile(path, "<u2").reshape(31, 580, 43).transpose(0, 2, 1)
    np.testing.assert_array_equal(cube.read_lines(slice(7, 9)), truth[7:9])
    assert expand_cubes([path.parent]) == [path]  # neither twice nor with its references


def lists(values: Any) -> str:
    return "{" + ", ".join(map(str, values)) + "}"


@pytest.mark.parametrize(
    ("fields", "remark"),
    [
        ({"wavelength units": "Nanometers", "wavelength": "{\n450\n,400.5\n,550\n,500\n,650\n,600\n}"}, None),
        ({"wavelength units": "Micrometers", "wavelength": lists(NM / 1000)}, None),
        ({"wavelength units": "µm", "wavelength": lists(NM / 1000)}, None),
        ({"wavelength units": "", "wavelength": lists(NM / 1000)}, "taken as um"),
        ({"wavelength units": "Unknown"}, "taken as nm"),
        ({"wavelength": "{,450,400.5,550,500,650,600,}"}, None),
        ({"wavelength": "\n  {450, 400.5,\n;a comment = {\n 550, 500, 650, 600 }  "}, None),
        ({"wavelength units": "Index", "band names": "{B1 (450.0 nm), B2 (400.5 nm), 550nm, 0.5 um, 650.0 Nanometers, 600 nm}"}, "from its band names"),
    ],
)  # fmt: skip
def test_wavelengths_of_headers(tmp_path: Path, fields: dict[str, str], remark: str | None) -> None:
    path = write(tmp_path / "x.raw", smooth(), fields=fields)
    cube = open_cube(path)
    np.testing.assert_allclose(cube.wavelength_nm, NM, rtol=1e-12)
    assert [remark in said for said in cube.remarks] == [True] if remark else not cube.remarks


def test_what_a_header_says_beside(tmp_path: Path) -> None:
    fields = {
        "wavelength units": "um",
        "wavelength": lists(NM / 1000),
        "fwhm": lists([0.002] * BANDS),
        "bbl": "{1, 1, 0, 1, 1.0, 0}",
        "reflectance scale factor": "10000.0",
        "data ignore value": "-9999",
        "Integration Time (us)": "2500",
        "Bit Depth": 12,
        "simulated": 1,
    }
    cube = open_cube(write(tmp_path / "x.raw", smooth("int16"), fields=fields))
    np.testing.assert_allclose(cube.fwhm_nm, 2.0)
    np.testing.assert_array_equal(cube.good_bands, [True, True, False, True, True, False])
    assert (cube.scale, cube.missing, cube.saturation) == (10000.0, -9999.0, 4095.0)
    assert cube.exposure_ms == 2.5 and cube.simulated and not cube.remarks


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ("uint16", 65535.0)),
        ({"ceiling": "4000"}, ("uint16", 4000.0)),
        ({}, ("float32", None)),
        ({}, ("uint8", 255.0)),
        ({"bit depth": "99"}, ("uint16", 65535.0)),
    ],
)
def test_saturation(tmp_path: Path, fields: dict[str, str], expected: Any) -> None:
    dtype, saturation = expected
    cube = open_cube(write(tmp_path / "x.raw", smooth(dtype), fields=fields))
    assert cube.saturation == saturation and not cube.simulated and cube.exposure_ms is None


@pytest.mark.parametrize(
    ("name", "value", "milliseconds"),
    [
        ("exposure", "12.5", 12.5),
        ("exposure time", "12.5 ms", 12.5),
        ("tint", "4.000000", 4.0),
        ("shutter", "20", 20.0),
        ("shutter_us", "800", 0.8),
        ("integration_time", "0.25 s", 250.0),
        ("exposure (s)", "1e-2", 10.0),
        ("tint", "12,5", 12.5),
        ("tint", "{12.5}", 12.5),
        ("Exposure Time", "0,25 s", 250.0),
        ("exposure", "automatic", None),
        ("exposure", "0", None),
    ],
)
def test_exposure(name: str, value: str, milliseconds: float | None) -> None:
    assert exposure_ms({"samples": "4", name: value}) == (
        None if milliseconds is None else pytest.approx(milliseconds)
    )


def test_lists_of_another_length_are_left_aside_and_said(tmp_path: Path) -> None:
    cube = open_cube(write(tmp_path / "x.raw", smooth(), fields={"fwhm": "{2, 2}"}))
    assert cube.fwhm_nm is None and cube.remarks[0].startswith("The fwhm of x.hdr is not one")


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"bbl": "{1, x, 1, 1, 1, 1}"},
            r"bbl\) of .* not one 0 or 1 for each of its 6 .*drop_bands=",
        ),
        ({"bbl": "{1, 1}"}, "not one 0 or 1 for each of its 6"),
        ({"data gain values": "{1}"}, "data gain values of .*scale=NUMBER"),
        ({"data reflectance gain values": "{1, 1, 0, 1, 1, 1}"}, "not one number a band above 0"),
    ],
)
def test_lists_without_which_numbers_are_wrong_are_refused(
    tmp_path: Path, fields: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        open_cube(write(tmp_path / "x.raw", smooth(), fields=fields))


def test_gains_offsets_and_settings_of_a_header(tmp_path: Path) -> None:
    fields: dict[str, object] = {
        "data gain values": lists([2.0] * BANDS),
        "data reflectance gain values": lists([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]),
        "data reflectance offset values": lists([1.0] * BANDS),
        "Gain": "4.0", "binning": "{1, 2}", "bbl": "{true, false, 1, 0, 1.0, 1}",
    }  # fmt: skip
    cube = open_cube(write(tmp_path / "x.raw", smooth(), fields=fields))
    factor, offset = cube.factors()
    np.testing.assert_array_equal(factor, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    np.testing.assert_array_equal(offset, np.ones(BANDS))
    assert cube.settings == (("binning", "1 2"), ("gain", "4"))
    np.testing.assert_array_equal(cube.good_bands, [1, 0, 1, 0, 1, 1])
    both = {**fields, "reflectance scale factor": 10000}
    with pytest.raises(ValueError, match=r"scale of 10000 and gains by band.*scale=10000"):
        open_cube(write(tmp_path / "y.raw", smooth(), fields=both)).factors()


def test_widths_in_other_units_than_the_wavelengths(tmp_path: Path) -> None:
    for units, wavelengths, widths in (("nm", NM, 0.055), ("um", NM / 1000, 55.0)):
        fields = {"wavelength units": units, "wavelength": lists(wavelengths),
                  "fwhm": lists([widths] * BANDS)}  # fmt: skip
        cube = open_cube(write(tmp_path / "x.raw", smooth(), fields=fields))
        np.testing.assert_allclose(cube.fwhm_nm, 55.0)
        assert "taken as" in cube.remarks[0]


def test_headers_of_a_headwall_camera(tmp_path: Path) -> None:
    """Leading commas and comments; then a size for the header, and its interleave fixed."""
    text = (ODD / "darkReference4.hdr").read_text().replace("samples = 1600", "samples = 2")
    truth = smooth("uint16", (1, 2, 978))
    truth.transpose(STORED["bil"]).astype("<u2").tofile(tmp_path / "x.raw")
    (tmp_path / "x.hdr").write_text(text)
    with pytest.raises(
        ValueError,
        match=r"interleave 'bup', where bil, bip and bsq are known, the nearest of which is bip",
    ):
        open_cube(tmp_path / "x.raw")
    (tmp_path / "x.hdr").write_text(text.replace("bup", "bil"))
    cube = open_cube(tmp_path / "x.raw")
    np.testing.assert_array_equal(cube.read_lines(slice(None)), truth)
    assert cube.wavelength_nm[[0, 1, -1]].tolist() == [379.027, 379.663, 1000.95]
    text = (ODD / "darkReference2.hdr").read_text().replace("samples = 1600", "samples = 2")
    (tmp_path / "x.hdr").write_text(text)
    with pytest.raises(ValueError, match=r"lists 35 wavelengths for 978 bands: .*wavelengths=FILE"):
        open_cube(tmp_path / "x.raw")
    (tmp_path / "x.hdr").write_text(text.replace("bands = 978", "bands = 35"))
    (tmp_path / "x.raw").write_bytes(b"\0\1" * 70)
    cube = open_cube(tmp_path / "x.raw")
    assert set(cube.wavelength_nm) == {513.342}  # kept: the caller refuses or merges


REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "size": ({"lines": 6}, r"x.raw has 240 bytes where its header x.hdr makes them 288 \(6 lines x 4 samples x 6 bands of uint16\): it holds 5 whole lines"),
    "size with offset": ({"header offset": 3}, r"240 bytes where .* 243 \(.* after 3 bytes\): copy it again"),
    "complex": ({"data type": 6}, r"complex numbers \(data type 6\)"),
    "unknown type": ({"data type": 7}, r"data type '7', where 1 \(uint8\), 2"),
    "interleave": ({"interleave": "bils"}, "nearest of which is bil:"),
    "byte order": ({"byte order": "little"}, "byte order 'little' where 0"),
    "no wavelengths": ({"wavelength": "{}"}, "says no wavelengths: add the field `wavelength`"),
    "nan wavelength": ({"wavelength": "{450, nan, 550, 500, 650, 600}"}, "band 2 of .* is nan"),
    "text wavelength": ({"wavelength": "{450, red, 550, 500, 650, 600}"}, "hold 'red' where a number"),
    "index": ({"wavelength units": "Index"}, "says no wavelengths: add the field `wavelength`"),
    "a name without": ({"wavelength units": "Index", "band names": "{450 nm, 400.5 nm, 550 nm, 500 nm, 650 nm, 600}"}, "says no wavelengths"),
    "other units": ({"wavelength units": "1/um"}, "are in '1/um', where nm, um, another length"),
    "wrong units": ({"wavelength units": "um"}, r"from 400.5 to 650 in um, which no camera"),
    "no magnitude": ({"wavelength units": "", "wavelength": "{40, 50, 60, 70, 80, 90}"}, "neither nm nor um"),
    "library": ({"file type": "ENVI Spectral Library"}, "is an ENVI Spectral Library and no image"),
    "compressed": ({"file compression": 1}, "are compressed"),
    "frame offsets": ({"major frame offsets": "{0, 4}"}, "major frame offsets other than 0"),
    "lines": ({"lines": "many"}, "lines = 'many', where a whole number from 1 on"),
    "negative": ({"samples": "-4"}, "samples = '-4', where"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(tmp_path: Path, case: str) -> None:
    fields, sentence = REFUSED[case]
    path = write(tmp_path / "x.raw", smooth(), fields=fields)
    with pytest.raises(ValueError, match=sentence) as told:
        open_cube(path)
    assert str(told.value).endswith(".") and "\n" not in str(told.value)


def test_damaged_headers_and_missing_files(tmp_path: Path) -> None:
    path = write(tmp_path / "x.raw", smooth())
    header = path.with_suffix(".hdr")
    text = header.read_text()

    def refuse(content: bytes, sentence: str) -> None:
        header.write_bytes(content)
        with pytest.raises(ValueError, match=sentence):
            open_cube(path)

    refuse(b"", "x.hdr is empty")
    refuse(b"BYTEORDER I\nNROWS 5\n", "is not an ENVI header")
    refuse(b"\x00\xff\xfe\x81", "is not an ENVI header")
    refuse(text[: text.index("550")].encode(), "cut off within a list")
    refuse(text[: text.index("bands")].encode(), "has no bands and no data type and no interleave")
    header.write_bytes("\ufeff".encode() + text.encode())
    assert open_cube(path).bands == BANDS  # a byte order mark
    header.write_bytes(text.encode() + "description = {25 °C}\r\n".encode("latin-1"))
    assert open_cube(path).bands == BANDS
    header.unlink()
    with pytest.raises(FileNotFoundError, match=r"no ENVI header x.raw.hdr or x.hdr beside"):
        open_cube(path)
    header.write_text(text)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="no numbers beside the header"):
        open_cube(header)
    with pytest.raises(FileNotFoundError, match="There is no file"):
        open_cube(path)
    path.touch()
    with pytest.raises(ValueError, match="x.raw is empty"):
        open_cube(path)
    with pytest.raises(ValueError, match="x.raw is empty"):
        open_cube(header)
    (tmp_path / "x.dat").touch()
    with pytest.raises(ValueError, match=r"x.raw and x.dat may both belong"):
        open_cube(header)


def test_images_of_folders_patterns_and_names(tmp_path: Path) -> None:
    for name in (
        "b.raw",
        "a.img",
        "white_poplar.raw",
        "whiteReference.raw",
        "DARKREF_1.raw",
        "dark.bil",
        "panel.dat",
    ):
        write(tmp_path / name, smooth())
    write(tmp_path / "c", smooth())
    (tmp_path / "notes.txt").write_text("450\n")
    (tmp_path / "traits.csv").write_text("cube\n")
    (tmp_path / "inner").mkdir()
    names = ["a.img", "b.raw", "c", "white_poplar.raw"]
    for sources in ([tmp_path], [tmp_path / "*"], [tmp_path / "*", tmp_path, tmp_path / "a.hdr"]):
        found = expand_cubes(sources, references=[tmp_path / "panel.hdr"])
        assert sorted(file.name for file in found) == names
    assert expand_cubes([tmp_path / "dark.hdr"]) == [tmp_path / "dark.bil"]  # named: taken
    with pytest.raises(FileNotFoundError, match="no hyperspectral image at"):
        expand_cubes([tmp_path / "inner"])
    with pytest.raises(FileNotFoundError, match="no hyperspectral image at"):
        expand_cubes([tmp_path / "*.tif"])
    with pytest.raises(FileNotFoundError, match="No images are given"):
        expand_cubes([])
    with pytest.raises(ValueError, match="is a folder"):
        open_cube(tmp_path)
