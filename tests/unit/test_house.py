"""The house rules that a machine can hold; `docs/architecture.md` states them, and is read here."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "sciml_dchag"
ARCHITECTURE = ROOT / "docs" / "architecture.md"

OUTSIDE_THE_TABLE = {"__init__", "__main__", "_version", "cli"}
"""Rooms that anything may be imported into; their own rules are tested below."""
WINGS = ("weather", "plants")
OPTIONAL = {
    "xesmf", "esmpy", "cfgrib", "eccodes", "jcm", "jax", "spectral", "prosail", "rasterio",
    "gcsfs", "s3fs", "physo",
}  # fmt: skip
SLOW_TO_IMPORT = {"matplotlib", "pyarrow", "sklearn"}


@cache
def modules() -> dict[str, Path]:
    """Every module by its name below `sciml_dchag`; the package itself is `__init__`."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        found[name if name == "__init__" else name.removesuffix(".__init__")] = path
    return found


def imported(path: Path, *, when_loaded: bool = False) -> set[str]:
    """Full names that a file imports; `when_loaded`: leave out functions and TYPE_CHECKING."""
    found: set[str] = set()
    for node in statements(ast.parse(path.read_text(encoding="utf-8")), when_loaded):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: use absolute imports"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def statements(node: ast.AST, when_loaded: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if when_loaded and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if when_loaded and isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from statements(child, when_loaded)


def own(path: Path, *, when_loaded: bool = False) -> set[str]:
    """Modules of the package that a file imports, by their names below it."""
    found = set()
    for name in imported(path, when_loaded=when_loaded):
        if name.split(".")[0] == "sciml_dchag":
            inside = name.removeprefix("sciml_dchag").lstrip(".")
            while inside not in modules() and "." in inside:
                inside = inside.rpartition(".")[0]  # a name in a module
            found.add(inside if inside in modules() else "__init__")
    return found


def room(module: str) -> str:
    return module.split(".")[0]


def section(title: str) -> str:
    """The text under a heading of the architecture page, up to the next of its level or above."""
    text = ARCHITECTURE.read_text(encoding="utf-8")
    level = re.search(rf"^(#+) {re.escape(title)}$", text, re.MULTILINE)
    assert level, f"{ARCHITECTURE} needs the heading {title!r}"
    following = re.split(rf"^#{{1,{len(level[1])}}} ", text[level.end() :], flags=re.MULTILINE)
    return following[0]


