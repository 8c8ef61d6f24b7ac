"""What each rank does with a run, training or forecasting; started by `rank_launcher.on_ranks`."""

import copy
import os
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from sciml_dchag.training.logbook import read_log


def changed(recipe: dict[str, Any], **sections: dict[str, Any]) -> dict[str, Any]:
    new = copy.deepcopy(recipe)
    for name, values in sections.items():
        new[name] = {**new.get(name, {}), **values}
    return new


def curve(run: Path) -> dict[str, np.ndarray]:
    records = read_log(run / "log.jsonl")
    return {
        key: np.array([r[key] for r in records if key in r])
        for key in ("loss", "gradient_norm", "validation_loss")
    }


EVERYTHING = ("1900", "2100")


def assert_same_curve(
    one: Path,
    other: Path,
    tolerance: float = 1e-5,
    keys: tuple[str, ...] = ("loss", "gradient_norm", "validation_loss"),
) -> None:
    """Require that two runs have the same numbers at every step."""
    a, b = curve(one), curve(other)
    for key in keys:
        assert len(a[key]) == len(b[key]) > 0, key
        np.testing.assert_allclose(a[key], b[key], rtol=tolerance, err_msg=key)


def train_run(mapping: dict[str, Any], run: str) -> int:
    """Train a recipe as one of the ranks; return the bytes of values that this rank read."""
    from sciml_dchag.pipeline import train
    from sciml_dchag.plants.store.cubes import CubeStore
    from sciml_dchag.tasks import recipe_from_mapping
    from sciml_dchag.weather.store.store import Store

    read: list[int] = []
    before = {Store: Store.read, CubeStore: CubeStore.reflectance}

    def counting(whole_read: Any) -> Any:
        def counted(*arguments: Any, **options: Any) -> Any:
            values = whole_read(*arguments, **options)
            read.append(values.nbytes)
            return values

        return counted

    Store.read = counting(Store.read)  # type: ignore[method-assign]
    CubeStore.reflectance = counting(CubeStore.reflectance)  # type: ignore[method-assign]
    try:
        train(recipe_from_mapping(mapping), Path(run))
    finally:
        Store.read, CubeStore.reflectance = before[Store], before[CubeStore]  # type: ignore
    return sum(read)


def refusal(mapping: dict[str, Any], run: str, folder: str, rank_1: dict[str, str]) -> str:
    """Train in a folder, the second rank with a folder or version of its own.

    Return the sentence of what is refused, nothing where training ended.
    """
    from sciml_dchag import _version

    differs = rank_1 if torch.distributed.get_rank() == 1 else {}
    os.chdir(differs.get("folder", folder))
    version = differs.get("version", _version.__version__)
    with mock.patch.object(_version, "__version__", version):
        try:
            train_run(mapping, run)
        except (ValueError, OSError) as error:
            return str(error)
    return ""


def train_runs(mappings: list[dict[str, Any]], runs: str) -> None:
    """Train recipes one after the other, each into a folder of its name."""
    for mapping in mappings:
        train_run(mapping, f"{runs}/{mapping['name']}")


def train_with_holes(mapping: dict[str, Any], run: str) -> None:
    """Train with all targets of the third batch missing, and its first samples' of the fourth."""
    from sciml_dchag.weather.windows import ForecastBatch, ForecastWindows

    whole, batch = ForecastWindows.__getitem__, mapping["training"]["batch"]

    def with_holes(self: Any, number: int) -> Any:
        *rest, targets, hours = whole(self, number).tensors
        if number // batch == 2 or (number // batch == 3 and number % batch < batch // 2):
            targets = torch.full_like(targets, float("nan"))
        return ForecastBatch(*rest, targets, hours)

    ForecastWindows.__getitem__ = with_holes  # type: ignore[method-assign]
    try:
        train_run(mapping, run)
    finally:
        ForecastWindows.__getitem__ = whole  # type: ignore[method-assign]


def train_until_rank_1_breaks(mapping: dict[str, Any], run: str) -> str:
    """Train; after the third step a weight of the second rank's own is NaN. Return what is said."""
    from sciml_dchag.models.hooks import local
    from sciml_dchag.training.loop import TrainingLoop

    update = TrainingLoop._update

    def breaking(self: Any, *arguments: Any) -> Any:
        norm = update(self, *arguments)
        if self.step == 3 and torch.distributed.get_rank() == 1:  # in the fourth step
            with torch.no_grad():
                local(self.model.head.weight).flatten()[0] = float("nan")
        return norm

    TrainingLoop._update = breaking  # type: ignore[method-assign]
    try:
        train_run(mapping, run)
    except FloatingPointError as error:
        return str(error)
    finally:
        TrainingLoop._update = update  # type: ignore[method-assign]
    return "nothing"


