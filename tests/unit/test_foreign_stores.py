"""Plant stores of others: names that lead out of a folder are refused where a store is opened."""

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from test_reconstruction import make_store, train_on

from sciml_dchag.files.zarr_groups import consolidate
from sciml_dchag.plants.masked.embed import embed
from sciml_dchag.plants.masked.reconstruct import reconstruct_store
from sciml_dchag.plants.store.cubes import CubeStore
from sciml_dchag.plants.traits.index_maps import write_indices


def renamed(store: Path, name: str) -> Path:
    """Call a store's first image otherwise, in a store without a list of checksums."""
    (store / "checksums.txt").unlink()
    with xr.open_zarr(store, chunks=None) as dataset:
        names = [name, *dataset["cube"].values[1:]]
    beside = xr.Dataset(coords={"cube": np.array(names, dtype=object)}, attrs=dataset.attrs)
    beside.to_zarr(store, mode="a", zarr_format=3, consolidated=False)
    consolidate(store)
    return store


@pytest.mark.parametrize(
    "name", ["../../../victim", "..", ".", "/absolute", "a/b", "a\\b", "nul\0", "x" * 300, ""]
)
def test_names_that_lead_elsewhere_are_refused(name: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "thesis.txt").write_text("words")
    store = make_store(tmp_path / "deep" / "er" / "plants.zarr")
    run = train_on(store, tmp_path / "run") if name == "../../../victim" else None
    renamed(store, name)
    with pytest.raises(ValueError, match="An image of .*is no name of a file"):
        CubeStore.open(store)
    before = sorted(p.name for p in tmp_path.rglob("*"))
    if run is not None:
        with pytest.raises(ValueError, match="is no name of a file"):
            reconstruct_store(run, store, tmp_path / "deep" / "er" / "results")
        with pytest.raises(ValueError, match="is no name of a file"):
            embed(run, store, tmp_path / "e")
        with pytest.raises(ValueError, match="is no name of a file"):
            write_indices(store, tmp_path / "i")
    assert sorted(p.name for p in tmp_path.rglob("*")) == before
    assert (victim / "thesis.txt").read_text() == "words"


def test_envi_files_of_the_users_are_kept(tmp_path: Path) -> None:
    store = make_store(tmp_path / "plants.zarr")
    run = train_on(store, tmp_path / "run")
    mine = tmp_path / "out" / "envi" / "one.img"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"raw")
    with pytest.raises(FileExistsError, match="is no reconstruction"):
        reconstruct_store(run, store, tmp_path / "out", overwrite=True)
    assert mine.read_bytes() == b"raw"
    mine.unlink()
    reconstruct_store(run, store, tmp_path / "out")
    reconstruct_store(run, store, tmp_path / "out", overwrite=True)


def test_reconstructions_of_two_models_are_not_mixed(tmp_path: Path) -> None:
    store = make_store(tmp_path / "plants.zarr")
    run = train_on(store, tmp_path / "run")

    def stop(done: int, total: int, what: str) -> None:
        if done >= total / 2:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        reconstruct_store(run, store, tmp_path / "out", progress=stop)
    record = next((run / "checkpoints").glob("*/checkpoint.json"))
    changed = json.loads(record.read_text()) | {"validations_since_best": 5}
    record.write_text(json.dumps(changed))
    (record.parent / "checksums.txt").unlink()
    with pytest.raises(ValueError, match="other settings or sources"):
        reconstruct_store(run, store, tmp_path / "out")
    reconstruct_store(run, store, tmp_path / "out", overwrite=True)
