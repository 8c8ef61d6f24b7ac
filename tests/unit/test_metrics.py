"""Weights, statistics, the accumulator, and the checks that data belong together."""

import numpy as np
import pytest
import xarray as xr

import sciml_dchag as sd
from sciml_dchag.weather.area import latitude_weights
from sciml_dchag.weather.scores.metrics import METRICS, ScoreSums, score
from sciml_dchag.weather.units import in_one_spelling

LATITUDE = np.linspace(-84.375, 84.375, 16)
LONGITUDE = np.arange(32) * 11.25
ROUNDING = 1e-10  # float64 sums in another order


@pytest.fixture
def data():
    return example()


def example(seed=0):
    """A forecast, a truth on a time axis and a plain climatology of two channels."""
    rng = np.random.default_rng(seed)
    times = np.datetime64("2024-12-28", "ns") + np.arange(20) * np.timedelta64(6, "h")
    leads = np.array([6, 24], "timedelta64[h]").astype("timedelta64[ns]")
    space = ("latitude", "longitude")
    coords = {"latitude": LATITUDE, "longitude": LONGITUDE}
    shape = (LATITUDE.size, LONGITUDE.size)

    def fields(dims, lengths):
        return {
            name: (dims + space, mean + rng.normal(size=(*lengths, *shape)), {"units": units})
            for name, mean, units in (("t2m", 280.0, "K"), ("u10", 0.0, "m s-1"))
        }

    truth = xr.Dataset(fields(("time",), (20,)), {"time": times, **coords})
    times_of_forecast = {"init_time": times[:6], "lead_time": leads}
    forecast = xr.Dataset(fields(("init_time", "lead_time"), (6, 2)), times_of_forecast | coords)
    climatology = xr.Dataset(fields((), ()), coords)
    return forecast, truth, climatology


class TestLatitudeWeights:
    def test_rows_of_equal_spacing_weigh_as_cosine(self):
        cosine = np.cos(np.deg2rad(LATITUDE))
        np.testing.assert_allclose(latitude_weights(LATITUDE), cosine / cosine.mean(), rtol=1e-12)

    def test_any_order(self):
        shuffled = np.random.default_rng(0).permutation(16)
        weights = latitude_weights(LATITUDE)
        np.testing.assert_array_equal(latitude_weights(LATITUDE[shuffled]), weights[shuffled])
        assert latitude_weights(LATITUDE.astype("float32")).dtype == np.float64

    def test_pole_rows_are_half_cells_and_all_area_is_covered(self):
        latitude = np.linspace(90, -90, 73)
        weights = latitude_weights(latitude)
        area = 1 - np.sin(np.deg2rad(88.75))
        # mean 1 over 73 rows means that the sphere's 2 = sin 90 - sin -90 is spread over 73
        np.testing.assert_allclose(weights[[0, -1]], area / 2 * 73, rtol=1e-9)

    def test_gaussian_rows_reach_the_pole(self):
        latitude = np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(32)[0]))
        middle = np.sin(np.deg2rad((latitude[0] + latitude[1]) / 2))
        assert latitude_weights(latitude)[0] == pytest.approx((middle + 1) / 2 * 32)

    def test_regional_rows_do_not_reach_the_pole(self):
        weights = latitude_weights([40.0, 42.0, 44.0])
        area = np.sin(np.deg2rad([41.0, 43.0, 45.0])) - np.sin(np.deg2rad([39.0, 41.0, 43.0]))
        np.testing.assert_allclose(weights, area / area.mean())

    @pytest.mark.parametrize(
        ("latitude", "message"),
        [
            ([0.0, 91.0], "latitude 91"),
            ([0.0, np.nan], "latitude nan"),
            ([10.0, 20.0, 10.0], "latitude 10.0 occurs twice"),
            ([[0.0]], r"shape \(1, 1\)"),
            ([], "shape"),
        ],
    )
    def test_bad_latitude(self, latitude, message):
        with pytest.raises(ValueError, match=message):
            latitude_weights(latitude)


def test_perfect_forecast(data):
    _, truth, climatology = data
    forecast = truth.isel(time=slice(1, 7)).rename(time="init_time").expand_dims("lead_time", 1)
    step = np.timedelta64(6, "h").astype("timedelta64[ns]")
    forecast = forecast.assign_coords(
        init_time=forecast["init_time"].values - step, lead_time=("lead_time", [step])
    )
    scores = score(forecast, truth, climatology)
    for metric in METRICS:
        perfect = 1.0 if metric.startswith("acc") else 0.0
        np.testing.assert_allclose(scores.sel(metric=metric)["t2m"], perfect, atol=1e-12)


