"""Lows and highs: found where they are, paired as well as can be, counted."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from numpy.typing import NDArray

import sciml_dchag as sd
from sciml_dchag.weather.objects.finding import Criteria, Finder, Objects
from sciml_dchag.weather.objects.matching import match, scores_of, sums_of
from sciml_dchag.weather.objects.quantity import quantity_of
from sciml_dchag.weather.objects.scores import ObjectScores
from sciml_dchag.weather.objects.sphere import distance_km, from_plane, to_plane

WITH_POLES = np.linspace(90.0, -90.0, 73), np.arange(0.0, 360.0, 2.5)
WITHOUT = np.arange(-88.75, 90, 2.5), np.arange(-180.0, 180.0, 2.5)
GRIDS = {"with poles, from the north": WITH_POLES, "without, from 180 W": WITHOUT}
EVERYWHERE = Criteria(min_depth=4.0, band=(0.0, 90.0))
Grid = tuple[NDArray[np.float64], NDArray[np.float64]]


def lows(grid: Grid, *places: tuple[float, float, float], km: float = 500.0) -> Any:
    """1013 hPa with Gaussian lows: latitude, longitude, depth in hPa."""
    field = np.full((len(grid[0]), len(grid[1])), 1013.0)
    for latitude, longitude, depth in places:
        away = distance_km(latitude, longitude, grid[0][:, None], grid[1])
        field -= depth * np.exp(-(away**2) / (2 * km**2))
    return field


def objects(*places: tuple[float, ...]) -> Objects:
    """Objects of given latitude, longitude and optionally value and depth."""
    full = np.array([(*place, *(990.0, 10.0)[len(place) - 2 :]) for place in places])
    columns = full.reshape(-1, 4).T
    return Objects(latitude=columns[0], longitude=columns[1], value=columns[2], depth=columns[3])


def labelled(field: Any, grid: Grid = WITH_POLES, units: str = "hPa", **attrs: str) -> xr.DataArray:
    dims = (*["time", "number"][: field.ndim - 2], "latitude", "longitude")
    coords = {"latitude": grid[0], "longitude": grid[1]}
    return xr.DataArray(field, coords, dims, name="msl", attrs={"units": units, **attrs})


class TestPlaces:
    @pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
    @pytest.mark.parametrize(
        "place", [(51.3, 0.4), (-47.9, 359.1), (38.1, 181.2), (77.6, 33.3), (-86.9, 100.0),
                  (89.2, 250.0), (90.0, 0.0), (-65.0, 12.5)],
    )  # fmt: skip
    def test_a_low_is_placed_between_cells(self, grid: Grid, place: tuple[float, float]) -> None:
        found = Finder(*grid, "lows", EVERYWHERE).find(lows(grid, (*place, 30.0)))
        assert len(found) == 1
        away = distance_km(*place, found.latitude[0], found.longitude[0])
        assert away < 10.0  # a spacing is 278 km
        assert 0 <= found.longitude[0] < 360
        assert found.value[0] == pytest.approx(983.0, abs=0.35)
        ring = 1013.0 - 30.0 * np.exp(-(600**2) / (2 * 500**2))
        assert found.depth[0] == pytest.approx(ring - 983.0, abs=0.9)

    def test_a_parabola_in_km_is_found_exactly(self) -> None:
        east, north = to_plane(45.0, 0.0, WITH_POLES[0][:, None], WITH_POLES[1])
        field = 980.0 + ((east - 40.0) ** 2 + 2 * (north + 90.0) ** 2 + east * north) / 2e4
        far = np.hypot(east, north) > 3000
        found = Finder(*WITH_POLES, "lows", EVERYWHERE).find(np.where(far, 1100.0, field))
        hessian = np.array([[2.0, 1.0], [1.0, 4.0]])
        bottom = np.linalg.solve(hessian, [80.0, -360.0])
        expected = from_plane(45.0, 0.0, *bottom)
        assert distance_km(*expected, found.latitude[0], found.longitude[0]) < 1e-6
        x, y = bottom
        value = 980.0 + ((x - 40.0) ** 2 + 2 * (y + 90.0) ** 2 + x * y) / 2e4
        assert found.value[0] == pytest.approx(value, abs=1e-9)

    def test_highs_are_lows_upside_down_and_rows_may_run_either_way(self) -> None:
        field = lows(WITH_POLES, (51.3, 0.4, 30.0), (-33.0, 200.0, 15.0))
        low = Finder(*WITH_POLES, "lows", EVERYWHERE).find(field)
        high = Finder(*WITH_POLES, "highs", EVERYWHERE).find(2026.0 - field)
        np.testing.assert_allclose(high.value, 2026.0 - low.value)
        np.testing.assert_allclose(high.depth, low.depth)
        turned = Finder(WITH_POLES[0][::-1], WITH_POLES[1], "lows", EVERYWHERE).find(field[::-1])
        for one, other in ((high, low), (turned, low)):
            np.testing.assert_allclose(one.latitude, other.latitude)
            np.testing.assert_allclose(one.longitude, other.longitude)

    def test_there_and_back_on_the_sphere(self) -> None:
        random = np.random.default_rng(0)
        here, there = random.uniform([-90, 0], [90, 360], (2, 100, 2)).transpose(0, 2, 1)
        latitude, longitude = from_plane(*here, *to_plane(*here, *there))
        assert distance_km(*there, latitude, longitude).max() < 1e-3
        latitude, longitude = from_plane(90.0, 0.0, *to_plane(90.0, 0.0, 89.2, 250.0))
        assert distance_km(89.2, 250.0, latitude, longitude) < 1e-3
        assert distance_km(0, 0, 0, 180) == pytest.approx(np.pi * 6371)


class TestCriteria:
    def test_shallow_lows_and_other_latitudes_are_left_out(self) -> None:
        field = lows(WITH_POLES, (50, 10, 30.0), (-50, 100, 5.0), (5, 200, 30.0), (80, 300, 30.0))
        found = Finder(*WITH_POLES, "lows", Criteria(min_depth=4.0)).find(field)
        np.testing.assert_allclose(found.latitude, [50], atol=0.2)
        found = Finder(*WITH_POLES, "lows", Criteria(min_depth=1.0)).find(field)
        np.testing.assert_allclose(found.latitude, [-50, 50], atol=0.2)

    def test_the_deepest_of_neighbours_is_kept(self) -> None:
        field = lows(WITH_POLES, (50, 10, 30.0), (50, 22, 20.0), km=250)
        apart = float(distance_km(50, 10, 50, 22))
        for separation, count in ((apart - 60, 2), (apart + 60, 1)):
            criteria = Criteria(min_depth=4.0, separation_km=separation)
            found = Finder(*WITH_POLES, "lows", criteria).find(field)
            assert len(found) == count
            assert found.value.min() == pytest.approx(983.0, abs=3.0)

    def test_a_plateau_is_one_low_and_an_open_one_none(self) -> None:
        field = lows(WITH_POLES, (50, 2.5, 30.0))
        row, finder = 16, Finder(*WITH_POLES, "lows", EVERYWHERE)
        for columns in ([0], [0, 1], [143, 0, 1, 2]):
            flat = field.copy()
            flat[row, columns] = 980.0
            found = finder.find(flat)
            assert len(found) == 1
            assert distance_km(50, np.mean([c % 144 - 144 * (c > 100) for c in columns]) * 2.5,
                               found.latitude[0], found.longitude[0]) < 100  # fmt: skip
        middle = field.copy()
        middle[14:19, 0:5] = 979.0  # its middle cell stands for it
        found = finder.find(middle)
        assert (found.latitude[0], found.longitude[0], found.value[0]) == (50.0, 5.0, 979.0)
        middle[16, 5] = 978.0  # a way down, and a low of its own
        found = finder.find(middle)
        assert len(found) == 1 and found.value[0] <= 978.0
        assert not len(finder.find(np.full_like(field, 1000.0)))  # has no neighbour above

    def test_a_symmetric_low_between_cells_is_one(self) -> None:
        found = Finder(*WITHOUT, "lows", EVERYWHERE).find(lows(WITHOUT, (0.0, 1.25, 30.0)))
        assert len(found) == 1
        assert distance_km(0.0, 1.25, found.latitude[0], found.longitude[0]) < 20.0

    def test_missing_values(self) -> None:
        field = lows(WITH_POLES, (50, 10, 30.0), (-50, 100, 30.0))
        finder = Finder(*WITH_POLES, "lows", EVERYWHERE)
        beside, far, ring = field.copy(), field.copy(), field.copy()
        beside[15, 4] = np.nan  # beside the first one
        far[30:40] = np.nan
        away = distance_km(50, 10, WITH_POLES[0][:, None], WITH_POLES[1])
        ring[(away > 450) & (WITH_POLES[1] < 14)] = np.nan  # all but a corner of the ring
        ring[(away > 450) & (WITH_POLES[0][:, None] > 40)] = np.nan
        assert [len(finder.find(f)) for f in (field, beside, far, ring)] == [2, 1, 2, 1]
        assert not len(finder.find(np.full_like(field, np.nan)))

    def test_a_region_has_none_at_its_edge(self) -> None:
        rows, columns = slice(8, 29), slice(0, 25)  # 70 to 20 N, 0 to 60 E
        region = WITH_POLES[0][rows], WITH_POLES[1][columns]
        finder = Finder(*region, "lows", EVERYWHERE)
        whole = Finder(*WITH_POLES, "lows", EVERYWHERE)
        for place, count in (((45.2, 30.7, 30.0), 1), ((45.2, 60.0, 30.0), 0), ((70, 30, 30.0), 0)):
            field = lows(WITH_POLES, place)
            found = finder.find(field[rows, columns])
            assert len(found) == count
            if count:
                np.testing.assert_allclose(found.value, whole.find(field).value)
                np.testing.assert_allclose(found.depth, whole.find(field).depth)

    @pytest.mark.parametrize("shape", [(3, 4), (4, 6), (5, 5), (6, 3)])
    def test_tiny_grids_have_no_accidents(self, shape: tuple[int, int]) -> None:
        latitude = np.linspace(-90 + 90 / shape[0], 90 - 90 / shape[0], shape[0])
        longitude = np.arange(shape[1]) * 360 / shape[1]
        field = np.random.default_rng(0).normal(1000, 10, (20, *shape))
        for criteria in (EVERYWHERE, Criteria(min_depth=0.0, band=(0, 90), separation_km=0)):
            finder = Finder(latitude, longitude, "lows", criteria)
            assert all(np.isfinite(finder.find(f).value).all() for f in field)


class TestMatching:
    def test_the_assignment_is_the_best_of_all(self) -> None:
        random = np.random.default_rng(1)
        for _ in range(60):
            sizes = random.integers(0, 5, 2)
            ours, theirs = (
                objects(*random.uniform([44, 0], [50, 9], (size, 2)).tolist()) for size in sizes
            )
            pairs = match(ours, theirs)
            distances = distance_km(
                ours.latitude[:, None], ours.longitude[:, None], theirs.latitude, theirs.longitude
            )
            best = (0, 0.0)  # number of pairs, minus their sum
            few, many = sorted(sizes)
            d = distances if sizes[0] <= sizes[1] else distances.T
            for order in itertools.permutations(range(int(many)), int(few)):
                kept = [d[i, j] for i, j in enumerate(order) if d[i, j] <= 400]
                best = max(best, (len(kept), -sum(kept)))
            assert len(pairs.found) == best[0]
            assert pairs.distance_km.sum() == pytest.approx(-best[1])
            assert len(set(pairs.found)) == len(set(pairs.truth)) == best[0]

    def test_a_chain_is_paired_whole(self) -> None:
        """The nearest first would pair the middle ones and leave both ends alone."""
        truth, found = objects((50, 0), (50, 5)), objects((50, 4), (50, 9))
        pairs = match(found, truth)
        np.testing.assert_array_equal(pairs.truth[np.argsort(pairs.found)], [0, 1])
        across = match(objects((50, 359)), objects((50, 1)))
        assert across.distance_km == pytest.approx(distance_km(50, 0, 50, 2))

    def test_scores_are_those_of_the_pairs(self) -> None:
        truth = objects((50, 0, 980, 20), (40, 100, 1000, 8), (-50, 30, 960, 30))
        found = objects((50, 2, 983, 18), (-50, 30, 959, 30), (-30, 200, 990, 9))
        scores = scores_of(sums_of(found, truth))
        assert [scores[n] for n in ("true", "found", "missed", "false")] == [3, 2, 1, 1]
        assert scores["precision"] == scores["recall"] == scores["f1"] == pytest.approx(2 / 3)
        assert scores["place_error_km"] == pytest.approx(distance_km(50, 0, 50, 2) / 2)
        assert scores["value_bias"] == 1.0
        assert scores["value_rms"] == pytest.approx(np.sqrt((9 + 1) / 2))
        assert (scores["depth_bias"], scores["depth_rms"]) == (-1.0, pytest.approx(np.sqrt(2)))
        none = scores_of(sums_of(objects(), objects()))
        assert none["true"] == 0 and np.isnan(none["f1"]) and np.isnan(none["value_rms"])

    def test_parts_of_times_and_channels_add_up_to_the_whole(self) -> None:
        """As ranks hold them: what each counted is added."""
        random = np.random.default_rng(0)
        places = random.uniform([25, 0, 10], [70, 360, 40], (4, 6, 3))
        truth = 100 * np.stack([lows(WITH_POLES, *p) for p in places])[:, None].repeat(2, axis=1)
        moved = np.roll(truth, 1, axis=-1)

        def scores(channels: list[int], times: slice) -> ObjectScores:
            counts = ObjectScores(
                ("lows", "highs"), "msl", quantity_of("msl", "Pa"), ["t2m", "msl"],
                ("model", "persistence"), (6, 12), WITH_POLES,
            )  # fmt: skip
            for lead, name, field in ((6, "model", moved), (12, "persistence", truth)):
                here = truth[times][:, channels]
                counts.update(name, lead, np.array(channels), field[times][:, channels], here)
            return counts

        whole = scores([0, 1], slice(None))
        parts = [scores([c], s) for c in (0, 1) for s in (slice(0, 1), slice(1, 4))]
        np.testing.assert_array_equal(whole.totals, sum(part.totals for part in parts))
        assert not parts[0].totals.any()
        table = whole.table().set_index(["kind", "lead_hours", "forecast"])
        assert len(table) == 8
        exact = table.loc[("lows", 12, "persistence")]
        assert (exact["f1"], exact["place_error_km"], exact["value_rms"]) == (1.0, 0.0, 0.0)
        shifted = table.loc[("lows", 6, "model")]
        assert shifted["f1"] == 1.0 and 90 < shifted["place_error_km"] < 260
        assert shifted["value_rms"] == pytest.approx(0.0, abs=1e-6)


class TestTables:
    def test_units_are_hpa_whatever_the_field_has(self) -> None:
        field = lows(WITH_POLES, (51.3, 0.4, 30.0), (-33.0, 200.0, 15.0))
        in_hpa = sd.weather.find_lows(labelled(field))
        assert list(in_hpa) == ["latitude", "longitude", "value (hPa)", "depth (hPa)"]
        assert len(in_hpa) == 2
        for units, factor in (("Pa", 100.0), ("millibars", 1.0)):
            other = sd.weather.find_lows(labelled(field * factor, units=units))
            pd.testing.assert_frame_equal(other, in_hpa)
        height = (field - 1013.0) * 8 + 5500
        in_z = sd.weather.find_lows(labelled(height * 9.80665, units="m**2 s**-2"))
        in_m = sd.weather.find_lows(labelled(height, units="gpm"))
        assert len(in_z) == len(in_m) == 2 and list(in_m)[-1] == "depth (m)"
        np.testing.assert_allclose(in_z["depth (m2 s-2)"], in_m["depth (m)"] * 9.80665)

    def test_further_dimensions_are_columns(self) -> None:
        one, two = lows(WITH_POLES, (50, 10, 30.0)), lows(WITH_POLES, (50, 20, 30.0), (40, 90, 20))
        field = labelled(np.stack([[one, two], [two, one]]))
        times = pd.date_range("2026-01-01", periods=2)
        leads = pd.to_timedelta([6, 24], unit="h")
        field = field.rename(number="prediction_timedelta")
        field = field.assign_coords(time=times, prediction_timedelta=leads)
        table = sd.weather.find_lows(field.transpose("latitude", "prediction_timedelta", ...))
        assert table.groupby(["time", "lead_hours"]).size().to_dict() == {
            (times[0], 6): 1, (times[0], 24): 2, (times[1], 6): 2, (times[1], 24): 1,
        }  # fmt: skip
        highs = sd.weather.find_highs(labelled(2026 - one))
        assert highs["value (hPa)"].iloc[0] == pytest.approx(1043, abs=0.3)

    @pytest.mark.parametrize(
        ("changes", "settings", "words"),
        [
            (dict(units="K"), {}, "lows and highs are found in pressure"),
            (dict(units="Pa s-1"), {}, "msl is in Pa s-1"),
            (dict(units=""), {}, "no units"),
            (dict(standard_name="surface_air_pressure"), {}, "mountains"),
            ({}, dict(band=(75, 20)), "`band`"),
            ({}, dict(min_depth=-1), "`min_depth`"),
            ({}, dict(min_depth=float("nan")), "`min_depth`"),
            ({}, dict(ring_km=0), "`ring_km`"),
            ({}, dict(separation_km=-1), "`separation_km`"),
        ],
    )
    def test_what_has_no_lows_is_refused(
        self, changes: dict[str, str], settings: dict[str, Any], words: str
    ) -> None:
        field = labelled(lows(WITH_POLES), **changes)
        with pytest.raises(ValueError, match=words):
            sd.weather.find_lows(field, **settings)

    def test_a_grid_without_coordinates_is_refused(self) -> None:
        with pytest.raises(ValueError, match="latitude"):
            sd.weather.find_lows(xr.DataArray(np.zeros((3, 4)), attrs={"units": "Pa"}))


def test_lows_of_real_pressure_and_their_persistence(msl_store: Path) -> None:
    """Lows move: half of those of 5.6 degrees are where they were after 12 h, by F1."""
    field = sd.open(msl_store)["msl"].isel(time=slice(0, 16))
    finder = Finder(
        field["latitude"].values, field["longitude"].values, "lows", Criteria(min_depth=4.0)
    )
    found = [finder.find(f / 100) for f in field.values.astype(float)]
    assert 15 < np.mean([len(f) for f in found]) < 30
    f1 = []
    for steps in (1, 2, 4):
        sums = sum(sums_of(a, b) for a, b in zip(found, found[steps:], strict=False))
        f1.append(scores_of(np.asarray(sums))["f1"])
    assert 0.5 < f1[0] < 0.85 and f1[0] > f1[1] > f1[2]
