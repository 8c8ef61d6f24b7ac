"""Numbers as people read them: the same in tables, pictures and pages."""

import math


def readable_number(value: float) -> str:
    """About four significant digits, grouped by thousands; a dash where undefined."""
    if math.isnan(value):
        return "–"  # noqa: RUF001 (an en dash is what a table shows)
    size = abs(value)
    if math.isinf(value) or size >= 1e7 or 0 < size < 0.1:
        return f"{value:.3g}"
    decimals = 0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 10 else 3
    return f"{value:,.{decimals}f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def readable_percent(fraction: float) -> str:
    """A signed percent, with one decimal below ten; a dash where undefined."""
    if math.isnan(fraction):
        return "–"  # noqa: RUF001
    percent = 100 * fraction
    return f"{percent:+.1f} %" if abs(percent) < 9.95 else f"{percent:+.0f} %"


def readable_lead(hours: int) -> str:
    """Hours up to three days, whole days beyond."""
    return f"{hours} h" if hours <= 72 or hours % 24 else f"{hours // 24} d"


def readable_key(name: str, value: object) -> str:
    """A value of a column that says what a score is of."""
    return readable_lead(int(str(value))) if name == "lead_hours" else str(value)