def test_root_is_taken_after_the_mean(data):
    forecast, truth, _ = data
    forecast["t2m"][0] += 10.0  # one bad time tells the two conventions apart
    scores = score(forecast, truth)["t2m"]
    rmse = scores.sel(metric="rmse")
    np.testing.assert_allclose(rmse, np.sqrt(scores.sel(metric="mse")), rtol=ROUNDING)
    assert (scores.sel(metric="rmse_sqrt_before_time_mean") < 0.9 * rmse).all()


def test_metrics_default_to_what_can_be_had(data):
    forecast, truth, climatology = data
    assert list(score(forecast, truth, climatology).metric) == list(METRICS)
    assert not any(str(name).startswith("acc") for name in score(forecast, truth).metric.values)
    assert score(forecast, truth, metrics=("mae", "rmse")).metric.values.tolist() == ["mae", "rmse"]


def test_climatology_by_hour_and_day(data):
    forecast, truth, _ = data
    rng = np.random.default_rng(3)
    days = [1, 2, 363, 364, 365, 366]
    dims = ("dayofyear", "hour", "latitude", "longitude")
    values = {
        name: (dims, truth[name].values.mean() + rng.normal(size=(6, 4, 16, 32)))
        for name in truth.data_vars
    }
    climatology = xr.Dataset(values, {"dayofyear": days, "hour": [0, 6, 12, 18]} | coords_of(truth))
    scores = score(forecast, truth, climatology, metrics=("acc_wb2",))["u10"].values[0]
    weights = latitude_weights(LATITUDE)[:, None]
    for lead, hours in enumerate((6, 24)):
        by_time = []
        for init in forecast["init_time"].values:
            valid = xr.DataArray(init + np.timedelta64(hours, "h"))
            mean = climatology["u10"].sel(hour=valid.dt.hour, dayofyear=valid.dt.dayofyear).values
            a = forecast["u10"].isel(lead_time=lead).sel(init_time=init).values - mean
            b = truth["u10"].sel(time=valid).values - mean
            products = (weights * a * b).sum() ** 2
            sign = np.sign((weights * a * b).sum())
            squares = (weights * a**2).sum() * (weights * b**2).sum()
            by_time.append(sign * np.sqrt(products / squares))
        assert scores[lead] == pytest.approx(np.mean(by_time), rel=ROUNDING)
    with pytest.raises(ValueError, match=r"lacks 1 of 3 values of dayofyear .* first is 364"):
        score(forecast, truth, climatology.drop_sel(dayofyear=364))


def coords_of(data):
    return {"latitude": data["latitude"], "longitude": data["longitude"]}


def test_forecast_without_anomaly_has_no_correlation(data):
    forecast, truth, climatology = data
    same = climatology.broadcast_like(forecast).transpose(*forecast["t2m"].dims)
    scores = score(same, truth, climatology)
    assert np.isnan(scores["t2m"].sel(metric=["acc_wb2", "acc_centred", "acc_climax"])).all()
    assert np.isfinite(scores["t2m"].sel(metric="rmse")).all()
    offset = score(same + 1.0, truth, climatology)["t2m"]
    assert np.isfinite(offset.sel(metric="acc_wb2")).all()  # uncentred: an offset is an anomaly
    assert np.isnan(offset.sel(metric=["acc_centred", "acc_climax"])).all()


def test_missing_cells_are_left_out_with_their_weight(data):
    forecast, truth, climatology = data
    holed = forecast.copy(deep=True)
    holed["t2m"][2, 0, 3:5, 7:9] = np.nan
    scores = score(holed, truth, climatology)
    valid = holed["init_time"] + holed["lead_time"]
    error = (holed["t2m"] - truth["t2m"].sel(time=valid)).isel(lead_time=0)
    weights = xr.DataArray(latitude_weights(LATITUDE), coords={"latitude": LATITUDE})
    expected = (error**2).weighted(weights).mean()
    assert scores["t2m"].sel(metric="mse").values[0] == pytest.approx(expected.item(), rel=ROUNDING)
    assert scores["t2m"].attrs["missing_cells"] == 4
    assert scores["u10"].attrs["missing_cells"] == 0
    assert np.isfinite(scores["t2m"]).all()
    whole = score(forecast, truth, climatology)
    xr.testing.assert_identical(scores["u10"], whole["u10"])
    xr.testing.assert_identical(scores["t2m"][:, 1].drop_attrs(), whole["t2m"][:, 1].drop_attrs())


def test_a_time_without_any_value_does_not_count(data):
    forecast, truth, climatology = data
    holed = forecast.copy(deep=True)
    holed["t2m"][2] = np.nan
    without = forecast.drop_isel(init_time=2)
    ours = score(holed, truth, climatology)["t2m"]
    np.testing.assert_allclose(ours, score(without, truth, climatology)["t2m"], rtol=ROUNDING)


