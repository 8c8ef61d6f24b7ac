"""GeoTIFF, MATLAB and NumPy images against NumPy, and what is refused of each."""

import sys
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy import io

from sciml_dchag.plants.read.cube_files import expand_cubes, open_cube

NM = np.array([450.0, 400.5, 550.0, 500.0, 650.0, 600.0])
TRUTH = np.arange(5 * 4 * 6, dtype=np.uint16).reshape(5, 4, 6) * 500


def write_tiff(
    path: Path,
    cube: Any = TRUTH,
    *,
    tags: dict[str, str] | None = None,
    bands: list[dict[str, str]] | None = None,
    namespace: str | None = None,
    names: list[str] | None = None,
    **profile: Any,
) -> Path:
    rasterio = pytest.importorskip("rasterio", reason="the extra `geotiff` is not installed")
    lines, samples, count = cube.shape
    warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
    with rasterio.open(
        path, "w", driver="GTiff", height=lines, width=samples, count=count, dtype=cube.dtype, **profile
    ) as image:  # fmt: skip
        image.write(np.moveaxis(cube, -1, 0))
        image.update_tags(**(tags or {}))
        for band, of_band in enumerate(bands or [], start=1):
            image.update_tags(band, ns=namespace, **of_band)
        for band, name in enumerate(names or [], start=1):
            image.set_band_description(band, name)
    return path


def write_matlab_73(path: Path, **arrays: Any) -> Path:
    """As MATLAB does: HDF5 behind 512 bytes of its own, sides reversed, classes in attributes."""
    classes = {"float64": b"double", "float32": b"single"}
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            array = np.atleast_2d(array)
            dataset = file.create_dataset(name, data=array.T)
            dataset.attrs["MATLAB_class"] = np.bytes_(
                classes.get(array.dtype.name, array.dtype.name.encode())
            )
        file.create_dataset("label", data=np.zeros(6, np.uint16)).attrs["MATLAB_class"] = np.bytes_(
            b"char"
        )
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file".ljust(128))
    return path


def write_matlab_5(path: Path, **arrays: Any) -> Path:
    io.savemat(path, arrays, do_compression=True)
    return path


def write_npz(path: Path, **arrays: Any) -> Path:
    np.savez(path.with_suffix(".npz"), **arrays)
    return path.with_suffix(".npz")


def write_compressed_npz(path: Path, **arrays: Any) -> Path:
    np.savez_compressed(path.with_suffix(".npz"), **arrays)
    return path.with_suffix(".npz")


ARCHIVES = [write_matlab_5, write_matlab_73, write_npz, write_compressed_npz]


def compare(path: Path, truth: Any = TRUTH, given: Any = None) -> Any:
    cube = open_cube(path, given)
    assert (cube.path, cube.lines, cube.samples, cube.bands) == (path, *truth.shape)
    assert cube.dtype == truth.dtype
    np.testing.assert_allclose(cube.wavelength_nm, NM, rtol=1e-12)
    for lines in (slice(None), slice(1, 3), slice(4, 5)):
        read = cube.read_lines(lines)
        assert read.dtype == truth.dtype
        np.testing.assert_array_equal(read, truth[lines])
    return cube


@pytest.mark.parametrize(
    "written",
    [
        {"names": [f"{nm} nm" for nm in NM]},
        {"names": [f"Band {i} ({nm / 1000} um)" for i, nm in enumerate(NM)]},
        {"bands": [{"wavelength": str(nm), "wavelength_units": "nm"} for nm in NM]},
        {"bands": [{"CENTRAL_WAVELENGTH_UM": str(nm / 1000)} for nm in NM], "namespace": "IMAGERY"},
        {
            "tags": {
                "wavelength": "{" + ", ".join(map(str, NM)) + "}",
                "wavelength_units": "Nanometers",
            }
        },
    ],
)
@pytest.mark.parametrize("interleave", ["band", "pixel"])
def test_geotiff(tmp_path: Path, written: dict[str, Any], interleave: str) -> None:
    path = write_tiff(tmp_path / "x.tif", interleave=interleave, nodata=65535, **written)
    cube = compare(path)
    assert (cube.missing, cube.saturation, cube.scale) == (65535.0, 65535.0, 1.0)
    assert not cube.remarks and expand_cubes([tmp_path]) == [path]


