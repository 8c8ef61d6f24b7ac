"""The folder that embeddings are kept in: by patch and by plant, written and read.

    PATH/patches.parquet    one row per patch: cube, plant, y, x, e0, e1, ...
    PATH/plants.parquet     one row per plant: cube, plant, patches, e0, e1, ... (means over its
                            patches), the columns of the store's table, and where the plant is
    PATH/embeddings.zarr    the same embeddings as arrays, with attribution and provenance

Running an encoder is not here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from sciml_dchag._version import __version__
from sciml_dchag.files.checksums import damage_named
from sciml_dchag.files.places import folder_kind
from sciml_dchag.files.result_folders import whole_folder
from sciml_dchag.files.zarr_groups import open_zarr, write_zarr

FORMAT = "sciml-dchag-embeddings-1"
"""Value of the attribute `format` of `embeddings.zarr`; a reader refuses any other."""
PATCHES, PLANTS, ARRAYS = "patches.parquet", "plants.parquet", "embeddings.zarr"
PATCH_COLUMNS = ("cube", "plant", "y", "x")
REQUIRED_ATTRS = ("attribution", "simulated")
EMBEDDINGS = folder_kind("a folder of embeddings", contains=ARRAYS, holds=(PATCHES, PLANTS))


@dataclass(frozen=True, eq=False, kw_only=True)
class Embeddings:
    """Embeddings as they were read."""

    path: Path
    """Where they lie."""
    patches: pd.DataFrame
    """One row per patch: `cube`, `plant` (0 for background), `y` and `x` of its centre in pixels,
    and the embedding in `e0`, `e1`, ..., float32."""
    plants: pd.DataFrame
    """One row per plant: `cube`, `plant`, `patches` (how many), the means of their embeddings in
    float64, and what the store knows of the image."""
    attrs: dict[str, Any]
    """Attribution, provenance and what else the writer recorded."""

    @property
    def features(self) -> list[str]:
        """Columns of the embedding, in order."""
        return feature_columns(int(self.attrs["dimensions"]))

    @property
    def attribution(self) -> str:
        """One sentence to print on every picture made from these embeddings."""
        return str(self.attrs["attribution"])

    @property
    def simulated(self) -> bool:
        """Whether any image is synthetic."""
        return bool(self.attrs["simulated"])


def feature_columns(dimensions: int) -> list[str]:
    """Names of the columns of an embedding: e0, e1, ..."""
    return [f"e{number}" for number in range(dimensions)]


def write_embeddings(
    path: str | os.PathLike[str],
    patches: pd.DataFrame,
    values: ArrayLike,
    *,
    table: pd.DataFrame,
    attrs: Mapping[str, Any],
    positions: pd.DataFrame | None = None,
    overwrite: bool = False,
) -> Path:
    """Write embeddings by patch, and their means by plant, all of it or nothing.

    Args:
        path: the folder.
        patches: one row per patch: `cube`, `plant` (0 for background, which has no mean), `y` and
            `x` of the patch's centre in pixels; other columns are refused.
        values: embeddings of the patches, (patches, D).
        table: what is known of each image, by its name, such as `CubeStore.table`.
        attrs: to be recorded; `attribution` and `simulated` must be there, and `store` (its path)
            lets `probe` find the spectra. Mappings and lists are kept as JSON.
        positions: where each plant is, by the columns `cube` and `plant`; None leaves it out.
        overwrite: replace embeddings at `path`.

    Returns:
        `path`.

    Raises:
        FileExistsError: `path` exists, and `overwrite` is off or it holds no embeddings.
        ValueError: embeddings that do not fit the patches or are not finite, an image without a row
            in the table, or a column of the table that bears a name used here.
    """
    path, embedding = Path(path), np.asarray(values, dtype=np.float32)
    features = _check(patches, embedding, table, attrs)
    by_patch = pd.concat(
        [
            patches[list(PATCH_COLUMNS)].reset_index(drop=True),
            pd.DataFrame(embedding, columns=features),
        ],
        axis=1,
    )
    by_plant = _means(by_patch, features)
    with whole_folder(path, EMBEDDINGS, overwrite=overwrite) as folder:
        by_patch.to_parquet(folder / PATCHES, engine="pyarrow", index=False)
        with_table = by_plant.join(table, on="cube")
        if positions is not None:
            with_table = with_table.merge(positions, on=["cube", "plant"], how="left")
        with_table.to_parquet(folder / PLANTS, engine="pyarrow", index=False)
        write_zarr(_arrays(by_patch, by_plant, features, attrs), folder / ARRAYS)
    return path


def read_embeddings(path: str | os.PathLike[str]) -> Embeddings:
    """Read finished embeddings.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: what is there are no embeddings, or some that are not finished.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"There are no embeddings at {path}: write them with `sciml-dchag embed`."
        )
    if path.name.endswith(".partial"):
        raise ValueError(f"{path} is not finished: repeat the command that was writing it.")
    if missing := [name for name in (PATCHES, PLANTS, ARRAYS) if not (path / name).exists()]:
        raise ValueError(
            f"{path} holds no embeddings, as it has no {missing[0]}: write them with "
            f"`sciml-dchag embed`."
        )
    with open_zarr(path / ARRAYS, chunks=None) as arrays:
        attrs = dict(arrays.attrs)
    if attrs.get("format") != FORMAT:
        raise ValueError(
            f"{path} has format {attrs.get('format', 'unknown')!r} where embeddings ({FORMAT}) are "
            f"needed: write them again with `sciml-dchag embed`."
        )
    with damage_named(path):
        patches, plants = (pd.read_parquet(path / n, engine="pyarrow") for n in (PATCHES, PLANTS))
    return Embeddings(path=path, patches=patches, plants=plants, attrs=attrs)


