"""Score any forecast: here "the weather stays as it is", in WeatherBench 2's layout.

Truth and climatology may be a weather store, or datasets on `time` and on `hour` and `dayofyear`.
"""

import numpy as np

import sciml_dchag as sd

store = sd.weather.prepare(
    "sample:era5_msl",
    "stores/msl_to_score.zarr",
    channels="msl",
    statistics_period=("2025-12-01T00", "2025-12-24T18"),
    overwrite=True,
)
now = store["msl"].sel(time=slice("2025-12-25", "2025-12-29"))
leads = np.array([6, 12, 24, 48], "timedelta64[h]").astype("timedelta64[ns]")
persistence = now.expand_dims(prediction_timedelta=leads).to_dataset(name="mean_sea_level_pressure")

scores = sd.score(persistence, truth=store, climatology=store, metrics=("rmse", "bias", "acc_wb2"))
print(scores["mean_sea_level_pressure"].to_pandas().round(3))
