"""Metrics say what they are, and pictures and tables show them."""

import io
import math
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from evaluations import ATTRIBUTION, evaluation_of, forecast_rows, row
from matplotlib.colors import to_hex
from PIL import Image
from rich.console import Console

from sciml_dchag.figures.metric import readable_units, squared
from sciml_dchag.figures.numbers import readable_number
from sciml_dchag.figures.report import write_report
from sciml_dchag.figures.saving import save_figure
from sciml_dchag.figures.style import COLOURS, new_figure
from sciml_dchag.figures.tables import scores_table
from sciml_dchag.figures.training import plot_training
from sciml_dchag.plants.masked import metrics as plants
from sciml_dchag.training.evaluation import Evaluation, skill
from sciml_dchag.weather.scores import plots
from sciml_dchag.weather.scores.formulas import METRICS, ForecastMetric
from sciml_dchag.weather.scores.metrics import ScoreSums, check_metrics
from sciml_dchag.weather.scores.spectra import why_no_spectrum, zonal_power_spectrum
from sciml_dchag.weather.scores.table import (
    KEYS,
    TERMS,
    summary_of,
    table_of,
)

LATITUDE = np.linspace(87.1875, -87.1875, 32)
LONGITUDE = np.arange(64) * 5.625


@pytest.fixture
def rows():
    return forecast_rows()


def field(*leading, seed=0):
    """Sums of a few waves, periodic in longitude."""
    rng = np.random.default_rng(seed)
    waves = sum(
        rng.normal(size=(*leading, 32, 1))
        / k
        * np.cos(k * np.deg2rad(LONGITUDE) + rng.uniform(0, 6, size=(*leading, 32, 1)))
        for k in range(1, 32)
    )
    return 101325 + 800 * waves


class TestSkill:
    @staticmethod
    def of(metric, model, reference):
        values = (pd.Series([x]) for x in (model, reference, METRICS[metric].perfect_or_nan))
        return skill(*values)[0]

    def test_error(self):
        assert self.of("rmse", 150.0, 200.0) == pytest.approx(0.25)
        assert self.of("rmse", 150.0, 100.0) == pytest.approx(-0.5)

    def test_correlation_is_measured_from_perfect(self):
        assert self.of("acc_wb2", 0.9, 0.8) == pytest.approx(0.5)
        assert math.isnan(self.of("acc_wb2", 0.9, math.nan))

    def test_undefined(self):
        assert math.isnan(self.of("bias", 0.1, 0.2))
        assert math.isnan(self.of("rmse", 0.1, 0.0))

    def test_the_summary_counts_pairs_that_beat_both(self, rows):
        assert "in 4 of 6 pairs" in summary_of(pd.DataFrame(rows))


@pytest.mark.parametrize("metrics", [METRICS, plants.METRICS])
def test_every_metric_says_what_it_is(metrics):
    assert list(metrics) == [metric.name for metric in metrics.values()]
    for metric in metrics.values():
        assert metric.label and metric.formula.endswith(".") and metric.reference
        assert metric.formula in metric.definition and metric.reference in metric.definition
    assert len({metric.label for metric in metrics.values()}) == len(metrics)


def test_perfect_values():
    assert {name for name, m in METRICS.items() if m.perfect == 1.0} == {
        "acc_wb2", "acc_centred", "acc_climax",
    }  # fmt: skip
    assert METRICS["bias"].perfect is None and math.isnan(METRICS["bias"].perfect_or_nan)
    assert {name for name, m in METRICS.items() if m.needs_climatology} == {
        "acc_wb2", "acc_centred", "acc_climax",
    }  # fmt: skip
    assert [m.name for m in plants.METRICS.values() if m.perfect == 1.0] == ["r2_masked"]


