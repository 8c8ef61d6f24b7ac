"""The report is a page of its own, and files are whole."""

from html.parser import HTMLParser

import pandas as pd
import pytest
from evaluations import ATTRIBUTION, evaluation_of, forecast_rows, row

from sciml_dchag.figures.report import write_evaluation, write_report
from sciml_dchag.figures.saving import save_figure
from sciml_dchag.figures.tables import heading
from sciml_dchag.files.atomic import written_beside
from sciml_dchag.plants.masked import metrics as plants
from sciml_dchag.training.evaluation import Evaluation
from sciml_dchag.weather.scores import plots
from sciml_dchag.weather.scores.formulas import METRICS
from sciml_dchag.weather.scores.table import KEYS


@pytest.fixture
def rows():
    return forecast_rows()


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
        figure = plots.plot_scores_by_lead(pd.DataFrame(rows))
        save_figure(figure, tmp_path / "figures" / "rmse.png", ATTRIBUTION)
        evaluation = evaluation_of(
            tmp_path,
            [*rows, row("<b>x", 6, "rmse", 2.0, 1.0, 1.0)],
            title="Scores of <run> & co",
            figures=(('RMSE "by" <lead>', "figures/rmse.png"),),
            settings={"recipe": "a<b>.yaml", "seed": "7"},
            provenance={"Source 1": "<era5>.nc, sha256 abc"},
            notes=("Trained on 96 steps & no more.",),
        )
        return write_report(evaluation)

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
        for words in ("Scores of <run> & co", "a<b>.yaml", "<b>x", "96 steps & no more", "m² s⁻²",
                      "<era5>.nc, sha256 abc", "in 4 of 7 pairs"):  # fmt: skip
            assert words in page.text
        assert page.text.count(ATTRIBUTION) == 2
        assert METRICS["rmse"].definition in page.text
        assert METRICS["acc_wb2"].definition in page.text
        assert METRICS["mae"].formula not in page.text
        assert "2 of 3" in page.text  # channels that beat persistence 6 h ahead
        assert "+50 %" in page.text
        assert "-100 %" in page.text
        assert page.of("img")[0]["alt"] == 'RMSE "by" <lead>'

    def test_tables_are_accessible(self, path):
        page = Page(path.read_text(encoding="utf-8"))
        assert len(page.of("table")) == len(page.of("caption")) == 5
        assert all("scope" in attrs for attrs in page.of("th"))
        assert page.of("html")[0]["lang"] == "en"

    def test_a_task_without_lead_times(self, tmp_path):
        values = {"model": 0.25, "mean_spectrum": 1.0, "pca": 0.5}
        about = {"units": "", "perfect": 0.0, **values}
        table = pd.DataFrame(
            [
                {"metric": "mse_masked", "wavelength_nm": where, **about}
                for where in ("all", "450", "900")
            ]
        )
        metric = plants.METRICS["mse_masked"]
        evaluation = Evaluation(
            folder=tmp_path, table=table, keys=("metric", "wavelength_nm"),
            reference="mean_spectrum", summary="It is better.", shown=(0,),
            labels={metric.name: metric.label}, definitions={metric.name: metric.definition},
        )  # fmt: skip
        write_evaluation(evaluation)
        page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
        assert len(page.of("table")) == 2  # first scores, and those of the metric
        for words in ("It is better.", metric.definition, "Mean spectrum", "PCA", "+75 %", "900"):
            assert words in page.text
        assert page.text.count("+75 %") == 1 + 3

    def test_refuses_before_writing(self, rows, tmp_path):
        pictures = (("a", "none.png"),)
        with pytest.raises(FileNotFoundError, match=r"none\.png is missing"):
            write_report(evaluation_of(tmp_path, rows, figures=pictures))
        empty = evaluation_of(tmp_path, rows).table.iloc[:0]
        with pytest.raises(ValueError, match="no scores to report"):
            write_report(Evaluation(folder=tmp_path, table=empty, keys=KEYS,
                                    reference="persistence", summary=""))  # fmt: skip
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


def test_further_tables_are_shown_as_far_as_a_page_holds_them(tmp_path, rows):
    table = pd.DataFrame({"region": [f"<r{n}>" for n in range(501)], "rmse": range(501)})
    table.to_csv(tmp_path / "regions.csv", index=False)
    evaluation = evaluation_of(tmp_path, rows, tables=(("By region", "regions.csv"),))
    page = write_report(evaluation).read_text()
    assert "By region: the first 500 of 501 rows" in page
    assert "&lt;r499&gt;" in page and "r500" not in page
    evaluation.write()
    tmp_path.rename(tmp_path.parent / "evaluation")
    again = Evaluation.read(tmp_path.parent)
    assert again.tables == evaluation.tables
    (again.folder / "regions.csv").unlink()
    with pytest.raises(FileNotFoundError, match="regions.csv is missing"):
        write_report(again)


def test_a_heading_leaves_units_and_abbreviations_as_they_are():
    assert heading("value (hPa)") == "Value (hPa)"
    assert heading("mean_spectrum") == "Mean spectrum"
