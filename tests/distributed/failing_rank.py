"""The command line as a rank that may fail; torchrun starts it, the environment says what fails."""

import os
import signal
import time
from pathlib import Path
from typing import Any

RANK = int(os.environ["RANK"])


def note_time() -> None:
    """Note when this rank fails, or at least when it started."""
    Path(os.environ["NOTE"]).write_text(str(time.time()))


def failing(action: str, step: int) -> None:
    """Let this rank fail before a step's gradients."""
    from sciml_dchag.training.loop import TrainingLoop

    gradients = TrainingLoop._gradients

    def failing_gradients(self: Any, batch: Any) -> Any:
        if self.step == step:
            note_time()
            if action == "raise":
                raise ValueError("a rank's own error")
            os.kill(os.getpid(), signal.SIGKILL)
        return gradients(self, batch)

    TrainingLoop._gradients = failing_gradients  # type: ignore[method-assign]


if __name__ == "__main__":
    if RANK == 1:
        note_time()
        if folder := os.environ.get("FOLDER_OF_RANK_1"):
            os.chdir(folder)  # the recipe's store is a relative path
        if action := os.environ.get("RANK_1_DOES"):
            failing(action, int(os.environ["IN_STEP"]))
    from sciml_dchag.cli import start

    start()