def train_until_step_6(mapping: dict[str, Any], run: str) -> None:
    """Train, and stop every rank in the sixth step, after the checkpoint of the fourth."""
    from sciml_dchag.training.loop import TrainingLoop

    gradients = TrainingLoop._gradients

    def stopping(self: Any, batch: Any) -> Any:
        if self.step == 5:
            for _ in range(300):  # the checkpoint is written in the background
                if (Path(run) / "checkpoints" / "step-0000004").is_dir():
                    break
                time.sleep(0.1)
            raise InterruptedError("stopped on purpose")
        return gradients(self, batch)

    with mock.patch.object(TrainingLoop, "_gradients", stopping):
        train_run(mapping, run)


Scores = dict[tuple[str, int, str], tuple[float, float, float]]
Drawn = dict[tuple[int, str], Any]
Found = tuple[Scores, Drawn, np.ndarray]


def score_and_forecast(runs: dict[str, list[str]], parallel: dict[str, int]) -> list[Found]:
    """Score runs, given with overrides, and write their forecasts, as `evaluate` and `predict` do.

    Return of each the scores by channel, lead time and metric, on the first rank the fields to
    draw, and the counts of lows. Drawing them would take ten times as long.
    """
    from sciml_dchag.parallel.config import ParallelConfig
    from sciml_dchag.parallel.runtime import joined, started_ranks
    from sciml_dchag.tasks import load_recipe
    from sciml_dchag.weather.forecast.forecaster import Forecaster
    from sciml_dchag.weather.forecast.predict import predict_period
    from sciml_dchag.weather.forecast.scorer import Scorer
    from sciml_dchag.weather.store.store import Store

    given, found = ParallelConfig(**parallel), []
    degrees = given.forecasting(started_ranks())
    for run, overrides in runs.items():
        folder = Path(run)
        recipe = load_recipe(folder / "recipe.yaml", overrides)
        store = Store.open(recipe.data.store)
        with joined(degrees) as ranks:
            forecaster = Forecaster(folder, store, ranks, degrees)
            scored = list(recipe.evaluation.channels or forecaster.target_channels.names)
            scorer = Scorer(recipe, store, forecaster, scored)
            scorer.run(None)
            scores = {
                (row.channel, row.lead_hours, row.metric): (
                    row.model, row.persistence, row.climatology,
                )
                for row in scorer.table().itertuples()
            }  # fmt: skip
            drawn = {key: scorer.drawn_fields(*key) for key in scorer.drawn if ranks.first}
            found.append((scores, drawn, scorer.objects.totals))
        predict_period(
            folder, folder / "forecasts.zarr", lead_hours=[6, 12], batch=2, parallel=given
        )
    return found


def each_scored_and_forecast(
    calls: list[tuple[dict[str, list[str]], dict[str, int]]],
) -> list[list[Found]]:
    return [score_and_forecast(*call) for call in calls]


def predict_until_rank_1_fails(run: str, out: str, batches: int) -> None:
    """Forecast, and stop the second rank while it writes a batch; the first goes on alone."""
    from sciml_dchag.weather.forecast import predict

    split, written = predict.by_variable, []

    def stopping(*arguments: Any) -> Any:
        written.append(arguments)
        if torch.distributed.get_rank() == 1 and len(written) > 2 * batches:  # two lead times each
            raise InterruptedError("stopped on purpose")
        return split(*arguments)

    with mock.patch.object(predict, "by_variable", stopping):
        predict_on_ranks(run, out)


def predict_on_ranks(run: str, out: str, batch: int = 2) -> None:
    from sciml_dchag.weather.forecast.predict import predict_period

    predict_period(Path(run), Path(out), period=EVERYTHING, lead_hours=[6, 12], batch=batch)


def predict_exported(model: str, store: str, out: str, tp: int) -> None:
    from sciml_dchag.parallel.config import ParallelConfig
    from sciml_dchag.weather.forecast.predict import predict_period

    predict_period(
        Path(model), Path(out), store=Path(store), period=EVERYTHING, lead_hours=[6, 12], batch=4,
        parallel=ParallelConfig(tp=tp, fsdp=1),
    )  # fmt: skip
