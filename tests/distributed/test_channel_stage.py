"""The distributed channel stage: every channel counts, samples stay apart, little is sent."""

import pytest
import rank_workers as workers
import torch
from rank_launcher import on_ranks

CASES = [
    (kind, channels, tree)
    for kind in ("dchag-c", "dchag-l", "single")
    for channels in (80, 81, 500, 7)
    for tree in ((0,) if kind == "single" else (0, 2, 4, 8))
    if channels >= workers.CONFIG.partitions * max(tree, 1)
]


HEADS = ["forecast", "masked"]


@pytest.mark.parametrize(
    ("world", "head"),
    [(1, "forecast"), (2, "forecast"), (4, "forecast"), (2, "masked"), (4, "masked")],
)
def test_every_input_channel_changes_the_output_of_every_rank(world: int, head: str) -> None:
    # What the heads share needs no second look with hundreds of channels.
    cases = CASES if head == "forecast" else [case for case in CASES if case[1] in (81, 7)]
    for rank, found in enumerate(on_ranks(world, workers.channels_without_effect, cases, head)):
        for case, without_effect in zip(cases, found, strict=True):
            assert without_effect == [], (case, rank)


@pytest.mark.parametrize("head", HEADS)
def test_a_sample_does_not_depend_on_its_batch_mates(head: str) -> None:
    kinds = ["dchag-c", "dchag-l", "single"]
    for found in on_ranks(2, workers.alone_and_in_company, kinds, head):
        assert max(found) < 1e-12, dict(zip(kinds, found, strict=True))


@pytest.mark.parametrize("head", HEADS)
def test_what_is_missing_is_missing_on_every_rank(head: str) -> None:
    kinds = ["dchag-c", "dchag-l", "single"]
    expected = workers.with_missing(kinds, False, head)
    for kind, one, *parts in zip(
        kinds, expected, *on_ranks(2, workers.with_missing, kinds, True, head), strict=True
    ):
        out = torch.cat([output for output, _ in parts], dim=1)
        torch.testing.assert_close(out, one[0], rtol=0, atol=1e-12, msg=kind)
        for _, gradient in parts:
            scale = float(one[1].abs().max())
            torch.testing.assert_close(gradient, one[1], rtol=0, atol=1e-10 * scale, msg=kind)


B, L, D, G, DEPTH = workers.BATCH, 8, 16, 4, workers.CONFIG.depth
FLOAT = 4
TOKENS = B * L * D * FLOAT
"""Bytes of one token a location."""


@pytest.mark.parametrize("implementation", ["absorbed", "materialised"])
@pytest.mark.parametrize("kind", ["dchag-c", "dchag-l"])
def test_dchag_gathers_one_token_a_partition_and_sends_little_else(
    kind: str, implementation: str
) -> None:
    for found in on_ranks(2, workers.collectives_of_a_step, kind, implementation):
        # Forward, each rank hands its own two of four tokens in; the final attention's heads are
        # summed. Backward there is nothing of the gathering: what is summed is what the heads
        # apart find of the gathered tokens and of the final query.
        assert found["stage forward"] == [
            ("all_gather_into_tensor", TOKENS * G // 2), ("all_reduce", TOKENS),
        ]  # fmt: skip
        assert sorted(found["stage backward"]) == [
            ("all_reduce", D * FLOAT), ("all_reduce", TOKENS * G),
        ]  # fmt: skip
        # Megatron's two all-reduces a block each way, and those of the head.
        rest = [("all_reduce", TOKENS)] * (2 * DEPTH + 1)
        assert sorted(found["model forward"]) == sorted(found["stage forward"] + rest)
        rest = [("all_reduce", TOKENS)] * (2 * DEPTH + 2)
        assert sorted(found["model backward"]) == sorted(found["stage backward"] + rest)


def test_single_sends_no_more_than_dchag() -> None:
    for found in on_ranks(2, workers.collectives_of_a_step, "single", "absorbed"):
        heads = workers.CONFIG.heads
        assert sorted(found["stage forward"]) == [
            ("all_gather_into_tensor", B * L * heads * FLOAT), ("all_gather_into_tensor", TOKENS),
        ]  # fmt: skip
        # Gradients of the query and of three D x D weights, whose uses are spread over ranks.
        assert sorted(found["stage backward"]) == [
            ("all_reduce", D * FLOAT), *[("all_reduce", D * D * FLOAT)] * 3,
        ]  # fmt: skip


@pytest.mark.parametrize("kind", ["dchag-c", "dchag-l"])
def test_a_masked_autoencoder_sends_nothing_for_what_is_hidden(kind: str) -> None:
    """Half of the locations are seen; the decoder is computed alike and needs one sum backward."""
    seen = TOKENS // 2
    for found in on_ranks(2, workers.collectives_of_a_step, kind, "absorbed", "masked"):
        assert sorted(found["model forward"]) == sorted(
            [("all_gather_into_tensor", seen * G // 2)] + [("all_reduce", seen)] * (1 + 2 * DEPTH)
        )
        of_decoder = B * L * workers.CONFIG.decoder_dim * FLOAT
        assert sorted(found["model backward"]) == sorted(
            [("all_reduce", D * FLOAT), ("all_reduce", seen * G), ("all_reduce", of_decoder)]
            + [("all_reduce", seen)] * 2 * DEPTH
        )
