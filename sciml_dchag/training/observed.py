"""What was seen of a watched step: by module and parameter, and warnings with their remedies."""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from sciml_dchag.training.logbook import WATCHED, read_log

EARLY = 2
"""The first step that is watched; before, no second moment says what had a gradient once."""

SETTLED = 20
"""The first step whose update and second moment are judged: those before begin from nothing."""

LEAST_HEADROOM = 4.0
"""Bits between a module's largest output and what its 16-bit format holds."""
MOST_LOST = 0.01
"""Of a parameter's gradient that is rounded to zero."""
LEAST_SUBNORMAL = 0.2
"""Of a parameter's gradient, where zeros are taken for rounded numbers: what loses one number of a
normal distribution in a hundred makes nearly all others subnormal, as they are 2^11 times wider."""
MOST_LOGITS = 1e4
"""Of attention; beyond, it looks at single tokens and training often fails (Wortsman et al. 2023,
arXiv 2309.14322)."""
MOST_BELOW_EPSILON = 0.5
"""Of the model's and of a parameter's elements whose second moment's root is below ten times
AdamW's epsilon; of a model that learns as it should a fifth was, and some parameters whole."""
MOST_UPDATE = 0.1
"""Of a step's update over the weights it changes."""
MOST_SURPRISE = 8.0
"""Standard deviations from the steps before."""


@dataclass(frozen=True, kw_only=True)
class ModuleState:
    """What a module put out, over all samples and ranks."""

    largest: float
    """Magnitude of its output."""
    headroom_bits: float | None
    """Bits between that and the largest number of the output's format; None where it is zero."""
    sixteen: bool
    """Whether the output is in float16, which overflows long before float32 and bfloat16."""
    gradient_largest: float
    """Magnitude of its output's gradient, at the loss scale."""
    gradient_subnormal: float
    """Fraction of what is not zero of that which float16 keeps with fewer digits."""
    logits: float | None = None
    """Of attention: no score is larger, |q| |k| / sqrt(d) for the longest of a head."""

    @classmethod
    def of(
        cls, largest: float, limit: float, gradient: float, nonzero: float, subnormal: float,
        logits: float | None,
    ) -> Self:  # fmt: skip
        """Build it from largest values and sums over ranks."""
        headroom = math.log2(limit / largest) if 0 < largest < math.inf else None
        return cls(
            largest=largest,
            headroom_bits=-math.inf if not math.isfinite(largest) else headroom,
            sixteen=limit < 1e5,
            gradient_largest=gradient,
            gradient_subnormal=subnormal / max(nonzero, 1.0),
            logits=logits,
        )


@dataclass(frozen=True, kw_only=True)
class ParameterState:
    """A parameter's gradient, at the loss scale, and what AdamW makes of it."""

    largest: float
    """Magnitude of the gradient."""
    matrix: bool
    """Whether it has more than one dimension."""
    elements: float
    """How many it has, counted on each rank that holds them."""
    live: float
    """How many of these have a gradient, or would have one."""
    lost: float
    """Fraction of the latter that is zero though neighbours are not: rounded to zero by float16. A
    lower bound, as a row that never had a gradient may have none."""
    subnormal: float
    """Fraction of the rest that float16 keeps with fewer digits."""
    below_epsilon: float
    """Fraction of the second moments that AdamW's epsilon outweighs."""
    update: float | None
    """Norm of the step over that of the parameter; None where that is zero."""

    @classmethod
    def of(
        cls, largest: float, sums: dict[str, float], *, matrix: bool, rounded: bool, normal: float
    ) -> Self:
        """Build it from sums over ranks.

        Args:
            largest: magnitude of the gradient.
            sums: by kind.
            matrix: whether it has more than one dimension.
            rounded: whether the gradient has been through float16, and steps came before.
            normal: the smallest number with all digits.
        """
        lost, live = sums["zeros"], sums["live"]
        if sums["subnormal"] < LEAST_SUBNORMAL * (live - lost):  # dropout and the like
            lost = 0.0
        if largest < normal:  # nothing has all digits: whole rows are lost as well
            lost, live = lost + sums["lost_rows"], live + sums["lost_rows"]
        return cls(
            largest=largest,
            matrix=matrix,
            elements=sums["elements"],
            live=live,
            lost=lost / max(live, 1.0) if rounded else 0.0,
            subnormal=sums["subnormal"] / max(live - lost, 1.0) if rounded else 0.0,
            below_epsilon=sums["below_epsilon"] / max(sums["moments"], 1.0),
            update=math.sqrt(sums["update"] / sums["weight"]) if sums["weight"] > 0 else None,
        )


