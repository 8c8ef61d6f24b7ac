"""Parameter counts of the paper's runs (arXiv 2506.21411), to the last parameter.

`frontier_memory.csv` holds what the paper's own code counted; `benchmarks/paper.py` reads it and
turns our count into theirs.
"""

import dataclasses
from pathlib import Path

import pytest
import torch
from paper import FULL_MODELS, Run, as_the_paper_counts, config_of, read_runs

from sciml_dchag.models.config import ModelConfig, expected_parameters
from sciml_dchag.models.transformer import build_model, count_parameters

RUNS = read_runs(Path(__file__).parent / "frontier_memory.csv")
FULL = [run for run in RUNS if run.variant in FULL_MODELS]


def test_the_table_has_31_full_models() -> None:
    assert len(FULL) == 31


@pytest.mark.parametrize("run", FULL, ids=lambda r: f"{r.variant}-{r.channels}-{r.tp}")
def test_every_full_model_of_the_paper(run: Run) -> None:
    kind = FULL_MODELS[run.variant][0]
    config = config_of(kind, run.channels, run.tp, run.size)
    with torch.device("meta"):
        ours = count_parameters(build_model(config))
    assert ours == expected_parameters(config)
    assert as_the_paper_counts(ours, kind, run, config.depth) == run.parameters


def test_sizes_are_what_their_names_say() -> None:
    names = tuple(f"c{i}" for i in range(64))
    config = ModelConfig(
        aggregation="single", input_channels=names, output_channels=names, image_size=(128, 256)
    )
    for size, billions in {"1p7b": 1.7, "7b": 7, "15b": 15, "26b": 26}.items():
        sized = dataclasses.replace(config, size=size, embed_dim=0, depth=0, heads=0)
        assert expected_parameters(sized) / 1e9 == pytest.approx(billions, rel=0.07)
