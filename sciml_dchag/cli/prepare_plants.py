"""`prepare plants`: raw hyperspectral images to a store of reflectance."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from shlex import quote

import click

from sciml_dchag.cli.console import Command, ProgressBar, as_options, out, program
from sciml_dchag.cli.generated import options_of
from sciml_dchag.cli.options import overwrite_option
from sciml_dchag.plants.prepare.config import PreparePlants


@click.command(cls=Command)
@options_of(PreparePlants)
@click.argument("store", type=click.Path(path_type=Path))
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the draw.")
@overwrite_option
def plants(config: PreparePlants, store: Path, seed: int, overwrite: bool) -> None:
    """Calibrate hyperspectral images from SOURCES, find their plants and write STORE.

    SOURCES are ENVI, GeoTIFF, MATLAB, NumPy or HDF5 images, or pictures (JPEG, PNG), patterns or
    folders. An interrupted call resumes with the images that are not finished when it is repeated.
    Images that are refused are left out and listed at the end; the exit status is then 1.

    \b
    Example:
      sciml-dchag prepare plants 'scans/*.hdr' stores/poplar.zarr \\
        --white white.hdr --dark dark.hdr --table plants.csv --group-by genotype
    """
    from sciml_dchag.plants.prepare.images import prepare_plants

    with ProgressBar() as progress:
        path = prepare_plants(
            out=store,
            **dataclasses.asdict(config),
            seed=seed,
            overwrite=overwrite,
            progress=progress,
        )
    from sciml_dchag.plants.store.cubes import CubeStore
    from sciml_dchag.plants.store.summary import left_out, summarise

    prepared = CubeStore.open(path)
    for line in summarise(prepared):
        out.print(as_options(line), highlight=False, markup=False, soft_wrap=True)
    if config.quicklooks:
        out.print(f"Pictures: {path / 'quicklooks'}", highlight=False)
    out.print(f"Store: {path}\nLook at it: {program()} inspect {quote(str(path))}", highlight=False)
    if left_out(prepared):
        click.get_current_context().exit(1)
