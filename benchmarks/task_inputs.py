"""What `mutations.py` changes of further tasks: their recipes, checkpoints, tables and pictures.

Beside the forecaster and the masked autoencoder of plants of `mutated_inputs.py` stand one run each
of an interpolator (b), a control branch (c), a detector (d), a grader (g), a masked autoencoder of
weather (m) and a detector in images of plants (o), and what commands write that others read.
"""

from __future__ import annotations

import contextlib
import random
import shlex
import shutil
from pathlib import Path

from changes import change_bytes, change_text, change_yaml, setting
from mutated_inputs import Kind, any_file, change, copied

_DATA = """  train: ["2025-12-01", "2025-12-04"]
  validation: ["2025-12-05", "2025-12-05"]
  test: ["2025-12-06", "2025-12-07"]
"""
_SMALL = "embed_dim: 16, depth: 1, heads: 2, patch: 4, partitions: 1"
_TRAINING = "training: {batch: 2, steps: 2, warmup_steps: 1, log_every: 1}\n"
_WEATHER = "data:\n  store: w.zarr\n" + _DATA
RECIPES = {
    "b": f"name: b\ntask: {{kind: interpolate, window_hours: [12]}}\n{_WEATHER}"
    f"model: {{{_SMALL}}}\n{_TRAINING}evaluation: {{objects: [lows]}}\n",
    "c": f"name: c\ntask: {{kind: forecast, lead_hours: [6, 6]}}\n{_WEATHER}"
    "  forcings: [cos_latitude]\n  history_hours: [-6]\n"
    f"model:\n  {_SMALL.replace(', ', chr(10) + '  ')}\n"
    '  control: {base: runs/w, channels: ["msl@-6h"], blocks: 1}\n'
    f"{_TRAINING}evaluation: {{lead_hours: [6, 12]}}\n",
    "d": "name: d\ntask: {kind: detect, radius_km: 3000, attributes: [depth (hPa)], "
    f"max_objects: 8}}\n{_WEATHER}  objects: lows.csv\nmodel: {{{_SMALL}, pyramid_dim: 16}}\n"
    f"{_TRAINING}evaluation: {{within_km: 2000}}\n",
    "g": "name: g\ntask: {kind: grade, column: severity, grades: 3}\n"
    "prepare: {sources: [pictures], table: grades.csv, bands: native, mask: none}\n"
    "data: {store: g.zarr, lesions: lesions, image_size: [16, 24], crop: false}\n"
    f"model: {{{_SMALL}, aggregation: single, pyramid_dim: 16}}\n{_TRAINING}",
    "o": "name: o\ntask: {kind: detect-plants, label: 2, least_pixels: 1, max_objects: 4}\n"
    "data: {store: g.zarr, objects: lesions, image_size: [16, 24], crop: false}\n"
    f"model: {{{_SMALL}, aggregation: single, pyramid_dim: 16}}\n{_TRAINING}",
    "m": f"name: m\ntask: {{kind: masked-weather}}\n{_WEATHER}"
    f"model: {{{_SMALL}, decoder_dim: 16, decoder_heads: 2, decoder_depth: 1}}\n{_TRAINING}",
}
STORES = {"b": "w.zarr", "c": "w.zarr", "d": "w.zarr", "g": "g.zarr", "m": "w.zarr", "o": "g.zarr"}
BESIDE = {"d": ["lows.csv"], "g": ["lesions"], "o": ["lesions"], "c": ["runs/w"]}
"""What a recipe names besides its store."""
PICTURES = (
    "prepare plants pictures out.zarr --table grades.csv --bands native --mask none --no-quicklooks"
)
APPLIED = {
    "b": ["interpolate runs/b w.zarr out.zarr --every 3h --window 12h", "evaluate runs/b"],
    "c": ["predict runs/c w.zarr out.zarr --lead-hours 6 --control off", "evaluate runs/c"],
    "d": ["predict runs/d w.zarr out", "evaluate runs/d"],
    "g": ["predict runs/g g.zarr out.csv", "evaluate runs/g"],
    "m": ["evaluate runs/m", "export runs/m m.safetensors"],
    "o": ["predict runs/o g.zarr out.csv", "evaluate runs/o"],
}
OF_TABLES = {
    "grades.csv": [PICTURES],
    "lows.csv": ["check d.yaml", "train d.yaml --runs r --set training.steps=1", "evaluate runs/d"],
    "traits.csv": ["probe score x.zarr traits.csv --out t --folds 3"],
    "laws.csv": ["laws laws.csv --target y --inputs x,z --seconds 1 --batch 20 --out found_laws"],
    "q/scores.csv": ["inspect q"],
}
OF_RESULTS = {
    "f.zarr": ["inspect f.zarr", "objects f.zarr out.csv", "verify f.zarr",
               "interpolate runs/b f.zarr out.zarr --every 3h --window 12h"],
    "emb": ["inspect emb", "probe score emb traits.csv --out t --folds 3"],
    "q": ["inspect q", "probe apply q x.zarr out.csv"],
    "runs/w/evaluation": ["inspect runs/w", "evaluate runs/w --against runs/c"],
    "found": ["inspect found"],
}  # fmt: skip
MADE = [
    "prepare plants many x.zarr --white white.hdr --dark dark.hdr --bands native --no-quicklooks",
    "embed runs/p x.zarr --out emb",
    "prepare plants pictures g.zarr --table grades.csv --bands native --mask none "
    "--no-quicklooks",
    "predict runs/w w.zarr f.zarr --lead-hours 12,24",
    "probe score emb traits.csv --out q --folds 3",
    *(f"train {letter}.yaml --runs runs" for letter in RECIPES), "predict runs/d w.zarr found",
    "evaluate runs/w", "evaluate runs/c",
]  # fmt: skip
UNCHANGED = [
    *(line for lines in (APPLIED, OF_TABLES, OF_RESULTS) for group in lines.values()
      for line in group),
    PICTURES, *(f"check {letter}.yaml" for letter in RECIPES),
]  # fmt: skip
"""Commands that end with a result where nothing is changed."""


