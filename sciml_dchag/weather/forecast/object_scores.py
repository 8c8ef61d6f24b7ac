"""The lows and highs that a recipe asks to score: checked, and ready to be counted."""

from __future__ import annotations

from collections.abc import Sequence

from sciml_dchag.channels import ChannelSet
from sciml_dchag.weather.forecast.config import ForecastRecipe
from sciml_dchag.weather.objects.quantity import Quantity, quantity_of
from sciml_dchag.weather.objects.scores import ObjectScores
from sciml_dchag.weather.store.store import Store


def check_objects(
    recipe: ForecastRecipe, targets: Sequence[str], channels: ChannelSet
) -> Quantity | None:
    """Return what the lows and highs to be scored are of; None where none are.

    Raises:
        ValueError: the channel is not scored, or is no pressure or geopotential.
    """
    wanted, name = recipe.evaluation.objects, recipe.evaluation.objects_channel
    if not wanted:
        return None
    scored = recipe.evaluation.channels or tuple(targets)
    if name not in scored:
        raise ValueError(
            f"evaluation.objects is {list(wanted)} of {name}, which is not scored: set "
            f"evaluation.objects_channel to one of {', '.join(scored[:8])}, or leave "
            f"evaluation.objects out."
        )
    channel = channels[name]
    return quantity_of(name, channel.units, channel.long_name, channel.variable)


def object_scores(
    recipe: ForecastRecipe, store: Store, scored: Sequence[str], forecasts: Sequence[str]
) -> ObjectScores:
    """Return the counts of an evaluation, which count nothing where no objects are asked for.

    Args:
        recipe: says which objects.
        store: with the channels and the grid.
        scored: names of the channels that are scored.
        forecasts: names, the model's first.

    Raises:
        ValueError: as `check_objects`.
    """
    quantity = check_objects(recipe, scored, store.channels)
    return ObjectScores(
        recipe.evaluation.objects, recipe.evaluation.objects_channel, quantity, scored,
        forecasts, recipe.evaluation.lead_hours, (store.latitude, store.longitude),
    )  # fmt: skip
