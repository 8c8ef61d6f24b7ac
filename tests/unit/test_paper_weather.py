"""The benchmark that repeats the paper's table of forecasts: its arithmetic and its recipes."""

from pathlib import Path

import pandas as pd
import paper_weather
import pytest

from sciml_dchag.config import from_mapping
from sciml_dchag.weather.forecast.config import ForecastRecipe


def test_differences_are_percentages_of_one_process_with_the_same_seed() -> None:
    index = pd.MultiIndex.from_product([["z500"], [168], ["rmse"]])
    values = {"one process, single": (100, 110), "tp 2, dchag-c": (101, 110), "tp 2, single": (100, 110),
              "tp 2, dchag-l": (99, 99)}  # fmt: skip
    found = {
        (side, seed): pd.Series([float(score)], index=index)
        for side, scores in values.items()
        for seed, score in enumerate(scores)
    }
    row = paper_weather.compare(found, 2).iloc[0]
    assert row["one process, single, score"] == 105
    assert row["one process, single, spread over seeds (%)"] == pytest.approx(1000 / 105)
    assert row["tp 2, dchag-c (%)"] == pytest.approx(0.5)
    assert row["tp 2, dchag-l (%)"] == pytest.approx(-5.5)
    assert row["tp 2, dchag-l, largest of a seed (%)"] == pytest.approx(10)
    assert row["tp 2, single, largest of a seed (%)"] == 0


@pytest.mark.parametrize("side", paper_weather.SIDES)
def test_every_side_is_a_recipe(side: str) -> None:
    mapping = paper_weather.recipe_of(side, 1, Path("store.zarr"), 30)
    recipe = from_mapping(ForecastRecipe, mapping)
    assert recipe.parallel.tp == (2 if "tp 2" in side else 1)
    assert not recipe.task.chain_hours and not recipe.task.fixed_step
    assert recipe.evaluation.lead_hours == (168, 336, 720)