def with_silent_ones(parameters: dict[str, ParameterState]) -> dict[str, ParameterState]:
    """Count as lost what has no gradient at all, where others lose some.

    Alone it may be so by construction, such as of an attention over one channel.
    """
    live = math.fsum(state.live for state in parameters.values())
    lost = math.fsum(state.lost * state.live for state in parameters.values())
    if lost <= MOST_LOST * live:
        return parameters
    return {
        name: dataclasses.replace(state, lost=1.0, live=state.elements)
        if state.largest == 0 and state.elements
        else state
        for name, state in parameters.items()
    }


@dataclass(frozen=True, kw_only=True)
class Warned:
    """What a run suffers from, and what helps."""

    step: int
    """In which step it was seen."""
    kind: str
    """One of `KINDS`."""
    names: tuple[str, ...]
    """Of the modules or parameters, the worst first; `loss` or `gradient_norm`."""
    text: str
    """A sentence with the remedy."""


Figures = dict[str, tuple[float, str]]
"""How bad something is, as a number and in words, by name."""
KINDS = ("headroom", "lost", "logits", "surprise", "update", "epsilon")
"""Of warnings, the most urgent first."""


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What was seen of a step."""

    step: int
    """Counted from 1."""
    loss_scale: float
    """Of its gradients."""
    modules: dict[str, ModuleState]
    """By name, in the order of the model."""
    parameters: dict[str, ParameterState]
    """By name."""
    surprises: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Of loss and gradient norm: the step since the last watched one that lies furthest from those
    before, and by how many standard deviations of their logarithms."""

    @property
    def lost(self) -> float:
        """Fraction of all gradients that is rounded to zero."""
        live = math.fsum(state.live for state in self.parameters.values())
        return math.fsum(s.lost * s.live for s in self.parameters.values()) / max(live, 1.0)

    @property
    def below_epsilon(self) -> float:
        """Fraction of all second moments that AdamW's epsilon outweighs."""
        of_all = math.fsum(state.elements for state in self.parameters.values())
        below = math.fsum(s.below_epsilon * s.elements for s in self.parameters.values())
        return below / max(of_all, 1.0)

    def warnings(self) -> list[Warned]:
        """Say what is near its limit, the most urgent first, and what helps."""
        found = [*self._of_modules(), *self._of_parameters()]
        for name, (step, z) in self.surprises.items():
            if z > MOST_SURPRISE:
                text = (
                    f"The {name.replace('_', ' ')} of step {step} lies {z:.1f} standard deviations "
                    f"above the steps before: if it comes again, lower training.learning_rate or "
                    f"training.clip_norm; `sciml-dchag replay RUN {step}` repeats that step."
                )
                found.append(Warned(step=self.step, kind="surprise", names=(name,), text=text))
        return sorted(found, key=lambda warned: KINDS.index(warned.kind))

    def _of_modules(self) -> list[Warned]:
        near = {
            name: (-bits, f"{state.largest:.3g}")
            for name, state in self.modules.items()
            if state.sixteen and (bits := state.headroom_bits) is not None
            and bits < LEAST_HEADROOM
        }  # fmt: skip
        sharp = {
            name: (state.logits, f"{state.logits:.3g}")
            for name, state in self.modules.items()
            if state.logits is not None and not state.logits < MOST_LOGITS
        }
        return [
            *self._warned(
                "headroom", near,
                "Outputs are near 65504, beyond which float16 overflows ({}): add these modules to "
                "training.float32_modules, or set training.precision to bfloat16.",
            ),
            *self._warned(
                "logits", sharp,
                "Attention scores may be so large that single locations are looked at ({}): lower "
                "training.learning_rate, or raise training.warmup_steps or training.weight_decay.",
            ),
        ]  # fmt: skip

    def _of_parameters(self) -> list[Warned]:
        def beyond(most: float, figure: Callable[[ParameterState], float | None]) -> Figures:
            figures = {name: figure(state) for name, state in self.parameters.items()}
            return {n: (f, f"{f:.0%}") for n, f in figures.items() if f is not None and f > most}

        lost = beyond(MOST_LOST, lambda state: state.lost)
        slow = beyond(MOST_BELOW_EPSILON, lambda state: state.below_epsilon)
        hasty = beyond(MOST_UPDATE, lambda state: state.update if state.matrix else None)
        early = self.step < SETTLED
        return [
            *self._warned(
                "lost", lost,
                f"{self.lost:.1%} of the gradients is rounded to zero at a loss scale of "
                f"{self.loss_scale:g} ({{}}): raise training.loss_scale, let it grow "
                f"(training.loss_scale_steps above 0), or set training.precision to bfloat16.",
            ),
            *self._warned(
                "update", {} if early else hasty,
                "A step changes weights by much of their norm ({}): lower training.learning_rate, "
                "or raise training.warmup_steps.",
            ),
            *self._warned(
                "epsilon", {} if early or self.below_epsilon <= MOST_BELOW_EPSILON else slow,
                f"AdamW's epsilon outweighs {self.below_epsilon:.0%} of the gradients, so that "
                f"parameters learn slower than their rate ({{}}): lower training.epsilon.",
            ),
        ]  # fmt: skip

    def _warned(self, kind: str, found: Figures, text: str) -> list[Warned]:
        """Make one warning of all that suffer from the same, of each part of the model the worst.

        Args:
            kind: of the warning.
            found: how bad it is, as a number and in words, by name.
            text: the sentence, with a place for the worst.
        """
        names = sorted(found, key=lambda name: -found[name][0])
        of_part: dict[str, str] = {}
        for name in names:
            of_part.setdefault(".".join(name.split(".")[:2]), f"{name} {found[name][1]}")
        worst = ", ".join(list(of_part.values())[:8])
        more = f"; {len(names)} in all" if len(names) > len(of_part) or len(of_part) > 8 else ""
        said = text.format(worst + more)
        return [Warned(step=self.step, kind=kind, names=tuple(names), text=said)] if names else []

    def record(self) -> dict[str, Any]:
        """Return it as plain values, for a line of JSON."""
        values = dataclasses.asdict(self)
        values["warnings"] = [dataclasses.asdict(warned) for warned in self.warnings()]
        finite: dict[str, Any] = _without_infinities(values)
        return finite

    def summary(self) -> dict[str, float]:
        """Return the worst of each figure, as scalars for TensorBoard."""
        found: dict[str, list[float | None]] = {
            "headroom_bits": [s.headroom_bits for s in self.modules.values() if s.sixteen],
            "logits": [s.logits for s in self.modules.values()],
            "lost": [self.lost],
            "below_epsilon": [self.below_epsilon],
            "update": [s.update for s in self.parameters.values() if s.matrix],
        }
        worst = {}
        for name, values in found.items():
            if known := [value for value in values if value is not None]:
                worst[f"stability/{name}"] = min(known) if name == "headroom_bits" else max(known)
        return worst

    def lines(self) -> list[str]:
        """Return all of it as lines of text, warnings last."""
        lines = [
            f"step {self.step}, loss scale {self.loss_scale:g}, gradients lost {self.lost:.2%}"
        ]
        lines.append(
            f"{'module':<44} {'largest':>9} {'bits left':>9} {'gradient':>9} {'scores':>9}"
        )
        for name, of in self.modules.items():
            bits = "" if of.headroom_bits is None else f"{of.headroom_bits:.1f}"
            logits = "" if of.logits is None else f"{of.logits:.3g}"
            lines.append(
                f"{name:<44} {of.largest:>9.3g} {bits:>9} {of.gradient_largest:>9.2g} {logits:>9}"
            )
        lines.append(f"{'parameter':<44} {'gradient':>9} {'lost':>9} {'epsilon':>9} {'update':>9}")
        for name, own in self.parameters.items():
            update = "" if own.update is None else f"{own.update:.1e}"
            lines.append(
                f"{name:<44} {own.largest:>9.2g} {own.lost:>9.1%} {own.below_epsilon:>9.1%} "
                f"{update:>9}"
            )
        return lines + [f"WARNING  {warned.text}" for warned in self.warnings()]


