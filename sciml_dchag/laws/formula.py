"""A formula: evaluated, fitted, written as text and LaTeX. It knows no engine that finds one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sciml_dchag.laws.table import LawTable
    from sciml_dchag.laws.units import Unit

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Formula:
    """A formula of a table's inputs, in base units."""

    expression: Any
    """A sympy expression; its symbols have the names of inputs and constants."""
    constants: Mapping[str, float]
    """Of those constants that it holds, in base units."""

    @property
    def complexity(self) -> int:
        """Operations plus symbols, as written: c * x / f has 5."""
        from sympy import Symbol, count_ops, preorder_traversal

        symbols = sum(isinstance(node, Symbol) for node in preorder_traversal(self.expression))
        return int(count_ops(self.expression)) + symbols

    def predict(self, table: LawTable) -> Array:
        """Evaluate at each row: (rows,), NaN where the formula has no real value."""
        return self._function(table)(*self.constants.values())

    def _function(self, table: LawTable) -> Any:
        from sympy import Symbol, lambdify

        inputs = [column.name for column in table.inputs]
        symbols = [Symbol(name) for name in (*inputs, *self.constants)]
        function = lambdify(symbols, self.expression, "numpy")

        def evaluate(*constants: float) -> Array:
            with np.errstate(all="ignore"):
                values = np.asarray(function(*table.X, *constants))
            if np.iscomplexobj(values):
                values = np.where(values.imag == 0, values.real, np.nan)
            return np.broadcast_to(values.astype(np.float64), table.y.shape)

        return evaluate

    def condensed(self, table: LawTable) -> Formula:
        """Write one constant where several stand for it: c for -c and exp(c), U for c * U.

        What is replaced has the units of the constant that replaces it, which occurs nowhere
        else, so that the formula still has all values that it had.
        """
        from sympy import Symbol, preorder_traversal

        fitted = {c.name: c.unit for c in table.constants if c.value is None}
        now = self
        while True:
            nodes = [n for n in preorder_traversal(now.expression) if isinstance(n, Symbol)]
            count = {name: sum(str(n) == name for n in nodes) for name in now.constants}
            for part in _parts_of_constants(now.expression, set(fitted)):
                name = _stands_for(part, fitted, count)
                if name is not None:
                    break
            else:
                return now
            value = complex(part.subs(now.constants))
            if value.imag or not np.isfinite(value.real):
                return now
            expression = _replaced(now.expression, part, Symbol(name))
            held = {str(symbol) for symbol in expression.free_symbols}
            constants = {**now.constants, name: value.real}
            now = replace(
                now,
                expression=expression,
                constants={n: v for n, v in constants.items() if n in held},
            )

    def refitted(self, table: LawTable) -> Formula:
        """Fit the constants that are not given to all rows, by least squares from their values."""
        from scipy.optimize import least_squares

        given = {c.name for c in table.constants if c.value is not None}
        free = [name for name in self.constants if name not in given]
        if not free:
            return self
        function, start = self._function(table), np.array([self.constants[n] for n in free])
        spread = float(table.y.std())

        def residuals(values: Array) -> Array:
            at = {**self.constants, **dict(zip(free, values, strict=True))}
            return np.asarray((function(*at.values()) - table.y) / spread)

        before = residuals(start)
        if not np.isfinite(before).all():
            return self
        scale = np.where(start != 0, np.abs(start), 1.0)
        try:
            fit = least_squares(residuals, start, x_scale=scale, max_nfev=200)
        except ValueError:  # a step to where the formula has no value
            return self
        if not np.isfinite(fit.fun).all() or (fit.fun**2).sum() > (before**2).sum():
            return self
        fitted = {n: float(v) for n, v in zip(free, fit.x, strict=True)}
        return replace(self, constants={**self.constants, **fitted})

    def text(self) -> str:
        """Write it as a line of Python."""
        return str(self.expression)

    def latex(self) -> str:
        """Write it in LaTeX, without dollar signs."""
        from sympy import latex

        return str(latex(self.expression))


def _parts_of_constants(expression: Any, fitted: set[str]) -> list[Any]:
    """Parts that hold fitted constants and numbers alone, the largest first, but no lone symbol."""
    if not expression.args:
        return []
    inside = [a for a in expression.args if {str(s) for s in a.free_symbols} <= fitted]
    found = []
    if inside and (expression.is_Mul or expression.is_Add):
        found.append(expression.func(*inside))
    elif len(inside) == len(expression.args):
        found.append(expression)
    for argument in expression.args:
        found += _parts_of_constants(argument, fitted)
    return [part for part in found if part.free_symbols and part.args]


def _stands_for(part: Any, fitted: Mapping[str, Unit], count: Mapping[str, int]) -> str | None:
    """The constant that may be written for a part; None where there is none."""
    from sympy import Symbol, preorder_traversal

    nodes = [str(n) for n in preorder_traversal(part) if isinstance(n, Symbol)]
    with_units = [name for name in nodes if any(fitted[name].exponents)]
    if part.is_Add and with_units:
        # A sum of constants of one kind; anything else in it would need units to be followed.
        if any(argument.args for argument in part.args):
            return None
        candidates = with_units
    elif with_units:
        linear = [a for a in part.args if str(a) in with_units]
        candidates = with_units if part.is_Mul and len(with_units) == len(linear) == 1 else []
    else:
        candidates = nodes
    return next((n for n in candidates if nodes.count(n) == count[n]), None)


def _replaced(expression: Any, part: Any, symbol: Any) -> Any:
    """Put a symbol where a part is, be it only some of the terms or factors."""
    if expression == part:
        return symbol
    if part.func == expression.func and (part.is_Mul or part.is_Add):
        terms, wanted = list(expression.args), list(part.args)
        if all(term in terms for term in wanted):
            return expression.func(symbol, *(t for t in terms if t not in wanted))
    if not expression.args:
        return expression
    return expression.func(*(_replaced(a, part, symbol) for a in expression.args))


def r2(measured: Array, predicted: Array) -> float:
    """R2 = 1 - sum (y - p)^2 / sum (y - mean y)^2; minus infinity where a prediction is missing."""
    if not np.isfinite(predicted).all():
        return -np.inf
    spread = float(((measured - measured.mean()) ** 2).sum())
    return 1 - float(((measured - predicted) ** 2).sum()) / spread if spread > 0 else -np.inf
