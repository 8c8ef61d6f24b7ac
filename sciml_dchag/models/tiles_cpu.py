"""What `absorbed_cpu` is made of, in terms of a processor's registers: instructions for Numba.

Loops over single numbers are vectorised by a compiler or not; these say it: 64 bytes at a time,
16 numbers in float32, which LLVM divides into the registers that a processor has. Arrays are flat
and contiguous; every argument `..._start` counts numbers from their beginning, and nothing is
checked. Numba's cache of `absorbed_cpu` does not notice changes of this file: touch that one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

TILE = 6
"""Rows of a tile of LANES numbers: with AVX2, 12 sums, two loads and a factor fill 16 registers."""
LANES = 16
"""Numbers in 64 bytes."""
BLOCK = 96
"""Numbers of a row: a multiple of TILE, LANES and 8."""
_int = types.intp
_WIDE = ir.VectorType(ir.FloatType(), LANES)
_BITS = ir.VectorType(ir.IntType(32), LANES)


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function when it is first called, and keep that for later processes."""
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:  # Numba found no folder that it may write to
        return njit(nogil=True)(function)


def _product_of_tiles(add: bool) -> Any:
    """c[m] = sum_s a[m, s] b[s], or added to c[m]: TILE rows m of LANES numbers each, s < steps.

    Of every array: where it starts, and how far apart its rows and its steps lie.
    """

    @intrinsic
    def product(  # type: ignore[no-untyped-def]
        typing, c, c_start, c_row, a, a_start, a_row, a_step, b, b_start, b_step, steps
    ):  # fmt: skip
        signature = types.void(c, _int, _int, a, _int, _int, _int, b, _int, _int, _int)

        def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
            c, c_start, c_row, a, a_start, a_row, a_step, b, b_start, b_step, steps = values
            place = _places(context, builder, signature)
            rows = [ir.Constant(c_row.type, m) for m in range(TILE)]
            results = [place(0, c, builder.add(c_start, builder.mul(c_row, m))) for m in rows]
            sums = [cgutils.alloca_once(builder, _WIDE) for _ in rows]
            for result, total in zip(results, sums, strict=True):
                start = _load(builder, result) if add else ir.Constant(_WIDE, None)
                builder.store(start, total)
            a_rows = [builder.mul(a_row, m) for m in rows]
            with cgutils.for_range(builder, steps) as loop:
                of_b = _load(builder, place(7, b, _along(builder, b_start, loop.index, b_step)))
                at_a = _along(builder, a_start, loop.index, a_step)
                for row, total in zip(a_rows, sums, strict=True):
                    of_a = builder.load(place(3, a, builder.add(at_a, row), None))
                    more = _multiply_add(builder, _repeat(builder, of_a), of_b, builder.load(total))
                    builder.store(more, total)
            for result, total in zip(results, sums, strict=True):
                builder.store(builder.load(total), result, align=4)
            return context.get_dummy_value()

        return signature, generate

    return product


def _on_rows(operation: Callable[[Any, Any, Any, Any], Any]) -> Any:
    """c = operation(c, a, b), number by number, over BLOCK numbers from a start each."""

    @intrinsic
    def row(typing, c, c_start, a, a_start, b, b_start):  # type: ignore[no-untyped-def]
        signature = types.void(c, _int, a, _int, b, _int)

        def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
            place = _places(context, builder, signature)
            for offset in range(0, BLOCK, LANES):
                n = ir.Constant(values[1].type, offset)
                places = [place(i, values[i], builder.add(values[i + 1], n)) for i in (0, 2, 4)]
                numbers = [_load(builder, at) for at in places]
                builder.store(operation(builder, *numbers), places[0], align=4)
            return context.get_dummy_value()

        return signature, generate

    return row


