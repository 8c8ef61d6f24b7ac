"""What a path holds: raw files, a store, forecasts, a recipe, a run, an exported model, scores.

Reads metadata alone; torch is imported only where a model is described. What a wing writes or
reads is described by its own functions (`tasks.DESCRIBERS`).
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciml_dchag.config import from_mapping
from sciml_dchag.files.remote import in_short
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.tasks import DESCRIBERS, load_recipe, named, task_class, task_of
from sciml_dchag.training.evaluation import RECORD, SCORES, Evaluation

if TYPE_CHECKING:
    from sciml_dchag.training.checkpoint import Checkpoint


def describe(path: str) -> dict[str, Any]:
    """Describe what is at a path, in pairs of a name and what to print beside it.

    Raises:
        FileNotFoundError, ValueError: there is nothing, or nothing known.
    """
    try:
        return _describe(path, Path(path))
    except _DAMAGE as error:
        raise ValueError(
            f"{path} cannot be described ({type(error).__name__}: {in_short(error)}): it is "
            f"damaged or of another kind, so copy it again."
        ) from error


_DAMAGE = (LookupError, TypeError, AttributeError, RuntimeError, ArithmeticError)
"""What libraries, and what reads records, raise of files that were changed."""


NOT_DESCRIBED = (
    ".png", ".jpg", ".jpeg", ".gif", ".svg", ".pdf", ".csv", ".tsv", ".xlsx", ".txt", ".md",
    ".html", ".json", ".jsonl", ".log", ".parquet",
)  # fmt: skip
"""How names of files end that hold no data of a kind that is described."""


def _describe(path: str, place: Path) -> dict[str, Any]:
    checkpoint = (place / "checkpoint.json").is_file() or (place / "checkpoints").is_dir()
    if checkpoint or place.suffix == ".safetensors":
        return _describe_model(place)
    if (place / "recipe.yaml").is_file():
        begun = {"training": "no checkpoint yet: `sciml-dchag train` with this recipe begins anew"}
        return {**_describe_recipe(place / "recipe.yaml"), "kind": "run", **begun}
    if place.suffix in (".yaml", ".yml") and place.is_file():
        return _describe_recipe(place)
    of_run = (place.parent if place.name == SCORES else place) / RECORD
    if of_run.is_file() and of_run.with_name(SCORES).is_file():
        return _describe_scores(place if place.is_dir() else place.parent)
    if place.suffix.lower() in NOT_DESCRIBED and place.is_file():
        raise ValueError(
            f"{path} is a picture, a table or text, which is not described: open it with another "
            f"program, or name raw files, a store or a run."
        )
    for describer in DESCRIBERS:
        facts: dict[str, Any] | None = named(describer)(path)
        if facts is not None:
            return facts
    raise ValueError(f"{path} holds nothing that is known here: name raw files, a store or a run.")


def _describe_model(place: Path) -> dict[str, Any]:
    from sciml_dchag.training.export import find_model

    saved = find_model(place)
    checkpoint, run = saved.checkpoint, (place / "checkpoints").is_dir()
    try:
        model = from_mapping(ModelConfig, checkpoint.model_config)
    except ValueError as error:
        raise ValueError(f"{saved.path} describes no model: copy it again ({error})") from error
    facts = {
        "kind": "exported model" if saved.exported else "run" if run else "checkpoint",
        "run": checkpoint.recipe["name"],
        **({"checkpoint": str(saved.path)} if run else {}),
        "task": checkpoint.kind,
        "step": f"{checkpoint.step} of {checkpoint.recipe['training']['steps']}",
        "training": _state(*saved.latest, exported=saved.exported),
        "model": _in_words(model),
        **task_class(checkpoint.recipe).describe(checkpoint, saved.path),
    }
    if run and (place / "evaluation" / SCORES).is_file():
        facts["scores"] = Evaluation.read(place).summary
    if run:
        from sciml_dchag.training.observed import read_warnings

        facts |= {
            f"warning ({warned.kind})": f"step {warned.step}: {warned.text}"
            for warned in read_warnings(place)
        }
    return facts


def _state(path: Path, checkpoint: Checkpoint, *, exported: bool) -> str:
    """Say whether and when training ended; of the best weights, exported, nobody knows."""
    from sciml_dchag.training.checkpoint import RECORD

    written = path if exported else path / RECORD
    when = datetime.datetime.fromtimestamp(written.stat().st_mtime, datetime.UTC)
    if exported and not checkpoint.complete:
        return f"exported {when:%Y-%m-%d %H:%M} UTC"
    early = checkpoint.step < checkpoint.recipe["training"]["steps"]
    ended = ("ended early, as validation no longer fell" if early else "ended") + ", written"
    state = ended if checkpoint.complete else "not ended, last written"
    return f"{state} {when:%Y-%m-%d %H:%M} UTC"


def _describe_recipe(path: Path) -> dict[str, Any]:
    recipe = load_recipe(path)
    try:
        model = _in_words(task_of(recipe).expected_model())
    except (ValueError, OSError) as error:  # the store decides, and is not there or not readable
        model = f"not known yet: {error}"
    store, training, mesh = recipe.data.store, recipe.training, recipe.parallel
    return {
        "kind": "recipe",
        "run": recipe.name,
        "task": recipe.kind,
        "store": f"{store} ({'there' if Path(store).exists() else 'not there yet'})",
        "model": model,
        "training": f"{training.steps} steps of {training.batch} samples, "
        f"learning rate {training.learning_rate:g}",
        "parallel": f"dp {mesh.dp}, fsdp {mesh.fsdp}, tp {mesh.tp}",
    }


def _describe_scores(folder: Path) -> dict[str, Any]:
    found = Evaluation.read(folder.parent)
    metrics = list(dict.fromkeys(found.table["metric"]))
    return {
        "kind": "scores",
        "title": found.title,
        "summary": found.summary,
        "metrics": metrics,
        "baselines": found.baselines,
        "rows": len(found.table),
        **{name.lower(): str(place) for name, place in found.paths.items()},
        "attribution": found.attribution,
    }


def _in_words(model: ModelConfig) -> str:
    return (
        f"{model.aggregation}, {model.depth} blocks of {model.embed_dim}, "
        f"{len(model.input_channels)} channels in, {len(model.output_channels)} out, "
        f"{model.image_size[0]} x {model.image_size[1]} in patches of {model.patch}"
    )
