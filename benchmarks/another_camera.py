"""A masked autoencoder on bands that it was not trained on: by index and by wavelength.

The plant demonstration is trained once with parameters of each band's own (`index`) and once with
parameters that are functions of wavelength (`wavelength`), `dchag-c` both, on 500 bands of a maize
kernel. Each is then scored, without further training, on every second band and, by wavelength, on
180 bands at other places, as another camera would have. Loss is the mean squared error of hidden
plant pixels of the test part in units of each band's variance; the mean spectrum stands beside it.

    python benchmarks/another_camera.py
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from record import provenance, write_json
from rich.console import Console

from sciml_dchag.files.samples import recipe_path
from sciml_dchag.pipeline import train
from sciml_dchag.plants.masked.config import MaskedRecipe
from sciml_dchag.plants.masked.reconstructor import Reconstructor
from sciml_dchag.plants.masked.scores import score_images
from sciml_dchag.plants.prepare.images import prepare_plants
from sciml_dchag.plants.store.cubes import CubeStore
from sciml_dchag.tasks import load_recipe

ALL_NM = np.linspace(400, 900, 500)
BANDS = {
    "the 500 bands of the training": ALL_NM,
    "every second of them": ALL_NM[::2],
    "180 others, 405 to 890 nm": np.linspace(405, 890, 180),
}


def prepare(recipe: MaskedRecipe, folder: Path, name: str, nm: NDArray[np.float64]) -> CubeStore:
    """Prepare the sample on some bands."""
    bands = folder / f"{name[:4]}.csv"
    bands.write_text("\n".join(f"{value:.6f}" for value in nm) + "\n")
    plan = recipe.prepare
    path = prepare_plants(
        plan.sources, folder / f"{len(nm)}.zarr", white=plan.white, dark=plan.dark,
        bands=str(bands), split=plan.split, quicklooks=False,
    )  # fmt: skip
    return CubeStore.open(path)


def compare(folder: Path, steps: int, console: Console) -> list[dict[str, Any]]:
    """Train both ways and score each on the sets of bands that it can take."""
    demo = load_recipe(recipe_path("demo_plants"))
    assert isinstance(demo, MaskedRecipe)
    stores = {name: prepare(demo, folder, name, nm) for name, nm in BANDS.items()}
    found = []
    for kind in ("index", "wavelength"):
        recipe = dataclasses.replace(
            demo,
            name=kind,
            model=dataclasses.replace(demo.model, aggregation="dchag-c", channel_embedding=kind),
            data=dataclasses.replace(demo.data, store=str(folder / "500.zarr")),
            # What a model by itself makes of bands, not the interpolation it could start from.
            task=dataclasses.replace(demo.task, gaussian_process=False),
            training=dataclasses.replace(
                demo.training, steps=steps, learning_rate=3e-3, warmup_steps=50, log_every=steps
            ),
        )
        result = train(recipe, folder / kind)
        for name, store in stores.items():
            if kind == "index" and len(store.channels) == 180:
                continue  # bands that it has no parameters for are refused
            scorer = score_images(Reconstructor(folder / kind, store), store.split("test"))
            values = scorer.table().set_index("metric").loc["loss_masked"]
            found.append(
                {"channel_embedding": kind, "bands": name, "loss": values["model"],
                 "mean_spectrum": values["mean_spectrum"], "training_seconds": result.seconds}
            )  # fmt: skip
            console.print(
                f"{kind:<10} {name:<30} loss {values['model']:.3f}, mean spectrum "
                f"{values['mean_spectrum']:.3f}",
                highlight=False,
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=700)
    default = Path(__file__).parent / "results" / "another_camera.json"
    parser.add_argument("--json", type=Path, default=default, help="%(default)s")
    options = parser.parse_args()
    machine, console = provenance(), Console(width=110)
    warnings.simplefilter("ignore")  # of what the sample's headers leave out
    with tempfile.TemporaryDirectory() as folder:
        found = compare(Path(folder), options.steps, console)
    write_json(
        options.json,
        {
            "benchmark": "another_camera",
            "method": " ".join((__doc__ or "").partition("\n    python")[0].split()),
            "settings": {"steps": options.steps},
            "attribution": "Maize kernel: PlantCV hyperspectral tutorial (CC-BY 4.0).",
            "machine": machine,
            "results": found,
        },
    )
    console.print(f"kept in {options.json}")


if __name__ == "__main__":
    main()