def _exponential(builder: Any, _: Any, a: Any, b: Any) -> Any:
    """exp(a - b) where that is at most 1: a power of two times a polynomial.

    Cephes' `expf` (Moshier), within 2 units in the last place; below exp(-87) it is that.
    """

    def number(value: float) -> ir.Constant:
        return ir.Constant(_WIDE, [value] * LANES)

    x = builder.fsub(a, b)
    x = builder.select(builder.fcmp_ordered("<", x, number(-87.0)), number(-87.0), x)
    shift = number(12582912.0)  # 1.5 * 2^23: what is added to it is rounded to an integer
    shifted = _multiply_add(builder, x, number(1.44269504088896341), shift)
    power = builder.fsub(shifted, shift)
    x = _multiply_add(builder, power, number(-0.693359375), x)
    x = _multiply_add(builder, power, number(2.12194440e-4), x)
    total = number(1.9875691500e-4)
    for factor in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5):
        total = _multiply_add(builder, total, x, number(factor))
    total = builder.fadd(_multiply_add(builder, builder.fmul(x, x), total, x), number(1.0))
    exponent = builder.shl(builder.bitcast(shifted, _BITS), ir.Constant(_BITS, [23] * LANES))
    power_of_e = builder.bitcast(builder.add(builder.bitcast(total, _BITS), exponent), _WIDE)
    return builder.select(builder.fcmp_unordered("uno", x, x), x, power_of_e)  # stays not a number


@intrinsic
def _transpose_8_by_4(typing, c, c_start, a, a_start, a_row):  # type: ignore[no-untyped-def]
    """c[q, n] = a[n, q]: eight rows n of four numbers to four of eight, BLOCK apart."""
    signature = types.void(c, _int, a, _int, _int)

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        c, c_start, a, a_start, a_row = values
        four, eight = (ir.VectorType(ir.FloatType(), count) for count in (4, 8))
        place = _places(context, builder, signature)

        def constant(n: int) -> ir.Constant:
            return ir.Constant(c_start.type, n)

        def shuffle(one: Any, other: Any, order: list[int]) -> Any:
            mask = ir.Constant(ir.VectorType(ir.IntType(32), len(order)), order)
            return builder.shuffle_vector(one, other, mask)

        starts = [_along(builder, a_start, constant(n), a_row) for n in range(8)]
        rows = [_load(builder, place(2, a, start, four), four) for start in starts]
        w = [shuffle(rows[n], rows[n + 4], [*range(8)]) for n in range(4)]
        low, high = [0, 8, 1, 9, 4, 12, 5, 13], [2, 10, 3, 11, 6, 14, 7, 15]
        first, second = [0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15]
        pairs = [(shuffle(w[0], w[1], order), shuffle(w[2], w[3], order)) for order in (low, high)]
        columns = [shuffle(*pair, order) for pair in pairs for order in (first, second)]
        for q, column in enumerate(columns):
            at = place(0, c, builder.add(c_start, constant(q * BLOCK)), eight)
            builder.store(column, at, align=4)
        return context.get_dummy_value()

    return signature, generate


def _places(context: Any, builder: Any, signature: Any) -> Callable[..., Any]:
    """Return a function that points to what an argument holds from a start on."""

    def place(argument: int, array: Any, start: Any, kind: Any = _WIDE) -> Any:
        data = context.make_array(signature.args[argument])(context, builder, array).data
        pointer = builder.gep(data, [start])
        return pointer if kind is None else builder.bitcast(pointer, kind.as_pointer())

    return place


def _along(builder: Any, start: Any, index: Any, step: Any) -> Any:
    return builder.add(start, builder.mul(index, step))


def _load(builder: Any, pointer: Any, kind: Any = _WIDE) -> Any:
    return builder.load(pointer, align=4, typ=kind)


def _repeat(builder: Any, number: Any) -> Any:
    nothing = ir.Constant(_WIDE, ir.Undefined)
    one = builder.insert_element(nothing, number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, nothing, ir.Constant(_BITS, [0] * LANES))


def _multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    # Fused where the processor can, unlike `fma`, which is a slow function where it cannot.
    kind = ir.FunctionType(_WIDE, [_WIDE] * 3)
    name = f"llvm.fmuladd.v{LANES}f32"
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [a, b, c])


transpose_8_by_4: Any = _transpose_8_by_4
set_tile = _product_of_tiles(add=False)
add_tile = _product_of_tiles(add=True)
set_row = _on_rows(lambda builder, c, a, b: builder.fmul(a, b))
add_row = _on_rows(lambda builder, c, a, b: _multiply_add(builder, a, b, c))
copy_row = _on_rows(lambda builder, c, a, b: a)
sum_row = _on_rows(lambda builder, c, a, b: builder.fadd(c, a))
max_row = _on_rows(lambda builder, c, a, b: builder.select(builder.fcmp_ordered(">", a, c), a, c))
exp_row = _on_rows(_exponential)
through_softmax_row = _on_rows(lambda builder, c, a, b: builder.fmul(builder.fsub(c, b), a))
