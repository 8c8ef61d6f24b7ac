"""Files of wavelengths that belong to an image whose header says none."""

from pathlib import Path

import numpy as np
import pytest
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
