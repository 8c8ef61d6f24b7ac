"""What a plant store holds, in a few lines for people and as facts for `inspect`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sciml_dchag.files.zarr_groups import read_attrs
from sciml_dchag.plants.store.cubes import FORMAT, SPLITS, CubeStore

COUNTED = {
    "saturated": "saturated",
    "missing": "missing",
    "masked": "without a usable reference",
    "clipped": "clipped",
}
"""What is counted of values while an image is prepared, and how to say it."""
MOST_LINES = 20
"""Images that are listed one by one."""


def image_table(store: CubeStore) -> pd.DataFrame:
    """Size, plants, pixels of plants and counted values of each image, by name."""
    rows = []
    for name in store.names:
        plants, attrs = store.plants(name), store.cube_attrs(name)
        values = attrs.get("count_values", 0)
        counted = {key: attrs.get(f"count_{key}", 0) for key in COUNTED}
        rows.append(
            {
                "split": store.table["split"][name],
                "rows": plants.shape[0],
                "columns": plants.shape[1],
                "plants": len(np.unique(plants[plants > 0])),
                "plant_pixels": int((plants > 0).sum()),
                "mask": attrs.get("mask", ""),
                "numbers": attrs.get("numbers", ""),
                "white": attrs.get("white", ""),
                "dark": attrs.get("dark", ""),
                "source_bands": attrs.get("source_bands", 0),
                "values": values,
                **counted,
            }
        )
    return pd.DataFrame(rows, index=pd.Index(store.names, name="cube"))


def in_short(store: CubeStore) -> str:
    """Say in a line how many images and bands there are."""
    images, nm = store.names, store.wavelength_nm
    per_split = ", ".join(f"{len(store.split(split))} {split}" for split in SPLITS)
    return (
        f"{len(images)} image{'s' * (len(images) > 1)} ({per_split}), {len(nm)} bands from "
        f"{nm[0]:g} to {nm[-1]:g} nm"
    )


def summarise(store: CubeStore) -> list[str]:
    """Say in a few lines what was prepared, and what of it could not be used."""
    table, lines = image_table(store), [in_short(store)]
    for name, row in table.head(MOST_LINES).iterrows():
        share = row["plant_pixels"] / (row["rows"] * row["columns"])
        lines.append(
            f"  {name}: {row['rows']} x {row['columns']}, {row['plants']} "
            f"plant{'s' * (row['plants'] != 1)} on {_percent(share)} of the pixels ({row['mask']})"
        )
    if len(table) > MOST_LINES:
        lines.append(f"  and {len(table) - MOST_LINES} others")
    total = max(int(table["values"].sum()), 1)
    set_aside = [
        f"{table[key].sum():,} {words} ({_percent(table[key].sum() / total)})"
        for key, words in COUNTED.items()
        if table[key].sum()
    ]
    lines.append(f"Values set aside or bound: {', '.join(set_aside) or 'none'}")
    lines += [*_on_references(table), *_on_numbers(table), *changes(store, table)]
    return lines


def changes(store: CubeStore, table: pd.DataFrame | None = None) -> list[str]:
    """Say what is not as in the files asked for: bands that were made, images left out."""
    table = image_table(store) if table is None else table
    left = [f"Left out: {Path(path).name}: {why}" for path, why in left_out(store).items()]
    return [*_on_bands(store, table), *left]


def left_out(store: CubeStore) -> dict[str, str]:
    """Files that were asked for and could not be prepared, and why."""
    recorded = store.attrs.get("left_out", "{}")
    found = json.loads(recorded) if isinstance(recorded, str) else recorded
    return {str(path): str(why) for path, why in found.items()}


def _on_bands(store: CubeStore, table: pd.DataFrame) -> list[str]:
    """Say that bands are not the camera's, where they are not."""
    settings = json.loads(store.attrs.get("provenance", "{}")).get("settings", {})
    own = sorted({int(number) for number in table["source_bands"]} - {0})
    if not own or settings.get("bands", "native") == "native":
        return []
    return [
        f"Bands: {' and '.join(map(str, own))} of the camera made into {len(store.channels)} "
        f"(bands {settings['bands']}, {settings.get('response', 'gaussian')}); `bands=native` "
        f"keeps the camera's"
    ]


def _on_references(table: pd.DataFrame) -> list[str]:
    """Say by which references images were calibrated."""
    lines = []
    for (white, dark), images in table.groupby(["white", "dark"], sort=False):
        number = f"{len(images)} image{'s' * (len(images) > 1)}"
        if white:
            lines.append(f"References of {number}: {white}{f' and {dark}' if dark else ''}")
        elif (table["white"] != "").any():
            lines.append(f"Taken for reflectance, without references: {number}")
    if len(lines) > MOST_LINES:
        lines[MOST_LINES:] = [f"and {len(lines) - MOST_LINES} other pairs of references"]
    return lines


def _on_numbers(table: pd.DataFrame) -> list[str]:
    """Say how plants are numbered, where there is more than one in an image."""
    if len(table) == 1 or table["plants"].max() < 2:
        return []
    ways = sorted({str(way) for way in table["numbers"]} - {""})
    return [f"Plants are numbered {' or '.join(ways)}"] if ways else []


def _percent(fraction: float) -> str:
    """A percentage with two digits that say something: 34%, 2.1%, 0.035%."""
    return f"{100 * fraction:.0f}%" if fraction >= 0.0995 else f"{100 * fraction:.2g}%"


def facts(store: CubeStore) -> dict[str, Any]:
    """What `inspect` shows of a plant store."""
    table, nm = image_table(store), store.wavelength_nm
    return {
        "kind": "plant store" + (" (simulated, not observations)" if store.simulated else ""),
        "title": store.attrs.get("title", ""),
        "bands": f"{len(nm)}, {nm[0]:g} to {nm[-1]:g} nm",
        "quantity": store.attrs.get("quantity", "reflectance"),
        "splits": ", ".join(f"{split} {(table['split'] == split).sum()}" for split in SPLITS),
        "columns": [str(column) for column in store.table.columns],
        "images": [
            f"{name} ({row['split']}, {row['rows']} x {row['columns']}, {row['plants']} plants)"
            for name, row in table.head(MOST_LINES).iterrows()
        ]
        + ([f"and {len(table) - MOST_LINES} others"] if len(table) > MOST_LINES else []),
        "plant pixels": int(table["plant_pixels"].sum()),
        **(
            {"left out": [f"{p}: {why}" for p, why in left_out(store).items()]}
            if left_out(store)
            else {}
        ),
        "values set aside": {key: int(table[key].sum()) for key in COUNTED},
        "attribution": store.attribution,
    }


def describe(path: str) -> dict[str, Any] | None:
    """What `inspect` shows of a plant store; None where `path` is none."""
    place = Path(path)
    if not (place / "zarr.json").is_file() or read_attrs(place).get("format") != FORMAT:
        return None
    return facts(CubeStore.open(place))