def masked_tiff(path: Path, how: str, dtype: str) -> tuple[Path, Any]:
    """A GeoTIFF whose first two lines a mask, or a last band of transparency, leaves out."""
    rasterio = pytest.importorskip("rasterio", reason="the extra `geotiff` is not installed")
    there = np.full((5, 4), 255, np.uint8)
    there[:2] = 0
    cube, names = TRUTH.astype(dtype), [f"{nm} nm" for nm in NM]
    if how == "transparency":
        cube, names = np.dstack([cube, there.astype(dtype)]), [*names, "alpha"]
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=how != "beside"):
        write_tiff(path, cube, names=names)
        with rasterio.open(path, "r+") as image:
            if how == "transparency":
                image.colorinterp = [*image.colorinterp[:-1], rasterio.enums.ColorInterp.alpha]
            else:
                image.write_mask(there)
    return path, np.where(there[..., None] > 0, TRUTH, np.nan)


@pytest.mark.parametrize("how", ["within", "beside", "transparency"])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_masks_of_a_geotiff(tmp_path: Path, how: str, dtype: str) -> None:
    path, truth = masked_tiff(tmp_path / "x.tif", how, dtype)
    cube = open_cube(path)
    assert (cube.bands, cube.dtype, cube.saturation) == (
        6,
        np.float32,
        65535 if dtype == "uint16" else None,
    )
    np.testing.assert_array_equal(cube.read_lines(slice(None)), truth.astype(np.float32))
    np.testing.assert_array_equal(cube.read_lines(slice(1, 3)), truth[1:3].astype(np.float32))


def test_a_second_band_that_gdal_calls_transparency(tmp_path: Path) -> None:
    """As it marks the first of more bands than it expects."""
    compare(write_tiff(tmp_path / "x.tif", names=[f"{nm} nm" for nm in NM], alpha="YES"))


def test_pages_of_a_tiff_are_no_bands(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    pytest.importorskip("rasterio", reason="the extra `geotiff` is not installed")
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, np.moveaxis(TRUTH, -1, 0), photometric="minisblack", metadata=None)
    with pytest.raises(ValueError, match=r"x.tif holds 6 images \(pages\), and not one of several"):
        open_cube(path, NM)
    pages = [TRUTH, TRUTH]
    for size, refused in ((5, True), (3, False)):
        with tifffile.TiffWriter(path) as file:
            for page in (pages[0], pages[1][:size]):
                file.write(page, photometric="minisblack", planarconfig="contig", metadata=None)
        if refused:
            with pytest.raises(ValueError, match=r"x.tif holds 2 images \(pages\)"):
                open_cube(path, NM)
        else:
            compare(path, given=NM)


def test_names_of_bands_with_a_decimal_comma(tmp_path: Path) -> None:
    """Of `400,5 nm` the 5 was read."""
    compare(write_tiff(tmp_path / "x.tif", names=[f"{nm:.2f} nm".replace(".", ",") for nm in NM]))
    with pytest.raises(ValueError, match="says no wavelengths"):
        open_cube(write_tiff(tmp_path / "y.tif", names=[f"{i}.5 nm wide" for i in range(6)]))


def test_quantities_that_a_geotiff_says(tmp_path: Path) -> None:
    names = [f"{nm} nm" for nm in NM]
    for written in ({"tags": {"description": "absorbance"}}, {"tags": {"TIFFTAG_IMAGEDESCRIPTION": "SNV"}},
                    {"names": [f"first derivative, {name}" for name in names]}):  # fmt: skip
        path = write_tiff(tmp_path / "x.tif", TRUTH / 65535, **{"names": names, **written})
        with pytest.raises(ValueError, match="which is no reflectance: name the image that it was"):
            open_cube(path)


def test_arrays_called_by_a_quantity_that_is_no_reflectance(tmp_path: Path) -> None:
    for write in ARCHIVES:
        with pytest.raises(ValueError, match="says 'Absorbance' in its description, which is no"):
            open_cube(write(tmp_path / "x.mat", Absorbance=TRUTH, wavelength_nm=NM))


