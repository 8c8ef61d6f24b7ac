"""A trained interpolator: states at both ends of windows in, the states between in physical units.

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
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.objectives.between import BetweenObjective, between_ends, taper
from sciml_dchag.objectives.linear_step import states_of
from sciml_dchag.parallel.build import build_on_ranks
from sciml_dchag.parallel.config import ParallelConfig
from sciml_dchag.parallel.runtime import Ranks, choose_device
from sciml_dchag.training.export import find_model
from sciml_dchag.training.trainer import autocast
from sciml_dchag.weather.area import latitude_weights
from sciml_dchag.weather.interpolate.config import InterpolateRecipe
from sciml_dchag.weather.interpolate.finer_cycle import finer_cycle
from sciml_dchag.weather.interpolate.ridge import ridge_of
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
        rows, columns = len(grid.latitude), len(grid.longitude)
        fitted = [
            (window, tau)
            for window in self.window_hours
            for tau in range(data.step_hours, window, data.step_hours)
        ]
        try:
            self.cycle = data.cycle((rows, columns))
            weights = data.ridge_weights(len(fitted), rows)
            unit = np.reshape(data.unit, (len(self.window_hours), len(self.channels)))
        except ValueError as error:
            raise ValueError(
                f"{self.path} has a damaged record ({error}): name another checkpoint, or train "
                f"again."
            ) from error
        self._cycles: dict[int, Cycle] = {}
        device = device or self.recipe.parallel.device
        self.device = choose_device(device)
        ranks = Ranks(device=self.device)
        config = from_mapping(ModelConfig, found.checkpoint.model_config)
        self.model = build_on_ranks(config, None, ranks, ParallelConfig())
        found.load_into(self.model)
        self.model.eval()
        self.ridge = ridge_of(grid, weights, list(range(len(self.channels))), fitted)
        self.ridge.to(self.device)
        self.objective = BetweenObjective(
            area_weights=latitude_weights(grid.latitude),
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
        first: Fields,
        last: Fields,
        times: NDArray[np.datetime64],
        window_hours: int,
        elapsed_hours: int,
    ) -> dict[str, Fields]:
        """Interpolate to one time within windows of one length.

        Args:
            first: states at their starts, in physical units, (B, C, H, W), NaN where missing.
            last: at their ends.
            times: of their starts, (B,).
            window_hours: W, one that was trained.
            elapsed_hours: tau, from 0 to W.

        Returns:
            `model`, and the baseline `ridge`: (B, C, H, W) in physical units, NaN where an end is
            missing.

        Raises:
            ValueError: a window that was not trained, or a time outside it.
        """
        self.check(window_hours, elapsed_hours)
        window = np.timedelta64(window_hours, "h")
        valid = times + np.timedelta64(elapsed_hours, "h")
        ends = [
            torch.from_numpy(((state - self.expected(at)) / self.std).astype(np.float32))
            for state, at in ((first, times), (last, times + window))
        ]
        states_BNHW = torch.stack(ends, dim=2).flatten(1, 2)
        constants = np.stack([
            constants_of(self.layout, self.grid, time, window_hours) for time in valid
        ])  # fmt: skip
        inputs = torch.cat([states_BNHW, torch.from_numpy(constants)], dim=1).to(self.device)
        a, b = (end.to(self.device) for end in ends)
        elapsed = torch.full((len(a),), float(elapsed_hours), device=self.device)
        length = torch.full_like(elapsed, float(window_hours))
        guess = self.objective.guess(inputs, a, b, elapsed, length)
        with autocast(self.recipe.training.precision, self.device):
            found = self.objective.between(self.model, inputs, guess, elapsed, length)
        line = between_ends(a, b, elapsed, length)
        added = self.ridge(states_of(inputs, self.layout), elapsed, length)
        found = found.where(line.isfinite(), math.nan)
        fields = {"model": found, "ridge": line + taper(elapsed, length) * added}
        expected = self.expected(valid)
        # In float64: pressure and geopotential are large beside what changes in them.
        return {
            name: (field.cpu().double().numpy() * self.std + expected).astype(np.float32)
            for name, field in fields.items()
        }

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
