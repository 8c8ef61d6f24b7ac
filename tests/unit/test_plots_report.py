"""Pictures are drawn, files are whole, and the report is a page of its own."""

import csv
import io
import math
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import to_hex
from PIL import Image
from rich.console import Console

from sciml_dchag.figures.numbers import readable_number
from sciml_dchag.figures.style import COLOURS, new_figure
from sciml_dchag.files.atomic import written_beside
from sciml_dchag.weather.forecast import report
from sciml_dchag.weather.scores import plots
from sciml_dchag.weather.scores.metrics import METRICS
from sciml_dchag.weather.scores.spectra import why_no_spectrum, zonal_power_spectrum
from sciml_dchag.weather.scores.table import (
    METRIC_DEFINITIONS,
    METRIC_LABELS,
    ScoreRow,
    metric_units,
    readable_units,
)

ATTRIBUTION = "Contains modified Copernicus Climate Change Service information 2025"
LATITUDE = np.linspace(87.1875, -87.1875, 32)
LONGITUDE = np.arange(64) * 5.625
UNITS = {"msl": "Pa", "z500": "m**2 s**-2"}


@pytest.fixture
def rows():
    made = []
    for channel, size in (("msl", 100.0), ("z500", 400.0)):
        for lead in (6, 24, 72):
            rmse = {"model": size * lead / 24, "persistence": size * lead / 12}
            made.append(row(channel, lead, "rmse", climatology=3 * size, **rmse))
            made.append(row(channel, lead, "acc_wb2", 0.9, 0.8, math.nan))
    return made


def row(channel, lead_hours, metric, model, persistence, climatology):
    return ScoreRow(
        channel=channel,
        lead_hours=lead_hours,
        metric=metric,
        model=model,
        persistence=persistence,
        climatology=climatology,
    )


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
    def test_error(self):
        assert row("a", 6, "rmse", 150.0, 200.0, 100.0).skill() == pytest.approx(0.25)
        assert row("a", 6, "rmse", 150.0, 200.0, 100.0).skill("climatology") == pytest.approx(-0.5)

    def test_correlation_is_measured_from_perfect(self):
        assert row("a", 6, "acc_wb2", 0.9, 0.8, math.nan).skill() == pytest.approx(0.5)
        assert math.isnan(row("a", 6, "acc_wb2", 0.9, 0.8, math.nan).skill("climatology"))

    def test_undefined(self):
        assert math.isnan(row("a", 6, "bias", 0.1, 0.2, 0.3).skill())
        assert math.isnan(row("a", 6, "rmse", 0.1, 0.0, 0.3).skill())


def test_every_metric_has_words():
    assert set(METRIC_LABELS) == set(METRIC_DEFINITIONS) == set(METRICS)


def test_units_and_numbers_as_text():
    assert readable_units("m**2 s**-2") == "m² s⁻²"
    assert readable_units("1") == ""
    assert metric_units("mse", "K") == "K²"
    assert metric_units("mse", "m s-1") == "(m s⁻¹)²"
    assert metric_units("acc_wb2", "K") == ""
    shown = [readable_number(x) for x in (1234567.0, 244.44, 1.5, 0.0, math.nan, 1.2e-5)]
    assert shown == ["1\u202f234\u202f567", "244.4", "1.500", "0.000", "\u2013", "1.2e-05"]


