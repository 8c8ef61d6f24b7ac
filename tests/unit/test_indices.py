"""Spectral indices: hand-computed values, known inflections, what bands reach, and the files."""

import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from PIL import Image
from plant_stores import ATTRIBUTION, WAVELENGTH_NM, leaf, scene, write_store

from sciml_dchag.plants.store.cubes import CubeStore
from sciml_dchag.plants.traits import plant_means
from sciml_dchag.plants.traits.index_maps import write_indices
from sciml_dchag.plants.traits.indices import INDICES, compute_index, find_bands, reached_indices
from sciml_dchag.plants.traits.plant_means import map_indices, plant_indices, plant_spectra

FINE_NM = np.arange(400.0, 1001.0)
"""1 nm, to beyond the water band."""
PLANTS = pd.DataFrame(
    {"red_edge_nm": [705, 715, 725.0], "green": [0.1, 0.05, 0.15], "plateau": [0.5, 0.45, 0.4]}
)


def staircase(**reflectance: float) -> np.ndarray:
    """A spectrum that has the given values at some wavelengths (`r800=0.5`) and 0.2 elsewhere."""
    spectrum = np.full(len(FINE_NM), 0.2)
    for name, value in reflectance.items():
        spectrum[int(name[1:]) - 400] = value
    return spectrum


@pytest.mark.parametrize(
    ("name", "spectrum", "by_hand"),
    [
        ("NDVI", staircase(r800=0.5, r670=0.1), 0.4 / 0.6),
        ("PRI", staircase(r531=0.08, r570=0.1), -0.02 / 0.18),
        ("NDRE", staircase(r790=0.45, r720=0.15), 0.5),
        ("CCI", staircase(r531=0.09, r645=0.06), 0.2),
        ("ARI1", staircase(r550=0.1, r700=0.125), 2.0),
        ("ARI2", staircase(r550=0.1, r700=0.125, r800=0.5), 1.0),
        ("WI", staircase(r900=0.6, r970=0.5), 1.2),
        ("REIP", staircase(r670=0.05, r700=0.1, r740=0.4, r780=0.45), 700 + 40 * 0.15 / 0.3),
    ],
)
def test_values_are_those_computed_by_hand(name: str, spectrum: np.ndarray, by_hand: float) -> None:
    # 1e-12: the formulas are a few operations in float64.
    assert compute_index(name, spectrum, FINE_NM) == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize("red_edge_nm", [698.4, 706.0, 717.3, 731.77])
@pytest.mark.parametrize("spacing_nm", [1.0, 2.7, 5.0])
def test_red_edge_position_is_the_inflection_of_a_logistic_red_edge(
    red_edge_nm: float, spacing_nm: float
) -> None:
    wavelength_nm = np.arange(400.0, 1000.0, spacing_nm)
    logistic = 0.05 + 0.45 / (1 + np.exp(-(wavelength_nm - red_edge_nm) / 11))
    found = compute_index("REP", logistic, wavelength_nm)
    assert found == pytest.approx(red_edge_nm, abs=0.1)


def test_red_edge_position_holds_under_a_cameras_noise() -> None:
    noise = np.random.default_rng(0).normal(0, 0.005, (len(FINE_NM), 2000))
    found = compute_index("REP", leaf(FINE_NM, 715.0)[:, None] + noise, FINE_NM)
    # Slopes of neighbouring bands would scatter over all of 680-760 nm, with 20 nm and more.
    assert np.isfinite(found).all() and found.std() < 3
    assert found.mean() == pytest.approx(715.0, abs=0.3)


def test_the_shape_is_kept_and_pixels_do_not_mix() -> None:
    edges = np.linspace(700, 730, 12).reshape(3, 4)
    spectra = leaf(FINE_NM, edges)
    spectra[:, 1, 2] = np.nan
    for name in INDICES:
        values = compute_index(name, spectra.astype(np.float32), FINE_NM)
        assert values.shape == (3, 4) and values.dtype == np.float64
        assert np.isnan(values[1, 2]) and np.isnan(values).sum() == 1, name
        alone = compute_index(name, spectra[:, 2, 3].astype(np.float32), FINE_NM)
        assert values[2, 3] == pytest.approx(float(alone), rel=1e-12)


def test_what_has_no_value_is_nan() -> None:
    dark = np.zeros(len(FINE_NM))
    for name in INDICES:
        assert np.isnan(compute_index(name, dark, FINE_NM)), name
    assert np.isnan(compute_index("REP", np.ones(len(FINE_NM)), FINE_NM))
    assert np.isnan(compute_index("REP", leaf(FINE_NM)[::-1], FINE_NM)), "falls throughout"
    assert np.isnan(compute_index("NDVI", staircase(r800=0.1, r670=-0.1), FINE_NM))