def make_task_inputs(folder: Path) -> None:
    """Make what is changed, beside the inputs of `mutated_inputs.make_inputs`."""
    from click.testing import CliRunner

    from sciml_dchag.cli.main import main

    _make_pictures(folder)
    _make_scans(folder)
    _make_tables(folder)
    for letter, text in RECIPES.items():
        (folder / f"{letter}.yaml").write_text(text)
    for command in MADE:
        with contextlib.chdir(folder):
            result = CliRunner().invoke(main, shlex.split(command))
        if result.exit_code:
            raise RuntimeError(f"{command}: {result.output}")


def _make_pictures(folder: Path) -> None:
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(2)
    (folder / "pictures").mkdir()
    (folder / "lesions").mkdir()
    rows = []
    for number in range(12):
        labels = np.zeros((16, 24), np.uint8)
        labels[3:13, 4:20] = 1
        labels[5 : 5 + number % 3, 6:9] = 2
        colours = np.array([[225, 225, 220], [70, 140, 50], [120, 75, 40]])[labels]
        picture = (colours + draw.normal(0, 5, colours.shape)).clip(0, 255).astype(np.uint8)
        name = f"leaf{number:02d}." + ("png" if number % 2 else "jpg")
        Image.fromarray(picture).save(folder / "pictures" / name)
        if number % 2:
            Image.fromarray(labels).save(folder / "lesions" / name)
        rows.append(f"{name},{number % 3},{('train', 'validation', 'test')[number // 4]}\n")
    (folder / "grades.csv").write_text("image,severity,split\n" + "".join(rows))


def _make_scans(folder: Path) -> None:
    import numpy as np

    (folder / "many").mkdir()
    counts, draw = np.fromfile(folder / "i.raw", "<u2"), np.random.default_rng(4)
    for number in range(12):
        shutil.copy(folder / "i.hdr", folder / "many" / f"x{number:02d}.hdr")
        scan = (counts * draw.uniform(0.9, 1.1, counts.shape)).astype("<u2")
        scan.tofile(folder / "many" / f"x{number:02d}.raw")


