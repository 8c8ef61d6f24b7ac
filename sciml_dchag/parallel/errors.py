"""Which rank of a failing job reports the reason, so that it is printed once.

A rank that fails leaves its error in torchrun's key-value store, which outlives the ranks, before
it ends. An error that all ranks have is reported by the first one; otherwise the first to fail
reports, since others fail because it did.
"""

from __future__ import annotations

import datetime
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist

from sciml_dchag.parallel import stopping

GRACE_SECONDS = float(os.environ.get("SCIML_DCHAG_GRACE_SECONDS", "5"))
"""How long a failing rank waits for others to fail in the same way before it reports by itself."""

LOST = (
    "another rank was killed, as when memory runs out, or does not answer, or the job was stopped "
    "from outside: see torchrun's report below; the same command resumes from the last checkpoint."
)
"""What a rank says that has no error of its own."""


def report_once(text: str, show: Callable[[str], None], *, alone: bool = False) -> None:
    """Call `show` on one of the ranks that fail, with the error and the rank's name where needed.

    Args:
        text: this rank's error.
        show: shows an error to the user.
        alone: no other rank can have this error, so that none is waited for.
    """
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    named, failed_at = f"Rank {rank} of {world}: {text}", int(time.time())
    try:
        store = _store()
        store.set(f"error {rank}", text)
        everyone = [f"error {other}" for other in range(world)]
        deadline = time.monotonic() + (0 if alone else GRACE_SECONDS)
        while not (complete := store.check(everyone)) and time.monotonic() < deadline:
            time.sleep(0.05)
        common = complete and len({store.get(key) for key in everyone}) == 1
        if not (common and rank) and store.add("speakers", 1) == 1:
            _to_torchrun(text if common else named, failed_at)
            show(text if common else named)
            store.set("reported", "")
        else:  # torchrun kills all ranks once one has ended
            store.wait(["reported"], datetime.timedelta(seconds=GRACE_SECONDS))
    except dist.DistError:  # no store any more: twice is better than never
        show(named)


def report_when_stopped(show: Callable[[str], None]) -> None:
    """From now on let this rank end, when torchrun stops it, only after a reason is reported.

    A rank that was killed reports none, and those that outlive it may not have noticed.
    """
    # A handler would wait until a collective returns; a thread need not.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def wait() -> None:
        signal.sigwait({signal.SIGTERM})
        if stopping.note():  # training stops after its step, unless another rank does not come
            time.sleep(stopping.STOP_SECONDS)
        report_once(LOST, show, alone=True)
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def lost_contact(error: BaseException | None) -> bool:
    """Whether an error is, or comes from, that another rank cannot be reached any more."""
    while error is not None:
        # gloo has no exception of its own, and names its source files.
        gloo = isinstance(error, RuntimeError) and "/gloo/" in str(error)
        if gloo or isinstance(error, dist.DistError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _store() -> Any:
    """Connect to the store by which torchrun's processes find each other."""
    address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    patience = datetime.timedelta(seconds=GRACE_SECONDS)
    store = dist.TCPStore(*address, is_master=False, timeout=patience)  # type: ignore[attr-defined]
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return dist.PrefixStore(f"sciml_dchag/{attempt}", store)  # type: ignore[attr-defined]


def _to_torchrun(text: str, failed_at: int) -> None:
    """Hand an error to torchrun, whose report, the last that a user sees, takes the earliest."""
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        extra = {"py_callstack": text, "timestamp": str(failed_at)}
        message = {"message": {"message": text, "extraInfo": extra}}
        Path(path).write_text(json.dumps(message), encoding="utf-8")
