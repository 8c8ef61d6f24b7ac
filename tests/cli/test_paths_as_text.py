"""Paths with brackets are printed as they are, after the work as well."""

from pathlib import Path

from sciml_dchag.cli.console import out


def test_brackets_of_a_path_are_no_markup(tmp_path: Path) -> None:
    path = tmp_path / "a[/b]" / "[red]x"
    with out.capture() as printed:
        out.print(f"Checkpoint: {path}", highlight=False)
    assert str(path) in printed.get()
