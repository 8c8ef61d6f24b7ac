"""A knob of `prepare` is one field: the recipe, the command, the library and the pages have it."""

import ast
import dataclasses
import inspect
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from recipe_reference import PAGE, reference

from sciml_dchag.cli.prepare import era5
from sciml_dchag.cli.prepare_plants import plants
from sciml_dchag.config.knobs import field_docs
from sciml_dchag.plants.masked.config import MaskedRecipe
from sciml_dchag.plants.prepare.config import PreparePlants
from sciml_dchag.plants.prepare.images import prepare_plants
from sciml_dchag.tasks import TASKS, load_recipe, named
from sciml_dchag.weather.forecast.config import ForecastRecipe
from sciml_dchag.weather.prepare.config import PrepareWeather
from sciml_dchag.weather.prepare.era5 import prepare_era5

WINGS = [
    (PrepareWeather, ForecastRecipe, era5, prepare_era5,
     {"start": "period", "end": "period", "static-source": "static_sources"},
     {"train-start", "train-end", "scheduler"}, {"statistics_period", "scheduler"}),
    (PreparePlants, MaskedRecipe, plants, prepare_plants, {"no-quicklooks": "quicklooks", "no-own-references": "own_references"},
     {"seed"}, {"seed"}),
]  # fmt: skip
Wing = tuple[type, type, click.Command, Callable[..., Any], dict[str, str], set[str], set[str]]


@pytest.mark.parametrize("wing", WINGS, ids=["weather", "plants"])
def test_recipe_command_and_function_have_the_same_knobs(wing: Wing) -> None:
    section, recipe, command, function, renamed, more_options, more_parameters = wing
    fields = {field.name for field in dataclasses.fields(section)}
    (prepare,) = (f for f in dataclasses.fields(recipe) if f.name == "prepare")
    assert prepare.default_factory is section
    options = {p.opts[0].lstrip("-") for p in command.params} - {"overwrite", "debug", "store"}
    found = {renamed.get(o, o.replace("-", "_")) for o in options - more_options}
    assert found == fields and more_options <= options
    parameters = set(inspect.signature(function).parameters) - {"out", "overwrite", "progress"}
    assert parameters - more_parameters == fields and more_parameters <= parameters
    assert all(f"{name}: " in str(function.__doc__) for name in parameters)
    with pytest.raises(TypeError, match="unexpected keyword argument 'gird'"):
        function([], "x.zarr", gird=3)


@pytest.mark.parametrize("wing", WINGS, ids=["weather", "plants"])
def test_the_function_reads_every_knob(wing: Wing) -> None:
    section, function = wing[0], wing[3]
    folder = Path(inspect.getsourcefile(inspect.unwrap(function)) or "").parent
    read = {
        node.attr
        for path in folder.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        and node.value.id == "config"
    }  # fmt: skip
    assert read >= {field.name for field in dataclasses.fields(section)}


def read_by(command: click.Command, *words: str) -> Any:
    """The dataclass that a command makes of its options."""
    made: list[Any] = []
    inner = inspect.unwrap(command.callback)
    wrapped = command.callback
    cell = next(c for c in wrapped.__closure__ if c.cell_contents is inner)
    cell.cell_contents = lambda config, **_: made.append(config)
    try:
        done = CliRunner().invoke(command, [*words, "out.zarr"])
    finally:
        cell.cell_contents = inner
    assert done.exit_code == 0, done.output
    return made[0]


def test_options_make_the_section_that_a_recipe_makes(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "task: {kind: masked}\n"
        "prepare: {sources: [a.hdr, b.hdr], clip: [0, 1], index: ndvi, response: linear,\n"
        "  references: band, smooth: [11, 2], quicklooks: false, merge_bands: true, plants: 4}\n"
    )
    given = read_by(
        plants, "a.hdr", "b.hdr", "--clip", "0,1", "--index", "ndvi", "--response", "linear",
        "--references", "band", "--smooth", "11,2", "--no-quicklooks", "--merge-bands",
        "--plants", "4",
    )  # fmt: skip
    assert given == load_recipe(recipe).prepare
    recipe.write_text(
        "prepare: {sources: [a.nc], period: ['1979', null], static: [lsm, orography],\n"
        "  static_sources: ['s,1.nc', t.nc], step_hours: 6, allow_missing: true}\n"
    )
    given = read_by(
        era5, "a.nc", "--start", "1979", "--static", "lsm,orography", "--static-source", "s,1.nc",
        "--static-source", "t.nc", "--step-hours", "6", "--allow-missing",
    )  # fmt: skip
    assert given == load_recipe(recipe).prepare
    assert read_by(era5, "a.nc") == PrepareWeather(sources=("a.nc",))
    assert read_by(plants, "a.hdr") == PreparePlants(sources=("a.hdr",))


def test_the_library_takes_lists_and_names_as_the_recipe_does() -> None:
    given = PrepareWeather(channels=["t2m", "z500"], static=["lsm"], period=["1979", None])  # type: ignore[arg-type]
    assert given == PrepareWeather(channels="t2m,z500", static=("lsm",), period=("1979", None))


def test_every_knob_of_every_recipe_is_documented() -> None:
    undocumented = []
    todo = [named(entry.recipe) for entry in TASKS.values()]
    for section in todo:
        docs, kinds = field_docs(section), typing.get_type_hints(section)
        for field in dataclasses.fields(section):
            if dataclasses.is_dataclass(kinds[field.name]):
                todo.append(kinds[field.name])
            elif not docs[field.name]:
                undocumented.append(f"{section.__name__}.{field.name}")
    assert not undocumented


def test_the_reference_is_what_its_script_makes() -> None:
    assert PAGE.read_text() == reference(), "run `python docs/recipe_reference.py`"
    assert "| `prepare.clip` |" in reference() and "| `training.steps` |" in reference()