def _make_tables(folder: Path) -> None:
    import numpy as np

    draw = np.random.default_rng(3)
    rows = [
        f"2025-12-{1 + time // 4:02d}T{6 * (time % 4):02d}:00,{draw.uniform(-60, 60):.1f},"
        f"{draw.uniform(0, 360):.1f},{draw.uniform(5, 30):.1f}\n"
        for time in range(28)
        for _ in range(2)
    ]
    (folder / "lows.csv").write_text("time,latitude,longitude,depth (hPa)\n" + "".join(rows))
    traits = [f"x{n:02d},{1 + (n % 5) * 0.5}\n" for n in range(12)]
    (folder / "traits.csv").write_text("cube,LMA (g m-2)\n" + "".join(traits))
    x, z = draw.uniform(1, 2, (2, 60))
    rows = [
        f"{a:.4f},{b:.4f},{a * b:.4f},{n % 6}\n" for n, (a, b) in enumerate(zip(x, z, strict=True))
    ]
    (folder / "laws.csv").write_text("x [m],z [s-1],y [m s-1],day\n" + "".join(rows))


def _task_recipe(rng: random.Random, folder: Path, work: Path) -> str:
    letter = rng.choice(sorted(RECIPES))
    copied(folder, work, f"{letter}.yaml", STORES[letter], *BESIDE.get(letter, []))
    path = work / f"{letter}.yaml"
    if rng.random() < 0.6:
        path.write_text(change_yaml(rng, path.read_text()))
    else:
        path.write_bytes(change_text(rng, path.read_bytes()))
    return rng.choice([f"check {path.name}", f"plan {path.name}", f"inspect {path.name}"])


def _task_set(rng: random.Random, folder: Path, work: Path) -> tuple[str, ...]:
    letter = rng.choice(sorted(RECIPES))
    copied(folder, work, f"{letter}.yaml", STORES[letter], *BESIDE.get(letter, []))
    words = setting(rng, (work / f"{letter}.yaml").read_text())
    return (rng.choice(["check", "check", "plan"]), f"{letter}.yaml", "--set", words)


def _task_checkpoint(rng: random.Random, folder: Path, work: Path) -> str:
    letter = rng.choice(sorted(RECIPES))
    copied(folder, work, f"runs/{letter}", STORES[letter], *BESIDE.get(letter, []))
    run = work / "runs" / letter
    checkpoint = next((run / "checkpoints").glob("*/checkpoint.json")).parent
    (checkpoint / "checksums.txt").unlink(missing_ok=True)
    at = rng.random()
    change(
        rng, checkpoint / "checkpoint.json" if at < 0.6 else any_file(rng, checkpoint)
        if at < 0.8 else run / "recipe.yaml",
    )  # fmt: skip
    return rng.choice([*APPLIED[letter], f"inspect runs/{letter}", f"verify runs/{letter}"])


def _table(rng: random.Random, folder: Path, work: Path) -> str:
    name = rng.choice(sorted(OF_TABLES))
    _everything(folder, work)
    path = work / name
    if rng.random() < 0.8:
        path.write_bytes(change_text(rng, path.read_bytes()))
    else:
        path.write_bytes(change_bytes(rng, path.read_bytes()))
    return rng.choice(OF_TABLES[name])


def _picture(rng: random.Random, folder: Path, work: Path) -> str:
    copied(folder, work, "pictures", "lesions", "grades.csv", "g.yaml", "g.zarr", "runs/g")
    of_leaf = rng.random() < 0.6
    path = any_file(rng, work / ("pictures" if of_leaf else "lesions"))
    change(rng, path)
    if of_leaf:
        return rng.choice([PICTURES, f"inspect {path.relative_to(work)}"])
    return rng.choice(["check g.yaml", "train g.yaml --runs r", "evaluate runs/g"])


def _result(rng: random.Random, folder: Path, work: Path) -> str:
    name = rng.choice(sorted(OF_RESULTS))
    _everything(folder, work)
    if rng.random() < 0.7:
        (work / name / "checksums.txt").unlink(missing_ok=True)
    change(rng, any_file(rng, work / name))
    return rng.choice(OF_RESULTS[name])


def _everything(folder: Path, work: Path) -> None:
    shutil.copytree(folder, work, dirs_exist_ok=True)


TASK_KINDS: dict[str, Kind] = {
    "recipes of tasks": _task_recipe,
    "--set of tasks": _task_set,
    "checkpoints of tasks": _task_checkpoint,
    "tables": _table,
    "pictures": _picture,
    "results": _result,
}
