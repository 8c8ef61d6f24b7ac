"""Parameter counts of the paper's runs (arXiv 2506.21411), to the last parameter.

`frontier_memory.csv` holds what the paper's own code counted. It counts row-parallel biases once a
rank, the queries of partial aggregations once in all, and for linear aggregations one rank's layer
and a query that is not used; the conversion below undoes that.
"""

import csv
import dataclasses
from pathlib import Path

import pytest
import torch

from sciml_dchag.models import ModelConfig, build_model, count_parameters
from sciml_dchag.models.presets import expected_parameters

KINDS = {
    "tp_baseline": "single",
    "distributed_tokenize_full_model": "single",
    "dchag_cross_tree0": "dchag-c",
    "dchag_linear_tree0": "dchag-l",
}
with (Path(__file__).parent / "frontier_memory.csv").open() as file:
    ROWS = [row for row in csv.DictReader(file) if row["variant"] in KINDS]


def as_the_paper_counts(ours: int, kind: str, channels: int, ranks: int, c: ModelConfig) -> int:
    D = c.embed_dim
    attention = 4 * D * D + D
    biases = (ranks - 1) * (2 * c.depth + 1) * D
    partial = {
        "single": 0,
        "dchag-c": ranks * attention + D - ranks * (attention + D),
        "dchag-l": channels // ranks + 1 + D - (channels + ranks),
    }[kind]
    return ours + biases + partial


def test_the_table_has_31_full_models() -> None:
    assert len(ROWS) == 31


@pytest.mark.parametrize("row", ROWS, ids=lambda r: f"{r['variant']}-{r['channels']}-{r['tp']}")
def test_every_full_model_of_the_paper(row: dict[str, str]) -> None:
    channels, ranks, kind = int(row["channels"]), int(row["tp"]), KINDS[row["variant"]]
    names = tuple(f"c{i}" for i in range(channels))
    config = ModelConfig(
        size={"2048": "1p7b", "4096": "7b"}[row["embed_dim"]],
        patch=int(row["patch"]),
        aggregation=kind,  # type: ignore[arg-type]
        partitions=ranks,
        input_channels=names,
        output_channels=names,
        image_size=(int(row["height"]), int(row["width"])),
    )
    with torch.device("meta"):
        ours = count_parameters(build_model(config))
    assert ours == expected_parameters(config)
    paper = round(float(row["params_billion"]) * 1e9)
    assert as_the_paper_counts(ours, kind, channels, ranks, config) == paper


def test_sizes_are_what_their_names_say() -> None:
    names = tuple(f"c{i}" for i in range(64))
    config = ModelConfig(
        aggregation="single", input_channels=names, output_channels=names, image_size=(128, 256)
    )
    for size, billions in {"1p7b": 1.7, "7b": 7, "15b": 15, "26b": 26}.items():
        sized = dataclasses.replace(config, size=size, embed_dim=0, depth=0, heads=0)
        assert expected_parameters(sized) / 1e9 == pytest.approx(billions, rel=0.07)