def test_a_new_metric_is_one_object(monkeypatch, tmp_path):
    """Names, sums, table and page follow from `METRICS`, with nothing else to edit."""
    metric = ForecastMetric(
        name="mean_square_root", label="Root of MAE", formula="Root of the mean absolute error.",
        perfect=0.0, units=squared, reference="Nobody 2026",
        value=lambda totals: np.sqrt(totals["absolute_error"] / totals["weight"]),
    )  # fmt: skip
    assert "mean_square_root" not in check_metrics(None, with_climatology=False)
    monkeypatch.setitem(METRICS, metric.name, metric)
    assert check_metrics(None, with_climatology=False)[-1] == "mean_square_root"
    results = {}
    for name, error in zip(("model", "persistence", "climatology"), (4.0, 9.0, 16.0), strict=True):
        sums = ScoreSums(1, LATITUDE, with_climatology=False)
        sums.update(np.full((1, 1, 32, 64), error), np.zeros((1, 1, 32, 64)))
        results[name, 6] = sums.result([metric.name])
    table = table_of(results, {"msl": "Pa"}, [metric.name])
    assert table.iloc[0].to_dict() == {
        "channel": "msl", "lead_hours": 6, "metric": metric.name, "units": "Pa²", "perfect": 0.0,
        "model": pytest.approx(2.0), "persistence": pytest.approx(3.0),
        "climatology": pytest.approx(4.0),
    }  # fmt: skip
    page = write_report(evaluation_of(tmp_path, table)).read_text(encoding="utf-8")
    assert metric.definition in page and metric.label in page


def test_units_and_numbers_as_text():
    assert readable_units("m**2 s**-2") == "m² s⁻²"
    assert readable_units("1") == ""
    assert METRICS["mse"].units("K") == "K²"
    assert METRICS["mse"].units("m s-1") == "(m s⁻¹)²"
    assert METRICS["rmse"].units("m s-1") == "m s⁻¹"
    assert METRICS["acc_wb2"].units("K") == ""
    assert plants.METRICS["rmse_REP"].units("1") == "nm"
    assert plants.METRICS["spectral_angle_degrees"].units("1") == "degrees"
    shown = [readable_number(x) for x in (1234567.0, 244.44, 1.5, 0.0, math.nan, 1.2e-5)]
    assert shown == ["1\u202f234\u202f567", "244.4", "1.500", "0.000", "\u2013", "1.2e-05"]


