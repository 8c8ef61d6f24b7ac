"""What raw files hold, for `inspect`: variables, levels, grids, times, and what is odd."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sciml_dchag.weather.grid import Grid
from sciml_dchag.weather.prepare.axes import NOT_ON_A_GRID
from sciml_dchag.weather.prepare.layouts import UNKNOWN, open_raw
from sciml_dchag.weather.prepare.opening import expand_sources
from sciml_dchag.weather.prepare.pieces import Piece
from sciml_dchag.weather.store.layout import iso, step_hours


def list_contents(sources: Sequence[str]) -> dict[str, object]:
    """Say what raw files hold, reading no values: variables, levels, grid, times.

    Of several files, one that cannot be read is named under `not read`, and the others are listed.

    Raises:
        FileNotFoundError, ValueError: as `open_era5`, where no file can be read.
    """
    paths = expand_sources(sources)
    found, odd = _Found(), []
    for path in paths:
        try:
            datasets = open_raw(path)
        except (ValueError, OSError) as error:
            if len(paths) == 1:
                raise
            odd.append(str(error))
            continue
        for dataset in datasets:
            found.add(dataset, path)
    if len(odd) == len(paths):
        raise ValueError(odd[0])
    return {"files": len(paths), **found.facts(), **({"not read": odd} if odd else {})}


class _Found:
    def __init__(self) -> None:
        self.held: dict[str, set[int | str]] = {}
        self.grids: dict[str, None] = {}
        self.times: list[NDArray[np.datetime64]] = []
        self.sizes: dict[str, int] = {}
        self.notes: dict[str, None] = {}
        self.unknown: dict[str, None] = {}

    def add(self, dataset: xr.Dataset, path: str) -> None:
        """Add what one dataset holds."""
        self.unknown |= dict.fromkeys(dataset.attrs.get(UNKNOWN, []))
        for name in dataset.data_vars:
            piece = Piece(dataset[name], path)
            on = dataset["channel"].values.tolist() if name == "state" else piece.levels
            self.held.setdefault(piece.name, set()).update(on)
            for dim in piece.further_dims:
                self.sizes[dim] = max(self.sizes.get(dim, 0), dataset.sizes[dim])
            for level in sorted({n for n in piece.levels if piece.levels.count(n) > 1}):
                self.notes[f"{piece.name} at {level} hPa is there twice"] = None
            if piece.not_on_pressure and not piece.levels:
                self.notes[f"{piece.name} lies on {piece.not_on_pressure}"] = None
            if name != "state" and piece.odd:
                self.notes[f"{piece.name} {piece.odd}"] = None
            if reason := piece.field.attrs.get(NOT_ON_A_GRID):
                self.notes[f"{piece.name} {reason}"] = None
            elif {"latitude", "longitude"} <= set(piece.field.coords) & set(piece.field.dims):
                self._add_grid(piece)
            if "time" in piece.field.coords:
                self.times.append(piece.times)

    def _add_grid(self, piece: Piece) -> None:
        try:
            grid = Grid.of(piece.field)
            self.grids[f"{grid.shape[0]} x {grid.shape[1]}, {grid.kind}"] = None
        except ValueError as error:
            self.notes[f"{piece.source}: {error}"] = None

    def facts(self) -> dict[str, object]:
        """What all of them hold."""
        unique = np.unique(np.concatenate(self.times)) if self.times else np.array([], "M8[ns]")
        step = step_hours(unique) if len(unique) > 1 else None
        period = f"{iso(unique[0])} to {iso(unique[-1])}" if len(unique) else "none"
        return {
            "variables": [_in_words(name, on) for name, on in self.held.items()],
            **({"not known": list(self.unknown)} if self.unknown else {}),
            "grid": "; ".join(self.grids) or "none",
            "times": len(unique),
            "period": period + (f", every {step} h" if step else ""),
            **({"further dimensions": self.sizes} if self.sizes else {}),
            **({"notes": list(self.notes)} if self.notes else {}),
        }


def _in_words(name: str, on: Iterable[int | str]) -> str:
    if name == "state":
        return f"state of {len(list(on))} channel(s)"
    levels = sorted(int(level) for level in on)
    return (
        f"{name} on {len(levels)} level(s): {', '.join(map(str, levels))} hPa" if levels else name
    )
