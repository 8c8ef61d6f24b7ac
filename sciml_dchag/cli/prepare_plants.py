"""`prepare plants`: raw hyperspectral images to a store of reflectance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from sciml_dchag.cli.console import Command, ProgressBar, out
from sciml_dchag.cli.options import overwrite_option

Number = TypeVar("Number", int, float)


def _pair(
    kind: type[Number],
) -> Callable[[click.Context, click.Parameter, str | None], tuple[Number, Number] | None]:
    """Read two numbers separated by a comma."""

    def read(
        context: click.Context, parameter: click.Parameter, text: str | None
    ) -> tuple[Number, Number] | None:
        if text is None:
            return None
        try:
            first, second = (kind(part) for part in text.split(","))
        except ValueError:
            raise click.BadParameter(
                f"{text!r} is not two numbers separated by a comma.", context, parameter
            ) from None
        return first, second

    return read


@click.command(cls=Command)
@click.argument("sources", nargs=-1, required=True)
@click.argument("store", type=click.Path(path_type=Path))
@click.option("--white", metavar="FILE", help="White reference.")
@click.option("--dark", metavar="FILE", help="Dark reference.")
@click.option(
    "--white-reflectance",
    default="1",
    show_default=True,
    metavar="FACTOR",
    help="Reflectance of the white panel: a number, or a CSV of wavelength and factor.",
)
@click.option(
    "--references",
    type=click.Choice(["column", "band"]),
    default="column",
    show_default=True,
    help="Average references over lines (push-broom cameras), or over lines and columns.",
)
@click.option("--wavelengths", metavar="FILE", help="Wavelengths, instead of those of the images.")
@click.option(
    "--bands",
    default="400-900x500",
    show_default=True,
    help="LOW-HIGHxNUMBER in nm, native, wavelengths separated by commas, or a file of them.",
)
@click.option(
    "--response",
    type=click.Choice(["gaussian", "linear"]),
    default="gaussian",
    show_default=True,
    help="How bands are made from the camera's.",
)
@click.option("--merge-bands", is_flag=True, help="Average bands of one wavelength.")
@click.option(
    "--smooth",
    callback=_pair(int),
    metavar="WINDOW,ORDER",
    help="Savitzky-Golay filter, such as 11,2.",
)
@click.option("--snv", is_flag=True, help="Standardise each spectrum (standard normal variate).")
@click.option("--clip", callback=_pair(float), metavar="LOW,HIGH", help="Bound reflectance: 0,1.")
@click.option(
    "--mask", metavar="FILE", help="PNG, TIFF or NPY of plants, or a folder with one an image."
)
@click.option("--no-mask", is_flag=True, help="Take every pixel for plant.")
@click.option(
    "--index",
    type=click.Choice(["ndvi", "excess-green", "brightness"]),
    help="What plants are told by; chosen for each image unless given.",
)
@click.option("--plants", type=click.IntRange(min=1), help="Keep as many of the largest plants.")
@click.option("--table", metavar="CSV", help="What is known of the images, by file name.")
@click.option(
    "--split",
    default="0.8/0.1/0.1",
    show_default=True,
    help="Parts for training, validation and test, by image; spatial:0.62,guard=4 cuts each image.",
)
@click.option("--group-by", metavar="COLUMN", help="Images of one value are for the same.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the draw.")
@click.option("--attribution", default="", help="A sentence that pictures carry.")
@click.option("--no-quicklooks", is_flag=True, help="Draw no pictures.")
@overwrite_option
def plants(
    sources: tuple[str, ...], store: Path, white: str | None, dark: str | None,
    white_reflectance: str, references: str, wavelengths: str | None, bands: str, response: str,
    merge_bands: bool, smooth: tuple[int, int] | None, snv: bool,
    clip: tuple[float, float] | None, mask: str | None, no_mask: bool, index: str | None,
    plants: int | None, table: str | None, split: str, group_by: str | None, seed: int,
    attribution: str, no_quicklooks: bool, overwrite: bool,
) -> None:  # fmt: skip
    """Calibrate hyperspectral images from SOURCES, find their plants and write STORE.

    SOURCES are ENVI, GeoTIFF, MATLAB or NumPy images, patterns or folders. An interrupted call goes
    on with the images that are not finished when it is repeated.

    \b
    Example:
      sciml-dchag prepare plants 'scans/*.hdr' stores/poplar.zarr \\
        --white white.hdr --dark dark.hdr --table plants.csv --group-by genotype
    """
    from sciml_dchag.plants.prepare.images import NO_MASK, prepare_plants

    if mask is not None and no_mask:
        raise ValueError("--mask and --no-mask exclude each other: leave one out.")
    with ProgressBar() as progress:
        path = prepare_plants(
            sources,
            store,
            white=white,
            dark=dark,
            white_reflectance=white_reflectance,
            references=references,  # type: ignore[arg-type]  # click has checked it
            wavelengths=wavelengths,
            bands=bands,
            response=response,  # type: ignore[arg-type]
            merge_bands=merge_bands,
            smooth=smooth,
            snv=snv,
            clip=clip,
            mask=NO_MASK if no_mask else mask,
            index=index,  # type: ignore[arg-type]
            plants=plants,
            table=table,
            split=split,
            group_by=group_by,
            seed=seed,
            attribution=attribution,
            quicklooks=not no_quicklooks,
            overwrite=overwrite,
            progress=progress,
        )
    from sciml_dchag.plants.store.cubes import CubeStore
    from sciml_dchag.plants.store.summary import summarise

    for line in summarise(CubeStore.open(path)):
        out.print(line, highlight=False, markup=False)
    if not no_quicklooks:
        out.print(f"Pictures: {path / 'quicklooks'}", highlight=False)
    out.print(f"Store: {path}\nLook at it: sciml-dchag inspect {path}", highlight=False)
