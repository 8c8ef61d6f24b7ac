"""Checksums of a folder's files: written as they are finished, compared whenever it is opened.

The list is the file `checksums.txt` in a store or checkpoint, one line per file or part of one:

    CRC32C  OFFSET  BYTES  PATH

and a last line with that of the lines before, for the path `.`. Opening compares names and sizes,
and the contents of all `zarr.json`, which takes no reading of data; a chunk of a store carries its
own CRC32C (Zarr's codec), which is compared when the chunk is read. `verify` reads everything.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from sciml_dchag.files.atomic import write_text
from sciml_dchag.files.remote import in_short

LIST = "checksums.txt"
GROWING = f"{LIST}.new"
"""What is known of the files of a folder that is being written."""
_AT_ONCE = 2**20
_NOT_LISTED = (LIST, "progress.json", "finished", "quicklooks", ".DS_Store")
"""Of what lies at the top of a store: what its writing needs, and pictures for people."""


@dataclass(frozen=True, order=True)
class Part:
    """A run of bytes of a file and its checksum."""

    path: str
    """Of the file, in its folder, with `/`."""
    offset: int
    size: int
    """Number of bytes."""
    crc: int
    """CRC32C."""

    def __str__(self) -> str:
        return f"{self.crc:08x}  {self.offset}  {self.size}  {self.path}"


def crc_of(values: bytes | NDArray[Any]) -> int:
    """Return the CRC32C of bytes, or of the memory of an array, which is C-contiguous."""
    return int(google_crc32c.value(values))


def part_of(root: Path, path: str, offset: int = 0, size: int | None = None) -> Part:
    """Read a file, or a run of its bytes, and return its checksum.

    A file that is shorter gives a shorter part.
    """
    with (root / path).open("rb", buffering=0) as file:
        file.seek(offset)
        left = os.fstat(file.fileno()).st_size - offset if size is None else size
        crc = done = 0
        # The library takes memory of NumPy, not a bytearray's.
        buffer = np.empty(min(_AT_ONCE, max(left, 1)), np.uint8)
        while left and (count := file.readinto(buffer[: min(left, len(buffer))].data)):
            crc = google_crc32c.extend(crc, buffer[:count])
            done, left = done + count, left - count
    return Part(path, offset, done, crc)


def files_of(root: Path) -> Iterator[str]:
    """Yield the paths of the files that a list has, whatever is written beside them left out."""
    for folder, folders, names in os.walk(root):
        inside = Path(folder).relative_to(root)
        top = not inside.parts
        skipped = _NOT_LISTED if top else ()
        folders[:] = sorted(n for n in folders if n not in skipped and not _passing(n))
        for name in sorted(names):
            if name not in skipped and not _passing(name):
                yield (inside / name).as_posix()


def _passing(name: str) -> bool:
    return name.endswith((".partial", ".former", ".new"))


def note(root: Path, parts: Iterable[Part]) -> None:
    """Add parts that are finished to the list of a folder that is being written."""
    with (root / GROWING).open("a", encoding="utf-8") as file:
        file.write("".join(f"{part}\n" for part in parts))


def seal(root: Path) -> None:
    """Write the list of a finished folder; files that were noted are not read again."""
    noted: dict[str, list[Part]] = {}
    for part in growing(root):
        same = [p for p in noted.get(part.path, []) if p.offset != part.offset]
        noted[part.path] = [*same, part]
    parts: list[Part] = []
    for path in files_of(root):
        known = noted.get(path, [])
        whole = sum(part.size for part in known) == (root / path).stat().st_size
        parts += known if known and whole else [part_of(root, path)]
    text = "".join(f"{part}\n" for part in sorted(parts))
    last = Part(".", 0, len(text.encode()), crc_of(text.encode()))
    write_text(root / LIST, f"{text}{last}\n")
    (root / GROWING).unlink(missing_ok=True)


def growing(root: Path) -> Iterator[Part]:
    """Read the parts of a growing list; a last line cut short is left out."""
    try:
        text = (root / GROWING).read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            yield _parsed(line)


def _parsed(line: str) -> Part:
    crc, offset, size, path = line.split("  ", 3)
    return Part(path, int(offset), int(size), int(crc, 16))


def read_list(root: Path) -> list[Part] | None:
    """Read the list of a finished folder; None where there is none.

    Raises:
        DamagedError: the list itself is damaged.
    """
    try:
        content = (root / LIST).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        *lines, end = content.decode().splitlines(keepends=True)
        last = _parsed(end.rstrip("\n"))
        text = "".join(lines).encode()
        if (last.path, last.size, last.crc) == (".", len(text), crc_of(text)):
            return [_parsed(line.rstrip("\n")) for line in lines]
    except ValueError:  # no text, no lines, no numbers
        pass
    raise DamagedError(f"{root / LIST} is damaged: {_cure(root)}.")


def sums_of(root: Path) -> str:
    """Return a few digits of a hash of the list: another one, other contents; empty without one."""
    place = root / LIST
    return hashlib.sha256(place.read_bytes()).hexdigest()[:16] if place.is_file() else ""


def _cure(root: Path) -> str:
    if (root / ".metadata").exists() or (root / "checkpoint.json").exists():
        return "copy it again, or remove it so that another checkpoint is used"
    return "copy it again, or make it again"


class DamagedError(ValueError):
    """A file is missing or is not what was written."""


def require_whole(
    root: Path, contents: Callable[[str], bool] = lambda path: path.endswith("zarr.json")
) -> list[Part] | None:
    """Refuse a folder that lacks a listed file or has one of another size.

    Data are not read. A folder without a list is let through.

    Args:
        root: the folder.
        contents: which files are read and compared, too.

    Returns:
        The list.

    Raises:
        DamagedError: the first file that is missing or changed.
    """
    parts = read_list(root)
    if parts is None:
        return None
    require_sizes(root, parts)
    for part in parts:
        if contents(part.path) and part_of(root, part.path, part.offset, part.size) != part:
            raise DamagedError(changed(root, part.path))
    return parts


def require_sizes(root: Path, parts: Iterable[Part]) -> None:
    """Refuse a folder where a file of a list is missing or has another size.

    Raises:
        DamagedError: the first such file.
    """
    sizes: dict[str, int] = {}
    for part in parts:
        sizes[part.path] = max(sizes.get(part.path, 0), part.offset + part.size)
    for path, size in sizes.items():
        try:
            found = (root / path).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            raise DamagedError(_message(root, path, "is missing")) from None
        if found != size:
            raise DamagedError(_message(root, path, f"has {found} bytes instead of {size}"))


def damages(root: Path, progress: Callable[[int], object] | None = None) -> Iterator[str]:
    """Read all that a folder's list has and yield a sentence for each file that is not right.

    Args:
        root: a folder with a list.
        progress: called with the number of bytes of each file once it is read.
    """
    try:
        parts = read_list(root) or []
    except ValueError as error:
        yield str(error)
        return
    by_path: dict[str, list[Part]] = {}
    for part in parts:
        by_path.setdefault(part.path, []).append(part)
    for path, of_file in by_path.items():
        try:
            require_sizes(root, of_file)
            if any(part_of(root, path, part.offset, part.size) != part for part in of_file):
                raise DamagedError(changed(root, path))
        except (ValueError, OSError) as error:
            yield str(error)
        if progress is not None:
            progress(sum(part.size for part in of_file))


@contextlib.contextmanager
def damage_named(root: Path) -> Iterator[None]:
    """Let whatever libraries say of a damaged store, or of another one, name what is damaged.

    Raises:
        DamagedError: the first damaged file.
        ValueError: the store cannot be read, and has no list that says what has changed.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # there is no kind that a changed zarr.json does not end in
        if isinstance(error, ValueError) and str(root) in str(error):
            raise
        if is_of_a_checksum(error) and (named := next(damages(root), None)):
            raise DamagedError(named) from error
        require_whole(root)
        raise ValueError(
            f"{root} cannot be read ({type(error).__name__}: {in_short(error)}): it is damaged or "
            f"of another kind; {_cure(root)}."
        ) from error


def is_of_a_checksum(error: BaseException) -> bool:
    """Whether Zarr found that a chunk does not have its checksum, which names no file."""
    return isinstance(error, ValueError) and "computed checksum do not match" in str(error)


def changed(root: Path, path: str) -> str:
    """Say that a file is not what was written."""
    return _message(root, path, "has changed since it was written")


def _message(root: Path, path: str, what: str) -> str:
    return f"{root / path} {what}, so that {root} is damaged: {_cure(root)}."
