"""Any mesh computes what one process computes: forward, every gradient, three optimizer steps."""

import functools
from typing import Any

import pytest
import rank_workers as workers
import torch
from rank_launcher import on_ranks
from torch import Tensor

KINDS = [("dchag-c", 0), ("dchag-c", 2), ("dchag-l", 0), ("dchag-l", 2), ("single", 0)]
# 9 channels over 4 partitions are uneven.
SOME = [(kind, 9, tree, "absorbed", torch.float64) for kind, tree in KINDS]
MATERIALISED = [(kind, 9, tree, "materialised", torch.float64) for kind, tree in KINDS]
EVEN = [(kind, 8, 0, "absorbed", torch.float64) for kind in ("dchag-c", "dchag-l", "single")]
SINGLE_PRECISION = [(*case[:4], torch.float32) for case in SOME]

MESHES: list[tuple[dict[str, Any], list[tuple[Any, ...]]]] = [
    ({"tp": 2}, SOME + MATERIALISED + EVEN + SINGLE_PRECISION),
    ({"fsdp": 2}, [*SOME, SINGLE_PRECISION[0], SINGLE_PRECISION[3]]),
    ({"dp": 2}, SOME),
    ({"tp": 4}, [SOME[1], SOME[4]]),
    ({"tp": 2, "fsdp": 2}, [SOME[1], SOME[2], SINGLE_PRECISION[2]]),
    ({"tp": 2, "dp": 2}, [SOME[3]]),
    ({"dp": 2, "fsdp": 2}, SOME[:1]),
    ({"tp": 2, "fsdp": 2, "activation_checkpointing": "blocks"}, SOME[:1]),
    ({"tp": 2, "fsdp": 2, "activation_checkpointing": "selective"}, SOME[:1]),
    ({"tp": 2, "compile": True}, SINGLE_PRECISION[:1]),
    ({"tp": 2, "sequence_parallel": True}, SOME),
    ({"tp": 2, "fsdp": 2, "sequence_parallel": True}, SOME[:1]),
    ({"tp": 2, "sequence_parallel": True, "activation_checkpointing": "selective"}, SOME[:1]),
    ({"tp": 2, "channel_stage": "tp-only"}, SOME + MATERIALISED[:1]),
    ({"tp": 2, "fsdp": 2, "channel_stage": "tp-only"}, SOME[:2]),
    ({"tp": 2, "channel_stage": "distributed-tokens"}, MATERIALISED),
    ({"tp": 4, "channel_stage": "distributed-tokens"}, MATERIALISED[:2]),
]


def outputs(parts: list[dict[str, Tensor]], parallel: dict[str, Any]) -> Tensor:
    """Join the ranks' outputs: channels over tp, samples over the other axes."""
    tp = parallel.get("tp", 1)
    forwards = [part["forward"] for part in parts]
    return torch.cat(
        [torch.cat(forwards[i : i + tp], dim=1) for i in range(0, len(forwards), tp)], dim=0
    )


IN_SINGLE_PRECISION: list[tuple[dict[str, Any], list[tuple[Any, ...]]]] = [
    (parallel, SINGLE_PRECISION) for parallel in ({"fsdp": 2}, {"tp": 4}, {"tp": 2, "fsdp": 2})
]
# Every axis and option of a mesh, every kind and tree, both implementations, both precisions and
# an even division, with tp, fsdp and dp each beside every kind. All by all is the full test's.
MASKED: list[tuple[dict[str, Any], list[tuple[Any, ...]]]] = [
    ({"tp": 2}, [*SOME, MATERIALISED[0], MATERIALISED[3], EVEN[0], EVEN[2], SINGLE_PRECISION[2]]),
    ({"fsdp": 2}, [SOME[0], SOME[3], SOME[4], SINGLE_PRECISION[3]]),
    ({"dp": 2}, [SOME[1], SOME[2], SOME[4]]),
    ({"tp": 2, "fsdp": 2}, [SOME[2], SINGLE_PRECISION[0]]),
    ({"tp": 2, "sequence_parallel": True}, [SOME[1], SOME[4]]),
    ({"tp": 2, "sequence_parallel": True, "activation_checkpointing": "selective"}, [SOME[2]]),
    ({"tp": 2, "channel_stage": "tp-only"}, [SOME[3], MATERIALISED[0]]),
    ({"tp": 2, "channel_stage": "distributed-tokens"}, [MATERIALISED[1], MATERIALISED[4]]),
]


def ids(meshes: list[tuple[dict[str, Any], list[tuple[Any, ...]]]]) -> list[str]:
    return [str(mesh) for mesh, _ in meshes]


@pytest.mark.parametrize(("parallel", "cases"), MESHES, ids=ids(MESHES))
def test_a_mesh_computes_what_one_process_computes(
    parallel: dict[str, Any], cases: list[tuple[Any, ...]]
) -> None:
    compare(parallel, cases, "forecast")


