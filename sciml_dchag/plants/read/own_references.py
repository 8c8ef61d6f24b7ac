"""Which files are white and dark references by their names, and of which scans.

Cameras keep them beside the scans: Specim `WHITEREF_x` and `DARKREF_x` beside each scan `x`, others
one pair for a folder. A name that merely has `white` or `dark` in it, such as `clover_white_3` or
`arabidopsis_dark_01`, is that of an image.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Kind = Literal["white", "dark"]
KINDS: tuple[Kind, ...] = ("white", "dark")

_WORD = r"(?P<kind>white|dark)[ _-]?(?P<word>references?|refs?|panel|frame|current|standard)"
_BARE = r"(?P<kind>white|dark)"
_OF_FOLDER = re.compile(rf"{_WORD}[ _-]*\d*", re.IGNORECASE)
_WITH_WORD = (
    re.compile(rf"{_WORD}[ _-]+(?P<of>.+)", re.IGNORECASE),
    re.compile(rf"(?P<of>.+?)[ _-]+{_WORD}", re.IGNORECASE),
)
_WITHOUT_WORD = (
    re.compile(rf"{_BARE}[ _-](?P<of>.+)", re.IGNORECASE),
    re.compile(rf"(?P<of>.+)[ _-]{_BARE}", re.IGNORECASE),
)


@dataclass(frozen=True)
class OwnReference:
    """A reference that lies beside an image."""

    path: Path
    """Its file."""
    of_scan: bool
    """Whether it belongs to that image by its name, and not to all of the folder."""


@dataclass(frozen=True)
class Folder:
    """The images of a folder, and the references that are not of other folders."""

    images: tuple[Path, ...]
    """What is no reference."""
    of_scan: dict[tuple[Path, Kind], Path] = field(default_factory=dict)
    """References of one scan, by the scan and their kind."""
    of_folder: dict[Kind, Path] = field(default_factory=dict)
    """References of all others, where there is one of a kind."""
    unused: tuple[Path, ...] = ()
    """References by their names that belong to no scan, or of which there are several."""

    def references(self, image: Path) -> dict[Kind, OwnReference]:
        """The references of a scan: its own, or its folder's."""
        found = {kind: OwnReference(path, False) for kind, path in self.of_folder.items()}
        for kind in KINDS:
            if (path := self.of_scan.get((image, kind))) is not None:
                found[kind] = OwnReference(path, True)
        return found


def sort_folder(files: Iterable[Path]) -> Folder:
    """Separate images from references among the images of one folder."""
    files = list(files)
    stems = {file.stem.lower(): file for file in files}
    named: dict[Path, tuple[Kind, Path | None]] = {}
    for file in files:
        if (found := _by_word(file, stems)) is not None:
            named[file] = found
    for file in files:  # x, x_white and x_dark: without a word, only where all three are there
        for kind, of in _by_pair(file, stems):
            if file not in named and of not in named:
                named[file] = (kind, of)
    _add_bare(stems, named)
    of_scan: dict[tuple[Path, Kind], Path] = {}
    of_folder: dict[Kind, list[Path]] = {kind: [] for kind in KINDS}
    unused = []
    for file, (kind, scan) in named.items():
        if scan is None and (_OF_FOLDER.fullmatch(file.stem) or file.stem.lower() == kind):
            of_folder[kind].append(file)
        elif scan is None or scan in named or (scan, kind) in of_scan:
            unused.append(file)
        else:
            of_scan[scan, kind] = file
    several = [file for found in of_folder.values() if len(found) > 1 for file in found]
    return Folder(
        images=tuple(file for file in files if file not in named),
        of_scan=of_scan,
        of_folder={kind: found[0] for kind, found in of_folder.items() if len(found) == 1},
        unused=(*unused, *several),
    )


def _add_bare(stems: Mapping[str, Path], named: dict[Path, tuple[Kind, Path | None]]) -> None:
    """Take `white` and `dark` for references of a folder that has both kinds.

    One alone may be a treatment, or the colour of a flower.
    """
    bare: dict[Kind, Path] = {kind: stems[kind] for kind in KINDS if kind in stems}
    there = {kind for kind, scan in named.values() if scan is None} | bare.keys()
    if len(there) == len(KINDS):
        named.update({file: (kind, None) for kind, file in bare.items()})


def _by_word(file: Path, stems: dict[str, Path]) -> tuple[Kind, Path | None] | None:
    """Kind and scan of a file that is named as a reference; no scan for that of a folder."""
    for pattern in _WITH_WORD:
        if (match := pattern.fullmatch(file.stem)) and match["of"].lower() in stems:
            return _kind(match["kind"]), stems[match["of"].lower()]
    if match := _OF_FOLDER.fullmatch(file.stem):
        return _kind(match["kind"]), None
    for pattern in _WITH_WORD:
        if match := pattern.fullmatch(file.stem):
            return _kind(match["kind"]), None
    return None


def _by_pair(file: Path, stems: dict[str, Path]) -> Sequence[tuple[Kind, Path]]:
    for pattern in _WITHOUT_WORD:
        match = pattern.fullmatch(file.stem)
        if match is None or match["of"].lower() not in stems:
            continue
        other = "dark" if match["kind"].lower() == "white" else "white"
        start, end = match.span("kind")
        if (file.stem[:start] + other + file.stem[end:]).lower() in stems:
            return [(_kind(match["kind"]), stems[match["of"].lower()])]
    return []


def _kind(word: str) -> Kind:
    return "white" if word.lower() == "white" else "dark"
