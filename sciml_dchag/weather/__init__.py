"""Weather: from ERA5 files to scored forecasts."""
