"""What a user sees: progress bars on a terminal, errors of one sentence, warnings of one line."""

from __future__ import annotations

import errno
import os
import re
import shlex
import shutil
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn
from unicodedata import category

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

for _stream in ("stdout", "stderr"):  # None where a job system has closed it
    if getattr(sys, _stream) is None:
        setattr(sys, _stream, open(os.devnull, "w"))  # noqa: PTH123, SIM115 - open to the end

if not os.environ.get("COLUMNS", "1").strip("0").isdigit():  # 0 would show nothing
    del os.environ["COLUMNS"]

# Where the output is no terminal, rich would take 80 columns, too few for a table of scores.
_WIDTH = None if "COLUMNS" in os.environ or sys.stdout.isatty() else 120

# Of the processes that torchrun starts, the first one speaks.
_FIRST = os.environ.get("RANK", "0") == "0"

# Brackets in a path are no markup; `show` is for what brings its own.
out = Console(width=_WIDTH, soft_wrap=True, quiet=not _FIRST, markup=False)
err = Console(stderr=True, soft_wrap=True, markup=False)


def show(what: str | Table) -> None:
    """Print text or a table with rich's markup, in which names of the user's are escaped."""
    out.print(what, markup=True)


def say(line: str) -> None:
    """Print a line as it is."""
    out.print(plain(line), highlight=False, soft_wrap=True)


USER_ERRORS = (ValueError, OSError, FloatingPointError, ImportError)
"""What a user can fix; anything else is a defect of ours and shows its traceback."""


SPREAD = ("train", "evaluate", "predict")
"""Commands that torchrun may start on several processes."""


def require_one_process(what: str) -> None:
    """Refuse what several processes would do each for itself.

    Raises:
        ValueError: torchrun has started several.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            f"{what} works on one process and torchrun has started several: start it without "
            f"torchrun; {', '.join(SPREAD[:-1])} and {SPREAD[-1]} are spread over them."
        )


class Command(click.Command):
    """A command with `--debug`, whose errors of use are one sentence and status 2."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        option = click.Option(
            ["--debug"],
            is_flag=True,
            expose_value=False,
            callback=lambda context, _, value: context.meta.update(debug=value),
            help="Show the full traceback of an error.",
        )
        self.params.append(option)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        from sciml_dchag.parallel.stopping import StoppedError

        with _short_warnings():
            try:
                if self.name not in SPREAD:
                    require_one_process(str(self.name))
                return super().invoke(ctx)
            except USER_ERRORS as error:
                if ctx.meta.get("debug"):
                    traceback.print_exc()
                raise _UserError(describe(error)) from error
            except (MemoryError, RuntimeError) as error:
                if not ctx.meta.get("debug") and "DataLoader worker" in str(error):
                    raise _UserError(
                        "A loader process was ended by the system, as where /dev/shm or the memory "
                        "is used up: lower data.workers, or give more shared memory."
                    ) from error
                if ctx.meta.get("debug") or not _out_of_memory(error):
                    raise
                raise _UserError(
                    f"The memory is used up ({' '.join(str(error).split())[:120]}): lower "
                    f"training.micro_batch or the size of the model, or use more of the machine."
                ) from error
            except StoppedError as error:
                raise _Stopped(str(error)) from error


class _Stopped(click.ClickException):
    exit_code = 75  # parallel.stopping.STATUS


def _out_of_memory(error: BaseException) -> bool:
    """Whether torch or NumPy could not allocate; torch's error on CPUs is a plain RuntimeError."""
    said = str(error)
    return isinstance(error, MemoryError) or "allocate memory" in said or "out of memory" in said


class _UserError(click.ClickException):
    exit_code = 2


class Group(click.Group):
    """A group of such commands."""

    command_class = Command
    group_class = type


def program() -> str:
    """Return how this program is called from here: by its path where it is not on the PATH."""
    called = Path(sys.argv[0])
    if shutil.which("sciml-dchag") or called.name != "sciml-dchag":
        return "sciml-dchag"
    with suppress(ValueError):
        called = called.absolute().relative_to(Path.cwd())
    return shlex.quote(str(called))


