"""The command line as a rank that may fail; torchrun starts it, the environment says what fails."""

import os
import signal
from typing import Any

RANK = int(os.environ["RANK"])


def failing(action: str, step: int) -> None:
    """Let this rank fail before a step's gradients."""
    from sciml_dchag.training import trainer

    gradients = trainer._Trainer._gradients

    def failing_gradients(self: Any, batch: Any) -> Any:
        if self.step == step:
            if action == "raise":
                raise ValueError("a rank's own error")
            os.kill(os.getpid(), signal.SIGKILL)
        return gradients(self, batch)

    trainer._Trainer._gradients = failing_gradients  # type: ignore[method-assign]


if __name__ == "__main__":
    if RANK == 1:
        if folder := os.environ.get("FOLDER_OF_RANK_1"):
            os.chdir(folder)  # the recipe's store is a relative path
        if version := os.environ.get("VERSION_OF_RANK_1"):
            import sciml_dchag._version

            sciml_dchag._version.__version__ = version
        if action := os.environ.get("RANK_1_DOES"):
            failing(action, int(os.environ["IN_STEP"]))
    from sciml_dchag.cli import start

    start()