def test_bands_are_found_by_wavelength_within_a_tolerance() -> None:
    wavelength_nm = np.array([527.0, 566.0, 669.0, 804.0])
    assert list(find_bands("NDVI", wavelength_nm)) == [3, 2]
    assert list(find_bands("PRI", wavelength_nm)) == [0, 1]
    with pytest.raises(
        ValueError, match="WI needs a band within 5 nm of 900, 970 nm.*leave WI out"
    ):
        find_bands("WI", wavelength_nm)
    with pytest.raises(ValueError, match="gaps of 20 nm: use REIP"):
        find_bands("REP", np.arange(400.0, 901.0, 20.0) + 10)
    with pytest.raises(ValueError, match="gaps of 20 nm: use REIP"):
        find_bands("REP", np.arange(400.0, 901.0, 20.0)[::-1] + 10)
    with pytest.raises(ValueError, match="no index 'ndvi': did you mean NDVI"):
        find_bands("ndvi", wavelength_nm)
    with pytest.raises(ValueError, match="one wavelength a band"):
        compute_index("NDVI", np.ones((3, 2)), wavelength_nm)
    reached, left_out = reached_indices(np.linspace(400, 900, 500))
    assert set(INDICES) == {*reached, "WI"} and list(left_out) == ["WI"]


