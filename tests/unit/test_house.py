"""The house rules that a machine can hold: imports point downward, files stay small."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "sciml_dchag"

# What each folder or module may import of the package, beside itself and `_version`.
ALLOWED: dict[str, set[str]] = {
    "channels": set(),
    "models": set(),
    "config": {"models", "parallel"},
    "parallel": {"models"},
    "evaluation.weights": set(),
    "data": {"channels", "evaluation.weights"},
    "evaluation.figure_style": set(),
    "prepare": {"channels", "data", "evaluation.figure_style", "evaluation.weights"},
    "tasks": {"models", "evaluation.weights"},
    "training": {"channels", "config", "data", "models", "parallel", "tasks", "evaluation.weights"},
    "inference": {"channels", "config", "data", "models", "parallel", "tasks", "training"},
    "evaluation": {"channels", "config", "data", "inference", "parallel", "training"},
    "pipeline": {"pipeline_plants", "config", "data", "evaluation", "inference", "prepare", "training"},
    "planning": {"config", "models", "parallel", "tasks"},
    "pipeline_plants": {"config", "data", "evaluation", "pipeline", "prepare", "training"},
    "inspection_plants": {"config", "data", "models", "prepare", "training"},
    "inspection": {
        "inspection_plants",
        "channels", "config", "data", "evaluation", "models", "parallel", "prepare", "tasks",
        "training",
    },
    "launching": {"config", "data", "inspection", "parallel", "training"},
    "cli": {"config", "data", "evaluation", "inference", "inspection", "launching", "parallel",
            "pipeline", "pipeline_plants", "planning", "prepare", "training"},
}  # fmt: skip
HEAVY = {"xesmf", "esmpy", "cfgrib", "eccodes", "jcm", "jax", "spectral", "prosail", "rasterio"}
SLOW_TO_IMPORT = {"pyarrow", "sklearn"}


def modules() -> list[tuple[str, Path]]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        if name not in ("__init__", "__main__", "_version"):
            found.append((name.removesuffix(".__init__"), path))
    return found


def imports(name: str, path: Path, *, top_level: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level else ast.walk(tree)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            package = name.split(".")[:-1] if path.name != "__init__.py" else name.split(".")
            base = ".".join(package[: len(package) - node.level + 1])
            found.add(f"sciml_dchag.{base}.{node.module}" if node.module else f"sciml_dchag.{base}")
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize(("name", "path"), modules(), ids=lambda value: str(value)[-40:])
def test_imports_point_downward(name: str, path: Path) -> None:
    home = name if name in ALLOWED else name.split(".")[0]
    allowed = ALLOWED[home] | {home, "_version"}
    for imported in imports(name, path):
        package, _, inside = imported.partition(".")
        if package != "sciml_dchag" or not inside:
            continue
        fits = any(inside == ok or inside.startswith(f"{ok}.") for ok in allowed)
        assert fits, f"{name} imports {imported}: {home} may import {sorted(allowed)}"


def test_models_need_torch_alone() -> None:
    standard = {"__future__", "collections", "copy", "dataclasses", "hashlib", "math", "typing"}
    outside = {"torch", "sciml_dchag", *standard}
    for name, path in modules():
        if name.split(".")[0] == "models":
            found = {i.split(".")[0] for i in imports(name, path)}
            assert found <= outside, (name, found - outside)
            assert not any(i.startswith("torch.distributed") for i in imports(name, path))


def test_what_pip_alone_may_lack_is_imported_inside_functions_of_prepare() -> None:
    for name, path in modules():
        at_top = {i.split(".")[0] for i in imports(name, path, top_level=True)}
        assert not (HEAVY | SLOW_TO_IMPORT) & at_top, name
        if HEAVY & {i.split(".")[0] for i in imports(name, path)}:
            assert name.startswith("prepare."), name


def test_files_are_small_and_say_what_they_hold() -> None:
    for name, path in modules():
        text = path.read_text()
        assert text.count("\n") <= 400, f"{name} has {text.count(chr(10))} lines"
        assert ast.get_docstring(ast.parse(text)), f"{name} has no docstring"


def test_the_public_names_exist() -> None:
    import sciml_dchag

    assert len(sciml_dchag.__all__) <= 12
    for name in sciml_dchag.__all__:
        assert getattr(sciml_dchag, name) is not None
