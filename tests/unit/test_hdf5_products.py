"""HDF5 of NEON and EMIT against NumPy; what is not read is refused by its name."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy import io

from sciml_dchag.plants.read.cube_files import find_images, open_cube

NM = np.linspace(400, 900, 11)
TRUTH = np.random.default_rng(0).integers(0, 6000, (5, 4, 11)).astype(np.int16)


def neon(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        data = file.create_dataset("OSBS/Reflectance/Reflectance_Data", data=TRUTH)
        data.attrs["Scale_Factor"], data.attrs["Data_Ignore_Value"] = 10000.0, -9999.0
        spectral = file.create_group("OSBS/Reflectance/Metadata/Spectral_Data")
        spectral["Wavelength"], spectral["FWHM"] = NM, np.full(11, 5.5)
        spectral["Wavelength"].attrs["Units"] = "nanometers"
    return path


def emit(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        data = file.create_dataset("reflectance", data=(TRUTH / 10000).astype("f4"))
        data.attrs["_FillValue"] = np.array([-9999.0], "f4")
        bands = file.create_group("sensor_band_parameters")
        bands["wavelengths"], bands["fwhm"] = NM, np.full(11, 7.4)
        bands["good_wavelengths"] = (NM != 700).astype("f4")
    return path


def test_neon(tmp_path: Path) -> None:
    cube = open_cube(neon(tmp_path / "x.h5"))
    assert (cube.scale, cube.missing, cube.lines, cube.samples) == (10000.0, -9999.0, 5, 4)
    np.testing.assert_array_equal(cube.wavelength_nm, NM)
    np.testing.assert_array_equal(cube.read_lines(slice(1, 3)), TRUTH[1:3])
    np.testing.assert_array_equal(cube.fwhm_nm, np.full(11, 5.5))


def test_emit(tmp_path: Path) -> None:
    cube = open_cube(emit(tmp_path / "x.nc"))
    assert (cube.scale, cube.missing) == (1.0, -9999.0)
    np.testing.assert_array_equal(cube.good_bands, NM != 700)
    np.testing.assert_allclose(cube.read_lines(slice(2, 5)), TRUTH[2:] / 10000, rtol=1e-6)
    with h5py.File(tmp_path / "weather.nc", "w") as file:
        file["t2m"] = np.zeros(3)
    assert [path.name for path in find_images([tmp_path]).images] == ["x.nc"]


def test_packed_reflectance_of_emit(tmp_path: Path) -> None:
    path = emit(tmp_path / "x.nc")
    with h5py.File(path, "r+") as file:
        del file["reflectance"]
        data = file.create_dataset("reflectance", data=TRUTH - 1000)
        data.attrs["scale_factor"], data.attrs["add_offset"] = 1e-4, 0.1
    cube = open_cube(path)
    factor, offset = cube.factors()
    found = cube.read_lines(slice(None)) * factor + offset
    np.testing.assert_allclose(found, TRUTH / 10000, atol=1e-12)


def test_what_a_file_does_not_hold_itself(tmp_path: Path) -> None:
    """Links lead to any file that the user may read; of two sites the first was taken."""
    neon(tmp_path / "other.h5")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["link"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/OSBS")
        reflectance = file.create_group("OSBS/Reflectance")
        reflectance["Metadata"] = h5py.ExternalLink("other.h5", "/OSBS/Reflectance/Metadata")
        place = "/OSBS/Reflectance/Reflectance_Data"
        reflectance["Reflectance_Data"] = h5py.ExternalLink("other.h5", place)
    with pytest.raises(ValueError, match="x.h5 keeps its reflectance in another file, to which"):
        open_cube(tmp_path / "x.h5")
    path = neon(tmp_path / "y.h5")
    with h5py.File(path, "r+") as file:
        file["elsewhere"] = h5py.ExternalLink("/etc/hostname", "/x")
    assert open_cube(path).lines == 5
    with h5py.File(path, "r+") as file:
        file.copy("OSBS", "BART")
    with pytest.raises(ValueError, match=r"NEON surface reflectance of 2 sites \(BART, OSBS\)"):
        open_cube(path)
    np.savez(tmp_path / "z.npz", cube=np.zeros((0, 4, 11)), wavelength_nm=NM)
    with pytest.raises(ValueError, match="z.npz holds an image of 0 lines and 4 samples, which is"):
        open_cube(tmp_path / "z.npz")


@pytest.mark.parametrize(
    ("group", "name"),
    [
        ("HDFEOS/SWATHS/PRS_L2D_HCO", "a PRISMA image"),
        ("ENMAP01", "an EnMAP image"),
        ("things", "HDF5 of no known product"),
    ],
)
def test_others_are_refused_by_name(tmp_path: Path, group: str, name: str) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_group(group)
    with pytest.raises(ValueError, match=rf"x.h5 is {name}.*ENVI image or a GeoTIFF"):
        open_cube(tmp_path / "x.h5")
    (tmp_path / "y.h5").write_bytes(b"no HDF5")
    with pytest.raises(ValueError, match="y.h5 cannot be read as HDF5"):
        open_cube(tmp_path / "y.h5")


def test_matlab_structs_are_refused_with_what_to_save(tmp_path: Path) -> None:
    io.savemat(tmp_path / "x.mat", {"hcube": {"DataCube": TRUTH, "Wavelength": NM}})
    with pytest.raises(ValueError, match=r"struct or object 'hcube'.*cube = hcube.DataCube"):
        open_cube(tmp_path / "x.mat")
    with h5py.File(tmp_path / "y.mat", "w", userblock_size=512) as file:
        file.create_group("hcube")["DataCube"] = TRUTH
    with pytest.raises(ValueError, match="struct or object 'hcube'"):
        open_cube(tmp_path / "y.mat")
