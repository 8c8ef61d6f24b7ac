"""From raw ERA5 to a forecast: prepare, train, forecast from one's own state, score.

Runs on the embedded month of sea level pressure in two minutes: python examples/weather_forecast.py
"""

import xarray as xr

import sciml_dchag as sd

store = sd.weather.prepare(
    "sample:era5_msl",
    "stores/msl.zarr",
    channels="msl",
    grid="5.625",
    statistics_period=("2025-12-01T00", "2025-12-24T18"),
    overwrite=True,
)
recipe = sd.load_recipe("sample:msl_forecast").replace(
    name="msl", data=dict(store=store), training=dict(steps=300, log_every=50)
)
run = sd.train(recipe, "runs/msl", console=print)

# The model needs 12 h of history, and so three states of one's own, here in the file's own names.
raw = xr.open_dataset(sd.sample("era5_msl")).sel(valid_time=slice("2025-12-25T00", "2025-12-25T12"))
forecast = run.forecast(sd.regrid(raw, "5.625"), leads=[6, 24])
pressure = forecast["mean_sea_level_pressure"].isel(time=0) / 100
print(pressure.sel(latitude=51, longitude=0, method="nearest").to_series().round(1))  # hPa

rmse = sd.evaluate(run).to_frame().query("metric == 'rmse'")
print(rmse[["lead_hours", "units", "model", "persistence", "ridge"]])
