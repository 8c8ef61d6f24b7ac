"""`law-table` and `laws`: from a state to a law, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result

from sciml_dchag.files.samples import sample_path

Call = Callable[..., Result]
STATE = str(sample_path("era5_state_1959"))


def test_from_a_state_to_a_folder_of_laws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("law-table", STATE, "wind.csv", "--columns", "v500,dz500_dx,f", "--band", "30", "75")
    result = call(*words)
    assert result.exit_code == 0, result.output
    assert "Table of 1152 rows: wind.csv" in result.output
    assert "exists" in call(*words).output

    asked = ("laws", "wind.csv", "--target", "v500", "--group", "sector")
    refused = call(*asked, "--inputs", "dz500_dx", "--constants", "c:1")
    assert refused.exit_code != 0 and not (tmp_path / "wind_laws").exists()
    assert "add a constant in m s-1, or one in s to multiply dz500_dx by" in refused.output

    search = ("--seconds", "30", "--patience", "1", "--batch", "100", "--rows", "60")
    result = call(*asked, "--inputs", "dz500_dx,f", "--constants", "c:1", *search)
    assert result.exit_code == 0, result.output
    assert "Formulas: wind_laws/laws.csv" in result.output
    table = pd.read_csv("wind_laws/laws.csv")
    assert table["complexity"].is_monotonic_increasing
    assert table["r2_training"].is_monotonic_increasing
    assert len(pd.read_csv("wind_laws/baselines.csv")) == 2
    assert (tmp_path / "wind_laws/laws.png").stat().st_size > 10_000
