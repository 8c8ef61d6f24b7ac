"""`simulate weather` and `simulate poplars`: data for those who have none, labelled synthetic."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from sciml_dchag.cli.console import Group, ProgressBar, out
from sciml_dchag.cli.options import overwrite_option


@click.group(cls=Group)
def simulate() -> None:
    """Make synthetic data: weather of a climate model, images of poplars.

    Needs the extra `simulate`.
    """


@simulate.command()
@click.argument("store", type=click.Path(path_type=Path))
@click.option(
    "--days", type=int, default=425, show_default=True, help="Days to run, the spin-up included."
)
@click.option(
    "--spin-up-days",
    type=int,
    default=60,
    show_default=True,
    help="First days, which are thrown away.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the start.")
@overwrite_option
def weather(store: Path, days: int, spin_up_days: int, seed: int, overwrite: bool) -> None:
    """Run a climate model and write a STORE of 80 simulated channels.

    Needs the extra `simulate` (JCM). The store is on the model's own Gaussian grid, ready for
    `prepare era5` to regrid. It is weather-like, but no observation.

    \b
    Example:
      sciml-dchag simulate weather stores/gcm80_native.zarr --days 425
    """
    from sciml_dchag.weather.simulate.climate_model import simulate as run_model

    with ProgressBar() as progress:
        path = run_model(
            store, days=days, spin_up_days=spin_up_days, seed=seed, overwrite=overwrite,
            progress=progress,
        )  # fmt: skip
    out.print(f"Store: {path} (simulated, not observations)", highlight=False)


@simulate.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--cubes", type=int, default=8, show_default=True, help="Number of images.")
@click.option(
    "--size", default="192x384", show_default=True, metavar="ROWSxCOLUMNS", help="Of an image."
)
@click.option(
    "--bands", type=int, default=500, show_default=True, help="Evenly from 400 to 900 nm."
)
@click.option(
    "--scene",
    type=click.Choice(["simple", "glasshouse"]),
    default="simple",
    show_default=True,
    help="One plant an image, or plants that touch and shine, with lesions and stress in patches.",
)
@click.option(
    "--labels",
    is_flag=True,
    help="Write label images, too: which leaf is seen where, and where lesions are.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of all that is drawn.")
@overwrite_option
def poplars(
    folder: Path,
    cubes: int,
    size: str,
    bands: int,
    scene: Literal["simple", "glasshouse"],
    labels: bool,
    seed: int,
    overwrite: bool,
) -> None:
    """Write synthetic hyperspectral images of poplars into FOLDER.

    Needs the extra `simulate` (prosail). ENVI counts of a push-broom camera with white and dark
    references, and `traits.csv` with what each plant was drawn from. Leaf spectra are PROSPECT-D's;
    no plant was observed.

    \b
    Example:
      sciml-dchag simulate poplars data/poplars --cubes 16
    """
    from sciml_dchag.plants.simulate.poplars import parse_size, simulate_poplars

    with ProgressBar() as progress:
        paths = simulate_poplars(
            folder, cubes=cubes, size=parse_size(size), bands=bands, scene=scene,
            labels=labels, seed=seed, overwrite=overwrite, progress=progress,
        )  # fmt: skip
    out.print(
        f"{len(paths)} images, references and traits: {folder} (synthetic, not observations)",
        highlight=False,
    )
