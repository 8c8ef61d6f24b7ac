"""What a plant store holds, in a few lines for people and as facts for `inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
                "plants": int(plants.max()),
                "plant_pixels": int((plants > 0).sum()),
                "mask": attrs.get("mask", ""),
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
            f"plant{'s' * (row['plants'] != 1)} on {share:.0%} of the pixels ({row['mask']})"
        )
    if len(table) > MOST_LINES:
        lines.append(f"  and {len(table) - MOST_LINES} others")
    total = max(int(table["values"].sum()), 1)
    told = [
        f"{table[key].sum():,} {words} ({table[key].sum() / total:.2%})"
        for key, words in COUNTED.items()
        if table[key].sum()
    ]
    lines.append(f"Values set aside or bound: {', '.join(told) or 'none'}")
    return lines


def facts(store: CubeStore) -> dict[str, Any]:
    """What `inspect` tells of a plant store."""
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
        "values set aside": {key: int(table[key].sum()) for key in COUNTED},
        "attribution": store.attribution,
    }


def describe(path: str) -> dict[str, Any] | None:
    """What `inspect` shows of a plant store; None where `path` is none."""
    place = Path(path)
    if not (place / "zarr.json").is_file() or read_attrs(place).get("format") != FORMAT:
        return None
    return facts(CubeStore.open(place))
