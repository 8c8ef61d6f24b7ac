"""The folder that `indices` writes: maps of spectral indices, their pictures, a table by plant.

    OUT/indices.csv         one row per plant: cube, plant, pixels, statistics of each index, and
                            the columns of the store's table
    OUT/indices_units.csv   of each of those columns: units, meaning, formula, bands, source
    OUT/maps/CUBE.nc        the indices at every pixel, and which plant it is on (CF)
    OUT/pictures/CUBE.png   the same on the plants

The formulas are `indices`', reading and averaging `plant_means`'.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from sciml_dchag._version import __version__
from sciml_dchag.figures.saving import save_figure
from sciml_dchag.files.places import check_place, folder_kind
from sciml_dchag.files.result_folders import whole_folder
from sciml_dchag.files.resumable import Progress
from sciml_dchag.plants.store.cubes import CubeStore
from sciml_dchag.plants.traits.indices import INDICES, find_bands, reached_indices
from sciml_dchag.plants.traits.plant_means import (
    POSITION,
    STATISTICS,
    index_statistics,
    map_indices,
    plant_positions,
)
from sciml_dchag.plants.traits.plots import plot_index_maps

TABLE = "indices.csv"
UNITS_TABLE = "indices_units.csv"
FOLDER = folder_kind("a folder of indices", contains=TABLE, holds=(UNITS_TABLE, "maps", "pictures"))


@dataclass(frozen=True, kw_only=True)
class IndexMaps:
    """What was written, and what was left out."""

    folder: Path
    """Where it lies."""
    table: pd.DataFrame
    """`indices.csv`."""
    left_out: dict[str, str]
    """Why, by name, of indices that the bands do not reach."""
    undefined: dict[str, int]
    """Pixels on plants without a value, by name of the index."""
    empty: tuple[str, ...]
    """Images without a plant."""


def write_indices(
    store_path: str | Path,
    out: str | Path | None = None,
    *,
    names: Sequence[str] = (),
    overwrite: bool = False,
    progress: Progress | None = None,
) -> IndexMaps:
    """Write maps, pictures and a table of indices of every image of a store.

    Args:
        store_path: a plant store.
        out: the folder; None writes `NAME_indices` beside the store `NAME.zarr`.
        names: which indices; none takes all that the bands reach.
        overwrite: replace what was written there before.
        progress: called with (done, total, what) after each image.

    Raises:
        FileExistsError: `out` exists, and `overwrite` is off or it is something else.
        FileNotFoundError: there is no store.
        ValueError: an index by name that does not exist or that the bands do not reach, or none
            that they do.
    """
    store = CubeStore.open(store_path)
    store.require_reflectance("spectral indices")
    out = store.path.with_name(f"{store.path.stem}_indices") if out is None else Path(out)
    check_place(out, FOLDER, overwrite)
    reached, left_out = reached_indices(store.wavelength_nm)
    if names:
        for name in names:
            find_bands(name, store.wavelength_nm)
        reached, left_out = list(dict.fromkeys(names)), {}
    if not reached:
        raise ValueError(
            f"The bands of {store.path} reach none of {', '.join(INDICES)}: prepare the store with "
            f"bands between 530 and 800 nm."
        )
    tables: list[pd.DataFrame] = []
    with whole_folder(out, FOLDER, overwrite=overwrite) as folder:
        for done, cube in enumerate(store.names, start=1):
            maps, plants = map_indices(store, cube, reached), store.plants(cube)
            tables.append(index_statistics(maps, plants, store.pixel_mm).assign(cube=cube))
            _write_map(folder / "maps" / f"{cube}.nc", store, cube, maps, plants)
            if (plants > 0).any():
                _draw(folder / "pictures" / f"{cube}.png", store, cube, maps, plants)
            if progress is not None:
                progress(done, len(store.names), "indices")
        table = _with_columns_of_store(pd.concat(tables, ignore_index=True), store)
        table.to_csv(folder / TABLE, index=False)
        _units(table, store, reached).to_csv(folder / UNITS_TABLE, index=False)
    return IndexMaps(
        folder=out,
        table=table,
        left_out=left_out,
        undefined={name: int(table[f"{name}_undefined"].sum()) for name in reached},
        empty=tuple(sorted(set(store.names) - set(table["cube"]))),
    )


def describe(path: str) -> dict[str, Any] | None:
    """What `inspect` shows of a folder of indices; None where `path` is none."""
    folder = Path(path)
    if not all((folder / name).is_file() for name in (TABLE, UNITS_TABLE)):
        return None
    table = pd.read_csv(folder / TABLE, dtype={"cube": str}, keep_default_na=False)
    return {
        "kind": "spectral indices by plant",
        "images": int(table["cube"].nunique()),
        "plants": len(table),
        "indices": [name for name in INDICES if f"{name}_mean" in table],
        "maps": len(list((folder / "maps").glob("*.nc"))),
    }


def _with_columns_of_store(table: pd.DataFrame, store: CubeStore) -> pd.DataFrame:
    """Put `cube` first and what the store knows of the images last."""
    table = table[["cube", *table.columns.drop("cube")]]
    known = store.table.assign(synthetic=1) if store.simulated else store.table
    taken = known.columns.intersection(table.columns)
    return table.join(known.rename(columns={name: f"store_{name}" for name in taken}), on="cube")


def _units(table: pd.DataFrame, store: CubeStore, names: Sequence[str]) -> pd.DataFrame:
    """Say of each column of the table what it is."""
    rows: list[dict[str, str]] = [
        {"column": "cube", "meaning": "name of the image"},
        {"column": "plant", "meaning": "number of the plant in the image's mask"},
        {"column": "pixels", "units": "1", "meaning": "pixels of the plant"},
    ]
    rows += [
        {"column": column, "units": units, "meaning": meaning}
        for column, (units, meaning) in POSITION.items()
        if column in table
    ]
    for name in names:
        index, bands = INDICES[name], store.wavelength_nm[find_bands(name, store.wavelength_nm)]
        used = f"{bands[0]:g}-{bands[-1]:g}" if index.span else " ".join(f"{b:g}" for b in bands)
        rows += [
            {
                "column": f"{name}_{statistic}",
                "units": "1" if statistic == "undefined" else index.units,
                "meaning": f"{index.long_name}: {meaning}",
                "formula": index.formula,
                "bands_nm": used,
                "source": index.source,
            }
            for statistic, meaning in STATISTICS.items()
        ]
    own = {row["column"] for row in rows}
    for column in map(str, table.columns):
        if column not in own:
            meaning = "1: not observed" if column == "synthetic" else "from the store's table"
            rows.append({"column": column, "meaning": meaning})
    return pd.DataFrame(rows)


def _write_map(
    path: Path,
    store: CubeStore,
    cube: str,
    maps: Mapping[str, NDArray[np.float64]],
    plants: NDArray[np.int32],
) -> None:
    dataset = xr.Dataset(
        {
            name: (
                ("y", "x"),
                values.astype(np.float32),
                {
                    "long_name": INDICES[name].long_name,
                    "units": INDICES[name].units,
                    "comment": INDICES[name].formula,
                    "references": INDICES[name].source,
                },
            )
            for name, values in maps.items()
        },
        coords={
            "y": ("y", np.arange(plants.shape[0]), {"long_name": "row", "units": "1"}),
            "x": ("x", np.arange(plants.shape[1]), {"long_name": "column", "units": "1"}),
            "plant": (
                ("y", "x"), plants, {"long_name": "number of the plant, 0 for background"},
            ),
        },
        attrs={
            "Conventions": "CF-1.11",
            "title": f"Spectral indices of {cube}{', SYNTHETIC' if store.simulated else ''}",
            "source": f"{store.path.name}, sciml-dchag {__version__}",
            "attribution": store.attribution,
            "simulated": int(store.simulated),
        },
    )  # fmt: skip
    path.parent.mkdir(exist_ok=True)
    packed = {name: {"zlib": True, "complevel": 1} for name in maps}
    # In memory first: HDF5 ends the process where it cannot write all of a file that it closes.
    path.write_bytes(dataset.to_netcdf(engine="h5netcdf", encoding=packed))


def _draw(
    path: Path,
    store: CubeStore,
    cube: str,
    maps: Mapping[str, NDArray[np.float64]],
    plants: NDArray[np.int32],
) -> None:
    on_plants = {name: np.where(plants > 0, values, np.nan) for name, values in maps.items()}
    places = {
        int(row["plant"]): (float(row["centroid_y"]), float(row["centroid_x"]))
        for row in plant_positions(plants).to_dict("records")
    }
    figure = plot_index_maps(on_plants, title=cube, simulated=store.simulated, places=places)
    save_figure(figure, path, store.attribution)
