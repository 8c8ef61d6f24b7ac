"""Vocabularies are registered by the wings; a recipe may declare channels of its own."""

import dataclasses
import json
import pickle
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml
from raw_files import on_levels, saved, surface

from sciml_dchag import channels as core
from sciml_dchag.channels import Channel, ChannelSet, OwnChannel, Vocabulary, declare, register
from sciml_dchag.config import save_recipe
from sciml_dchag.tasks import TASKS, load_recipe, named
from sciml_dchag.weather.prepare.era5 import prepare_era5
from sciml_dchag.weather.store.store import Store

OZONE = {"name": "o3_500", "units": "kg kg-1", "variable": "o3", "level_hpa": 500,
         "long_name": "ozone mass mixing ratio", "plausible": [0.0, 1e-4]}  # fmt: skip
WAVES = {"name": "swh", "units": "m", "plausible": [0, 20]}


@pytest.fixture(autouse=True)
def _nothing_declared() -> Iterator[None]:
    yield
    core._own.clear()
    core._own_channels.clear()


def own(**values: object) -> OwnChannel:
    return OwnChannel(**{"units": "1", **values})  # type: ignore[arg-type]


def recipe_of(tmp_path: Path, *channels: dict[str, object]) -> Path:
    path = tmp_path / "r.yaml"
    path.write_text(json.dumps({"name": "r", "channels": channels}))  # YAML reads JSON
    return path


def test_core_knows_every_wings_channels_without_torch_xarray_or_the_other_wing() -> None:
    code = (
        "import sys; from sciml_dchag.channels import ChannelSet; "
        "print(len(ChannelSet.of('era5_80')), ChannelSet.of('r652.0,t2m').names, "
        "[m for m in ('torch', 'xarray', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "80 ['r652.0', 't2m'] []"


def test_every_recipe_declares_its_channels(tmp_path: Path) -> None:
    for kind, entry in TASKS.items():
        kinds = typing.get_type_hints(named(entry.recipe))
        assert kinds["channels"] == tuple[OwnChannel, ...]
        named(entry.recipe)(name="a", channels=(own(name=f"own_{kind.replace('-', '_')}"),))
        assert Channel.parse(f"own_{kind.replace('-', '_')}").units == "1"
    recipe = load_recipe(recipe_of(tmp_path, OZONE, WAVES))
    save_recipe(recipe, tmp_path / "again.yaml")
    assert load_recipe(tmp_path / "again.yaml") == recipe
    ozone = Channel.parse("o3_500")
    assert (ozone.level_hpa, ozone.variable, ozone.label) == (
        500, "o3", "ozone mass mixing ratio at 500 hPa",
    )  # fmt: skip
    assert Channel.parse("o3_500@-6h").offset_hours == -6
    assert pickle.loads(pickle.dumps(ChannelSet.of("o3_500,t2m")))["o3_500"] == ozone
    with pytest.raises(ValueError, match="'o3_50' is unknown.*did you mean 'o3_500'"):
        Channel.parse("o3_50")


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        ([{"name": "t2m"}], "the name 't2m' is taken by the vocabulary"),
        ([{"name": "z775"}], "the name 'z775' is taken"),
        ([{"name": "r652.0"}], "the name 'r652.0' is taken"),
        ([{"name": "era5_80"}], "the name 'era5_80' is taken"),
        ([{"name": "ta", "level_hpa": 500}], "a name that 't' .temperature, K. has"),
        ([{"name": "x", "long_name": "2m temperature"}], "a name that 't2m'"),
        ([{"name": "x"}, {"name": "x", "long_name": "y"}], "'x' is declared twice"),
        ([{"name": "a", "wavelength_nm": 850.0}, {"name": "b", "wavelength_nm": 850.0}],
         "'b' and 'a' are the same level or wavelength"),
        ([{"name": "a", "variable": "o3", "level_hpa": 500},
          {"name": "b", "variable": "o3", "level_hpa": 500}], "the same level"),
        ([{"name": "a", "variable": "o3", "level_hpa": 500, "units": "g kg-1"},
          {"name": "b", "variable": "o3", "level_hpa": 850}], "a name that 'o3'"),
        ([{"name": "x", "units": ""}], "x lacks its units"),
        ([{"name": "a,b"}], "'a,b' is no name"),
        ([{"name": "x", "level_hpa": 5, "wavelength_nm": 5.0}], "give one"),
        ([{"name": "x", "plausible": [1, 0]}], "the lower bound first"),
        ([{"name": "x", "unit": "K"}], "unknown key 'channels.unit': did you mean"),
    ],
)  # fmt: skip
def test_what_cannot_be_declared_is_refused_in_one_sentence(
    channels: list[dict[str, object]], message: str, tmp_path: Path
) -> None:
    path = recipe_of(tmp_path, *({"units": "1", **channel} for channel in channels))
    with pytest.raises(ValueError, match=message) as refused:
        load_recipe(path)
    assert "\n" not in str(refused.value)


def test_two_vocabularies_do_not_share_a_name() -> None:
    weather = next(v for v in core.vocabularies() if v.name == "weather")
    with pytest.raises(ValueError, match="weather and sea both have 'sst'"):
        register(Vocabulary(
            name="sea", variables={"sst": weather.variables["sst"]}, parse=lambda _: None, usage="",
        ))  # fmt: skip
    assert len(core.vocabularies()) == 2


def ozone_file(tmp_path: Path, scale: float = 1e-12) -> str:
    data = on_levels([500, 850]).rename({"z": "O3"})
    data["O3"] = (data["O3"] * scale).assign_attrs(units="kg kg-1")
    return saved(data, tmp_path / "o3.nc")