def test_vectors_that_are_no_wavelengths(tmp_path: Path) -> None:
    """Widths and numbers of bands look like wavelengths in um."""
    width = np.linspace(5, 6, 6)
    with pytest.raises(ValueError, match="no vector of as many numbers as one side"):
        open_cube(write_npz(tmp_path / "a", cube=TRUTH, fwhm=width))
    compare(write_npz(tmp_path / "b", cube=TRUTH, fwhm=width, centres=NM))
    with pytest.raises(ValueError, match="1 to 6 in steps of 1, are numbers of bands: give"):
        open_cube(write_npz(tmp_path / "c", cube=TRUTH, bands=np.arange(1, 7)))


@pytest.mark.parametrize("of", ["file", "bands", "imagery"])
def test_widths_and_bad_bands_of_geotiff(tmp_path: Path, of: str) -> None:
    names, good = [f"{nm} nm" for nm in NM], ["1", "0", "1", "1", "0.0", "true"]
    widths = [2.5, 3.0, 3.5, 4.0, 4.5, 5.0]
    listed = {"fwhm": "{" + ", ".join(map(str, widths)) + "}", "BBL": " ".join(good)}
    each = [{"fwhm": str(w), "bbl": g} for w, g in zip(widths, good, strict=True)]
    micrometres = [{"FWHM_UM": str(w / 1000)} for w in widths]
    tags: dict[str, Any] = {
        "file": {"tags": listed}, "bands": {"bands": each},
        "imagery": {"bands": micrometres, "namespace": "IMAGERY", "tags": {"bbl": listed["BBL"]}},
    }  # fmt: skip
    cube = open_cube(write_tiff(tmp_path / "x.tif", names=names, **tags[of]))
    assert cube.fwhm_nm.tolist() == pytest.approx(widths) and not cube.remarks
    assert cube.good_bands.tolist() == [True, False, True, True, False, True]
    with pytest.raises(ValueError, match=r"\(bbl\) of .* not one 0 or 1 for each of its 6 bands"):
        open_cube(write_tiff(tmp_path / "y.tif", names=names, tags={"bbl": "1,1,0"}))
    odd = open_cube(write_tiff(tmp_path / "z.tif", names=names, tags={"fwhm": "5"}))
    assert odd.fwhm_nm is None and "fwhm of z.tif is not one number a band" in odd.remarks[0]


def test_geotiff_that_says_little(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "x.tiff", TRUTH.astype(np.float32))
    with pytest.raises(ValueError, match="says no wavelengths: give its bands descriptions"):
        open_cube(path)
    compare(path, TRUTH.astype(np.float32), given=NM)
    with pytest.raises(ValueError, match="5 wavelengths for the 6 bands"):
        open_cube(path, NM[:5])
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match="cannot be read as GeoTIFF"):
        open_cube(path)


def test_geotiff_without_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.tif").write_bytes(b"II*\0")
    monkeypatch.setitem(sys.modules, "rasterio", None)  # as where it is not installed
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'sciml-dchag\[geotiff\]'"):
        open_cube(tmp_path / "x.tif")


@pytest.mark.parametrize("write", ARCHIVES)
@pytest.mark.parametrize("dtype", ["uint16", "float32", "float64"])
def test_arrays_of_a_file(tmp_path: Path, write: Any, dtype: str) -> None:
    truth = TRUTH.astype(dtype)
    path = write(tmp_path / "x.mat", image=truth, centres=NM, exposure=np.array([3.0]))
    (remark,) = compare(path, truth).remarks
    assert "taken as nm" in remark
    path = write(
        tmp_path / "y.mat", cube=truth, other=truth + 1, wavelength_um=NM / 1000, weights=NM
    )
    assert not compare(path, truth).remarks


@pytest.mark.parametrize("write", ARCHIVES)
@pytest.mark.parametrize("axis", [0, 1])
def test_bands_on_another_side(tmp_path: Path, write: Any, axis: int) -> None:
    path = write(tmp_path / "x.mat", data=np.moveaxis(TRUTH, -1, axis), wavelength_nm=NM)
    compare(path)


