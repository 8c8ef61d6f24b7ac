"""`indices`, `embed` and `probe`: what a plant store and a trained encoder say of plants."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

import click

from sciml_dchag.cli.console import Command, Group, ProgressBar, out, program, show
from sciml_dchag.cli.options import device_option, folder_option, overwrite_option


@click.command(cls=Command)
@click.argument("store", type=click.Path(path_type=Path))
@folder_option("Folder to write; STORE's name with _indices beside it by default.")
@click.option(
    "--index",
    "names",
    multiple=True,
    metavar="NAME",
    help="NDVI, PRI, REP, REIP, NDRE, CCI, ARI1, ARI2 or WI; repeatable. By default all that the "
    "bands reach.",
)
@overwrite_option
def indices(store: Path, folder: Path | None, names: tuple[str, ...], overwrite: bool) -> None:
    """Map spectral indices of STORE's images and tabulate them by plant.

    Writes indices.csv, indices_units.csv with units, formulas and sources, maps as NetCDF and
    pictures of them.

    \b
    Example:
      sciml-dchag indices stores/poplar.zarr --index NDVI --index REP
    """
    from sciml_dchag.plants.traits.index_maps import TABLE, write_indices

    with ProgressBar() as progress:
        written = write_indices(store, folder, names=names, overwrite=overwrite, progress=progress)
    for reason in written.left_out.values():
        out.print(f"Left out: {reason}", highlight=False, markup=False)
    for name, pixels in written.undefined.items():
        if pixels:
            text = f"{name} has no value at {pixels} pixels on plants (NaN)."
            out.print(text, highlight=False, markup=False)
    if written.empty:
        text = f"Without a plant, and so not in the table: {', '.join(written.empty)}."
        out.print(text, highlight=False, markup=False)
    table = f"Table of {len(written.table)} plants: {written.folder / TABLE}"
    out.print(table, highlight=False, markup=False)


@click.command(cls=Command)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("store", type=click.Path(path_type=Path))
@folder_option("Folder to write; STORE's name with _embeddings beside it by default.")
@device_option
@overwrite_option
def embed(
    checkpoint: Path, store: Path, folder: Path | None, device: str | None, overwrite: bool
) -> None:
    """Embed STORE's plants with CHECKPOINT (a checkpoint or run folder).

    Writes an embedding of each patch that is mostly plant and their mean over each plant, as
    Parquet and Zarr.

    \b
    Example:
      sciml-dchag embed runs/poplar-masked stores/poplars.zarr
    """
    from sciml_dchag.cli.apply import require_kind
    from sciml_dchag.plants.masked.embed import embed as embed_store

    require_kind(checkpoint, "masked", "embed")
    place = folder or store.with_name(f"{store.stem}_embeddings")
    with ProgressBar() as progress:
        embed_store(checkpoint, store, place, overwrite=overwrite, device=device, progress=progress)
    out.print(f"Embeddings: {place}", highlight=False, markup=False)


class _Probe(Group):
    """`probe SOURCE TRAITS` is `probe score SOURCE TRAITS`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "-h", "--help"):
            args = ["score", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Probe)
def probe() -> None:
    """Predict traits from spectra, indices and embeddings: score, then apply.

    `probe SOURCE TRAITS` is short for `probe score SOURCE TRAITS`.
    """


@probe.command("score", cls=Command)
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("traits", type=click.Path(path_type=Path))
@click.option(
    "--trait",
    "names",
    multiple=True,
    metavar="NAME",
    help="Column of TRAITS; repeatable. By default every column of numbers.",
)
@click.option(
    "--store",
    type=click.Path(path_type=Path),
    default=None,
    help="Store for mean spectra and indices; the embeddings' own by default.",
)
@click.option(
    "--group",
    default=None,
    metavar="COLUMN",
    help="Rows equal in it stay on one side of a split, such as a plant seen on several dates.",
)
@click.option(
    "--folds", type=click.IntRange(min=3), default=5, show_default=True, help="Outer, and inner."
)
@folder_option("Folder to write; SOURCE with _probe beside it by default.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the folds.")
@overwrite_option
def score(
    source: Path, traits: Path, names: tuple[str, ...], store: Path | None, group: str | None,
    folds: int, folder: Path | None, seed: int, overwrite: bool,
) -> None:  # fmt: skip
    """Regress TRAITS (a CSV) on SOURCE: a plant store, or embeddings of one.

    Mean spectra and indices of a store are scored, and embeddings beside them.
    TRAITS has a column cube (the image's file name) and optionally plant (its number in the mask),
    or plant_id and optionally date as in the store's table, and a column a trait with its units in
    brackets. Ridge and PLS regression, and the best two-band index, are scored by nested
    cross-validation; R2 is that of the pooled out-of-fold predictions. The best regression of each
    kind of features is then fitted on all rows and kept.

    \b
    Example:
      sciml-dchag probe score runs/demo-plants/embeddings traits.csv --trait "LMA (g m-2)"
    """
    from sciml_dchag.plants.traits.probe import probe as run_probe
    from sciml_dchag.plants.traits.probe import scores_table

    with ProgressBar() as progress:
        result = run_probe(
            source, traits, traits=names, store_path=store, group=group, folds=folds,
            seed=seed, out=folder, overwrite=overwrite, progress=progress,
        )  # fmt: skip
    show(scores_table(result.scores))
    out.print(f"Scores: {result.folder / 'scores.csv'}", highlight=False, markup=False)
    out.print(
        f"To predict new plants: {program()} probe apply {quote(str(result.folder))} STORE "
        f"predicted.csv",
        highlight=False, markup=False,
    )  # fmt: skip


@probe.command("apply", cls=Command)
@click.argument("models", type=click.Path(path_type=Path))
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("table", type=click.Path(path_type=Path))
@click.option("--trait", "names", multiple=True, metavar="NAME", help="Repeatable; all by default.")
@click.option(
    "--store",
    type=click.Path(path_type=Path),
    default=None,
    help="Store of embeddings that is not where it was.",
)
@overwrite_option
def apply(
    models: Path, source: Path, table: Path, names: tuple[str, ...], store: Path | None,
    overwrite: bool,
) -> None:  # fmt: skip
    """Predict traits of SOURCE's plants with MODELS, the folder of a probe, into TABLE (CSV).

    Each trait has its prediction, an interval that holds 90 % of new plants like those that were
    measured, and the fraction of features beyond what the model has seen.

    \b
    Example:
      sciml-dchag probe apply stores/poplars_probe stores/new.zarr predicted.csv
    """
    from sciml_dchag.files.atomic import written_beside
    from sciml_dchag.files.places import check_file
    from sciml_dchag.plants.traits.trait_models import apply_models

    check_file(table, overwrite)
    predicted = apply_models(models, source, traits=names, store_path=store)
    with written_beside(table) as partial:
        predicted.to_csv(partial, index=False)
    for trait, said in predicted.attrs["models"].items():
        out.print(f"{trait}: {said}", highlight=False, markup=False)
    out.print(f"Table of {len(predicted)} plants: {table}", highlight=False, markup=False)
