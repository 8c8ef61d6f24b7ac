"""A trained model as it is opened in Python: what all tasks' have; what can be done with it is
theirs.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import pandas as pd

from sciml_dchag.config import Recipe, from_mapping
from sciml_dchag.files.facts import Described
from sciml_dchag.models.transformer import ChannelTransformer
from sciml_dchag.training.evaluation import Evaluation
from sciml_dchag.training.export import SavedModel, export, from_pretrained
from sciml_dchag.training.logbook import read_log

AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)


class TrainedModel(Described, Generic[AnyRecipe]):
    """A run, a checkpoint or an exported file, opened.

    Args:
        saved: where the weights are, and what lies beside them.
        run: the run folder; None where only the model is there.
    """

    kind: ClassVar[str]
    """What the model is, in words."""
    recipe_type: ClassVar[type[Recipe]]
    """The recipe of its task."""

    def __init__(self, saved: SavedModel, run: Path | None = None) -> None:
        self.saved, self.run = saved, run

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    @property
    def path(self) -> Path:
        """The run folder, or else the checkpoint or file."""
        return self.run or self.saved.path

    @cached_property
    def recipe(self) -> AnyRecipe:
        """The recipe that it was trained by."""
        recipe: Any = from_mapping(self.recipe_type, self.saved.checkpoint.recipe)
        return recipe

    @cached_property
    def model(self) -> ChannelTransformer:
        """The model itself, on the CPU, with the weights that are used for predictions."""
        return from_pretrained(self.saved.path)[0]

    @property
    def log(self) -> pd.DataFrame:
        """One row per record of the training's log; empty where only the model is there."""
        records = read_log(self.run / "log.jsonl") if self.run else []
        return pd.DataFrame(records).set_index("step") if records else pd.DataFrame()

    @property
    def evaluation(self) -> Evaluation:
        """The scores that `evaluate` wrote.

        Raises:
            FileNotFoundError: the run was not evaluated, or only the model is there.
        """
        return Evaluation.read(self.path)

    def export(self, out: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write the model to one safetensors file; see `training.export.export`."""
        return export(self.saved.path, out, overwrite=overwrite)

    def facts(self) -> dict[str, Any]:
        """What was trained, how far, and on what."""
        saved, config = self.saved.checkpoint, self.saved.checkpoint.model_config
        return {
            "kind": self.kind,
            "path": str(self.path),
            "run": saved.recipe["name"],
            **({} if saved.imported is None else {"imported from": saved.imported}),
            "weights": f"{self.saved.path.name}, step {saved.step}"
            + (", averaged" if saved.averaged else ""),
            "training": "ended" if self.saved.latest[1].complete else "not ended",
            "model": f"{config['aggregation']}, {config['partitions']} partition(s), "
            f"{config['depth']} blocks of {config['embed_dim']}, patch {config['patch']}",
            **_control(config),
        }


def _control(config: dict[str, Any]) -> dict[str, str]:
    """Say what a control branch takes in and what it was trained on; nothing where none is."""
    control = config.get("control", {})
    if not control.get("channels"):
        return {}
    base = f"{control['base']} (weights {control['base_sha256'][:8]})"
    beside = ", beside those of the base" if control.get("with_base") else ""
    return {"control": f"{', '.join(control['channels'])}{beside}, on the base {base}"}