def test_a_part_of_the_bands_gives_what_all_of_them_give() -> None:
    spectrum = leaf(FINE_NM, 712.0)
    for name in INDICES:
        bands = np.sort(find_bands(name, FINE_NM))
        part = compute_index(name, spectrum[bands], FINE_NM[bands])
        assert part == compute_index(name, spectrum, FINE_NM)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trays of three plants, the second in reverse order and with an unknown corner."""
    image, mask = scene(PLANTS[::-1], seed=1)
    image[:, 5:10, 8:12] = np.nan
    soil = np.full((len(WAVELENGTH_NM), 7, 9), 0.2), np.zeros((7, 9), int)
    return write_store(
        tmp_path_factory.mktemp("plants") / "trays.zarr",
        {"tray1": scene(PLANTS), "tray2": (image, mask), "soil": soil},
        table={"genotype": ["A", "B", ""], "dose": [1.0, 2.0, 0.0], "plant": ["x", "y", "z"]},
    )


def test_maps_and_means_are_those_of_the_whole_image(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plant_means, "BLOCK_BYTES", 4 * 5 * 60 * 3)  # several blocks an image
    opened = CubeStore.open(store)
    image, mask = opened.reflectance("tray2"), opened.plants("tray2")
    names = reached_indices(opened.wavelength_nm)[0]
    maps = map_indices(opened, "tray2", names)
    for name in names:
        whole = compute_index(name, image, opened.wavelength_nm)
        np.testing.assert_allclose(maps[name], whole, rtol=1e-12, equal_nan=True)
    table = plant_indices(opened, ["NDVI"]).set_index(["cube", "plant"])
    values = maps["NDVI"][mask == 1]
    row = table.loc[("tray2", 1)]
    assert row["pixels"] == (mask == 1).sum()
    assert row["NDVI_undefined"] == np.isnan(values).sum() > 0
    assert row["NDVI_mean"] == pytest.approx(np.nanmean(values), rel=1e-12)
    assert row["NDVI_median"] == pytest.approx(np.nanmedian(values), rel=1e-12)
    assert row["NDVI_std"] == pytest.approx(np.nanstd(values), rel=1e-9)
    spectra = plant_spectra(opened, ["tray2"]).set_index("plant")
    assert list(spectra["pixels"]) == [(mask == n).sum() for n in (1, 2, 3)]
    for plant in (1, 2, 3):
        mean = np.nanmean(image[:, mask == plant].astype(np.float64), axis=1)
        found = spectra.loc[plant, list(opened.channels.names)].to_numpy(np.float64)
        np.testing.assert_allclose(found, mean, rtol=1e-12)


def test_blocks_bound_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plant_means, "BLOCK_BYTES", 2**16)
    image = leaf(WAVELENGTH_NM)[:, None, None] * np.linspace(0.9, 1.1, 512)[:, None] * np.ones(64)
    path = write_store(tmp_path / "long.zarr", {"long": (image, np.ones((512, 64), int))})
    store = CubeStore.open(path)
    whole = 4 * image.size
    for work in (lambda: plant_spectra(store), lambda: map_indices(store, "long", ["REP"])):
        work()
        tracemalloc.start()
        work()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < whole / 3, (peak, whole)


def test_the_folder_holds_maps_pictures_and_a_table_with_units(store: Path) -> None:
    written = write_indices(store, names=["NDVI", "REP"])
    folder = store.with_name("trays_indices")
    assert written.folder == folder and written.empty == ("soil",)
    table = pd.read_csv(folder / "indices.csv")
    assert list(table[["cube", "plant"]].itertuples(index=False, name=None)) == [
        (cube, plant) for cube in ("tray1", "tray2") for plant in (1, 2, 3)
    ]
    assert list(table["genotype"]) == ["A"] * 3 + ["B"] * 3 and (table["synthetic"] == 1).all()
    assert list(table["store_plant"]) == ["x"] * 3 + ["y"] * 3  # a column of the user's own
    # The scatter of the pixels' red edges is 1 nm and their noise about as much: 208 pixels.
    np.testing.assert_allclose(table["REP_mean"], [705, 715, 725, 725, 715, 705], atol=0.5)
    assert written.undefined["NDVI"] == table["NDVI_undefined"].sum() > 0
    units = pd.read_csv(folder / "indices_units.csv").set_index("column")
    assert list(units.index) == list(table.columns)
    assert units.loc["REP_mean", "units"] == "nm" and units.loc["NDVI_std", "bands_nm"] == "800 668"
    assert units.loc["NDVI_mean", "formula"] == "(R800 - R670) / (R800 + R670)"

    opened = CubeStore.open(store)
    with xr.open_dataset(folder / "maps" / "tray1.nc", engine="h5netcdf") as maps:
        assert maps["REP"].attrs["units"] == "nm" and maps["NDVI"].dims == ("y", "x")
        assert "R800" in maps["NDVI"].attrs["comment"] and maps.attrs["Conventions"] == "CF-1.11"
        assert "SYNTHETIC" in maps.attrs["title"] and maps.attrs["attribution"] == ATTRIBUTION
        np.testing.assert_array_equal(maps["plant"], opened.plants("tray1"))
        own = compute_index("NDVI", opened.reflectance("tray1"), opened.wavelength_nm)
        np.testing.assert_allclose(maps["NDVI"], own, rtol=1e-6)  # float32
    with Image.open(folder / "pictures" / "tray1.png") as picture:
        assert picture.info["Copyright"] == ATTRIBUTION and picture.width > 600
        assert len(set(picture.convert("RGB").get_flattened_data())) > 100
    assert not (folder / "pictures" / "soil.png").exists()
    assert (folder / "maps" / "soil.nc").exists()


def test_a_folder_is_whole_or_as_it_was(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = write_indices(store, tmp_path / "out", names=["PRI"]).folder
    with pytest.raises(FileExistsError, match="overwrite=True"):
        write_indices(store, out)
    before = (out / "indices.csv").read_text()
    with monkeypatch.context() as patch:
        patch.setattr(
            pd.DataFrame, "to_csv", lambda *_, **__: (_ for _ in ()).throw(OSError("full"))
        )
        with pytest.raises(OSError, match="full"):
            write_indices(store, out, names=["NDVI"], overwrite=True)
    assert (out / "indices.csv").read_text() == before and list(tmp_path.iterdir()) == [out]
    write_indices(store, out, names=["NDVI"], overwrite=True)
    assert "NDVI_mean" in (out / "indices.csv").read_text() and list(tmp_path.iterdir()) == [out]
    (tmp_path / "mine").mkdir()
    with pytest.raises(FileExistsError, match="no indices.csv"):
        write_indices(store, tmp_path / "mine", overwrite=True)


def test_bands_that_reach_no_index_are_refused(tmp_path: Path) -> None:
    wavelength_nm = np.array([410.0, 420.0])
    image = np.full((2, 4, 4), 0.3), np.ones((4, 4), int)
    path = write_store(
        tmp_path / "blue.zarr", {"blue": image}, wavelength_nm, table={"split": ["test"]}
    )
    with pytest.raises(ValueError, match="reach none of NDVI"):
        write_indices(path)
    assert [p.name for p in tmp_path.iterdir()] == ["blue.zarr"]


@pytest.mark.parametrize("name", INDICES)
def test_bands_may_descend(name: str) -> None:
    nm = np.arange(500.0, 981.0, 5.0)
    spectra = np.random.default_rng(0).uniform(0.1, 0.6, (len(nm), 6))
    ascending = compute_index(name, spectra, nm)
    np.testing.assert_allclose(compute_index(name, spectra[::-1], nm[::-1]), ascending, rtol=1e-12)