class TestPlots:
    def test_scores_by_lead(self, rows):
        figure = plots.plot_scores_by_lead(rows, "rmse", units=UNITS)
        msl, z500 = figure.axes
        assert msl.get_title(loc="left") == "msl"
        assert z500.get_title(loc="right") == "m² s⁻²"
        lines = {to_hex(line.get_color()): line for line in z500.lines}
        np.testing.assert_array_equal(lines[COLOURS["model"]].get_xdata(), [6, 24, 72])
        np.testing.assert_allclose(lines[COLOURS["model"]].get_ydata(), [100, 400, 1200])
        np.testing.assert_allclose(lines[COLOURS["persistence"]].get_ydata(), [200, 800, 2400])
        assert {text.get_text() for text in msl.texts} == {"model", "persistence", "climatology"}

    def test_undefined_baseline_is_not_drawn(self, rows):
        axes = plots.plot_scores_by_lead(rows, "acc_wb2", ["msl"]).axes[0]
        assert {text.get_text() for text in axes.texts} == {"model", "persistence"}

    def test_labels_do_not_overlap(self):
        same = [row("msl", lead, "rmse", 10.0, 10.0, 10.0) for lead in (6, 12)]
        figure = plots.plot_scores_by_lead(same)
        figure.savefig(io.BytesIO())
        boxes = sorted((t.get_window_extent() for t in figure.axes[0].texts), key=lambda b: b.y0)
        assert all(low.y1 <= high.y0 + 1 for low, high in pairwise(boxes))

    def test_unknown_channel(self, rows):
        with pytest.raises(ValueError, match="no rmse of channel 't2m': there is msl, z500"):
            plots.plot_scores_by_lead(rows, "rmse", ["t2m"])
        with pytest.raises(ValueError, match="no scores of mae"):
            plots.plot_scores_by_lead(rows, "mae")

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
        axes = plots.plot_training(records).axes[0]
        assert {"training", "validation", "best 0.200"} <= {text.get_text() for text in axes.texts}
        np.testing.assert_allclose(axes.lines[0].get_ydata(), [1 / s for s in range(1, 101)])
        np.testing.assert_allclose(axes.lines[1].get_xdata()[0], 1.5)  # mean of two neighbours
        with pytest.raises(ValueError, match="no record has a step and a loss"):
            plots.plot_training([{"event": "start"}])

    def test_save(self, rows, tmp_path):
        figure = plots.plot_scores_by_lead(rows)
        plain, noted = tmp_path / "plain.png", tmp_path / "new" / "noted.png"
        figure.savefig(plain, dpi=150)
        assert plots.save_figure(figure, noted, ATTRIBUTION) == noted
        with Image.open(plain) as before, Image.open(noted) as after:
            assert after.text["Copyright"] == ATTRIBUTION
            assert before.size == after.size
            differs = np.any(np.asarray(before) != np.asarray(after), axis=-1)
        below = np.nonzero(differs)[0]
        assert below.size  # the attribution is drawn, at the foot and nowhere else
        assert below.min() > 0.9 * differs.shape[0]
        assert [p.name for p in noted.parent.iterdir()] == ["noted.png"]
        with pytest.raises(ValueError, match=r"\.png is needed"):
            plots.save_figure(figure, tmp_path / "a.pdf", ATTRIBUTION)

    def test_pyplot_is_never_imported(self):
        code = (
            "import sys\n"
            "from sciml_dchag.evaluation import plots, report\n"
            "assert 'matplotlib' not in sys.modules\n"
            "plots.plot_training([{'step': 1, 'loss': 1.0}, {'step': 2, 'loss': 0.5}])\n"
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
    def test_csv_goes_round(self, rows, tmp_path):
        path = report.write_scores_csv(tmp_path / "scores.csv", rows)
        with path.open(newline="") as file:
            lines = list(csv.reader(file))
        heads = ["channel", "lead_hours", "metric", "model", "persistence", "climatology"]
        assert lines[0] == heads
        assert lines[2] == ["msl", "6", "acc_wb2", "0.9", "0.8", "nan"]
        back = report.read_scores_csv(path)
        assert list(map(repr, back)) == list(map(repr, rows))  # repr, because nan is not nan

    def test_csv_refuses(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="run the evaluation first"):
            report.read_scores_csv(tmp_path / "none.csv")
        path = tmp_path / "scores.csv"
        path.write_text("channel,lead\n")
        with pytest.raises(ValueError, match="has the columns channel, lead, but"):
            report.read_scores_csv(path)
        path.write_text(",".join(report.CSV_COLUMNS) + "\nmsl,6,rmse,1.0,2.0,x\n")
        with pytest.raises(ValueError, match="line 2, cannot be read"):
            report.read_scores_csv(path)
        path.write_text(",".join(report.CSV_COLUMNS) + "\nmsl,6,rmse,1.0\n")
        with pytest.raises(ValueError, match="line 2, cannot be read"):
            report.read_scores_csv(path)

    def test_netcdf(self, rows, tmp_path):
        path = tmp_path / "scores.nc"
        report.write_scores_netcdf(path, rows[:-1], UNITS, {"attribution": ATTRIBUTION})
        with xr.open_dataset(path) as data:
            picked = data["model"].sel(metric="rmse", channel="z500")
            np.testing.assert_array_equal(picked.sel(lead_hours=[6, 24, 72]), [100, 400, 1200])
            assert np.isnan(data["model"].sel(metric="acc_wb2", channel="z500", lead_hours=72))
            assert data["channel_units"].sel(channel="msl").item() == "Pa"
            assert data.attrs["attribution"] == ATTRIBUTION
        with pytest.raises(ValueError, match="no scores to write"):
            report.write_scores_netcdf(path, [])

    def test_screen(self, rows):
        rows = [*rows, row("[red]x", 6, "rmse", 2.0, 1.0, 1.0)]
        console = Console(width=140, record=True, file=io.StringIO())
        console.print(report.scores_table(rows, UNITS, title="Scores"))
        lines = [line.split(" ") for line in console.export_text().splitlines()]
        lines = [[word for word in line if word] for line in lines]
        scores = ["400.0", "800.0", "1\u202f200"]
        assert ["z500", "24", "h", "rmse", *scores, "m²", "s⁻²", "+50", "%"] in lines
        assert any(line[:1] == ["[red]x"] for line in lines)


class Page(HTMLParser):
    """Collects what the tests look at and holds that every tag is closed in order."""

    VOID = frozenset({"meta", "img", "br", "hr", "link", "input"})

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def of(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


class TestReport:
    @pytest.fixture
    def path(self, rows, tmp_path):
        figure = plots.plot_scores_by_lead(rows)
        picture = plots.save_figure(figure, tmp_path / "rmse.png", ATTRIBUTION)
        return report.write_report(
            tmp_path / "report.html",
            title="Scores of <run> & co",
            rows=[*rows, row("<b>x", 6, "rmse", 2.0, 1.0, 1.0)],
            figures=[('RMSE "by" <lead>', picture)],
            settings={"recipe": "a<b>.yaml", "seed": 7},
            attribution=ATTRIBUTION,
            units=UNITS,
            notes=["Trained on 96 steps & no more."],
        )

    def test_one_file_that_fetches_nothing(self, path):
        text = path.read_text(encoding="utf-8")
        page = Page(text)
        assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
        assert all(i["src"].startswith("data:image/png;base64,iVBOR") for i in page.of("img"))
        assert "http" not in text
        assert "url(" not in text
        assert "prefers-color-scheme: dark" in text

    def test_what_it_says(self, path):
        page = Page(path.read_text(encoding="utf-8"))
        for words in ("Scores of <run> & co", "a<b>.yaml", "<b>x", "96 steps & no more", "m² s⁻²"):
            assert words in page.text
        assert page.text.count(ATTRIBUTION) == 2
        assert METRIC_DEFINITIONS["rmse"] in page.text
        assert METRIC_DEFINITIONS["acc_wb2"] in page.text
        assert METRIC_DEFINITIONS["mae"] not in page.text
        assert "+50 %" in page.text
        assert "-100 %" in page.text
        assert page.of("img")[0]["alt"] == 'RMSE "by" <lead>'

    def test_tables_are_accessible(self, path):
        page = Page(path.read_text(encoding="utf-8"))
        assert len(page.of("table")) == len(page.of("caption")) == 4
        assert all("scope" in attrs for attrs in page.of("th"))
        assert page.of("html")[0]["lang"] == "en"

    def test_refuses_before_writing(self, rows, tmp_path):
        given = {"title": "t", "settings": {}, "attribution": ATTRIBUTION}
        path = tmp_path / "report.html"
        with pytest.raises(FileNotFoundError, match=r"none\.png is missing"):
            figures = [("a", tmp_path / "none.png")]
            report.write_report(path, rows=rows, figures=figures, **given)
        with pytest.raises(ValueError, match="no scores to report"):
            report.write_report(path, rows=[], figures=[], **given)
        assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("old")

    def fail():
        with written_beside(path) as partial:
            partial.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


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
    plots.save_figure(figure, tmp_path / "a.png", r"Data: me, 5 $\frac{1$ a year")
    assert (tmp_path / "a.png").stat().st_size > 1000