class TestPlots:
    def test_scores_by_lead(self, rows):
        figure = plots.plot_scores_by_lead(pd.DataFrame(rows), "rmse")
        msl, z500 = figure.axes
        assert msl.get_title(loc="left") == "msl"
        assert z500.get_title(loc="right") == "m² s⁻²"
        lines = {to_hex(line.get_color()): line for line in z500.lines}
        np.testing.assert_array_equal(lines[COLOURS["model"]].get_xdata(), [6, 24, 72])
        np.testing.assert_allclose(lines[COLOURS["model"]].get_ydata(), [100, 400, 1200])
        np.testing.assert_allclose(lines[COLOURS["persistence"]].get_ydata(), [200, 800, 2400])
        assert {text.get_text() for text in msl.texts} == {"model", "persistence", "climatology"}

    def test_undefined_baseline_is_not_drawn(self, rows):
        axes = plots.plot_scores_by_lead(pd.DataFrame(rows), "acc_wb2", ["msl"]).axes[0]
        assert {text.get_text() for text in axes.texts} == {"model", "persistence"}

    def test_labels_do_not_overlap(self):
        same = [row("msl", lead, "rmse", 10.0, 10.0, 10.0) for lead in (6, 12)]
        figure = plots.plot_scores_by_lead(pd.DataFrame(same))
        figure.savefig(io.BytesIO())
        boxes = sorted((t.get_window_extent() for t in figure.axes[0].texts), key=lambda b: b.y0)
        assert all(low.y1 <= high.y0 + 1 for low, high in pairwise(boxes))

    def test_unknown_channel(self, rows):
        with pytest.raises(ValueError, match="no rmse of channel 't2m': there is msl, z500"):
            plots.plot_scores_by_lead(pd.DataFrame(rows), "rmse", ["t2m"])
        with pytest.raises(ValueError, match="no scores of mae"):
            plots.plot_scores_by_lead(pd.DataFrame(rows), "mae")

    def test_maps(self):
        truth = field()
        forecast = truth + 100.0
        forecast[3, 4] = np.nan
        figure = self.maps(forecast, truth)
        panels = [axes for axes in figure.axes if axes.get_title(loc="left")]
        meshes = [axes.collections[0] for axes in panels]
        assert meshes[0].get_clim() == meshes[1].get_clim()  # one scale for forecast and truth
        low, high = meshes[2].get_clim()
        assert low == -high
        np.testing.assert_allclose(meshes[1].get_array().compressed().mean(), truth.mean() / 100)
        assert meshes[0].get_array().mask.sum() == 1
        assert panels[2].get_title(loc="right") == "RMSE 1.000 hPa"
        text = " ".join(text.get_text() for text in figure.findobj() if hasattr(text, "get_text"))
        assert "msl, 24 h ahead" in text
        assert "from 2025-12-25 06:00 UTC, valid 2025-12-26 06:00 UTC" in text

    def test_signed_field_is_centred_on_zero(self):
        wind = (field() - 101325) / 100
        figure = self.maps(wind, wind + 0.5, channel="u10", units="m s-1")
        low, high = figure.axes[0].collections[0].get_clim()
        assert low == -high

    def test_maps_refuse(self):
        with pytest.raises(ValueError, match=r"forecast has shape \(32, 63\)"):
            self.maps(field()[:, 1:], field())
        with pytest.raises(ValueError, match="share no finite value"):
            self.maps(np.full((32, 64), np.nan), field())

    @staticmethod
    def maps(forecast, truth, channel="msl", units="Pa"):
        return plots.plot_maps(
            forecast,
            truth,
            LATITUDE,
            LONGITUDE,
            channel=channel,
            units=units,
            init_time=np.datetime64("2025-12-25T06", "ns"),
            lead_hours=24,
        )

    def test_spectra(self):
        truth = field(3)
        forecasts = {24: truth, 6: 0.5 * truth}
        axes = plots.plot_spectra(forecasts, truth, LATITUDE, channel="msl", units="Pa").axes[0]
        reference, half, whole = (line.get_ydata() for line in axes.lines)
        np.testing.assert_allclose(half, reference / 4)
        np.testing.assert_allclose(whole, reference)
        assert {text.get_text() for text in axes.texts} == {"truth", "6 h", "24 h"}

    def test_training(self):
        records = [{"step": s, "loss": 1 / s} for s in range(1, 101)]
        records += [
            {"step": s, "validation_loss": v} for s, v in ((50, 0.3), (75, 0.2), (100, 0.4))
        ]
        records += [{"event": "start"}, {"step": 100, "loss": None}]
        axes = plot_training(records).axes[0]
        assert {"training", "validation", "best 0.200"} <= {text.get_text() for text in axes.texts}
        np.testing.assert_allclose(axes.lines[0].get_ydata(), [1 / s for s in range(1, 101)])
        np.testing.assert_allclose(axes.lines[1].get_xdata()[0], 1.5)  # mean of two neighbours
        with pytest.raises(ValueError, match="no record has a step and a loss"):
            plot_training([{"event": "start"}])

    def test_save(self, rows, tmp_path):
        figure = plots.plot_scores_by_lead(pd.DataFrame(rows))
        plain, noted = tmp_path / "plain.png", tmp_path / "new" / "noted.png"
        figure.savefig(plain, dpi=150)
        assert save_figure(figure, noted, ATTRIBUTION) == noted
        with Image.open(plain) as before, Image.open(noted) as after:
            assert after.text["Copyright"] == ATTRIBUTION
            assert before.size == after.size
            differs = np.any(np.asarray(before) != np.asarray(after), axis=-1)
        below = np.nonzero(differs)[0]
        assert below.size  # the attribution is drawn, at the foot and nowhere else
        assert below.min() > 0.9 * differs.shape[0]
        assert [p.name for p in noted.parent.iterdir()] == ["noted.png"]
        with pytest.raises(ValueError, match=r"\.png is needed"):
            save_figure(figure, tmp_path / "a.pdf", ATTRIBUTION)

    def test_pyplot_is_never_imported(self):
        code = (
            "import sys\n"
            "from sciml_dchag.figures import report, training\n"
            "from sciml_dchag.weather.scores import plots\n"
            "assert 'matplotlib' not in sys.modules\n"
            "training.plot_training([{'step': 1, 'loss': 1.0}, {'step': 2, 'loss': 0.5}])\n"
            "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True)


class TestSpectrum:
    def test_one_wave(self):
        wave = np.broadcast_to(3.0 * np.cos(5 * np.deg2rad(LONGITUDE)), (32, 64))
        wavenumber, power = zonal_power_spectrum(wave, LATITUDE)
        assert wavenumber[np.argmax(power)] == 5
        assert power[4] == pytest.approx(3.0**2 / 2)
        assert np.delete(power, 4).max() < 1e-20

    @pytest.mark.parametrize("longitudes", [63, 64])
    def test_sums_to_the_zonal_variance(self, longitudes):
        noise = np.random.default_rng(0).normal(size=(2, 32, longitudes))
        _, power = zonal_power_spectrum(noise, LATITUDE, (0, 90))
        weights = np.cos(np.deg2rad(LATITUDE))
        variance = np.average(noise.var(axis=-1).mean(axis=0), weights=weights)
        assert power.sum() == pytest.approx(variance, rel=1e-12)

    def test_band_and_missing_rows(self):
        noise = np.random.default_rng(0).normal(size=(32, 64))
        inside = (np.abs(LATITUDE) >= 30) & (np.abs(LATITUDE) <= 60)
        changed = np.where(inside[:, None], noise, 1e6 * noise)
        expected = zonal_power_spectrum(noise, LATITUDE)[1]
        np.testing.assert_array_equal(zonal_power_spectrum(changed, LATITUDE)[1], expected)
        holed = noise.copy()
        holed[:16, 0] = np.nan
        south = zonal_power_spectrum(holed, LATITUDE)[1]
        assert np.isfinite(south).all()
        assert not np.allclose(south, expected)
        with pytest.raises(ValueError, match="no row without missing values between 30 and 60"):
            zonal_power_spectrum(noise * np.nan, LATITUDE)


class TestTables:
    def test_scores_go_round(self, rows, tmp_path):
        evaluation = evaluation_of(tmp_path / "evaluation", rows, shown=(1, 3))
        evaluation.write()
        lines = (tmp_path / "evaluation" / "scores.csv").read_text().splitlines()
        assert lines[0] == ("channel,lead_hours,metric,units,perfect,model,persistence,climatology")
        assert lines[2] == "msl,6,acc_wb2,,1.0,0.9,0.8,nan"
        back = Evaluation.read(tmp_path)
        pd.testing.assert_frame_equal(back.to_frame(), pd.DataFrame(rows), check_dtype=False)
        assert (back.labels, back.terms, back.shown) == (evaluation.labels, TERMS, (1, 3))
        cube = back.to_frame().set_index(list(KEYS)).to_xarray()  # what scores.nc would hold
        picked = cube["model"].sel(metric="rmse", channel="z500")
        np.testing.assert_array_equal(picked, [100, 400, 1200])

    def test_what_cannot_be_read_is_refused(self, rows, tmp_path):
        with pytest.raises(FileNotFoundError, match="sciml-dchag evaluate"):
            Evaluation.read(tmp_path)
        evaluation_of(tmp_path / "evaluation", rows).write()
        scores = tmp_path / "evaluation" / "scores.csv"
        whole = scores.read_text()
        for damaged in ("channel,lead\n", whole.replace("0.9", "x"), whole.replace("units", "u"),
                        whole.replace("persistence", "held"), "metric,model\nmse,1\n"):  # fmt: skip
            scores.write_text(damaged)
            with pytest.raises(ValueError, match="evaluate the run again"):
                Evaluation.read(tmp_path)

    def test_screen(self, rows):
        table = pd.DataFrame([*rows, row("[red]x", 6, "rmse", 2.0, 1.0, 1.0)])
        gain = skill(table["model"], table["persistence"], table["perfect"])
        console = Console(width=140, record=True, file=io.StringIO())
        console.print(scores_table(table, KEYS, gain.rename("persistence")))
        lines = [line.split(" ") for line in console.export_text().splitlines()]
        lines = [[word for word in line if word] for line in lines]
        scores = ["400.0", "800.0", "1\u202f200"]
        assert ["z500", "24", "h", "rmse", *scores, "m²", "s⁻²", "+50", "%"] in lines
        assert any(line[:1] == ["[red]x"] for line in lines)


@pytest.mark.parametrize(
    ("latitude", "longitude", "why"),
    [
        (np.arange(-87.0, 88, 6), np.arange(0.0, 360, 6), None),
        (np.arange(87.0, -88, -6), np.arange(-180.0, 180, 6), None),
        (np.arange(30.0, 60, 2), np.arange(0.0, 40, 2), "do not go around the globe"),
        (np.arange(30.0, 60, 2), np.arange(0.0, 180, 2), "do not go around the globe"),
        (np.arange(-20.0, 21, 2), np.arange(0.0, 360, 2), "no row lies between"),
    ],
)
def test_a_region_has_no_zonal_spectrum(latitude, longitude, why):
    found = why_no_spectrum(latitude, longitude)
    assert (found is None) if why is None else (found is not None and why in found)


def test_a_dollar_sign_is_text(tmp_path):
    figure = new_figure(4.0, 3.0, r"trait $\frac{1$")
    figure.subplots().set(ylabel=r"$\frac{1$ per m", yscale="log")
    save_figure(figure, tmp_path / "a.png", r"Data: me, 5 $\frac{1$ a year")
    assert (tmp_path / "a.png").stat().st_size > 1000