@pytest.mark.parametrize("write", ARCHIVES)
def test_what_is_not_clear(tmp_path: Path, write: Any) -> None:
    def refuse(sentence: str, given: Any = None, **arrays: Any) -> None:
        path = write(tmp_path / "x.mat", **arrays)
        with pytest.raises(ValueError, match=sentence):
            open_cube(path, given)

    refuse("holds 0 arrays with three sides", wavelength=NM)
    refuse(r"holds 2 arrays with three sides \((a, b|b, a)\)", a=TRUTH, b=TRUTH, wavelength=NM)
    refuse("holds no vector of as many numbers as one side", cube=TRUTH, wavelength=NM[:3])
    refuse(r"holds 2 vectors .* \((a, b|b, a)\): call one", cube=TRUTH, a=NM, b=NM)
    refuse("wavelength of band 2 .* is nan", cube=TRUTH, wavelength=np.where(NM < 420, np.nan, NM))
    refuse("no side of which is as long", NM[:3], cube=TRUTH)
    refuse("Two sides of the image 6 x 6 x 4", cube=np.zeros((6, 6, 4)), wavelength=NM)
    square = np.arange(6 * 4 * 6.0).reshape(6, 4, 6)
    cube = open_cube(write(tmp_path / "x.mat", cube=square, wavelength_nm=NM))
    np.testing.assert_array_equal(cube.read_lines(slice(None)), square)
    assert "the last is taken" in cube.remarks[0]


@pytest.mark.parametrize("write", ARCHIVES)
@pytest.mark.parametrize("kept", [0, 3, 200])
def test_damaged_files(tmp_path: Path, write: Any, kept: int) -> None:
    path = write(tmp_path / "x.mat", cube=TRUTH, wavelength_nm=NM)
    path.write_bytes(path.read_bytes()[:kept])
    sentence = "is empty" if kept == 0 else "cannot be read as|is cut off"
    with pytest.raises(ValueError, match=sentence):
        open_cube(path).read_lines(slice(None))


@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_and_what_lies_beside(tmp_path: Path, order: Any) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.array(TRUTH.astype(">u2"), order=order))
    with pytest.raises(ValueError, match=r"put them into x.wavelengths.txt beside it"):
        open_cube(path)
    compare(path, given=NM)
    (tmp_path / "x.wavelengths.csv").write_text("wavelength_nm\n" + "\n".join(map(str, NM)))
    assert not compare(path).remarks
    assert expand_cubes([tmp_path / "*"]) == [path]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="cannot be read as NumPy"):
        open_cube(path)
    np.save(path, TRUTH[0])
    with pytest.raises(ValueError, match=r"shape \(4, 6\) where \(lines, samples, bands\)"):
        open_cube(path)
    np.save(path, TRUTH.astype(complex))
    with pytest.raises(ValueError, match="numbers of type complex128"):
        open_cube(path)
    np.save(path, np.array([None, 1], object), allow_pickle=True)
    with pytest.raises(ValueError, match="cannot be read as NumPy"):
        open_cube(path)


def test_radiance_is_known_by_names_units_and_descriptions(tmp_path: Path) -> None:
    io.savemat(tmp_path / "a.mat", {"radiance": TRUTH, "wavelength_nm": NM})
    write_matlab_73(tmp_path / "b.mat", Radiance_cube=TRUTH, wavelength_nm=NM)
    np.savez(tmp_path / "c.npz", at_sensor_radiance=TRUTH, wavelength_nm=NM)
    of_bands = [{"wavelength": f"{nm}", "wavelength_units": "nm"} for nm in NM]
    write_tiff(tmp_path / "d.tif", bands=of_bands, tags={"Data_Units": "Radiance, W m-2"})
    for path in sorted(tmp_path.glob("?.*")):
        assert open_cube(path).radiance, path
    io.savemat(tmp_path / "a.mat", {"reflectance_from_radiance": TRUTH, "wavelength_nm": NM})
    write_tiff(tmp_path / "d.tif", bands=of_bands, tags={"Data_Units": "reflectance"})
    assert not any(open_cube(tmp_path / name).radiance for name in ("a.mat", "d.tif"))
