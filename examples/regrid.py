"""Regrid with ESMF's weights, from pip alone: bilinear interpolates, conservative keeps means."""

import xarray as xr

import sciml_dchag as sd

fine = xr.open_dataset(sd.sample("era5_msl"))[["msl"]].isel(valid_time=slice(0, 4))
fine = fine.astype("float64")
mean = float(sd.weather.area_mean(fine).msl.mean())
print(f"as it came: {dict(fine.sizes)}, global mean {mean:.4f} Pa")

for method in ("bilinear", "conservative"):
    coarse = sd.regrid(fine, "5.625", method)  # or a grid such as 32x64, or another Dataset
    mean = float(sd.weather.area_mean(coarse).msl.mean())
    weights = coarse.attrs["regrid_weights_sha256"][:8]
    print(f"{method}: {dict(coarse.sizes)}, global mean {mean:.4f} Pa, weights {weights}")