def test_infinity_is_not_hidden(data):
    forecast, truth, climatology = data
    forecast["t2m"][0, 0, 0, 0] = np.inf
    scores = score(forecast, truth, climatology)["t2m"]
    assert not np.isfinite(scores[:, 0]).any()
    assert np.isfinite(scores[:, 1]).all()


def test_further_dimensions_are_kept(data):
    forecast, truth, climatology = data
    stack = [item.drop_attrs(deep=True).to_dataarray("channel") for item in data]
    stacked = score(*(item.to_dataset(name="state") for item in stack))["state"]
    assert stacked.dims == ("metric", "lead_time", "channel")
    plain = score(forecast, truth, climatology)
    for name in ("t2m", "u10"):
        np.testing.assert_allclose(stacked.sel(channel=name), plain[name], rtol=ROUNDING)


def test_lazy_fields_give_the_same(data):
    forecast, truth, climatology = data
    lazy = score(forecast.chunk(init_time=2), truth.chunk(time=3), climatology.chunk())
    xr.testing.assert_allclose(lazy, score(forecast, truth, climatology), rtol=ROUNDING)


class TestScoreSums:
    def batch(self, times, seed):
        rng = np.random.default_rng(seed)
        return tuple(rng.normal(size=(times, 3, 16, 32)).astype("float32") for _ in range(2))

    def test_any_split_gives_the_same(self):
        forecast, truth = self.batch(7, 0)
        climatology = 0.1 * self.batch(1, 1)[0]
        whole, left, right = (ScoreSums(3, LATITUDE, with_climatology=True) for _ in range(3))
        whole.update(forecast, truth, climatology)
        left.update(forecast[:1], truth[:1], climatology)
        left.update(forecast[1:4], truth[1:4], climatology)
        right.update(forecast[4:], truth[4:], climatology)
        left.merge(right)
        merged = left.result()
        assert list(merged) == list(METRICS)
        for metric, value in whole.result().items():
            assert value.shape == (3,)
            np.testing.assert_allclose(merged[metric], value, rtol=ROUNDING, err_msg=metric)

    def test_agrees_with_score(self, data):
        forecast, truth, climatology = data
        names = ["t2m", "u10"]
        at_lead = forecast.isel(lead_time=1)
        valid = at_lead["init_time"] + at_lead["lead_time"]
        dims = ("init_time", "channel", "latitude", "longitude")
        picked = truth.sel(time=valid)
        stacks = [
            item.drop_attrs(deep=True)[names].to_dataarray("channel").transpose(*dims).values
            for item in (at_lead, picked)
        ]
        mean = climatology.drop_attrs(deep=True)[names].to_dataarray("channel").values
        sums = ScoreSums(2, LATITUDE, with_climatology=True)
        sums.update(*stacks, mean)
        scores = score(forecast, truth, climatology).isel(lead_time=1)
        for metric, value in sums.result().items():
            expected = [scores[name].sel(metric=metric).item() for name in names]
            np.testing.assert_allclose(value, expected, rtol=ROUNDING)

    def test_nothing_summed_is_nan(self):
        result = ScoreSums(3, LATITUDE, with_climatology=True).result()
        assert all(np.isnan(value).all() for value in result.values())

    def test_refusals(self):
        forecast, truth = self.batch(2, 0)
        sums = ScoreSums(3, LATITUDE, with_climatology=False)
        with pytest.raises(ValueError, match="3 channels, 16 latitudes"):
            sums.update(forecast[:, :2], truth[:, :2])
        with pytest.raises(ValueError, match="the truth has shape"):
            sums.update(forecast, truth[:1])
        with pytest.raises(ValueError, match="a climatology was given"):
            sums.update(forecast, truth, truth)
        with pytest.raises(ValueError, match="acc_wb2 needs a climatology"):
            sums.result(["acc_wb2"])
        with pytest.raises(ValueError, match="cannot be added"):
            sums.merge(ScoreSums(3, LATITUDE, with_climatology=True))
        with pytest.raises(ValueError, match="different latitudes"):
            sums.merge(ScoreSums(3, LATITUDE[:8], with_climatology=False))
        with pytest.raises(ValueError, match="numbers of channels"):
            sums.merge(ScoreSums(1, LATITUDE, with_climatology=False))


