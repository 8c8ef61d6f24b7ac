"""What a step costs, on paper: memory, arithmetic and bytes sent of a rank, term by term.

Derived in docs/costs.md. In bfloat16 without autocast, blocks recomputed, a partition for each tp
rank; `tests/golden/test_costs.py` compares with the simulation.

B samples, C channels (in and out), L locations, P pixels, D embedding, h heads, T tp ranks, F fsdp
ranks, G partitions.
"""

from __future__ import annotations

from dataclasses import dataclass

from paper import STEADY_BYTES

from sciml_dchag.models.config import ModelConfig


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What the terms depend on."""

    kind: str
    """`tp-only` (single, every rank tokenizes all channels), `dchag-c` or `dchag-l`."""
    absorbed: bool
    C: int
    D: int
    depth: int
    heads: int
    T: int
    B: int = 2
    L: int = 2048
    P: int = 16

    @property
    def own(self) -> int:
        """Channels that a rank tokenizes."""
        return self.C if self.kind == "tp-only" else self.C // self.T


def shape_of(kind: str, config: ModelConfig, tp: int, samples: int) -> Shape:
    height, width = config.image_size
    return Shape(
        kind=kind,
        absorbed=config.implementation == "absorbed",
        C=len(config.input_channels),
        D=config.embed_dim,
        depth=config.depth,
        heads=config.heads,
        T=tp,
        B=samples,
        L=height * width // config.patch**2,
        P=config.patch**2,
    )


def numbers(s: Shape) -> float:
    """Parameters of a rank, biases of blocks left out."""
    attention = 4 * s.D**2
    partial = attention if s.kind == "dchag-c" else 0
    stage = s.own * (s.P + 2) * s.D + partial + attention / s.T
    blocks = s.depth * 12 * s.D**2 / s.T
    return stage + blocks + s.L * s.D + (2 * s.D**2 + s.C * s.P * s.D) / s.T


def tokens(s: Shape) -> float:
    """Bytes of a rank's tokens: 2 B L D of each channel."""
    return 2 * s.B * s.L * s.own * s.D


def keys(s: Shape) -> float:
    """Bytes of a rank's keys, or values: its own channels whole, or all channels of its heads."""
    return 2 * s.B * s.L * s.C * s.D / s.T


def stage_peak(s: Shape) -> float:
    """Bytes of the channel stage at its worst moment, materialised."""
    if s.kind == "dchag-l":
        return 2 * tokens(s)  # and their gradient
    return 3 * tokens(s) + 3 * keys(s)


def absorbed_bytes(s: Shape) -> float:
    """Bytes that the absorbed form keeps: attention, pixels and maps; and the gathered tokens."""
    pixels = 2 * s.B * s.L * s.own * (s.P + 1)
    attention = 2 * s.B * s.L * s.own * s.heads if s.kind == "dchag-c" else 0
    maps = 2 * s.own * (s.P + 1) * s.D
    return pixels + attention + maps + 2 * gathered(s)


def gathered(s: Shape) -> float:
    """Bytes of the tokens that D-CHAG's AllGather brings to every rank: 2 B L G D, G = T."""
    return 0 if s.kind == "tp-only" or s.T == 1 else 2 * s.B * s.L * s.T * s.D


def memory(s: Shape, fsdp: int = 1) -> float:
    """Bytes of a rank at the step's worst moment, by the largest terms alone.

    Parameters and what belongs to them, and the channel stage's peak or what it keeps together
    with the input of every block; of FSDP the two largest buffers, a block's parameters twice.
    """
    block_inputs = s.depth * 2 * s.B * s.L * s.D
    kept = absorbed_bytes(s) + block_inputs
    worst = kept if s.absorbed else max(stage_peak(s), tokens(s) + block_inputs)
    buffers = 0 if fsdp == 1 else 2 * 2 * 12 * s.D**2 / s.T
    return STEADY_BYTES * numbers(s) / fsdp + worst + buffers


def flops(s: Shape) -> float:
    """Multiplications and additions of a rank's step: forward, recomputed, backward."""
    n = s.B * s.L
    # A block: forward, again (all but its last product), and twice for the gradients.
    block = (88 * n * s.D**2 + 18 * n * s.L * s.D) / s.T
    head = 3 * (4 * n * s.D**2 + 2 * n * s.C * s.P * s.D) / s.T
    return s.depth * block + head + stage_flops(s)


def stage_flops(s: Shape) -> float:
    """The same of the channel stage: three times its forward pass, less the pixels' gradient."""
    n = s.B * s.L
    tokenize = 2 * n * s.own * (s.P + 1) * s.D
    if s.kind == "tp-only":
        return 3 * (tokenize + attend(n, s.C, s.D) / s.T) - tokenize
    final = (mix_first(n, s.T, s.D, s.heads) if s.absorbed else 3 * attend(n, s.T, s.D)) / s.T
    if s.kind == "dchag-l":
        # Absorbed, the weights scale maps before the one product, which tokenizes and sums.
        pixels = s.P if s.absorbed else s.P + 1
        return 2 * 2 * n * s.own * pixels * s.D + final
    if not s.absorbed:
        return 3 * (tokenize + attend(n, s.own, s.D)) + final - tokenize
    maps = 2 * s.own * (s.P + 1) * s.D * (s.D + s.heads)
    scores = 2 * n * s.own * (s.P + 1) * s.heads
    return 3 * (maps + scores + tokenize + 2 * n * s.D**2) + final - scores


def attend(n: int, channels: int, dim: int) -> float:
    """Keys and values of so many tokens at n locations, scores and sum, and the output product."""
    return 4 * n * channels * dim**2 + 4 * n * channels * dim + 2 * n * dim**2


def mix_first(n: int, tokens: int, dim: int, heads: int) -> float:
    """A step of attention over tokens that are mixed by each head before the value product.

    Values and output, forward and twice backward; scores and mixing, mixing again, and what each
    of them gives the tokens, the attention and the score map.
    """
    return 12 * n * dim**2 + 14 * n * tokens * dim * heads


def sent_over_tp(s: Shape) -> float:
    """Bytes that a rank sends over tp in a ring: 2 (T - 1) / T of an AllReduce, half of a gather.

    AllReduces of 2 B L D: five a block (two forward, one recomputed, two backward), three of the
    head, one of the channel stage; D-CHAG gathers its tokens and sums their gradient, the baseline
    sums the gradient of all tokens.
    """
    one = 2 * s.B * s.L * s.D
    gradient = tokens(s) if s.kind == "tp-only" else gathered(s)
    reduced = one * (5 * s.depth + 4) + gradient
    return (s.T - 1) / s.T * (2 * reduced + gathered(s))


def sent_over_fsdp(s: Shape, fsdp: int) -> float:
    """Bytes that a rank sends over fsdp: parameters gathered twice, gradients scattered once."""
    return 3 * (fsdp - 1) / fsdp * 2 * numbers(s)


def sent_over_dp(s: Shape, fsdp: int, dp: int) -> float:
    """Bytes that a rank sends over dp: an AllReduce of the gradients that it stores, float32."""
    return 2 * (dp - 1) / dp * 4 * numbers(s) / fsdp
