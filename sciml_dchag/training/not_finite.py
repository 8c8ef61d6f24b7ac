"""Which module of a step was the first to make a value that is not finite, and of which samples."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from sciml_dchag.models.hooks import local
from sciml_dchag.parallel.apply import plain_name
from sciml_dchag.parallel.exact import may_be_exact
from sciml_dchag.training.batches import AnyBatch

WEIGHTS, FORWARD, BACKWARD, NOWHERE = range(4)
"""Where a value may first be not finite, in the order in which a step goes through them."""


@dataclass(frozen=True)
class NotFinite:
    """What of a rank's step was first not finite."""

    phase: int = NOWHERE
    place: int = 0
    """Among the modules that were called, or their gradients."""
    what: str = ""
    """In words, such as `the output of backbone.norm`."""
    places: tuple[int, ...] = ()
    """Of the rank's samples, which have it; none where that cannot be told."""


@runtime_checkable
class Named(Protocol):
    """Samples that say what they are of."""

    def name_of(self, number: int) -> str:
        """Name a sample in a message, such as by its time."""


def first_not_finite(
    model: nn.Module, parts: Sequence[AnyBatch], loss: Callable[[AnyBatch], Tensor]
) -> NotFinite:
    """Repeat a step on this rank and find what is first not finite.

    Every rank calls it, and goes through all of the step, as others wait for what it sends.

    Args:
        model: with the weights that the step began with.
        parts: the rank's micro-batches.
        loss: of one of them; its gradient is taken.
    """
    for name, parameter in model.named_parameters():
        if not local(parameter.detach()).isfinite().all():
            return _finish(model, parts, loss, NotFinite(WEIGHTS, 0, f"in {plain_name(name)}"))
    return _finish(model, parts, loss, NotFinite())


def _finish(
    model: nn.Module,
    parts: Sequence[AnyBatch],
    loss: Callable[[AnyBatch], Tensor],
    found: NotFinite,
) -> NotFinite:
    """Go through the step with hooks on the modules; return the earlier of what they find."""
    search = _Search(found)
    called = {plain_name(f"{name}.")[:-1]: module for name, module in model.named_modules()}
    names = [name for name in map(_plain, may_be_exact(model)) if name in called]
    handles = [
        called[name].register_forward_hook(search.hook(name)) for name in dict.fromkeys(names)
    ]
    try:
        with eagerly(model):
            for part in parts:
                search.begin(len(part))
                loss(part).backward()
    finally:
        for handle in handles:
            handle.remove()
    return search.found


def _plain(name: str) -> str:
    return plain_name(f"{name}.")[:-1]


class _Search:
    """The earliest of what hooks have found so far."""

    def __init__(self, found: NotFinite) -> None:
        self.found, self.offset, self.samples, self.calls, self.gradients = found, 0, 0, 0, 0

    def begin(self, samples: int) -> None:
        """Go on to the next micro-batch, of so many samples."""
        self.offset, self.samples = self.offset + self.samples, samples
        self.calls = self.gradients = 0

    def hook(self, name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if not isinstance(output, Tensor):
                return
            self.calls += 1
            self._look(FORWARD, self.calls, f"in the output of {name}", local(output.detach()))
            if output.requires_grad:
                output.register_hook(lambda gradient: self._look_back(name, gradient))

        return hook

    def _look_back(self, name: str, gradient: Tensor) -> None:
        self.gradients += 1
        what = f"in the gradient of the output of {name}"
        self._look(BACKWARD, self.gradients, what, local(gradient))

    def _look(self, phase: int, place: int, what: str, values: Tensor) -> None:
        if self.found.what and (phase, place) > (self.found.phase, self.found.place):
            return
        bad = ~values.isfinite()
        if not bad.any():
            return
        places: tuple[int, ...] = ()
        if len(values) == self.samples:
            of_sample = bad.flatten(1).any(1).nonzero().flatten().tolist()
            places = tuple(self.offset + place for place in of_sample)
        if what == self.found.what:  # in an earlier micro-batch
            places = self.found.places + places
        self.found = NotFinite(phase, place, what, places)


@contextlib.contextmanager
def eagerly(model: nn.Module) -> Iterator[None]:
    """Run what is compiled as it is written, for as long as the context lasts: with its hooks."""
    modules = [m for m in model.modules() if getattr(m, "_compiled_call_impl", None)]
    compiled: list[Any] = [module._compiled_call_impl for module in modules]
    for module in modules:
        module._compiled_call_impl = None
    try:
        yield
    finally:
        for module, code in zip(modules, compiled, strict=True):
            module._compiled_call_impl = code


def in_words(answers: Sequence[tuple[NotFinite, list[int]]], samples: Any) -> str:
    """Say what was first not finite on any rank, and of which samples of the run.

    Args:
        answers: of all ranks: what each found, and the numbers of its samples that have it.
        samples: name these, if they can.
    """
    first = min(answers, key=lambda answer: (answer[0].phase, answer[0].place))[0]
    if first.phase == NOWHERE:
        return ", first in the error itself, while all modules are finite"
    numbers = sorted(
        {
            number
            for found, of_rank in answers
            if (found.phase, found.place) == (first.phase, first.place)
            for number in of_rank
        }
    )
    said = f", first {first.what}"
    if not numbers:
        return said
    names = [samples.name_of(n) if isinstance(samples, Named) else str(n) for n in numbers[:8]]
    more = f" and {len(numbers) - 8} more" if len(numbers) > 8 else ""
    return f"{said}, of sample{'s' if len(numbers) > 1 else ''} {', '.join(names)}{more}"