ALIASES = {"static_sources": "static_source", "store_path": "store"}
"""What the command line calls a parameter that has another name in Python."""
SAID_OTHERWISE = {
    "name=NAME": "--set name=NAME",
    "resume=True": "--resume auto",
    "own_references=False": "--no-own-references",
}
"""Settings whose option is not the parameter's name with its value."""


def as_options(text: str) -> str:
    """Turn parameters that a message names, such as `overwrite=True`, into the command's options.

    What is no parameter of the command that runs stays as it is: it may be a recipe's knob.
    """
    context = click.get_current_context(silent=True)
    options: dict[str, str] = {}
    for parameter in context.command.params if context else ():
        if isinstance(parameter, click.Option):
            longest = max(parameter.opts, key=len)
            options |= dict.fromkeys(
                (longest.strip("-").replace("-", "_"), parameter.name or ""), longest
            )

    def option(match: re.Match[str]) -> str:
        name, value = match[1], match[2]
        said = SAID_OTHERWISE.get(match[0].strip("`"))
        if said is not None and said.split()[0] in options.values():
            return f"`{said}`"
        found = options.get(name) or options.get(ALIASES.get(name, ""))
        if found is None:
            return match[0]
        return f"`{found}`" if value in (None, "True") else f"`{found} {value}`"

    return re.sub(r"`([a-z_]+)(?:=([^`]*))?`", option, text)


def describe(error: BaseException) -> str:
    """Say an error in one line, in the words of the command line."""
    if isinstance(error, OSError) and error.errno == errno.EROFS and error.filename:
        return plain(f"{error.filename} is on a read-only file system: choose another place.")
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM) and error.filename:
        return plain(f"There is no permission for {error.filename}: change it, or choose another.")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        if str(error).startswith("No room to write"):  # says itself what is kept
            return plain(as_options(str(error)))
        return (
            f"The disk is full ({error.filename or error}): free some space and repeat the command."
        )
    return plain(as_options(" ".join(str(error).split()))) or type(error).__name__


def plain(text: str) -> str:
    """Show control characters, which files may hold and terminals obey, as their codes."""
    return "".join(
        ascii(letter)[1:-1] if category(letter)[0] == "C" and letter not in "\n\t" else letter
        for letter in text
    )


@contextmanager
def _short_warnings() -> Iterator[None]:
    """Show a warning to the user as one line, without the source line that raised it."""

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if issubclass(category, UserWarning) and _FIRST:
            text = plain(f"Warning: {as_options(' '.join(str(message).split()))}")
            err.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = show
        yield


def show_error(error: str) -> None:
    """Show an error."""
    print(f"Error: {error}", file=sys.stderr, flush=True)


def end_as_rank(error: Exception) -> NoReturn:
    """End a process that torchrun started, after an error that one of the ranks reports."""
    from sciml_dchag.parallel.errors import LOST, lost_contact, report_once

    status, lost = 1, lost_contact(error)
    if lost:
        text = LOST
    elif isinstance(error, click.ClickException):
        text, status = error.format_message(), error.exit_code
    elif isinstance(error, click.Abort):
        text = "Aborted!"
    else:
        text = "".join(traceback.format_exception(error)).rstrip()
    report_once(text, show_error, alone=lost)
    sys.stdout.flush()
    # No usual end: it would wait for a checkpoint's thread, and that for ranks that do not come.
    os._exit(status)


class ProgressBar:
    """A bar for every kind of work it is called for, on a terminal; nothing elsewhere.

    A bar appears once its work has taken two seconds.
    """

    def __init__(self) -> None:
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._started: dict[str, float] = {}

    def __call__(self, done: int, total: int, what: str) -> None:
        """Show that `done` of `total` is done."""
        if not err.is_terminal:
            return
        started = self._started.setdefault(what, time.monotonic())
        if what not in self._tasks:
            if time.monotonic() - started < 2:
                return
            if self._bars is None:
                self._bars = Progress(
                    TextColumn("{task.description}"),
                    BarColumn(),
                    MofNCompleteColumn(),
                    TimeRemainingColumn(),
                    console=err,
                )
                self._bars.start()
            self._tasks[what] = self._bars.add_task(what, total=total)
        assert self._bars is not None
        self._bars.update(self._tasks[what], completed=done, total=total)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()