SPOILT = {
    "latitude the other way": (
        lambda f, t, c: (f, t.sortby("latitude", ascending=False), c),
        r"latitude number 0 is -84.375 in the forecast and 84.375 in the truth: .*other way",
    ),
    "another longitude": (
        lambda f, t, c: (f, t, c.assign_coords(longitude=LONGITUDE - 180)),
        r"longitude number 0 is 0.0 in the forecast and -180.0 in the climatology",
    ),
    "fewer rows": (
        lambda f, t, c: (f, t.isel(latitude=slice(1, None)), c),
        "16 values of latitude and the truth 15",
    ),
    "missing valid time": (
        lambda f, t, c: (f, t.drop_isel(time=[4, 5]), c),
        "truth lacks 2 of 9 values of time .* first is 2024-12-29T00:00",
    ),
    "time twice": (
        lambda f, t, c: (f, t.isel(time=[0, 1, 1]), c),
        "time 2024-12-28T06:00 occurs twice",
    ),
    "missing variable": (
        lambda f, t, c: (f, t.drop_vars("u10"), c),
        "variable u10 is missing in the truth, which has t2m",
    ),
    "missing in climatology": (
        lambda f, t, c: (f, t, c.drop_vars("t2m")),
        "variable t2m is missing in the climatology",
    ),
    "other units": (
        lambda f, t, c: (f, t.assign(t2m=t["t2m"].assign_attrs(units="degC")), c),
        "t2m is in 'K' in the forecast and in 'degC' in the truth",
    ),
    "lead time as a number": (
        lambda f, t, c: (f.assign_coords(lead_time=[6, 24]), t, c),
        "lead_time is int64, but timedelta64 is needed",
    ),
    "wrong valid time": (
        lambda f, t, c: (
            f.assign_coords(valid_time=f["init_time"] + 2 * f["lead_time"]),
            t,
            c,
        ),
        "valid_time is 2024-12-28T12:00 where init_time plus lead_time is 2024-12-28T06:00",
    ),
    "no init time": (
        lambda f, t, c: (f.rename(init_time="time"), t, c),
        "the forecast has no coordinate init_time",
    ),
    "truth without time": (
        lambda f, t, c: (f, t.isel(time=0, drop=True), c),
        "but time, or init_time with lead_time, is needed",
    ),
    "climatology of times": (
        lambda f, t, c: (f, t, t),
        "the climatology has a dimension time",
    ),
    "static variable": (
        lambda f, t, c: (f.assign(lsm=c["t2m"]), t.assign(lsm=c["t2m"]), c.assign(lsm=c["t2m"])),
        "forecast variable lsm has no dimension init_time",
    ),
}


@pytest.mark.parametrize("case", SPOILT)
def test_first_difference_is_named(data, case):
    spoil, message = SPOILT[case]
    with pytest.raises(ValueError, match=message):
        score(*spoil(*data))


@pytest.mark.parametrize("columns", [np.arange(33) * 11.25, np.arange(33) * 11.25 - 180])
def test_a_column_that_is_there_twice_would_count_twice(data, columns):
    repeated = [
        each.isel(longitude=[*range(32), 0]).assign_coords(longitude=columns) for each in data
    ]
    with pytest.raises(ValueError, match=r"longitude (0|180) is there twice \(modulo 360\)"):
        score(*repeated)


@pytest.mark.parametrize("change", [lambda t: t - 273.15, lambda t: t * 100])
def test_values_in_other_units_than_they_say_are_doubted(data, change):
    """xarray keeps `units` in arithmetic; only a field that no forecast is near is warned of."""
    forecast, truth, _ = data
    wrong = forecast.assign(t2m=change(forecast["t2m"]).assign_attrs(units="K"))
    with pytest.warns(UserWarning, match="t2m has a mean of .* look whether both are in the units"):
        score(wrong, truth)
    score(forecast + 3.0, truth)


def test_unknown_metric(data):
    with pytest.raises(ValueError, match="unknown metric 'acc'"):
        score(*data, metrics=("acc",))


@pytest.mark.parametrize("units", ["m2 s-2", "m**2 s**-2", "m^2/s^2", " m2  s-2 ", "m2/s2"])
def test_one_spelling_of_units(units):
    assert in_one_spelling(units) == "m2 s-2"


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        (lambda f: xr.concat([f, f], "init_time"), "init_time 2024-12-28T00:00 occurs twice"),
        (lambda f: xr.concat([f, f], "lead_time"), "lead_time 6 h occurs twice"),
        (lambda f: f.astype(np.complex64), "is of type complex64 in the forecast"),
        (lambda f: f.astype(str), "in the forecast, and numbers are needed"),
        (
            lambda f: f.assign_coords(
                latitude=np.deg2rad(f["latitude"]), longitude=np.deg2rad(f["longitude"])
            ),
            "latitude is in radians",
        ),
    ],
)
def test_forecasts_that_cannot_be_scored_rightly(data, change, refusal):
    forecast, truth, _ = data
    with pytest.raises(ValueError, match=refusal):
        score(change(forecast), truth)


def test_arrays_in_place_of_datasets_are_named(data):
    forecast, truth, _ = data
    for given in ((forecast["t2m"], truth), (forecast, None)):
        with pytest.raises(ValueError, match="where a Dataset or the path of one is needed"):
            sd.score(*given)