@pytest.mark.full
@pytest.mark.parametrize("head", ["forecast", "masked", "bands"])
@pytest.mark.parametrize(
    "mesh",
    [
        {"tp": 4},
        {"tp": 2, "fsdp": 2},
        {"tp": 2, "dp": 2},
        {"tp": 2, "fsdp": 2, "activation_checkpointing": "blocks"},
        {"tp": 2, "fsdp": 2, "channel_stage": "tp-only"},
    ],
    ids=str,
)
def test_every_kind_on_four_ranks(head: str, mesh: dict[str, Any]) -> None:
    known = [case for case in SOME if head != "bands" or case[0] != "dchag-l"]
    compare(mesh, known, head)


@pytest.mark.parametrize(("parallel", "cases"), MASKED, ids=ids(MASKED))
def test_a_mesh_computes_a_masked_autoencoder_alike(
    parallel: dict[str, Any], cases: list[tuple[Any, ...]]
) -> None:
    """Locations and channels are hidden from it."""
    compare(parallel, cases, "masked")


@pytest.mark.full
@pytest.mark.parametrize(("parallel", "cases"), MESHES, ids=ids(MESHES))
def test_every_masked_autoencoder_on_every_mesh(
    parallel: dict[str, Any], cases: list[tuple[Any, ...]]
) -> None:
    compare(parallel, cases, "masked")


@pytest.mark.full
@pytest.mark.parametrize("head", ["forecast", "masked"])
@pytest.mark.parametrize(
    ("parallel", "cases"), IN_SINGLE_PRECISION, ids=ids(IN_SINGLE_PRECISION)
)  # fmt: skip
def test_every_kind_in_single_precision(
    parallel: dict[str, Any], cases: list[tuple[Any, ...]], head: str
) -> None:
    compare(parallel, cases, head)


CONTROL: list[tuple[dict[str, Any], list[tuple[Any, ...]]]] = [
    ({"tp": 2}, [SOME[0], SOME[3], SOME[4], MATERIALISED[1], SINGLE_PRECISION[0]]),
    ({"tp": 2, "fsdp": 2}, [SOME[2]]),
    ({"tp": 2, "sequence_parallel": True}, [SOME[1]]),
    ({"tp": 2, "activation_checkpointing": "selective"}, [SOME[0]]),
    ({"tp": 2, "channel_stage": "tp-only"}, [SOME[0]]),
    ({"tp": 2, "channel_stage": "distributed-tokens"}, [MATERIALISED[0]]),
]


@pytest.mark.parametrize(("parallel", "cases"), CONTROL, ids=ids(CONTROL))
def test_a_mesh_computes_a_control_branch_as_one_process_does(
    parallel: dict[str, Any], cases: list[tuple[Any, ...]]
) -> None:
    """Three new inputs between those of the base, with gaps."""
    compare(parallel, cases, "control")


BANDS: list[tuple[dict[str, Any], list[tuple[Any, ...]]]] = [
    ({"tp": 2}, [SOME[0], SOME[1], SOME[4]]),
    ({"tp": 4}, [SOME[1]]),
    ({"tp": 2, "fsdp": 2}, [SOME[0]]),
]


@pytest.mark.parametrize(("parallel", "cases"), BANDS, ids=ids(BANDS))
def test_bands_known_by_wavelength_are_learnt_alike(
    parallel: dict[str, Any], cases: list[tuple[Any, ...]]
) -> None:
    """All ranks learn the functions of wavelength together, each from its own bands."""
    compare(parallel, cases, "bands")


@functools.cache
def on_one_process(case: tuple[Any, ...], head: str) -> dict[str, Tensor]:
    return workers.three_steps(*case, None, head)


def compare(parallel: dict[str, Any], cases: list[tuple[Any, ...]], head: str) -> None:
    world = parallel.get("tp", 1) * parallel.get("fsdp", 1) * parallel.get("dp", 1)
    by_rank = on_ranks(world, workers.all_cases, cases, parallel, head)
    for case, *parts in zip(cases, *by_rank, strict=True):
        expected = on_one_process(case, head)
        tolerance = 1e-10 if case[-1] == torch.float64 else 1e-5
        largest = max(float(v.abs().max()) for k, v in expected.items() if "gradient" in k)
        forward = outputs(parts, parallel)
        assert (forward - expected["forward"]).abs().max() < tolerance, case
        for name in expected.keys() - {"forward"}:
            scale = largest if "gradient" in name else float(expected[name].abs().max())
            allowed = tolerance * scale
            if "weight of" in name and case[-1] == torch.float32:
                # Where a gradient is about AdamW's epsilon, its rounding is part of a step of 1e-3.
                allowed += 1e-6
            for part in parts:
                assert part.keys() == expected.keys()
                difference = (part[name] - expected[name]).abs().max()
                assert difference <= allowed, (case, name, float(difference))


@pytest.mark.parametrize(
    ("head", "parameter"),
    [("forecast", "aggregation.partial.query"), ("masked", "decoder.mask_token")],
)
def test_the_seams_are_needed(head: str, parameter: str) -> None:
    """Without the sums over ranks that `enter` makes, the parity above would fail."""
    case = ("dchag-c", 8, 0, "absorbed", torch.float64)
    parts = on_ranks(2, workers.without_enter, case, head)
    expected = workers.three_steps(*case, None, head)
    name = f"gradient of {parameter}"
    assert (parts[0][name] - expected[name]).abs().max() > 1e-3 * expected[name].abs().max()
