"""What `mutations.py` changes: small files of each kind, and the commands run on them."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

from changes import change_bytes, change_json, change_text, change_yaml, setting

WEATHER = """name: w
task: {kind: forecast, lead_hours: [6, 6]}
prepare: {sources: [s.nc], grid: 22.5, channels: [msl]}
data: {store: w.zarr, train: ["2025-12-01", "2025-12-04"], validation: ["2025-12-05", "2025-12-05"],
  test: ["2025-12-06", "2025-12-07"], forcings: [cos_latitude]}
model: {embed_dim: 16, depth: 1, heads: 2, patch: 4, partitions: 1}
training: {batch: 2, steps: 2, warmup_steps: 1, log_every: 1}
evaluation: {lead_hours: [6, 12]}
"""
PLANTS = """name: p
task: {kind: masked}
prepare: {sources: [i.hdr, j.hdr, k.hdr], white: white.hdr, dark: dark.hdr, bands: native}
data: {store: p.zarr, image_size: [8, 8]}
model: {embed_dim: 16, depth: 1, heads: 2, patch: 4, partitions: 1, decoder_dim: 16}
training: {batch: 2, steps: 2, warmup_steps: 1, log_every: 1}
"""
Kind = Callable[[random.Random, Path, Path], str | tuple[str, ...]]
"""Changes a copy of some inputs in a folder; returns the command to run there."""
PLANT_SCAN = "prepare plants i.hdr out.zarr --white white.hdr --dark dark.hdr --bands native"
FORECAST = "predict runs/w w.zarr out.zarr --lead-hours 6"
RECONSTRUCT = "reconstruct runs/p p.zarr out"
OF_STORES = {
    "w": [FORECAST, "prepare era5 w.zarr o.zarr --channels msl"],
    "p": [RECONSTRUCT, "embed runs/p p.zarr --out e", "indices p.zarr --out i"],
}
EXPORTED = "predict w.safetensors w.zarr out.zarr --lead-hours 6"
UNCHANGED = [
    PLANT_SCAN, *OF_STORES["w"], *OF_STORES["p"], EXPORTED, "evaluate runs/w", "evaluate runs/p",
    *(f"prepare era5 {n} out.zarr --channels msl --grid 22.5" for n in ("s.nc", "c.nc", "s.zarr")),
    *(f"check {letter}.yaml" for letter in "wp"), *(f"verify runs/{letter}" for letter in "wp"),
]  # fmt: skip
"""Commands that end with a result where nothing is changed, else a case would show nothing."""


def make_inputs(folder: Path) -> None:
    """Make what is changed, by the commands themselves."""
    import numpy as np
    import xarray as xr
    from click.testing import CliRunner

    from sciml_dchag.cli.main import main
    from sciml_dchag.files.samples import sample_path

    with xr.open_dataset(sample_path("era5_msl")) as dataset:
        small = dataset.isel(latitude=slice(None, None, 8), longitude=slice(None, None, 8))
        small = (
            small.isel(valid_time=slice(0, 28))[["msl"]]
            .drop_vars(["expver"], errors="ignore")
            .load()
        )
    for variable in small.variables.values():
        variable.encoding = {}
    small.to_netcdf(folder / "s.nc", engine="h5netcdf")
    small.to_netcdf(folder / "c.nc", engine="scipy", format="NETCDF3_64BIT")
    warnings.simplefilter("ignore", UserWarning)  # of Zarr 3's consolidated metadata
    small.to_zarr(folder / "s.zarr", zarr_format=3)
    small.to_zarr(folder / "s2.zarr", zarr_format=2)
    nm = np.linspace(462, 852, 16)  # 670 and 800 nm are among them, of which NDVI is made
    leaf = 0.05 + 0.4 / (1 + np.exp(-(nm - 715) / 12))
    image = np.full((16, 20, 16), 0.1)
    image[3:12, 4:15] = leaf
    image *= np.random.default_rng(0).uniform(0.9, 1.1, image.shape)
    for name, values in {
        "i": 100 + 20000 * image, "j": 100 + 19000 * image, "k": 100 + 18000 * image,
        "white": np.full((4, 20, 16), 20100.0), "dark": np.full((4, 20, 16), 100.0),
    }.items():  # fmt: skip
        values.astype("<u2").transpose(0, 2, 1).tofile(folder / f"{name}.raw")
        (folder / f"{name}.hdr").write_text(
            f"ENVI\nsamples = 20\nlines = {len(values)}\nbands = 16\nheader offset = 0\n"
            "file type = ENVI Standard\ndata type = 12\ninterleave = bil\nbyte order = 0\n"
            "wavelength units = nm\nfwhm = {" + ", ".join(["25"] * 16) + "}\n"
            "wavelength = {" + ", ".join(f"{w:.3f}" for w in nm) + "}\n"
        )
    (folder / "w.yaml").write_text(WEATHER)
    (folder / "p.yaml").write_text(PLANTS)
    for command in (
        "prepare era5 s.nc w.zarr --channels msl --grid 22.5 --train-end 2025-12-04",
    "prepare plants i.hdr j.hdr k.hdr p.zarr --white white.hdr --dark dark.hdr --bands native "
        "--split 0.34/0.33/0.33",

        "train w.yaml --runs runs", "train p.yaml --runs runs", "export runs/w w.safetensors",
    ):  # fmt: skip
        with contextlib.chdir(folder):
            result = CliRunner().invoke(main, command.split())
        if result.exit_code:
            raise RuntimeError(f"{command}: {result.output}")


def copied(folder: Path, work: Path, *names: str) -> None:
    """Copy files and folders of the inputs to where they are changed."""
    for name in names:
        if (folder / name).is_dir():
            shutil.copytree(folder / name, work / name)
        else:
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / name, work / name)


def any_file(rng: random.Random, place: Path) -> Path:
    """One of the files, metadata as often as all others together."""
    files = sorted(p for p in place.rglob("*") if p.is_file())
    metadata = [p for p in files if p.suffix == ".json" or p.name.startswith(".z")]
    return rng.choice(metadata if metadata and rng.random() < 0.6 else files)


def change(rng: random.Random, path: Path) -> None:
    """Change a file by its kind, or remove it."""
    content = path.read_bytes()
    if rng.random() < 0.05:
        path.unlink()
    elif (path.suffix == ".json" or path.name.startswith(".z")) and rng.random() < 0.8:
        path.write_text(change_json(rng, content.decode()))
    else:
        path.write_bytes(change_bytes(rng, content))


def _header(rng: random.Random, folder: Path, work: Path) -> str:
    copied(folder, work, *(f"{n}.{s}" for n in ("i", "white", "dark") for s in ("hdr", "raw")))
    path = work / f"{rng.choice(['i', 'i', 'i', 'white', 'dark'])}.hdr"
    path.write_bytes(change_text(rng, path.read_bytes()))
    return rng.choice([PLANT_SCAN, PLANT_SCAN, f"inspect {path.name}"])


def _netcdf(rng: random.Random, folder: Path, work: Path) -> str:
    name = rng.choice(["s.nc", "c.nc"])
    copied(folder, work, name)
    content = (work / name).read_bytes()
    (work / name).write_bytes(
        change_bytes(rng, content, at_most=len(content) if rng.random() < 0.3 else 6000)
    )
    return rng.choice(
        [f"prepare era5 {name} out.zarr --channels msl --grid 22.5", f"inspect {name}"]
    )


def _zarr(rng: random.Random, folder: Path, work: Path) -> str:
    name = rng.choice(["s.zarr", "s2.zarr"])
    copied(folder, work, name)
    change(rng, any_file(rng, work / name))
    return rng.choice(
        [f"prepare era5 {name} out.zarr --channels msl --grid 22.5", f"inspect {name}"]
    )


def _store(rng: random.Random, folder: Path, work: Path) -> str:
    letter = rng.choice("wp")
    store = work / f"{letter}.zarr"
    copied(folder, work, store.name, f"{letter}.yaml", f"runs/{letter}")
    if rng.random() < 0.7:  # what a store of an older version has: no list that would notice
        (store / "checksums.txt").unlink()
    change(rng, any_file(rng, store))
    common = [f"inspect {store.name}", f"verify {store.name}", f"check {letter}.yaml"]
    return rng.choice([*OF_STORES[letter], *common, f"evaluate runs/{letter}"])


def _recipe(rng: random.Random, folder: Path, work: Path) -> str:
    letter = rng.choice("wp")
    copied(folder, work, f"{letter}.yaml", f"{letter}.zarr")
    path = work / f"{letter}.yaml"
    if rng.random() < 0.5:
        path.write_text(change_yaml(rng, path.read_text()))
    else:
        path.write_bytes(change_text(rng, path.read_bytes()))
    return rng.choice([f"check {path.name}", f"inspect {path.name}", f"check {path.name}"])


def _set(rng: random.Random, folder: Path, work: Path) -> tuple[str, ...]:
    letter = rng.choice("wp")
    copied(folder, work, f"{letter}.yaml", f"{letter}.zarr")
    command = rng.choice(["check", "check", "plan"])
    return (command, f"{letter}.yaml", "--set", setting(rng, (work / f"{letter}.yaml").read_text()))


def _record(rng: random.Random, folder: Path, work: Path) -> str:
    letter = rng.choice("wp")
    copied(folder, work, f"runs/{letter}", f"{letter}.zarr")
    checkpoint = next((work / "runs" / letter / "checkpoints").glob("*/checkpoint.json")).parent
    (checkpoint / "checksums.txt").unlink(missing_ok=True)
    if rng.random() < 0.7:
        change(rng, checkpoint / "checkpoint.json")
    else:
        change(rng, any_file(rng, checkpoint))
    apply = {"w": FORECAST, "p": RECONSTRUCT}[letter]
    run = f"runs/{letter}"
    return rng.choice([f"inspect {run}", f"export {run} m.safetensors", apply, f"verify {run}"])


def _export(rng: random.Random, folder: Path, work: Path) -> str:
    copied(folder, work, "w.safetensors", "w.zarr")
    path = work / "w.safetensors"
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    if rng.random() < 0.7:  # the header is JSON, and its record JSON within a text
        header = json.loads(content[8 : 8 + size])
        if rng.random() < 0.6:
            header["__metadata__"].pop("crc32c", None)
            name = rng.choice(sorted(header["__metadata__"]))
            header["__metadata__"][name] = change_json(rng, header["__metadata__"][name])
            changed = json.dumps(header)
        else:
            changed = change_json(rng, json.dumps(header))
        path.write_bytes(
            len(changed.encode()).to_bytes(8, "little") + changed.encode() + content[8 + size :]
        )
    else:
        path.write_bytes(change_bytes(rng, content))
    return rng.choice(["inspect w.safetensors", EXPORTED])


KINDS: dict[str, Kind] = {
    "ENVI headers": _header,
    "NetCDF sources": _netcdf,
    "Zarr sources": _zarr,
    "stores": _store,
    "recipes": _recipe,
    "--set": _set,
    "checkpoints": _record,
    "exports": _export,
}
