"""SIGTERM and SIGUSR1 during training: noted when they come, acted on by all ranks after a step.

Schedulers send one before they end a job. A handler must not compute or wait, so it only notes the
signal; the ranks add up what each has noted in a sum that every step takes anyway, and all stop
after the same step, whichever of them got the signal.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
STATUS = 75
"""Exit status of a command that was asked to stop and can be repeated: EX_TEMPFAIL of sysexits."""
STOP_SECONDS = 25.0
"""How long a rank may take to stop by itself; torchrun and Slurm kill after 30 s."""

_noting = threading.Event()
_noted = threading.Event()


class StoppedError(Exception):
    """A signal asked to stop; what was done is kept."""


def asked() -> bool:
    """Whether a signal has come since `noted` began."""
    return _noted.is_set()


def note() -> bool:
    """Note a signal; return whether anybody looks."""
    if _noting.is_set():
        _noted.set()
    return _noting.is_set()


@contextlib.contextmanager
def noted() -> Iterator[None]:
    """Note the signals for as long as the block lasts, instead of ending at once."""

    def handle(number: int, frame: FrameType | None) -> None:
        note()

    _noted.clear()
    _noting.set()
    former = {}
    if threading.current_thread() is threading.main_thread():  # no other may handle signals
        former = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        _noting.clear()
        for number, handler in former.items():
            signal.signal(number, handler)
