"""The search for formulas by `physo` (Tenachi et al. 2023, ApJ 959, 99), its only importer.

A recurrent network proposes formulas whose units are right by construction, their constants are
fitted, and the best twentieth teaches the network (risk-seeking policy gradient).
"""

from __future__ import annotations

import contextlib
import copy
import io
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from multiprocessing import get_start_method, set_start_method
from typing import Any

import numpy as np

from sciml_dchag.laws.formula import Formula
from sciml_dchag.laws.table import Constant, LawTable
from sciml_dchag.laws.units import BASE

OPERATIONS = ("mul", "add", "sub", "div", "inv", "n2", "sqrt", "neg", "exp", "log")
LEAST_GAIN = 1e-3
"""Of the best reward 1 / (1 + NRMSE); less is no improvement to wait for."""

Progress = Callable[[int, int, str], None]


class _Stopped(BaseException):
    """Ends a search from its callback; physo swallows what is an Exception."""


def require_engine() -> None:
    """Refuse to go on without physo.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    import importlib.util

    if importlib.util.find_spec("physo") is None:
        raise ModuleNotFoundError(
            "The search for laws needs physo, which is not installed: pip install "
            "'sciml-dchag[laws]'.",
            name="physo",
        )


def search(
    table: LawTable,
    *,
    seconds: float,
    patience: int,
    batch: int,
    seed: int,
    progress: Progress | None = None,
) -> list[Formula]:
    """Search formulas, and return the best of each complexity that was met, the simplest first.

    Args:
        table: rows to learn from; a few hundred are enough.
        seconds: of the clock, after which the search ends with the batch at hand.
        patience: batches without a better formula after which it ends.
        batch: formulas that are proposed at once.
        seed: of the proposals.
        progress: called with (seconds passed, seconds, what) after each batch.

    Raises:
        ModuleNotFoundError: physo is not installed.
    """
    require_engine()
    callback = _Callback(seconds, patience, progress)
    with _contained(seed):
        import physo
        from physo.config.config0 import config0
        from physo.learn.monitoring import RunLogger

        fitted, given = _constants(table)
        config = copy.deepcopy(config0)
        config["learning_config"]["batch_size"] = batch
        config["priors_config"][0] = ("HardLengthPrior", {"min_length": 1, "max_length": 35})
        logger = RunLogger(do_save=False)
        # physo rounds the names, and so the printed values, of its own fixed constants.
        values = np.stack([*table.X, *(np.full(len(table.y), c.value) for c in given)])
        columns = [*table.inputs, *given]
        with contextlib.suppress(_Stopped):
            physo.SR(
                values, table.y,
                X_names=[f"x{i}" for i in range(len(columns))],
                X_units=[_exponents(c) for c in columns],
                fixed_consts=[1.0], fixed_consts_units=[[0.0] * len(BASE)],
                y_name="y", y_units=_exponents(table.target),
                free_consts_names=[f"k{i}" for i in range(len(fitted))] or None,
                free_consts_units=[_exponents(c) for c in fitted] or None,
                op_names=list(OPERATIONS), use_protected_ops=False, run_config=config,
                get_run_logger=lambda: logger, get_run_visualiser=lambda: callback,
                parallel_mode=False,
            )  # fmt: skip
        if not np.nansum(logger.pareto_rewards):
            return []
        return [_formula(program, table) for program in logger.get_pareto_front()[1]]


class _Callback:
    """What physo calls after each batch."""

    def __init__(self, seconds: float, patience: int, progress: Progress | None) -> None:
        self.seconds, self.patience, self.progress = seconds, patience, progress
        self.start = time.monotonic()
        self.best, self.waited = 0.0, 0
        self.stdout, self.stderr = sys.stdout, sys.stderr  # the search has others

    def visualise(self, run_logger: Any, batch: Any) -> None:
        """Count the batch, and end the search where it is time."""
        passed = time.monotonic() - self.start
        reward = float(run_logger.overall_max_R_history[-1])
        if reward > self.best + LEAST_GAIN:
            self.best, self.waited = reward, 0
        else:
            self.waited += 1
        if self.progress is not None:
            with contextlib.redirect_stdout(self.stdout), contextlib.redirect_stderr(self.stderr):
                done = int(min(passed, self.seconds))
                self.progress(done, int(self.seconds), "seconds of search")
        if passed >= self.seconds or self.waited >= self.patience or reward > 1 - 1e-6:
            raise _Stopped


@contextlib.contextmanager
def _contained(seed: int) -> Iterator[None]:
    """Keep what physo prints, warns of, sets and draws at random to itself."""
    import matplotlib as mpl
    import torch

    numpy_state, start_method = np.random.get_state(), get_start_method(allow_none=True)
    with (
        contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(), torch.random.fork_rng(devices=[]), mpl.rc_context(),
        np.errstate(all="ignore"),
    ):  # fmt: skip
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            set_start_method(start_method, force=True)  # importing physo sets spawn


def _exponents(quantity: Any) -> list[float]:
    return [float(exponent) for exponent in quantity.unit.exponents]


def _constants(table: LawTable) -> tuple[list[Constant], list[Constant]]:
    """Those that are fitted, and those with a given value."""
    fitted = [c for c in table.constants if c.value is None]
    return fitted, [c for c in table.constants if c.value is not None]


def _formula(program: Any, table: LawTable) -> Formula:
    """A program with our names, like terms put together."""
    import sympy

    fitted, given = _constants(table)
    columns = [*(c.name for c in table.inputs), *(c.name for c in given)]
    names = {f"x{i}": name for i, name in enumerate(columns)}
    names |= {f"k{i}": constant.name for i, constant in enumerate(fitted)}
    local = {short: sympy.Symbol(name) for short, name in names.items()}
    # The number 1 is exact, so that exp(1/2) stays what it is.
    text = re.sub(r"\b1\.0\b", "1", program.get_infix_str())
    expression = sympy.sympify(text, locals=local)
    values = {names[k]: v for k, v in program.get_sympy_local_dicts()[0].items()}
    values |= {constant.name: float(constant.value or 0.0) for constant in given}
    held = {str(symbol) for symbol in expression.free_symbols}
    return Formula(expression=expression, constants={n: v for n, v in values.items() if n in held})