def describe(path: str) -> dict[str, Any] | None:
    """What `inspect` shows of embeddings; None where `path` holds none."""
    if not (Path(path) / ARRAYS).exists():
        return None
    found = read_embeddings(path)
    return {
        "kind": "embeddings" + (" (of synthetic images)" if found.simulated else ""),
        "images": found.patches["cube"].nunique(),
        "plants": len(found.plants),
        "patches": len(found.patches),
        "dimensions": len(found.features),
        "store": str(found.attrs.get("store", "")),
        "attribution": found.attribution,
    }


def _check(
    patches: pd.DataFrame,
    embedding: NDArray[np.float32],
    table: pd.DataFrame,
    attrs: Mapping[str, Any],
) -> list[str]:
    """Refuse what cannot be written; return the names of the embedding's columns."""
    if set(patches.columns) != set(PATCH_COLUMNS):
        raise ValueError(
            f"Patches have the columns {', '.join(map(str, patches.columns))} where "
            f"{', '.join(PATCH_COLUMNS)} are needed: give these alone."
        )
    if embedding.ndim != 2 or len(embedding) != len(patches) or 0 in embedding.shape:
        raise ValueError(
            f"Embeddings have the shape {embedding.shape} but there are {len(patches)} patches: "
            f"give one embedding a patch, (patches, D)."
        )
    if not np.isfinite(embedding).all():
        first = patches.iloc[int(np.flatnonzero(~np.isfinite(embedding).all(axis=1))[0])]
        raise ValueError(
            f"The embedding of the patch at y {first['y']:g}, x {first['x']:g} of {first['cube']} "
            f"is not finite: leave patches out of which nothing is known."
        )
    if unknown := sorted(set(patches["cube"]) - set(table.index)):
        raise ValueError(f"The table has no row for the image {unknown[0]}: give one an image.")
    features = feature_columns(embedding.shape[1])
    if taken := [n for n in table.columns if n in {*features, *PATCH_COLUMNS, "patches"}]:
        raise ValueError(
            f"The store's table has a column {taken[0]!r}, which embeddings need themselves: "
            f"rename it and prepare the store again."
        )
    if lacking := [name for name in REQUIRED_ATTRS if name not in attrs]:
        raise ValueError(f"The attributes lack {lacking[0]!r}: add it to `attrs`.")
    return features


def _means(by_patch: pd.DataFrame, features: list[str]) -> pd.DataFrame:
    """Average over the patches of each plant, in float64."""
    of_plants = by_patch[by_patch["plant"] > 0].astype(dict.fromkeys(features, np.float64))
    groups = of_plants.groupby(["cube", "plant"], sort=False)
    means = groups[features].mean()
    means.insert(0, "patches", groups.size())
    return means.reset_index()


def _arrays(
    by_patch: pd.DataFrame, by_plant: pd.DataFrame, features: list[str], attrs: Mapping[str, Any]
) -> xr.Dataset:
    def text(values: pd.Series) -> NDArray[np.object_]:
        return np.array([str(value) for value in values], dtype=object)

    pixel = {"units": "1", "long_name": "centre of the patch in pixels"}
    return xr.Dataset(
        {
            "embedding": (
                ("patch", "feature"), by_patch[features].to_numpy(np.float32),
                {"long_name": "embedding of a patch", "units": "1"},
            ),
            "plant_embedding": (
                ("plant", "feature"), by_plant[features].to_numpy(np.float64),
                {"long_name": "mean of the embeddings of a plant's patches", "units": "1"},
            ),
        },
        coords={
            "feature": np.arange(len(features)),
            "patch_cube": ("patch", text(by_patch["cube"])),
            "patch_plant": ("patch", by_patch["plant"].to_numpy(np.int64)),
            "y": ("patch", by_patch["y"].to_numpy(np.float64), pixel),
            "x": ("patch", by_patch["x"].to_numpy(np.float64), pixel),
            "plant_cube": ("plant", text(by_plant["cube"])),
            "plant_number": ("plant", by_plant["plant"].to_numpy(np.int64)),
        },
        attrs={
            "Conventions": "CF-1.11",
            "format": FORMAT,
            "dimensions": len(features),
            "package": f"sciml-dchag {__version__}",
            **{k: json.dumps(v) if isinstance(v, Mapping | list) else v for k, v in attrs.items()},
            "simulated": int(attrs["simulated"]),
        },
    )  # fmt: skip