def test_prepare_stores_an_own_channel_which_a_fresh_process_reads(tmp_path: Path) -> None:
    declare(load_recipe(recipe_of(tmp_path, OZONE, WAVES)).channels)
    waves = surface("swh", "m")
    waves["swh"] = (waves["swh"] / 100).assign_attrs(units="m")
    files = [ozone_file(tmp_path), saved(waves, tmp_path / "w.nc")]
    path = prepare_era5(files, tmp_path / "a.zarr", channels="swh,o3_500", grid="native")
    store = Store.open(path)
    assert store.channels.names == ["swh", "o3_500"] and store.channels["swh"].units == "m"
    with xr.open_dataset(files[0]) as raw:
        level = raw["O3"].sel(level=500)[0]
        assert float(level.mean()) == pytest.approx(float(store.read([0], [1]).mean()), rel=1e-5)
    code = (
        "import sys; from sciml_dchag.weather.store.store import Store; "
        "c = Store.open(sys.argv[1]).channels['o3_500']; print(c.units, c.level_hpa)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "kg kg-1 500"
    # The store's own meaning stands beside the recipe's: one name, one meaning.
    core._own.clear()
    core._own_channels.clear()
    declare([OwnChannel(name="swh", units="cm")])
    with pytest.raises(ValueError, match="'swh' is declared twice"):
        Store.open(path)


def test_an_own_channel_is_checked_as_others_are(tmp_path: Path) -> None:
    load_recipe(recipe_of(tmp_path, OZONE))
    with pytest.raises(ValueError, match="o3_500 has a mean of .* kg kg-1 is believable"):
        prepare_era5([ozone_file(tmp_path, 1.0)], tmp_path / "a.zarr", channels="o3_500",
                     grid="native")  # fmt: skip


def test_cells_of_an_own_channel_are_checked_by_its_bounds(tmp_path: Path) -> None:
    load_recipe(recipe_of(tmp_path, WAVES, {"name": "any", "units": "m"}))
    waves = xr.merge([surface(name, "m") / 100 for name in ("swh", "any")])
    for name in ("swh", "any"):
        waves[name].attrs["units"] = "m"
        waves[name].values[2, 1, 3] = -999
    file = saved(waves, tmp_path / "w.nc")
    expected = r"swh outside -20 to 40 m in 1 of .*T12:00, latitude -45, longitude 135.*widen"
    with pytest.raises(ValueError, match=expected) as refused:
        prepare_era5([file], tmp_path / "a.zarr", channels="swh", grid="native")
    assert "\n" not in str(refused.value)
    waves["swh"].values[2, 1, 3] = 38  # a wave of its own, beyond the mean's bounds
    path = prepare_era5([saved(waves, tmp_path / "h.nc")], tmp_path / "b.zarr", channels="swh",
                        grid="native")  # fmt: skip
    assert Store.open(path).read(slice(None)).max() == 38


def test_a_band_has_the_name_that_is_declared_for_it() -> None:
    from sciml_dchag.plants.channels import band_name

    assert band_name(850) == "r850.0"
    declare([own(name="nir", wavelength_nm=850.0)])
    assert band_name(850) == "nir" and band_name(np.float64(652)) == "r652.0"
    assert Channel.parse("nir").kind == "band" and Channel.parse("nir").wavelength_nm == 850.0


def test_declared_channels_survive_a_stores_record() -> None:
    declare([own(name="nir", wavelength_nm=850.0, plausible=(0.0, 1.0)), own(name="swh")])
    records = json.loads(json.dumps(core.own_records(["swh", "nir", "t2m"])))
    before = [dataclasses.replace(channel) for channel in core.declared()]
    core._own.clear()
    core._own_channels.clear()
    core.declare_records(records)
    assert sorted(core.declared(), key=str) == sorted(before, key=str)


def test_a_run_trains_and_scores_an_own_channel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    from sciml_dchag.cli import main
    from sciml_dchag.files.samples import recipe_path, resolve_samples

    monkeypatch.chdir(tmp_path)
    with xr.open_dataset(resolve_samples(["sample:era5_msl"])[0]) as raw:
        pressure = next(name for name in raw.data_vars if raw[name].ndim == 3)
        waves = (raw[[pressure]] / 1e4).rename({pressure: "swh"})
        waves["swh"].attrs["units"] = "m"
        waves.to_netcdf("waves.nc")
    recipe = yaml.safe_load(recipe_path("msl_forecast").read_text())
    recipe |= {"name": "own", "channels": [WAVES]}
    recipe["prepare"] |= {"sources": ["sample:era5_msl", "waves.nc"], "channels": "msl,swh"}
    recipe["model"] |= {"embed_dim": 16, "depth": 1, "heads": 2, "patch": 8, "partitions": 2}
    recipe["training"] |= {"steps": 2, "batch": 2, "warmup_steps": 1, "log_every": 1}
    recipe["evaluation"] |= {"lead_hours": [6], "batch": 8}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(recipe))
    assert CliRunner().invoke(main, ["check", "own.yaml"]).exit_code == 0
    core._own.clear()
    core._own_channels.clear()
    done = CliRunner().invoke(main, ["run", "own.yaml"])
    assert done.exit_code == 0, (done.output, done.exception)
    scores = next((tmp_path / "runs" / "own").rglob("scores.csv")).read_text()
    assert "swh" in scores
    with xr.open_zarr(tmp_path / "runs/own/forecasts/test.zarr") as forecast:
        assert forecast["swh"].attrs["units"] == "m"
        assert float(forecast["swh"].mean()) == pytest.approx(10.1, abs=0.5)
