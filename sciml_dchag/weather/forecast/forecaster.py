"""A trained forecaster on states: initial times in, forecasts in physical units out.

On several ranks each computes its share of channels, heads and features, as in training; what comes
out is the same on all ranks of the same initial times.

Writing forecasts is `predict`'s work, scoring them `evaluation.evaluate`'s.

Shapes: B initial times, T times of the input, C state channels, O target channels, H x W grid.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from sciml_dchag.channels import ChannelSet
from sciml_dchag.config import from_mapping
from sciml_dchag.config.common import require_at_least
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.objectives.forecast import ForecastObjective, can_roll_out
from sciml_dchag.parallel.apply import own_channels
from sciml_dchag.parallel.config import ParallelConfig
from sciml_dchag.parallel.runtime import Ranks, choose_device
from sciml_dchag.training.export import find_model
from sciml_dchag.training.precision import autocast
from sciml_dchag.weather.area import latitude_weights
from sciml_dchag.weather.forecast.config import LONGEST_LEAD_HOURS, ForecastRecipe
from sciml_dchag.weather.forecast.linear_step import linear_step_of
from sciml_dchag.weather.forecast.record import ForecastRecord
from sciml_dchag.weather.forecast.training import input_layout
from sciml_dchag.weather.store.states import States
from sciml_dchag.weather.store.store import Period
from sciml_dchag.weather.windows import ForecastWindows


class Perturbations(Protocol):
    """What the members of an ensemble differ by, see `weather.forecast.ensemble`."""

    @property
    def members(self) -> int:
        """M, how many forecasts are made from each initial time."""

    @property
    def at_once(self) -> int:
        """How many states go through the model at once."""

    def start(self, inputs: torch.Tensor, times: NDArray[np.datetime64]) -> torch.Tensor:
        """Perturbed inputs (B M, N, H, W) of those of B initial times, members side by side."""

    def perturb(
        self, forecast: torch.Tensor, times: NDArray[np.datetime64], lead_hours: int
    ) -> torch.Tensor:
        """Forecasts (B M, O, H, W) of one lead time, normalised, each with a residual field."""


class Forecaster:
    """A trained model opened on a store or on a user's own states.

    Args:
        checkpoint: a checkpoint, a run folder or an exported file.
        store: where the initial states come from; it must hold the checkpoint's channels on the
            checkpoint's grid.
        ranks: this process and the others; None is one process that is alone.
        parallel: how blocks are computed; the degrees are those of the ranks' mesh. None computes
            on the run's parallel.device.
        control: False leaves the model's control branch out, so that its base forecasts.

    Raises:
        FileNotFoundError: no checkpoint.
        ValueError: a damaged checkpoint, a store of other channels, grid or time step, tp that
            does not divide the model, a device that is not there, or no control branch to leave
            out.
    """

    def __init__(
        self,
        checkpoint: str | os.PathLike[str],
        store: States,
        ranks: Ranks | None = None,
        parallel: ParallelConfig | None = None,
        control: bool = True,
    ) -> None:
        found = find_model(checkpoint)
        self.path, saved = found.path, found.checkpoint
        data = saved.read_data(ForecastRecord, self.path)
        self.checkpoint = saved
        _require_same_data(data, store, self.path)
        self.record = data
        self.step = saved.step
        self.recipe = from_mapping(ForecastRecipe, saved.recipe)
        self.store = store
        parallel = parallel or self.recipe.parallel.elsewhere()
        self.ranks = ranks or Ranks(device=choose_device(parallel.device))
        self.device = self.ranks.device
        self._mean = np.asarray(data.mean)
        self._std = np.asarray(data.std)
        config = from_mapping(ModelConfig, saved.model_config)
        self.control = control and bool(config.control.channels)
        if not control:
            require_control(config, self.path)
        self.target_channels = ChannelSet(config.output_channels)
        self.target_indices = store.channels.indices(self.target_channels.names)
        self.model = found.ready(self.ranks, self.recipe.training, parallel)
        inputs, outputs = own_channels(self.model, self.ranks.mesh)
        self._own_inputs = slice(inputs.start, inputs.stop)
        self._own_outputs = slice(outputs.start, outputs.stop)
        layout = input_layout(self.recipe, store.channels)
        own_targets = [self.target_indices[output] for output in outputs]
        self._own_now = layout.now(own_targets)
        self._join = self.ranks.channel_joiner(len(outputs))
        rows, columns = store.shape[2:]
        try:
            self._cycle = data.cycle((rows, columns))
            linear = data.linear_weights(len(config.output_channels), layout.times, rows)
            self._chain = data.chain_of(self.recipe, store, self._cycle)
        except ValueError as error:
            raise ValueError(
                f"{self.path} has a damaged record ({error}): name another checkpoint, or train "
                f"again."
            ) from error
        self.task = ForecastObjective(
            change_std=None
            if data.change_std is None
            else np.reshape(data.change_std, (-1, len(config.output_channels)))[:, outputs],
            std_hours=self.recipe.task.chain_hours,
            area_weights=latitude_weights(store.latitude),
            target_indices=self.target_indices,
            layout=layout,
            linear=None
            if linear is None
            else linear_step_of(store, linear[outputs.start : outputs.stop], own_targets),
        ).to(self.device)
        self.task.complete = self.ranks.complete

    def on(self, store: States) -> Forecaster:
        """Return the same model opened on another store.

        Raises:
            ValueError: a store of other channels, grid or time step.
        """
        _require_same_data(self.record, store, self.path)
        other = copy.copy(self)
        other.store = store
        return other

    def base(self) -> Forecaster:
        """Return the base of this model's control branch, on the same store.

        Raises:
            ValueError: it has no control branch.
        """
        require_control(self.model.config, self.path)
        other = copy.copy(self)
        other.control = False
        return other

    def branch_in_words(self) -> dict[str, str]:
        """Say whether the control branch takes part; nothing where there is none."""
        channels = self.model.config.control.channels
        if not channels:
            return {}
        return {"control": f"on: {', '.join(channels)}" if self.control else "off"}

    def windows(self, period: Period | None = None) -> ForecastWindows:
        """Input states of a period, or of any time, normalised as in training, read as needed."""
        task, data = self.recipe.task, self.recipe.data
        return ForecastWindows(
            self.store,
            period,
            mean=self._mean,
            std=self._std,
            targets=self.target_channels.names,
            lead_hours=task.lead_hours,
            history_hours=data.history_hours,
            static=data.static,
            forcings=data.forcings,
            expected=self._cycle,
            chain=self._chain,
        )

    def check_leads(self, lead_hours: Sequence[int]) -> None:
        """Refuse lead times that this forecaster does not reach.

        Raises:
            ValueError: the first lead time that cannot be had, and why.
        """
        task, step = self.recipe.task, self.recipe.task.lead_hours[0]
        if not task.fixed_step:  # each lead time is asked for directly
            step = self.store.step_hours or 1
        for lead in lead_hours:
            if lead < 1:
                raise ValueError(
                    f"Lead time {lead} h is no time ahead: ask for multiples of {step} from {step} "
                    f"on."
                )
            require_at_least(1, "The lead time in hours", lead, LONGEST_LEAD_HOURS)
            if task.chain_hours and lead not in task.chain_hours:
                raise ValueError(
                    f"Lead time {lead} h is none of those that this forecaster has learnt: ask for "
                    f"some of {list(task.chain_hours)}."
                )
            if lead % step:
                raise ValueError(
                    f"Lead time {lead} h is no multiple of the step of {step} h: "
                    f"ask for multiples of {step}."
                )
        if not task.fixed_step:
            return
        why_not = can_roll_out(
            self.target_channels.names, self.store.channels.names, step,
            self.recipe.data.history_hours,
        )  # fmt: skip
        if max(lead_hours) > step and why_not:
            raise ValueError(
                f"This forecaster cannot go beyond its step of {step} h because {why_not}: "
                f"ask for {step} h only, or train again."
            )

    @torch.no_grad()
    def forecast(
        self,
        windows: ForecastWindows,
        initial_indices: Sequence[int],
        lead_hours: Sequence[int],
        ensemble: Perturbations | None = None,
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Forecast from several initial times at once.

        A forecaster of a fixed step is rolled out; one of random lead times is asked directly.
        Every rank calls it as often and goes through all of its lead times; ranks of tp with the
        same initial times.

        Args:
            windows: from `windows`.
            initial_indices: positions of the initial times in the store.
            lead_hours: lead times, ascending, as `check_leads` allows.
            ensemble: perturbs each of its M members; None forecasts once from each initial time.

        Yields:
            Each lead time in hours and its forecast (B, O, H, W) in physical units; of an ensemble
            (B M, O, H, W), the members of an initial time side by side.
        """
        inputs = torch.from_numpy(np.stack([windows.inputs(int(i)) for i in initial_indices]))
        inputs = inputs.to(self.device)
        times = self.store.times[np.asarray(initial_indices)]
        members = 1 if ensemble is None else ensemble.members
        if ensemble is not None:
            inputs = ensemble.start(inputs, times)
        if not self.recipe.task.fixed_step:
            for lead, start in self.starts(windows, inputs, initial_indices, lead_hours):
                forecast = self._of_members(inputs, times, lead, lead, ensemble, start)
                yield lead, self._physical(forecast, np.repeat(later(times, lead), members))
            return
        step = self.recipe.task.lead_hours[0]
        for lead in range(step, max(lead_hours) + 1, step):
            now = inputs[:, self._own_now]
            forecast = self._of_members(inputs, times, step, lead, ensemble, now)
            valid = later(times, lead)
            if lead in lead_hours:
                yield lead, self._physical(forecast, np.repeat(valid, members))
            if lead < max(lead_hours):
                constants_BFHW = torch.from_numpy(windows.constants(valid)).to(self.device)
                constants_BFHW = constants_BFHW.repeat_interleave(members, dim=0)
                inputs = self.task.advance(inputs, forecast, constants_BFHW)

    def starts(
        self,
        windows: ForecastWindows,
        inputs: torch.Tensor,
        initial_indices: Sequence[int],
        lead_hours: Sequence[int],
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """What this rank's targets start from at each lead time, (B M, O, H, W), normalised.

        A chain of regressions starts all members of an initial time from one forecast.
        """
        if windows.chain is None:
            for lead in lead_hours:
                yield lead, inputs[:, self._own_now]
            return
        for lead, start in windows.starts(initial_indices, max(lead_hours)):
            if lead in lead_hours:
                own = torch.from_numpy(start[:, self._own_outputs]).to(self.device)
                yield lead, own.repeat_interleave(len(inputs) // len(start), dim=0)

    def _of_members(
        self,
        inputs: torch.Tensor,
        times: NDArray[np.datetime64],
        step_hours: int,
        lead_hours: int,
        ensemble: Perturbations | None,
        start: torch.Tensor,
    ) -> torch.Tensor:
        """One step, (B M, O, H, W), to a lead time after the initial times (B,), perturbed."""
        if ensemble is None:
            return self.one_step(inputs, step_hours, start)
        parts = [
            self.one_step(part, step_hours, own)
            for part, own in zip(
                inputs.split(ensemble.at_once), start.split(ensemble.at_once), strict=True
            )
        ]
        return ensemble.perturb(torch.cat(parts), times, lead_hours)

    @torch.no_grad()
    def one_step(self, inputs: torch.Tensor, hours: int, start: torch.Tensor) -> torch.Tensor:
        """Forecast all target channels, (B, O, H, W), normalised.

        Args:
            inputs: all of them, (B, N, H, W).
            hours: lead time.
            start: what this rank's targets start from, of `starts`.
        """
        if self.model.control is not None:  # which the base's forecaster shares
            self.model.control.on = self.control
        lead = torch.full((len(inputs),), float(hours), device=self.device)
        own_inputs = inputs[:, self._own_inputs]
        start = self.task.start(inputs, start)
        with autocast(self.recipe.training.precision, self.device):
            forecast = self.task.step(self.model, own_inputs, start, lead)
        return self._join(forecast.float())

    def _physical(
        self, forecast: torch.Tensor, valid: NDArray[np.datetime64]
    ) -> NDArray[np.float32]:
        """Fields in physical units, (B, O, H, W), of valid times (B,)."""
        # In float64: pressure and geopotential are large beside what changes in them.
        fields = forecast.cpu().double().numpy() * self._std[self.target_indices][:, None, None]
        if self._cycle is None:
            fields += self._mean[self.target_indices][:, None, None]
        else:
            fields += self._cycle.at(valid, self.target_indices)
        return fields.astype(np.float32)


def later(times: NDArray[np.datetime64], hours: int) -> NDArray[np.datetime64]:
    """The times a number of hours after others."""
    found: NDArray[np.datetime64] = times + np.timedelta64(hours, "h")
    return found


def require_control(config: ModelConfig, path: Path) -> None:
    """Refuse to switch off a control branch that is not there.

    Raises:
        ValueError: the model has none.
    """
    if not config.control.channels:
        raise ValueError(f"{path} has no control branch that could be off: leave control on.")


def _require_same_data(saved: ForecastRecord, store: States, path: Path) -> None:
    if list(saved.channels) != store.channels.names:
        missing = [name for name in saved.channels if name not in store.channels.names]
        extra = [name for name in store.channels.names if name not in saved.channels]
        what = (
            f"lacks {missing[0]!r}"
            if missing
            else f"has {extra[0]!r} too"
            if extra
            else "has them in another order"
        )
        raise ValueError(
            f"{path} was trained on {len(saved.channels)} channel(s) and {store.path} {what}: use "
            f"a store prepared with the channels of the run's recipe.yaml."
        )
    if saved.grid_sha256 != store.grid_sha256:
        raise ValueError(
            f"{path} was trained on another grid than {store.path} has "
            f"({len(store.latitude)} x {len(store.longitude)}): prepare the store on the grid of "
            f"the run's recipe.yaml."
        )
    if saved.step_hours != store.step_hours:
        raise ValueError(
            f"{path} was trained on steps of {saved.step_hours} h and {store.path} has "
            f"{store.step_hours or 'uneven'} h: prepare the store with "
            f"prepare.step_hours={saved.step_hours}."
        )
