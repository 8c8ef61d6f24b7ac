"""A trained interpolator: the frames around windows in, states within them in physical units out.

Shapes: B windows, C channels, N input channels, H x W grid.
"""

from __future__ import annotations

import math
import os

import numpy as np
import torch
from numpy.typing import NDArray

from sciml_dchag.channels import ChannelSet
from sciml_dchag.config import from_mapping
from sciml_dchag.objectives.between import (
    ENDS,
    FRAMES,
    OUTER,
    BetweenObjective,
    between_ends,
    taper,
)
from sciml_dchag.parallel.runtime import Ranks, choose_device
from sciml_dchag.training.export import find_model
from sciml_dchag.training.precision import autocast
from sciml_dchag.weather.area import latitude_weights
from sciml_dchag.weather.interpolate.config import InterpolateRecipe
from sciml_dchag.weather.interpolate.finer_cycle import finer_cycle
from sciml_dchag.weather.interpolate.ridge import fitted_times, ridge_of
from sciml_dchag.weather.interpolate.training import BetweenRecord
from sciml_dchag.weather.interpolate.windows import OnGrid, constants_of, layout_of
from sciml_dchag.weather.store.cycles import Cycle

Fields = NDArray[np.float32]


class Interpolator:
    """A trained model on a grid, on one process.

    Args:
        model: a checkpoint, a run folder or an exported file.
        grid: a store, or whatever else has the model's grid.
        device: where to compute; None is the run's parallel.device.

    Raises:
        FileNotFoundError: no checkpoint.
        ValueError: a damaged checkpoint, another grid, or a device that is not there.
    """

    def __init__(
        self, model: str | os.PathLike[str], grid: OnGrid, device: str | None = None
    ) -> None:
        found = find_model(model)
        self.path, self.checkpoint = found.path, found.checkpoint
        self.recipe = from_mapping(InterpolateRecipe, found.checkpoint.recipe)
        data = found.checkpoint.read_data(BetweenRecord, self.path)
        if data.grid_sha256 != grid.grid_sha256:
            raise ValueError(
                f"{self.path} was trained on another grid than {grid.path} has "
                f"({len(grid.latitude)} x {len(grid.longitude)}): regrid to that of the run's "
                f"recipe.yaml."
            )
        self.grid, self.step_hours = grid, data.step_hours
        self.channels, self.window_hours = ChannelSet(data.channels), self.recipe.task.window_hours
        self.std = np.asarray(data.std)[:, None, None]
        self.layout = layout_of(data.channels, self.recipe.data.forcings)
        self.device = choose_device(device or self.recipe.parallel.device)
        self._read_fits(data)
        self._cycles: dict[int, Cycle] = {}
        self.model = found.ready(Ranks(device=self.device), self.recipe.training)

    def _read_fits(self, data: BetweenRecord) -> None:
        """Read the daily cycle, the ridge and the units.

        Raises:
            ValueError: they are damaged.
        """
        rows, columns = len(self.grid.latitude), len(self.grid.longitude)
        fitted = fitted_times(self.window_hours, self.step_hours)
        try:
            self.cycle = data.cycle((rows, columns))
            weights = data.ridge_weights(len(fitted), rows)
            unit = np.reshape(data.unit, (len(self.window_hours), len(self.channels)))
        except ValueError as error:
            raise ValueError(
                f"{self.path} has a damaged record ({error}): name another checkpoint, or train "
                f"again."
            ) from error
        self.ridge = ridge_of(self.grid, weights, list(range(len(self.channels))), fitted)
        self.ridge.to(self.device)
        self.objective = BetweenObjective(
            area_weights=latitude_weights(self.grid.latitude),
            layout=self.layout,
            unit=unit,
            window_hours=self.window_hours,
            ridge=self.ridge if self.recipe.task.start == "ridge" else None,
        ).to(self.device)

    def expected(self, times: NDArray[np.datetime64]) -> Fields:
        """What states are departures from at any whole hours, (T, C, H, W)."""
        hours = (times - times.astype("datetime64[D]")) // np.timedelta64(1, "h")
        step = math.gcd(24, *hours.astype(int).tolist())
        if step not in self._cycles:
            self._cycles[step] = finer_cycle(self.cycle, self.grid.longitude, step)
        return self._cycles[step].at(times, range(len(self.channels)))

    @torch.no_grad()
    def between(
        self,
        frames: Fields,
        times: NDArray[np.datetime64],
        window_hours: int,
        elapsed_hours: int,
    ) -> Fields:
        """Interpolate to one time within windows of one length.

        Args:
            frames: states one window before each one's start, at its start, at its end and one
                window after that, in physical units, (B, 4, C, H, W); NaN where missing. The first
                and last may be missing, the answer is then made from both ends alone.
            times: of the starts, (B,).
            window_hours: W, one that was trained.
            elapsed_hours: tau, from 0 to W.

        Returns:
            (B, C, H, W) in physical units, NaN where an end is missing.

        Raises:
            ValueError: a window that was not trained, or a time outside it.
        """
        self.check(window_hours, elapsed_hours)
        states = self._departures(frames, times, window_hours)
        elapsed, length = _hours(states, elapsed_hours), _hours(states, window_hours)
        valid = times + np.timedelta64(elapsed_hours, "h")
        constants = np.stack([
            constants_of(self.layout, self.grid, time, window_hours) for time in valid
        ])  # fmt: skip
        by_channel = states.transpose(1, 2).flatten(1, 2)
        inputs = torch.cat([by_channel, torch.from_numpy(constants).to(self.device)], dim=1)
        first, last = (states[:, end] for end in ENDS)
        guess = self.objective.guess(inputs, first, last, elapsed, length)
        with autocast(self.recipe.training.precision, self.device):
            found = self.objective.between(self.model, inputs, guess, elapsed, length)
        there = between_ends(first, last, elapsed, length).isfinite()
        return self._physical(found.where(there, math.nan), valid)

    @torch.no_grad()
    def ridges(
        self,
        frames: Fields,
        times: NDArray[np.datetime64],
        window_hours: int,
        elapsed_hours: int,
    ) -> dict[str, Fields]:
        """Interpolate by the ridge alone: `ridge` from both ends, `ridge_of_four` from all frames.

        Arguments, shapes and errors are those of `between`.
        """
        self.check(window_hours, elapsed_hours)
        states = self._departures(frames, times, window_hours)
        elapsed, length = _hours(states, elapsed_hours), _hours(states, window_hours)
        first, last = (states[:, end] for end in ENDS)
        line = between_ends(first, last, elapsed, length)
        alone = states.clone()
        alone[:, OUTER] = math.nan
        valid, factor = times + np.timedelta64(elapsed_hours, "h"), taper(elapsed, length)
        return {
            name: self._physical(
                line + factor * self.ridge(of.transpose(1, 2), elapsed, length), valid
            )
            for name, of in (("ridge", alone), ("ridge_of_four", states))
        }

    def _departures(
        self, frames: Fields, times: NDArray[np.datetime64], window_hours: int
    ) -> torch.Tensor:
        """What frames have beyond what is expected, in deviations: (B, 4, C, H, W)."""
        window = np.timedelta64(window_hours, "h")
        expected = [self.expected(times + shift * window) for shift in FRAMES.values()]
        departures = (frames - np.stack(expected, axis=1)) / self.std
        return torch.from_numpy(departures.astype(np.float32)).to(self.device)

    def _physical(self, departures: torch.Tensor, valid: NDArray[np.datetime64]) -> Fields:
        """States of given departures, (B, C, H, W)."""
        # In float64: pressure and geopotential are large beside what changes in them.
        states = departures.cpu().double().numpy() * self.std + self.expected(valid)
        return states.astype(np.float32)

    def check(self, window_hours: int, elapsed_hours: int = 0) -> None:
        """Refuse a window that was not trained, or a time outside it.

        Raises:
            ValueError: which, and which windows there are.
        """
        if window_hours not in self.window_hours:
            raise ValueError(
                f"A window of {window_hours} h was not trained: {self.path} has windows of "
                f"{' and '.join(f'{hours} h' for hours in self.window_hours)}; give times so far "
                f"apart, or train with task.window_hours."
            )
        if not 0 <= elapsed_hours <= window_hours:
            raise ValueError(
                f"{elapsed_hours} h is not within a window of {window_hours} h: ask for times "
                f"between its ends."
            )


def _hours(states: torch.Tensor, hours: int) -> torch.Tensor:
    """The same hours for each of some states, (B,)."""
    return torch.full((len(states),), float(hours), device=states.device)