def table(title: str) -> list[list[list[str]]]:
    """Rows of the first table under a heading, each cell as the names in backticks in it."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")][2:]
    return [[re.findall(r"`([^`]+)`", cell) for cell in line.split("|")[1:-1]] for line in lines]


def may_import() -> dict[str, set[str]]:
    return {name: set(targets) for names, targets in table("Rooms") for name in names}


@pytest.mark.parametrize("module", modules())
def test_a_room_imports_what_the_table_allows(module: str) -> None:
    here, rules = room(module), may_import()
    if here in OUTSIDE_THE_TABLE:
        return
    assert here in rules, f"docs/architecture.md, Rooms: {here} needs a row"
    for target in own(modules()[module]):
        if room(target) == here or target in ("_version", "__init__"):
            continue
        names = {".".join(target.split(".")[:end]) for end in range(1, target.count(".") + 2)}
        assert names & rules[here], (
            f"{module} imports {target}: {here} may import {', '.join(sorted(rules[here])) or 'nothing'} "
            f"(docs/architecture.md, Rooms)"
        )


def test_the_table_of_rooms_names_what_is_there() -> None:
    rooms = {room(module) for module in modules()} - OUTSIDE_THE_TABLE
    rules = may_import()
    assert set(rules) == rooms
    for targets in rules.values():
        for name in targets:
            assert name in modules(), f"docs/architecture.md, Rooms: there is no {name}"
    for wing in WINGS:
        assert not {name for name in rules[wing] if room(name) in WINGS}, "wings stay apart"


@pytest.mark.parametrize("place", range(len(WINGS)), ids=WINGS)
def test_inside_a_wing_imports_point_to_rows_above(place: int) -> None:
    wing = WINGS[place]
    rank = {
        name: number
        for number, row in enumerate(table("Inside a wing"))
        for name in row[place]
    }  # fmt: skip
    there = {module.split(".")[1] for module in modules() if module.startswith(f"{wing}.")}
    assert set(rank) == there, "docs/architecture.md, Inside a wing: list each folder and file once"
    wrong = []
    for module, path in modules().items():
        if not module.startswith(f"{wing}.") or module == f"{wing}.prepare":
            continue  # the package `prepare` can be called, and hands the call on to `opened`
        here = module.split(".")[1]
        for target in own(path):
            there_ = target.split(".")[1] if target.startswith(f"{wing}.") else here
            if there_ != here and rank[there_] >= rank[here]:
                wrong.append(f"{module} imports {target}, which is not in a row above {here}'s")
    assert not wrong, "\n".join(wrong)


def test_no_import_cycle() -> None:
    graph = {name: own(path, when_loaded=True) - {name} for name, path in modules().items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other in a circle: {' <- '.join(error.args[1])}")


def test_cli_imports_the_package_inside_functions() -> None:
    for name, path in modules().items():
        if room(name) == "cli":
            loaded = own(path, when_loaded=True)
            # Options are made from the sections of recipes, which need no torch (tested below).
            heavy = {t for t in loaded if "config" not in t.split(".")[-1:] + t.split(".")[:1]}
            heavy = {room(target) for target in heavy} - {"cli", "tasks", "_version"}
            assert not heavy, f"{name} imports {', '.join(heavy)} when it is loaded"


def test_models_need_torch_alone() -> None:
    standard = {
        "__future__", "collections", "concurrent", "copy", "dataclasses", "hashlib", "importlib",
        "math", "typing",
    }  # fmt: skip
    for name, path in modules().items():
        if room(name) == "models":
            found = imported(path)
            # Where torch has a GPU of NVIDIA's, it has Triton; on a CPU Numba is optional.
            compilers = {"gpu": {"triton"}, "cpu": {"numba", "llvmlite", "numpy"}}
            known = {"torch", "sciml_dchag"} | compilers.get(name.rpartition("_")[2], set())
            outside = {i.split(".")[0] for i in found} - known - standard
            assert not outside, f"{name} imports {', '.join(outside)}"
            assert not any(i.startswith("torch.distributed") for i in found), name


def test_configuration_needs_no_torch() -> None:
    """What is loaded with the recipes, whatever the task: `--help` and `check` must be quick."""
    wanted = [
        name
        for name in modules()
        if name in ("tasks", "config") or name.endswith(".config") or name.startswith("config.")
    ]
    seen: set[str] = set()
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        found = imported(modules()[name], when_loaded=True)
        assert "torch" not in {i.split(".")[0] for i in found}, f"{name} imports torch"
        wanted += own(modules()[name], when_loaded=True)


def test_optional_and_slow_packages_are_imported_inside_functions_of_a_wing() -> None:
    for name, path in modules().items():
        loaded = {i.split(".")[0] for i in imported(path, when_loaded=True)}
        assert not (OPTIONAL | SLOW_TO_IMPORT) & loaded, f"{name} imports it when it is loaded"
        if OPTIONAL & {i.split(".")[0] for i in imported(path)}:
            assert room(name) in WINGS or name == "laws.search", name


def test_files_are_small_and_say_what_they_hold() -> None:
    for name, path in modules().items():
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= 400, f"{name} has {text.count(chr(10))} lines, 400 at most"
        assert ast.get_docstring(ast.parse(text)), f"{name} needs a docstring: what does it hold?"


def test_the_architecture_page_has_one_line_for_every_file() -> None:
    """Under `### `folder/``, a line `| `file` | what it holds |`; a folder of samples is one."""
    each = [
        path.relative_to(PACKAGE)
        for path in sorted(PACKAGE.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and not is_bare(path)
        if path.suffix == ".py" or "samples" in path.parts
    ]
    there = list(
        dict.fromkeys(
            Path(*path.parts[:2]) if path.parts[0] == "samples" else path for path in each
        )
    )
    folder, listed = "", []
    for line in section("Files").splitlines():
        if heading := re.fullmatch(r"### `(?:sciml_dchag/)?([^`]*)`.*", line):
            folder = heading[1]
        elif line.startswith("| `"):
            cell, text = line.split("|")[1:3]
            assert text.strip(), f"docs/architecture.md: say what {cell.strip()} holds"
            listed += [f"{folder}{name}" for name in re.findall(r"`([^`]+)`", cell)]
    wrong = [
        f"docs/architecture.md: under ### `{heading_of(path)}` add | `{path.name}` | what it holds |"
        for path in there
        if path.as_posix() not in listed
    ]
    files = {path.as_posix() for path in there}
    wrong += [
        f"docs/architecture.md lists {name}, which is not there" for name in {*listed} - files
    ]
    wrong += [f"docs/architecture.md lists {n} twice" for n in {*listed} if listed.count(n) > 1]
    assert not wrong, "\n" + "\n".join(wrong)


def heading_of(path: Path) -> str:
    return "sciml_dchag/" if path.parent == Path() else f"{path.parent.as_posix()}/"


def is_bare(path: Path) -> bool:
    """Whether a file is an `__init__.py` that holds its docstring alone."""
    return path.name == "__init__.py" and len(ast.parse(path.read_text()).body) <= 1


def test_the_public_names_exist() -> None:
    import sciml_dchag

    for name in sciml_dchag.__all__:
        assert getattr(sciml_dchag, name) is not None


def test_links_between_pages_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "pipelines").glob("*.md")]
    for page in pages:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target, anchor in re.findall(r"\]\(([^)#\s]*)(#[^)\s]*)?\)", text):
            if target.startswith(("http", "mailto")):
                continue
            place = (page.parent / target) if target else page
            assert place.exists(), f"{page.name} links to {target}, which is not there"
            if anchor and place.suffix == ".md":
                assert anchor[1:] in anchors(place), f"{page.name}: no heading {anchor} in {target}"


def anchors(page: Path) -> set[str]:
    """Headings of a page, as a host of Markdown makes links of them."""
    found = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def test_the_readme_is_short() -> None:
    words = len((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert words <= 900, f"README.md has {words} words, 900 at most"
