"""Make the golden scores of an ensemble with the library `scores`.

    pip install scores==2.7.0 && python tests/golden/ensemble/make_expected.py

Fields are random; those of the second channel are rounded, so that members are equal, and some of
its truth is missing. Thresholds are one number a channel, as the library's are.
"""

import json
import operator
from pathlib import Path

import numpy as np
import scores
import xarray as xr
from scores.probability import brier_score_for_ensemble, crps_for_ensemble, rank_histogram

HERE = Path(__file__).parent
LATITUDE = np.array([-75.0, -45.0, -15.0, 15.0, 45.0, 75.0])
THRESHOLDS = {"a": (-0.8, 0.9), "b": (1.0, 4.0)}


def main() -> None:
    generator = np.random.default_rng(0)
    centre = generator.normal(size=(5, 1, 2, 6, 12))
    members = centre + generator.normal(size=(5, 7, 2, 6, 12))
    truth = centre[:, 0] + 1.3 * generator.normal(size=(5, 2, 6, 12))
    members[:, :, 1], truth[:, 1] = (
        np.round(2 * members[:, :, 1] + 2),
        np.round(2 * truth[:, 1] + 2),
    )
    truth[2, 1, 3, 4:7] = np.nan
    members, truth = members.astype(np.float32), truth.astype(np.float32)
    np.savez_compressed(HERE / "fields.npz", members=members, truth=truth, latitude=LATITUDE)
    dims = ("time", "member", "channel", "latitude", "longitude")
    coords = {"channel": ["a", "b"], "latitude": LATITUDE}
    forecast = xr.DataArray(members.astype(float), coords, dims)
    observed = xr.DataArray(truth.astype(float), coords, (dims[0], *dims[2:]))
    edges = np.sin(np.radians(np.arange(-90, 91, 30.0)))
    area = xr.DataArray(np.diff(edges), {"latitude": LATITUDE}, "latitude")
    expected = {}
    for channel, (low, high) in THRESHOLDS.items():
        one, other = forecast.sel(channel=channel), observed.sel(channel=channel)
        below = {"event_threshold_operator": operator.le, "event_thresholds": low}
        above = {"event_threshold_operator": operator.ge, "event_thresholds": high}
        mean = one.mean("member").where(other.notnull())
        expected[channel] = {
            "crps": float(crps_for_ensemble(one, other, "member", method="fair", weights=area)),
            "ensemble_mean_rmse": float(scores.continuous.rmse(mean, other, weights=area)),
            "brier_low": float(
                brier_score_for_ensemble(one, other, "member", weights=area, **below).squeeze()
            ),
            "brier_high": float(
                brier_score_for_ensemble(one, other, "member", weights=area, **above).squeeze()
            ),
            "ranks": rank_histogram(one, other, "member", weights=area).values.tolist(),
        }
    record = {"scores": scores.__version__, "thresholds": THRESHOLDS, "expected": expected}
    (HERE / "expected.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
