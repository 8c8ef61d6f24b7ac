"""How a run is spread over ranks: the degrees and options of a recipe.

Needs no torch, so that recipes are read and checked without it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from sciml_dchag.models.config import ModelConfig


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """How a run is spread over ranks; none of it changes what is computed.

    Raises:
        ValueError: a degree below its least value.
    """

    dp: int = 1
    """Copies of the model that train on different samples."""
    fsdp: int = 0
    """Ranks over which parameters, gradients and optimizer are split (FSDP2), training on different
    samples; 0 takes the ranks that `dp` and `tp` leave."""
    tp: int = 1
    """Ranks that work on the same samples: each has its own channels, heads and features."""
    channel_stage: Literal["dchag", "distributed-tokens", "tp-only"] = "dchag"
    """What tp ranks share of the channel stage: `dchag` their own channels up to one token a
    partition; the others are baselines to compare it with. `distributed-tokens` gathers the tokens
    of all channels and aggregates by heads, `tp-only` has every rank tokenize all channels, too."""
    sequence_parallel: bool = False
    """Share out the locations over tp where blocks work on each by itself (norms, dropout)."""
    activation_checkpointing: Literal["none", "blocks", "selective"] = "none"
    """`blocks` forgets what is inside a transformer block and computes it again when needed;
    `selective` forgets only what is computed again without a product or a collective."""
    compile: bool = False
    """Compile each transformer block with torch.compile."""
    device: Literal["auto", "cpu", "cuda", "xpu", "mps"] = "auto"
    """Where each rank computes: `auto` takes the accelerator that torch finds, else the CPU; `cuda`
    is an AMD GPU, too."""

    def __post_init__(self) -> None:
        if self.compile and self.activation_checkpointing == "blocks" and self.tp > 1:
            raise ValueError(
                f"parallel.compile with parallel.activation_checkpointing blocks fails within "
                f"PyTorch where parallel.tp is {self.tp}: set activation_checkpointing to "
                f"selective, or compile to false."
            )
        for name, least in (("dp", 1), ("fsdp", 0), ("tp", 1)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"parallel.{name} is {getattr(self, name)}: give a number of ranks, at least "
                    f"{least}."
                )

    def sizes(self, ranks: int) -> tuple[int, int, int]:
        """Return the mesh's shape (dp, fsdp, tp) for a number of ranks.

        Raises:
            ValueError: the degrees do not multiply to the number of ranks.
        """
        fsdp = self.fsdp or max(1, ranks // (self.dp * self.tp))
        if self.dp * fsdp * self.tp != ranks:
            asked = f"{self.dp} x {self.fsdp or 'auto'} x {self.tp}"
            raise ValueError(
                f"parallel.dp x fsdp x tp is {asked}, which does not make {ranks} rank(s): change "
                f"the degrees, or start {self.dp * fsdp * self.tp} processes with torchrun "
                f"--nproc-per-node."
            )
        return self.dp, fsdp, self.tp

    def elsewhere(self) -> ParallelConfig:
        """Return what of a training holds for its model's later use: the device."""
        return ParallelConfig(device=self.device)

    def forecasting(self, ranks: int) -> ParallelConfig:
        """Return the degrees to forecast with: `dp` takes the ranks that `fsdp` and `tp` leave."""
        fsdp = self.fsdp or 1
        left = max(1, ranks // (fsdp * self.tp))
        return replace(self, dp=left if self.dp == 1 else self.dp, fsdp=fsdp)


def require_divisible(model: ModelConfig, config: ParallelConfig) -> None:
    """Refuse a model whose parts cannot be shared out evenly over the tp axis.

    Raises:
        ValueError: which number tp does not divide, and the fix; or a baseline that gathers
            tokens, with a model that forms none.
    """
    tp = config.tp
    if config.channel_stage == "distributed-tokens" and model.implementation == "absorbed":
        raise ValueError(
            "parallel.channel_stage distributed-tokens gathers the tokens of all channels, which "
            "model.implementation absorbed never forms: set it to materialised."
        )
    height, width = (side // model.patch for side in model.image_size)
    if config.sequence_parallel and height * width % tp:
        raise ValueError(
            f"parallel.sequence_parallel shares {height * width} locations out over tp {tp}, which "
            f"does not divide them: set it to false, or change parallel.tp or model.patch."
        )
    for name, count in (("partitions", model.partitions), ("heads", model.heads)):
        if count % tp:
            fitting = [t for t in range(1, count + 1) if count % t == 0]
            raise ValueError(
                f"parallel.tp {tp} does not divide model.{name} {count}: set parallel.tp to one of "
                f"{', '.join(map(str, fitting))}, or model.{name} to a multiple of {tp}."
            )
