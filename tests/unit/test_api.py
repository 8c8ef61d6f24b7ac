"""The public API as notebooks use it: real stores, and models that were trained for a few steps."""

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import sciml_dchag as sd
from sciml_dchag.config import save_recipe
from sciml_dchag.weather.area import latitude_weights

pytestmark = pytest.mark.filterwarnings("ignore:The header .* leaves fields out")

TINY = {"embed_dim": 16, "depth": 1, "heads": 2, "patch": 8, "partitions": 2}
FEW_STEPS = {"steps": 2, "batch": 2, "warmup_steps": 1, "log_every": 1}
TRAIN = ("2025-12-01T00", "2025-12-24T18")
START = "2025-12-25T12:00"


@pytest.fixture(scope="module")
def msl_run(msl_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A forecaster of sea level pressure, which needs 12 h of history."""
    recipe = sd.load_recipe("sample:msl_forecast").replace(
        name="msl", data=dict(store=msl_store), model=TINY, training=FEW_STEPS
    )
    return sd.train(recipe, tmp_path_factory.mktemp("api") / "msl")


@pytest.fixture(scope="module")
def all_run(simulated_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A forecaster of 80 channels, z on 13 levels and t, u, v, q on 16, without history."""
    empty = dict(train=(None, None), test=None, history_hours=[], forcings=[], rotate=False)
    recipe = sd.load_recipe("sample:msl_forecast").replace(
        name="all", data=dict(store=simulated_store, **empty), model=TINY, training=FEW_STEPS,
        task=dict(rollout_steps=1),
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("api")
    save_recipe(recipe, folder / "all.yaml")
    return sd.train(str(folder / "all.yaml"), str(folder / "all"))


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The embedded maize kernel as a store."""
    return sd.plants.prepare(
        "sample:maize_kernel",
        str(tmp_path_factory.mktemp("api") / "kernel.zarr"),
        white="sample:maize_white",
        dark="sample:maize_dark",
        index="brightness",
        bands="400-900x60",
        split="spatial:0.62,guard=4",
    )


@pytest.fixture(scope="module")
def kernel_run(kernel: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    recipe = sd.load_recipe("sample:demo_plants").replace(
        data=dict(store=kernel),
        model=dict(TINY, patch=1, decoder_dim=16, decoder_depth=1),
        training=FEW_STEPS,
        evaluation=dict(components=4),
    )
    return sd.train(recipe, tmp_path_factory.mktemp("api") / "kernel")


def raw_state(times: slice = slice(96, 99)) -> xr.Dataset:
    """What the Climate Data Store delivers, on the training grid: by default START and 12 h before."""
    return sd.regrid(xr.open_dataset(sd.sample("era5_msl")).isel(valid_time=times), "5.625")


def test_importing_the_package_is_quick_and_loads_no_torch() -> None:
    code = (
        "import sys, sciml_dchag as sd; dir(sd); sd.weather; sd.plants; sd.load_recipe;"
        "print(sorted({'torch', 'xarray', 'zarr'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    for home in (sd, sd.weather, sd.plants):
        for name in home.__all__:
            assert getattr(home, name) is not None
        assert set(home.__all__) == set(dir(home))
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            home.nothing  # noqa: B018


def test_a_recipe_is_changed_as_it_is_read() -> None:
    recipe = sd.load_recipe("sample:msl_forecast")
    changed = recipe.replace(
        name="short", training=dict(steps=300), data=dict(store=Path("a/b.zarr"))
    )
    assert (changed.name, changed.training.steps, changed.data.store) == ("short", 300, "a/b.zarr")
    assert changed.training.batch == recipe.training.batch and recipe.training.steps == 400
    assert changed.replace(name=recipe.name, training=recipe.training, data=recipe.data) == recipe
    with pytest.raises(ValueError, match=r"'training.step': did you mean 'training.steps'"):
        recipe.replace(training=dict(step=300))
    with pytest.raises(ValueError, match="must be a whole number"):
        recipe.replace(training=dict(steps="many"))
    with pytest.raises(ValueError, match="which steps of 6 h"):
        recipe.replace(evaluation=dict(lead_hours=[9]))


def test_what_is_opened_says_what_it_holds(
    msl_store: Path, msl_run: Any, kernel: Any, kernel_run: Any, tmp_path: Path
) -> None:
    exported = msl_run.export(str(tmp_path / "msl.safetensors"))
    for path, words in {
        str(msl_store): ["WeatherStore", "124 times", "msl", "2025-12-01T00:00"],
        str(msl_run.run): ["ForecastModel", "forecaster", "step 2", "-12 h"],
        msl_run.saved.path: ["ForecastModel", "step-0000002"],
        exported: ["ForecastModel", "msl.safetensors"],
        kernel: ["PlantStore", "60, 400 to 900 nm", "(train)", "PlantCV"],
        kernel_run: ["MaskedModel", "masked autoencoder", "60, r400.0 to r900.0"],
    }.items():
        opened = sd.open(path)
        for text in (repr(opened), opened._repr_html_()):
            assert all(word in text for word in words), (text, words)
    assert "<b>" not in sd.open(strange(kernel, tmp_path))._repr_html_()
    with pytest.raises(FileNotFoundError, match="There is nothing at nowhere"):
        sd.open("nowhere")
    with pytest.raises(ValueError, match=r"is no store, run, checkpoint"):
        sd.open(tmp_path)


def strange(kernel: Any, folder: Path) -> Path:
    """A store in a place whose name looks like markup."""
    place = folder / "<b>.zarr"
    place.symlink_to(kernel.path)
    return place


def test_a_users_own_state_gives_the_stores_forecast(msl_run: Any, msl_store: Path) -> None:
    own = msl_run.forecast(raw_state(), leads=[6, 24])
    stored = sd.predict(msl_run.run, str(msl_store), [6, 24], period=(START, START))
    field = own["mean_sea_level_pressure"]
    assert field.dims == ("time", "prediction_timedelta", "latitude", "longitude")
    assert field.attrs["units"] == "Pa" and 9e4 < float(field.mean()) < 1.1e5
    assert own["time"].values[0] == np.datetime64(START)
    np.testing.assert_allclose(field, stored["mean_sea_level_pressure"], rtol=1e-6)
    # North first, west longitudes, hPa, and a time more than is needed.
    turned = raw_state(slice(95, 99)).sortby("latitude", ascending=False)
    turned = turned.assign_coords(longitude=(turned.longitude + 180) % 360 - 180)
    turned = turned.sortby("longitude").rename(msl="mean_sea_level_pressure")
    pascal = turned["mean_sea_level_pressure"]
    turned["mean_sea_level_pressure"] = (pascal / 100).assign_attrs(units="hPa")
    again = msl_run.forecast(turned, [6, 24])
    assert again.sizes["time"] == 2
    np.testing.assert_allclose(again["mean_sea_level_pressure"][1:], field, rtol=1e-6)
    assert "Copernicus" in again.attrs["attribution"]  # the file's history names the data store
    turned.attrs = {"title": "An analysis", "institution": "A centre"}
    assert msl_run.forecast(turned, [6]).attrs["attribution"] == "An analysis, A centre"
    turned.attrs = {}
    assert msl_run.forecast(turned, [6]).attrs["attribution"] == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.isel(valid_time=slice(1, 3)), "needs the states 12 h and 6 h before"),
        (lambda d: d.rename(msl="pressure"), "lack the variable 'msl'"),
        (lambda d: d.isel(latitude=slice(1, None)), "grid of 31 x 64 .* trained on another one"),
        (lambda d: d.drop_vars("valid_time"), "has no time coordinate"),
        (
            lambda d: d.where(d.longitude != 45, -999.0),
            "the dataset has msl outside .* in 32 of .*longitude 45",
        ),
        (lambda d: d / 100, "mean of 10.* where 90000 to 108000 Pa is believable"),
        (lambda d: d.assign(msl=d.msl.assign_attrs(units="bar")), "has msl in 'bar' where 'Pa'"),
        (lambda d: d * np.nan, "msl of the dataset has no value at 2025-12-25T12:00"),
        (lambda d: d.assign_coords(longitude=d.longitude + 2.8125), "trained on another one"),
        (lambda d: d.msl, "states are a DataArray, where a Dataset or the path of one is needed"),
    ],
)
def test_a_state_that_lacks_something_is_refused_in_a_sentence(
    msl_run: Any, change: Callable[[xr.Dataset], xr.Dataset], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        msl_run.forecast(change(raw_state()), [6])


def test_a_state_that_misses_some_values_is_warned_of(msl_run: Any) -> None:
    """By its recipe the model has seen none that does, and its forecast is off by kilopascals."""
    state = raw_state()
    with pytest.warns(UserWarning, match="msl of the dataset has no value in 320 of 2048 cells at"):
        msl_run.forecast(state.where(state.latitude > -60), [6])


def test_states_and_lead_times_in_other_forms(msl_run: Any) -> None:
    """Columns that run west, and time differences, as a forecast's own coordinate has them."""
    state = raw_state()
    expected = msl_run.forecast(state, [6, 12])
    west = state.isel(longitude=slice(None, None, -1))
    given = expected["prediction_timedelta"].values, [timedelta(hours=6), 12.0]
    for data, leads in ((west, [6, 12]), (state, given[0]), (state, given[1])):
        xr.testing.assert_allclose(msl_run.forecast(data, leads), expected, rtol=1e-6)
    for wrong in (6.5, "6 h", None, float("nan")):
        with pytest.raises(ValueError, match="is no whole number of hours: give numbers such as 6"):
            msl_run.forecast(state, [wrong])


def test_what_cannot_be_asked_of_a_model_is_refused(
    msl_run: Any, kernel_run: Any, kernel: Any
) -> None:
    with pytest.raises(ValueError, match="no multiple of the step of 6 h"):
        msl_run.forecast(raw_state(), [7])
    with pytest.raises(ValueError, match="which does not forecast"):
        sd.predict(kernel_run, kernel)
    with pytest.raises(ValueError, match="holds no model"):
        sd.from_pretrained(kernel.path)


def test_forecasts_have_the_levels_that_are_forecast_and_no_others(
    all_run: Any, simulated_store: Path, tmp_path: Path
) -> None:
    store = sd.open(simulated_store)
    state = as_levels(store.dataset().isel(time=[0, 4, 6]).load())
    forecast = all_run.forecast(state, [6])  # hours apart, which nothing minds without history
    assert forecast.sizes["time"] == 3 and forecast.sizes["level"] == 13
    assert forecast["geopotential"].dims[2] == "level"
    assert "level" not in forecast["temperature_20hpa"].dims
    assert forecast["temperature_20hpa"].attrs["level_hpa"] == 20
    assert len(forecast.data_vars) == 3 + 5 + 4 * 3
    assert all(np.isfinite(field).all() for field in forecast.values())
    written = sd.predict(all_run, simulated_store, [6], out=tmp_path / "out.zarr")
    assert set(written.data_vars) == set(forecast.data_vars)
    for name in forecast.data_vars:
        np.testing.assert_allclose(written[name][[0, 4, 6]], forecast[name], rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="lack z at 850 hPa"):
        all_run.forecast(state.drop_sel(level=850), [6])


def as_levels(stored: xr.Dataset) -> xr.Dataset:
    """A store's states as ERA5 comes: short names on levels in hPa, north first."""
    state, fields = stored["state"].sortby("latitude", ascending=False), {}
    for variable in np.unique(stored["variable"]):
        some = state.isel(channel=np.flatnonzero(stored["variable"] == variable))
        units = str(some["units"].values[0])
        levels = some["level_hpa"].values
        plain = some.reset_coords(drop=True)
        if np.isnan(levels).all():
            fields[variable] = plain.isel(channel=0, drop=True).assign_attrs(units=units)
            continue
        on_levels = plain.rename(channel="level").assign_coords(level=levels.astype(int))
        fields[variable] = on_levels.assign_attrs(units=units)
    return xr.Dataset(fields)


def test_scores_take_forecasts_and_stores_as_they_are(
    msl_run: Any, msl_store: Path, tmp_path: Path
) -> None:
    period = ("2025-12-25", "2025-12-26")
    forecast = msl_run.forecast(msl_store, [6, 24], period=period)
    store = sd.open(msl_store)
    scores = sd.score(forecast, store, store)["mean_sea_level_pressure"]
    valid = [time + np.timedelta64(24, "h") for time in forecast["time"].values]
    truth = store["msl"].sel(time=valid).values.astype(np.float64)
    error = forecast["mean_sea_level_pressure"].sel(prediction_timedelta="24h").values - truth
    weights = latitude_weights(store.latitude)[:, None]
    assert float(scores.sel(metric="rmse", lead_time="24h")) == pytest.approx(
        np.sqrt((error**2 * weights).mean()), rel=1e-9
    )
    assert float(scores.sel(metric="acc_wb2", lead_time="6h")) > 0
    for name in ("forecast.zarr", "netcdf.nc"):
        written = msl_run.forecast(msl_store, [6, 24], period=period, out=str(tmp_path / name))
        for given in (written, str(tmp_path / name)):
            again = sd.score(given, str(msl_store), str(msl_store))["mean_sea_level_pressure"]
            np.testing.assert_allclose(again, scores, rtol=1e-6)


def test_scores_take_weatherbench_2s_layout_with_more_levels_than_are_forecast(
    all_run: Any, simulated_store: Path
) -> None:
    store = sd.open(simulated_store)
    forecast = all_run.forecast(store, [6]).isel(time=slice(0, -1))
    by_channel = sd.score(forecast, store, metrics=["rmse"])
    states = as_levels(store.dataset().load()).sortby("latitude")
    long = {c.variable: c.long_name for c in store.channels}
    weatherbench = states.rename({name: long[str(name)] for name in states.data_vars})
    assert weatherbench.sizes["level"] == 16
    by_level = sd.score(forecast, weatherbench, metrics=["rmse"])
    assert set(by_level.data_vars) == set(forecast.data_vars)
    for name in by_level.data_vars:
        np.testing.assert_allclose(by_level[name], by_channel[name], rtol=1e-6)
        assert np.isfinite(by_level[name]).all()
    with pytest.raises(ValueError, match=r"temperature_20hpa is missing in the truth"):
        sd.score(forecast, weatherbench.drop_sel(level=20), metrics=["rmse"])


def test_a_run_is_evaluated_and_its_log_is_a_table(msl_run: Any) -> None:
    with pytest.raises(FileNotFoundError, match="There are no scores"):
        msl_run.evaluation  # noqa: B018
    recipe = msl_run.recipe.replace(evaluation=dict(lead_hours=[6], metrics=["rmse"]))
    table = sd.evaluate(msl_run, recipe).to_frame()
    assert list(table["lead_hours"]) == [6] and list(table["metric"]) == ["rmse"]
    assert table["persistence"][0] == pytest.approx(247, abs=3)
    assert msl_run.evaluation.to_frame().equals(table)
    assert list(msl_run.log.index) == [1, 2] and msl_run.log["loss"].gt(0).all()


def test_an_exported_model_is_used_as_its_run(
    msl_run: Any, kernel_run: Any, kernel: Any, tmp_path: Path
) -> None:
    exported = sd.from_pretrained(str(msl_run.export(tmp_path / "msl.safetensors")))
    assert sum(p.numel() for p in exported.model.parameters()) > 1000
    same = exported.forecast(raw_state(), [6]) - msl_run.forecast(raw_state(), [6])
    assert float(abs(same["mean_sea_level_pressure"]).max()) == 0
    file = kernel_run.export(tmp_path / "kernel.safetensors")
    of_file = sd.open(file).embed(kernel, tmp_path / "of_file")
    of_run = kernel_run.embed(str(kernel.path), str(tmp_path / "of_run"))
    assert of_file.patches.equals(of_run.patches)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(Path(file).read_bytes()[:-100])
    with pytest.raises(ValueError, match="no safetensors file"):
        sd.from_pretrained(damaged)


def test_a_plant_store_gives_images_indices_spectra_and_colours(kernel: Any) -> None:
    train, _ = kernel
    assert len(kernel) == 2
    image = kernel[train]
    assert image["reflectance"].dims == ("wavelength", "y", "x")
    np.testing.assert_array_equal(image["wavelength"], np.linspace(400, 900, 60))
    values, nm = image["reflectance"].values, image["wavelength"].values
    near_infrared, red = (values[abs(nm - at).argmin()].astype(float) for at in (800, 670))
    ndvi = (near_infrared - red) / (near_infrared + red)
    found = sd.plants.index("NDVI", image)
    assert found.dims == ("y", "x") and found.attrs["units"] == "1"
    np.testing.assert_allclose(found, ndvi, rtol=1e-6)
    descending = image["reflectance"].sortby("wavelength", ascending=False).load()
    np.testing.assert_allclose(sd.plants.index("NDVI", descending), ndvi, rtol=1e-6)
    table = kernel.indices("NDVI").set_index("cube")
    plant = image["mask"].values == 1
    assert table.loc[train, "NDVI_mean"] == pytest.approx(np.nanmean(ndvi[plant]))
    assert table.loc[train, "split"] == "train"
    spectra = kernel.spectra()
    assert spectra.dims == ("plant", "wavelength") and list(spectra["cube"]) == list(kernel)
    np.testing.assert_allclose(spectra[0], values[:, plant].mean(1, dtype=float), rtol=1e-6)
    colours = kernel.rgb(train)
    assert colours.dims == ("y", "x", "colour") and float(colours.min()) >= 0
    np.testing.assert_array_equal(sd.plants.rgb(image), colours)
    with pytest.raises(ValueError, match="no coordinate wavelength"):
        sd.plants.index("NDVI", image["mask"])
    with pytest.raises(ValueError, match="did you mean NDVI"):
        sd.plants.index("NDVY", image)


def test_images_are_embedded_and_reconstructed_in_one_call(
    kernel: Any, kernel_run: Any, tmp_path: Path
) -> None:
    embeddings = kernel_run.embed(kernel, tmp_path / "embeddings")
    assert list(embeddings.plants["cube"]) == list(kernel)
    assert embeddings.patches[embeddings.features].shape[1] == 16
    small = kernel_run.reconstruct(kernel, tmp_path / "out")
    assert list(small) == list(kernel)
    assert np.isfinite(small[next(iter(small))]["reflectance"]).all()
    assert sd.evaluate(kernel_run).to_frame()["model"].notna().any()


def test_a_task_without_a_model_of_its_own_is_opened_as_what_all_have(
    msl_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sciml_dchag import tasks

    plain = dataclasses.replace(tasks.TASKS["forecast"], model="")
    monkeypatch.setitem(tasks.TASKS, "forecast", plain)
    opened = sd.open(msl_run.path)
    assert "model of task forecast" in repr(opened) and not hasattr(opened, "forecast")
    assert opened.recipe.kind == "forecast" and opened.model.config.output_channels
