"""`predict MODEL INPUT OUTPUT` of all that MODEL and INPUT may be, and messages in its own words."""

from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest
import xarray as xr
from click.testing import Result

import sciml_dchag as sd
from sciml_dchag.cli import console
from sciml_dchag.cli.apply import predict
from sciml_dchag.cli.learn import train
from sciml_dchag.cli.prepare_plants import plants

Call = Callable[..., Result]
FIELD = "mean_sea_level_pressure"


def test_predict_takes_a_file_of_one_state_and_an_exported_model(
    own_work: Path, call: Call, refused: Callable[[Result], str]
) -> None:
    run = sd.open("runs/small")
    run.export("small.safetensors")
    state = sd.regrid(
        xr.open_dataset(sd.sample("era5_msl")).isel(valid_time=slice(99, 102)), "5.625"
    )
    state.to_netcdf("now.nc", engine="h5netcdf")
    done = call("predict", "small.safetensors", "now.nc", "later.nc", "--lead-hours", "6,12")
    assert done.exit_code == 0, done.output
    with xr.open_dataset("later.nc", decode_timedelta=True) as later:
        expected = run.forecast(state, [6, 12])
        np.testing.assert_allclose(later[FIELD], expected[FIELD], rtol=1e-6)
        assert later.sizes["time"] == 1
        assert later["time"].values[0] == state["valid_time"].values[-1]
    again = call("predict", "small.safetensors", "now.nc", "later.nc", "--lead-hours", "6")
    assert refused(again).endswith("choose another name, or replace it with `--overwrite`.")
    state.isel(valid_time=slice(1, 3)).to_netcdf("short.nc", engine="h5netcdf")
    why = refused(call("predict", "runs/small", "short.nc", "out.zarr"))
    assert "needs the states 12 h and 6 h before" in why
    assert "There is no store at nowhere.nc" in refused(
        call("predict", "runs/small", "nowhere.nc", "out.zarr")
    )


@pytest.mark.parametrize(
    ("command", "said", "shown"),
    [
        (predict, "pass `overwrite=True`.", "pass `--overwrite`."),
        (plants, "give them with `wavelengths=FILE`", "give them with `--wavelengths FILE`"),
        (plants, "choose `bands`, or `mask=none`", "choose `--bands`, or `--mask none`"),
        (plants, "`bands=400-900x500`", "`--bands 400-900x500`"),
        (train, "resume it with `resume=True`", "resume it with `--resume auto`"),
        (train, "choose another with `name=NAME`", "choose another with `--set name=NAME`"),
        (train, "the store with `bands`, in `state`", "the store with `bands`, in `state`"),
    ],
)
def test_parameters_are_said_as_options_of_the_command(
    command: click.Command, said: str, shown: str
) -> None:
    with click.Context(command):
        assert console.describe(ValueError(said)) == shown
    assert console.describe(ValueError(said)) == said
