"""Embeddings: what is written is read back, means are by plant, and bad ones are refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from sciml_dchag.plants.traits import embeddings
from sciml_dchag.plants.traits.embeddings import describe, read_embeddings, write_embeddings

ATTRS = {"attribution": "Random numbers.", "simulated": 1, "store": "s.zarr", "settings": {"a": 1}}
TABLE = pd.DataFrame(
    {"split": ["train", "test"], "dose": [1.5, 2.5]}, index=pd.Index(["a", "b.2"], name="cube")
)
PATCHES = pd.DataFrame(
    {"cube": ["b.2"] * 4 + ["a"] * 2, "plant": [2, 0, 1, 2, 1, 1], "y": np.arange(6) * 8 + 3.5,
     "x": 3.5}
)  # fmt: skip
VALUES = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)


def write(
    path: Path, patches: pd.DataFrame = PATCHES, values: Any = VALUES, **changes: Any
) -> Path:
    return write_embeddings(path, patches, values, **{"table": TABLE, "attrs": ATTRS, **changes})


def test_a_description_counts_what_is_there(tmp_path: Path) -> None:
    assert describe(str(write(tmp_path / "e"))) == {
        "kind": "embeddings (of synthetic images)", "images": 2, "plants": 3, "patches": 6,
        "dimensions": 5, "store": "s.zarr", "attribution": "Random numbers.",
    }  # fmt: skip
    assert describe(str(tmp_path)) is None


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    found = read_embeddings(write(tmp_path / "e"))
    assert found.features == ["e0", "e1", "e2", "e3", "e4"] and found.simulated
    assert found.attribution == "Random numbers." and found.attrs["settings"] == '{"a": 1}'
    pd.testing.assert_frame_equal(found.patches[list(PATCHES)], PATCHES, check_dtype=False)
    np.testing.assert_array_equal(found.patches[found.features], VALUES)
    assert [tuple(row) for row in found.plants[["cube", "plant", "patches"]].to_numpy()] == [
        ("b.2", 2, 2), ("b.2", 1, 1), ("a", 1, 2),
    ]  # fmt: skip
    wide = VALUES.astype(np.float64)
    means = np.stack([(wide[0] + wide[3]) / 2, wide[2], (wide[4] + wide[5]) / 2])
    np.testing.assert_allclose(found.plants[found.features], means, rtol=1e-15)
    assert list(found.plants["dose"]) == [2.5, 2.5, 1.5]
    assert list(found.plants["split"]) == ["test", "test", "train"]
    with xr.open_zarr(tmp_path / "e" / "embeddings.zarr") as arrays:
        np.testing.assert_array_equal(arrays["embedding"], VALUES)
        np.testing.assert_allclose(arrays["plant_embedding"], means, rtol=1e-15)
        assert list(arrays["plant_cube"].values) == ["b.2", "b.2", "a"]
        assert list(arrays["patch_plant"].values) == list(PATCHES["plant"])


def test_nothing_half_written_is_left_or_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("full")

    with monkeypatch.context() as patch:
        patch.setattr(embeddings, "write_zarr", fail)
        with pytest.raises(OSError, match="full"):
            write(tmp_path / "e")
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError, match="sciml-dchag embed"):
        read_embeddings(tmp_path / "e")
    write(tmp_path / "e")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        write(tmp_path / "e")
    write(tmp_path / "e", values=2 * VALUES, overwrite=True)
    np.testing.assert_array_equal(
        read_embeddings(tmp_path / "e").patches.filter(regex=r"^e\d"), 2 * VALUES
    )
    (tmp_path / "e").rename(tmp_path / "e.partial")
    with pytest.raises(ValueError, match="not finished"):
        read_embeddings(tmp_path / "e.partial")
    (tmp_path / "e.partial").rename(tmp_path / "f")
    (tmp_path / "f" / "plants.parquet").unlink()
    with pytest.raises(ValueError, match="no plants.parquet"):
        read_embeddings(tmp_path / "f")
    with pytest.raises(FileExistsError, match="no embeddings.zarr"):
        write(tmp_path, overwrite=True)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"values": VALUES[:5]}, "there are 6 patches"),
        ({"values": np.where(np.arange(6)[:, None] == 4, np.inf, VALUES)}, "y 35.5, x 3.5 of a is not finite"),
        ({"patches": PATCHES.drop(columns="x")}, "cube, plant, y, x are needed"),
        ({"table": TABLE.drop(index="a")}, "no row for the image a"),
        ({"table": TABLE.rename(columns={"dose": "e3"})}, "column 'e3'"),
        ({"attrs": {"simulated": 0}}, "lack 'attribution'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        write(tmp_path / "e", **changes)
    assert not list(tmp_path.iterdir())


def test_what_is_damaged_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "e")
    metadata = path / "embeddings.zarr" / "zarr.json"
    whole = metadata.read_text()
    found = json.loads(whole)
    found["consolidated_metadata"]["metadata"]["embedding"]["codecs"][0]["configuration"] = "x"
    metadata.write_text(json.dumps(found))
    with pytest.raises(ValueError, match=r"embeddings\.zarr cannot be read \(TypeError"):
        read_embeddings(path)
    metadata.write_text(whole)
    (path / "plants.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=f"{path}/plants.parquet"):
        read_embeddings(path)