class Surprise:
    """How unlike the last 200 steps a step is: z-scores of logarithms.

    Args:
        window: steps that are compared with.
        least: steps that must have been before anything is a surprise.
    """

    def __init__(self, window: int = 200, least: int = 50) -> None:
        self.window, self.least = window, least
        self._before: dict[str, deque[float]] = {}

    def of(self, steps: list[int], values: dict[str, list[float]]) -> dict[str, tuple[int, float]]:
        """Take steps' values in and return, by name, the most surprising step and its z-score."""
        found: dict[str, tuple[int, float]] = {}
        for name, series in values.items():
            before = self._before.setdefault(name, deque(maxlen=self.window))
            for step, value in zip(steps, series, strict=True):
                if not 0 < value < math.inf:
                    continue
                logarithm = math.log(value)
                if len(before) >= self.least:
                    mean = math.fsum(before) / len(before)
                    variance = math.fsum((b - mean) ** 2 for b in before) / len(before)
                    # A loss that hardly changes is not surprising by a hundredth.
                    z = (logarithm - mean) / max(math.sqrt(variance), 0.01)
                    if z > found.get(name, (0, -math.inf))[1]:
                        found[name] = (step, z)
                before.append(logarithm)
        return found


def read_warnings(run: Path) -> list[Warned]:
    """Read the warnings of a run's watched steps, of each kind the latest.

    Raises:
        ValueError: a damaged file.
    """
    found: dict[str, Warned] = {}
    for record in read_log(run / WATCHED):
        for values in record.get("warnings", ()):
            try:
                warned = Warned(**{**values, "names": tuple(values["names"])})
            except (TypeError, KeyError) as error:
                raise ValueError(
                    f"{run / WATCHED} is damaged at step {record['step']}: remove it, training "
                    f"does not need it."
                ) from error
            found[warned.kind] = warned
    return [found[kind] for kind in KINDS if kind in found]


def _without_infinities(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_infinities(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_infinities(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
