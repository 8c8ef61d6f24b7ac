"""From raw files to a store, all together, on the embedded ERA5 sample and made-up files."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from sciml_dchag.files.provenance import describe_sources
from sciml_dchag.files.samples import sample_path
from sciml_dchag.weather.grid import Grid
from sciml_dchag.weather.prepare.era5 import prepare_era5
from sciml_dchag.weather.regrid.regrid import regrid
from sciml_dchag.weather.store.store import Store

TRAINING = ("2025-12-01", "2025-12-24")


def test_the_embedded_sample_becomes_a_store(msl_store: Path) -> None:
    store = Store.open(msl_store)
    assert store.shape == (124, 1, 32, 64) and store.step_hours == 6
    assert store.latitude[0] == -87.1875 and store.longitude[0] == 0.0
    assert store.grid_sha256 == Grid.named("5.625").content_hash
    assert "Copernicus" in store.attribution and not store.simulated
    with xr.open_dataset(sample_path("era5_msl")) as raw:
        expected = regrid(raw["msl"].load(), "5.625")
    # Sums are in float64 and rounded to float32 once; the order of adding may differ.
    np.testing.assert_allclose(store.read(slice(None))[:, 0], expected.values, rtol=1e-6)


def test_statistics_and_climatology_know_the_training_period_alone(msl_store: Path) -> None:
    store = Store.open(msl_store)
    period = ("2025-12-01T00:00", "2025-12-24T18:00")
    statistics, climatology = store.statistics(), store.climatology()
    assert statistics.period == climatology.period == period == store.period(TRAINING)
    states = store.read(slice(0, 96)).astype(np.float64)
    np.testing.assert_allclose(climatology.mean, states.mean(axis=0), rtol=1e-7)
    assert statistics.count[0] == states.size
    assert statistics.mean[0] == pytest.approx(101100, abs=300)  # Pa; the globe's mean is 1011 hPa
    assert climatology.hours is None  # the record is shorter than a year


def test_provenance_names_files_hashes_and_settings(msl_store: Path) -> None:
    provenance = json.loads(Store.open(msl_store).attrs["provenance"])
    raw = sample_path("era5_msl").read_bytes()
    assert provenance["sources"] == [
        {
            "path": "era5_msl_2025-12_2p5deg_6h.nc",
            "bytes": len(raw),
            "sha256": hashlib.sha256(raw).hexdigest(),
        }
    ]
    assert provenance["regridding"]["regrid_method"] == "bilinear"
    assert len(provenance["regridding"]["regrid_weights_sha256"]) == 64
    assert provenance["settings"]["statistics_period"] == list(TRAINING)
    assert str(Path.home()) not in json.dumps(provenance)  # names, not places


def test_the_native_grid_is_turned_north_and_east(tmp_path: Path) -> None:
    path = prepare_era5(
        ["sample:era5_msl"], tmp_path / "a.zarr", channels="msl", grid="native",
        period=("2025-12-01", "2025-12-01"),
    )  # fmt: skip
    store = Store.open(path)
    assert store.shape == (4, 1, 73, 144) and store.latitude[0] == -90
    with xr.open_dataset(sample_path("era5_msl")) as raw:
        expected = raw["msl"].isel(valid_time=slice(0, 4)).sortby("latitude").values
    np.testing.assert_array_equal(store.read(slice(None))[:, 0], expected)


def test_thinning_and_static_fields(tmp_path: Path) -> None:
    with xr.open_dataset(sample_path("era5_msl")) as raw:
        field = raw["msl"].isel(valid_time=0, drop=True)
        mask = (field > 101325).astype(np.float32).rename("lsm")
        mask.attrs = {"units": "1"}
        mask.to_netcdf(tmp_path / "static.nc")
    path = prepare_era5(
        ["sample:era5_msl"], tmp_path / "a.zarr", channels="msl", step_hours=24,
        static_sources=[str(tmp_path / "static.nc")], static=["lsm"], climatology="mean",
    )  # fmt: skip
    store = Store.open(path)
    assert store.shape[0] == 31 and store.step_hours == 24
    fields = store.static(["lsm"])
    np.testing.assert_allclose(fields[0], regrid(mask.load(), "5.625").values, rtol=1e-6)
    assert 0 < fields.mean() < 1


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"channels": "z50O"}, ValueError, "'z50O' is unknown"),
        ({"channels": "t2m"}, ValueError, "t2m"),
        ({"grid": "5.6"}, ValueError, "5.6"),
        ({"method": "cubic"}, ValueError, "cubic"),
        ({"period": ("1999", "1999")}, ValueError, "1999"),
        ({"statistics_period": ("1999", "1999")}, ValueError, "1999"),
        ({"climatology": "hourly"}, ValueError, "needs a year"),
        ({"climatology_window_days": 60}, ValueError, "odd number"),
        ({"sources": ["sample:era6"]}, ValueError, "no sample 'era6'"),
        ({"sources": ["nowhere.nc"]}, FileNotFoundError, "nowhere.nc"),
    ],
)
def test_bad_requests_are_refused_before_work_starts(
    tmp_path: Path, changes: dict[str, object], error: type[Exception], message: str
) -> None:
    options: dict[str, object] = {"sources": ["sample:era5_msl"], "channels": "msl", **changes}
    with pytest.raises(error, match=message) as caught:
        prepare_era5(out=tmp_path / "a.zarr", **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def broken_sample(path: Path, change: Callable[[xr.Dataset], xr.Dataset]) -> str:
    with xr.open_dataset(sample_path("era5_msl")) as raw:
        part = raw[["msl"]].isel(valid_time=slice(0, 8)).load()
    changed = change(part)
    for variable in changed.variables.values():
        variable.encoding.clear()
    changed.to_netcdf(path)
    return str(path)


def test_missing_values_are_refused_or_kept(tmp_path: Path) -> None:
    def puncture(ds: xr.Dataset) -> xr.Dataset:
        ds["msl"][5, 30:33, 40:43] = np.nan
        return ds

    file = broken_sample(tmp_path / "holes.nc", puncture)
    with pytest.raises(ValueError, match="msl"):
        prepare_era5([file], tmp_path / "a.zarr", channels="msl")
    assert [p.name for p in tmp_path.iterdir()] == ["holes.nc"]
    store = Store.open(
        prepare_era5([file], tmp_path / "a.zarr", channels="msl", allow_missing=True)
    )
    missing = np.isnan(store.read(slice(None))).sum(axis=(1, 2, 3))
    assert missing[5] > 0 and missing.sum() == missing[5]
    assert store.statistics().count[0] == 8 * 32 * 64 - missing[5]


def test_wrong_units_are_refused(tmp_path: Path) -> None:
    def in_hectopascal(ds: xr.Dataset) -> xr.Dataset:
        ds["msl"] = (ds["msl"] / 100).assign_attrs(ds["msl"].attrs)  # the label still says Pa
        return ds

    file = broken_sample(tmp_path / "hpa.nc", in_hectopascal)
    with pytest.raises(ValueError, match="msl"):
        prepare_era5([file], tmp_path / "a.zarr", channels="msl")
    assert [p.name for p in tmp_path.iterdir()] == ["hpa.nc"]


def test_a_second_call_needs_overwrite_and_another_source_counts_as_other(tmp_path: Path) -> None:
    options = {"channels": "msl", "period": ("2025-12-01", "2025-12-02")}
    path = prepare_era5(["sample:era5_msl"], tmp_path / "a.zarr", **options)  # type: ignore[arg-type]
    with pytest.raises(FileExistsError, match="overwrite=True"):
        prepare_era5(["sample:era5_msl"], path, **options)  # type: ignore[arg-type]
    options["period"] = ("2025-12-03", "2025-12-03")
    prepare_era5(["sample:era5_msl"], path, overwrite=True, **options)  # type: ignore[arg-type]
    assert len(Store.open(path).times) == 4


def test_interrupted_statistics_are_finished_by_the_same_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def interrupt(done: int, total: int, what: str) -> None:
        if what == "mean climatology":
            raise KeyboardInterrupt
        seen.append(what)

    with pytest.raises(KeyboardInterrupt):
        prepare_era5(["sample:era5_msl"], tmp_path / "a.zarr", channels="msl", progress=interrupt)
    assert not (tmp_path / "a.zarr").exists()
    assert "statistics" in seen
    again: list[str] = []
    prepare_era5(
        ["sample:era5_msl"], tmp_path / "a.zarr", channels="msl",
        progress=lambda done, total, what: again.append(what),
    )  # fmt: skip
    assert "statistics" not in again and "mean climatology" in again
    assert Store.open(tmp_path / "a.zarr").climatology().mean.shape == (1, 32, 64)
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_a_store_can_be_prepared_again_from_a_store(tmp_path: Path, simulated_store: Path) -> None:
    """A simulated store on its own grid is a source like any other."""
    path = prepare_era5(
        [str(simulated_store)], tmp_path / "a.zarr", channels="z500,t2m", grid="16x32"
    )
    store = Store.open(path)
    assert store.simulated and "imulated" in store.attribution
    assert store.channels.names == ["z500", "t2m"] and store.shape == (12, 2, 16, 32)
    source = json.loads(store.attrs["provenance"])["sources"][0]
    assert source["path"] == simulated_store.name and "sha256_of_listing" in source


def test_directories_are_described_by_their_listing(tmp_path: Path) -> None:
    folder = tmp_path / "a.zarr"
    folder.mkdir()
    (folder / "x").write_bytes(b"123")
    first = describe_sources([str(folder)])[0]
    assert first["bytes"] == 3 and first["path"] == "a.zarr" and "sha256" not in first
    (folder / "y").write_bytes(b"")
    assert describe_sources([str(folder)])[0]["sha256_of_listing"] != first["sha256_of_listing"]


def test_urls_are_described_by_what_their_server_tells() -> None:
    import fsspec

    fsspec.filesystem("memory").pipe("/bucket/a.nc", b"12345")
    described = describe_sources(["memory://bucket/a.nc"])
    assert described == [{"path": "memory://bucket/a.nc", "bytes": 5}]
