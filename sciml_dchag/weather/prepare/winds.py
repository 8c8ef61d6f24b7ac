"""Whether winds are stored upside down, detected by another field of the same sources.

The comparison itself is in `checks`; here are the fields for it found and read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.weather.grid import Grid
from sciml_dchag.weather.prepare.checks import check_wind_rows
from sciml_dchag.weather.prepare.pieces import Piece
from sciml_dchag.weather.prepare.reading import RawField

WITNESSES: tuple[Literal["vo", "z"], ...] = ("vo", "z")
"""Fields that show whether a wind's rows are where its labels say."""


def check_winds(pieces: Sequence[Piece]) -> None:
    """Warn of winds whose rows run against their labels, where another field shows it.

    Looks at one time, on the level next to 500 hPa on which all are there.

    Raises:
        ValueError: winds on no grid, or a file that cannot be read.
    """
    usable = [piece for piece in pieces if not piece.missing_dims and not piece.further_dims]
    by_level: dict[int | None, Piece] = {}
    for piece in usable:
        if piece.name == "u":
            for level in piece.levels or (None,):
                by_level.setdefault(level, piece)
    levels = sorted(by_level, key=lambda level: 0 if level is None else abs(level - 500))
    for known in WITNESSES:
        for level in levels:
            first = by_level[level]
            time = first.times[0] if "time" in first.field.coords else None
            fields = [_field_at(usable, name, time, level) for name in ("u", "v", known)]
            u, v, other = fields
            if u is None or v is None or other is None or not u.shape == v.shape == other.shape:
                continue
            grid = Grid.of(first.field)
            check_wind_rows(
                u, v, other, grid.latitude, grid.longitude, known=known, source=first.source
            )
            return


def _field_at(
    pieces: Sequence[Piece], name: str, time: np.datetime64 | None, level: int | None
) -> NDArray[np.float32] | None:
    """Read one field in the file's units, or None where no file has it at that time and level.

    Vorticity that says neither time nor level may be of any: were it of another, it would agree
    with the winds in no order of rows. Geopotential on no level is orography.
    """
    for piece in pieces:
        any_level = name == "vo" and not piece.levels
        if piece.name != name or not (level in piece.levels or any_level or level is None):
            continue
        if level is None and "level" in piece.field.dims:
            continue
        times = piece.times if "time" in piece.field.coords else None
        if time is not None and times is not None and time not in times:
            continue
        when = 0 if time is None or times is None else int(np.argmax(times == time))
        where = [piece.levels.index(level)] if level is not None and piece.levels else []
        return RawField(piece.field.variable, piece.source, 1.0).read(np.array([when]), where)[0, 0]
    return None
