"""What each rank does with ensembles; started by `rank_launcher.on_ranks`."""

from pathlib import Path
from typing import Any


def score_and_forecast(run: str, out: str, parallel: dict[str, int]) -> dict[Any, list[float]]:
    """Score a run's ensembles and write some, as `evaluate` and `predict` do; return the scores."""
    from sciml_dchag.parallel.config import ParallelConfig
    from sciml_dchag.parallel.runtime import joined, started_ranks
    from sciml_dchag.tasks import load_recipe
    from sciml_dchag.weather.forecast.ensemble_scores import EnsembleScores
    from sciml_dchag.weather.forecast.forecaster import Forecaster
    from sciml_dchag.weather.forecast.initial_times import scored_positions
    from sciml_dchag.weather.forecast.predict import predict_period
    from sciml_dchag.weather.store.store import Store

    given, folder = ParallelConfig(**parallel), Path(run)
    recipe: Any = load_recipe(folder / "recipe.yaml")
    store = Store.open(recipe.data.store)
    with joined(given.forecasting(started_ranks())) as ranks:
        forecaster = Forecaster(folder, store, ranks, given.forecasting(started_ranks()))
        names = forecaster.target_channels.names
        scores = EnsembleScores(recipe, store, forecaster, names, scored_positions(store, recipe))
        scores.run(None)
        found = {
            (name, lead, metric): values.tolist()
            for (name, lead), sums in scores.sums.items()
            for metric, values in {**sums.result(), "ranks": sums.rank_fractions()}.items()
        }
    predict_period(
        folder, out, lead_hours=[6, 12], batch=6, members=3, seed=5, every_hours=6, parallel=given
    )
    return found


def each(calls: list[tuple[str, str, dict[str, int]]]) -> list[dict[Any, list[float]]]:
    return [score_and_forecast(*call) for call in calls]
