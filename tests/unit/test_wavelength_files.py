"""Files of wavelengths that belong to an image whose header says none."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from plant_files import write_envi
from test_envi import NM, smooth, write

from sciml_dchag.plants.read.cube_files import open_cube
from sciml_dchag.plants.read.wavelengths import read_wavelengths


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("450\n400.5\n550\n500\n650\n600\n", 1),
        ("# nm\n450, 400.5, 550, 500, 650, 600", 1),
        ("band,wavelength_nm\n" + "".join(f"{i},{nm}\n" for i, nm in enumerate(NM)), 1),
        ("Wavelength (um)\tband\n" + "".join(f"{nm / 1000}\t{i}\n" for i, nm in enumerate(NM)), 1),
        ("wavelength;fwhm\n" + "".join(f"{nm};2,5\n".replace(".", ",") for nm in NM), 1),
        ("Wavelength (nm)\n450,0\n400,5\n550,0\n500,0\n650,0\n600,0\n", 1),
        ("450,0;400,5;550,0;500,0;650,0;600,0", 1),
        ("nm\n450\n400.5\n550\n500\n650\n600\n", 1),
    ],
)
def test_wavelengths_of_a_file(tmp_path: Path, text: str, unit: float) -> None:
    (tmp_path / "nm.txt").write_text(text)
    nm, _ = read_wavelengths(tmp_path / "nm.txt")
    np.testing.assert_allclose(nm, NM, rtol=1e-12)
    (tmp_path / "nm.txt").write_text(text, encoding="utf-16")
    np.testing.assert_array_equal(read_wavelengths(tmp_path / "nm.txt")[0], nm)
    path = write(tmp_path / "x.raw", smooth(), leave_out=("wavelength",))
    with pytest.raises(ValueError, match="says no wavelengths"):
        open_cube(path)
    np.testing.assert_allclose(open_cube(path, tmp_path / "nm.txt").wavelength_nm, NM)
    np.testing.assert_array_equal(open_cube(path, NM).wavelength_nm, NM)
    with pytest.raises(ValueError, match="5 wavelengths are given for the 6 bands"):
        open_cube(path, NM[:5])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "holds no wavelengths"),
        ("1 450\n2 500\n", "has 2 columns without names"),
        ("450,5\n500,5\n", "has 2 columns without names"),
        ("wavelength,fwhm\n450,5,2\n500,5,2\n", "with a number in each row"),
        ("a,b\n1,2\n", "has the columns a, b"),
        ("450\nred\n", "hold 'red'"),
    ],
)
def test_files_of_wavelengths_that_are_refused(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "nm.txt").write_text(text)
    with pytest.raises(ValueError, match=sentence):
        read_wavelengths(tmp_path / "nm.txt")
    with pytest.raises(FileNotFoundError):
        read_wavelengths(tmp_path / "other.txt")


CM = 1e7 / NM
OTHERS = {
    "Angstroms": NM * 10, "Å": NM * 10, "Millimeters": NM * 1e-6, "Micrometers (um)": NM * 1e-3,
    "Wavenumber": CM, "cm^-1": CM, "Wavenumber (1/cm)": CM, "GHz": 299792458 / NM,
    "MHz": 299792458e3 / NM,
}  # fmt: skip


@pytest.mark.parametrize(("units", "values"), OTHERS.items(), ids=OTHERS)
def test_other_units_that_convert_exactly(
    tmp_path: Path, units: str, values: NDArray[np.float64]
) -> None:
    """Widths too, which of a wavenumber are those of 1 / x."""
    listed = ", ".join(f"{value:.9g}" for value in values)
    widths = ", ".join(f"{6 * value / nm:.9g}" for value, nm in zip(values, NM, strict=True))
    header = {"wavelength units": units, "wavelength": f"{{{listed}}}", "fwhm": f"{{{widths}}}"}
    nm = NM.copy()
    cube = open_cube(write_envi(tmp_path / "x", np.ones((2, 3, 6), np.float32), nm, **header))
    np.testing.assert_allclose(cube.wavelength_nm, NM, rtol=1e-6)
    assert cube.fwhm_nm is not None
    np.testing.assert_allclose(cube.fwhm_nm, 6, rtol=1e-6)
    said = [
        remark for remark in cube.remarks if "they are the wavelengths 400.5 to 650 nm" in remark
    ]
    assert len(said) == (units in ("Wavenumber", "cm^-1", "Wavenumber (1/cm)", "GHz", "MHz"))


@pytest.mark.parametrize("units", ["Index", "um-1", "Wavenumber (um-1)", "nm (in water)", "pixel"])
def test_other_units_are_refused(tmp_path: Path, units: str) -> None:
    header = write_envi(
        tmp_path / "x", np.ones((2, 3, 6), np.float32), NM, **{"wavelength units": units}
    )
    with pytest.raises(ValueError, match="give them with `wavelengths=FILE`"):
        open_cube(header)


def test_wavenumbers_of_tables_and_arrays(tmp_path: Path) -> None:
    for name in ("wavenumber", "Wavenumber (cm-1)", "wavenumber_cm-1"):
        (tmp_path / "nm.csv").write_text(f"band,{name}\n" + "".join(f"1,{v:.9g}\n" for v in CM))
        np.testing.assert_allclose(read_wavelengths(tmp_path / "nm.csv")[0], NM, rtol=1e-6)
    (tmp_path / "nm.csv").write_text("wavelength_angstrom\n" + "".join(f"{v * 10}\n" for v in NM))
    np.testing.assert_allclose(read_wavelengths(tmp_path / "nm.csv")[0], NM)
    (tmp_path / "nm.csv").write_text("wavenumber (1/mm)\n" + "".join(f"{v}\n" for v in CM))
    with pytest.raises(ValueError, match=r"are in 'wavenumber \(1/mm\)', where nm, um"):
        read_wavelengths(tmp_path / "nm.csv")
    np.savez(tmp_path / "x.npz", cube=np.ones((2, 3, 6)), wavenumber=CM)
    np.testing.assert_allclose(open_cube(tmp_path / "x.npz").wavelength_nm, NM, rtol=1e-6)
