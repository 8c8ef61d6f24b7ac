"""One dataclass, every way to set its fields: recipe, options, keyword arguments, documentation.

A field's text under it is its documentation everywhere. `knob` adds what the command line needs to
know of a field where its name and type do not say it.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import textwrap
import typing
from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


def knob(
    default: Any,
    *,
    option: str | tuple[str, ...] | None = None,
    metavar: str | None = None,
    repeat: bool = False,
    argument: bool = False,
) -> Any:
    """Declare a field with what the command line cannot know from its name and type.

    Args:
        default: the field's default.
        option: the option's name, without dashes, if it differs from the field's; for a tuple of
            fixed length one name per element gives each an option of its own.
        metavar: what stands for the value in the help.
        repeat: the option of a list is given once per element, instead of separated by commas.
        argument: the list is the command's arguments instead of an option.
    """
    metadata = {"option": option, "metavar": metavar, "repeat": repeat, "argument": argument}
    return dataclasses.field(default=default, metadata=metadata)


@functools.cache
def field_docs(section: type) -> dict[str, str]:
    """Return the text under each field of a dataclass, on one line, inherited fields included."""
    found: dict[str, str] = {}
    for cls in reversed(section.__mro__):
        if not dataclasses.is_dataclass(cls):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        assert isinstance(tree, ast.ClassDef)
        for node, below in zip(tree.body, tree.body[1:], strict=False):
            if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
                continue
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                found[node.target.id] = " ".join(str(below.value.value).split())
    return {f.name: found.get(f.name, "") for f in dataclasses.fields(section)}


def takes(section: type) -> Callable[[Function], Function]:
    """Let a function's signature and docstring show the fields that its `**knobs` are.

    The function itself makes the dataclass, which refuses unknown names.
    """

    def decorate(function: Function) -> Function:
        kinds, docs = typing.get_type_hints(section), field_docs(section)
        signature = inspect.signature(function)
        given = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        names = {p.name for p in given}
        knobs = [f for f in dataclasses.fields(section) if f.name not in names]
        added = [
            inspect.Parameter(
                f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=kinds[f.name]
            )
            for f in knobs
        ]
        function.__signature__ = signature.replace(parameters=[*given, *added])  # type: ignore[attr-defined]
        listed = "\n".join(
            textwrap.fill(f"{f.name}: {docs[f.name]}", 92, initial_indent=" " * 8,
                          subsequent_indent=" " * 12)
            for f in knobs
        )  # fmt: skip
        function.__doc__ = (function.__doc__ or "").replace("        **knobs: as below.", listed)
        return function

    return decorate
