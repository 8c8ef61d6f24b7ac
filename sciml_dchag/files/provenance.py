"""Where data came from: name, size and hash of each source, for a store and for a report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sciml_dchag._version import __version__
from sciml_dchag.files.remote import filesystem_of, is_remote
from sciml_dchag.files.resumable import Progress


def describe_sources(
    sources: Sequence[str], progress: Progress | None = None
) -> list[dict[str, Any]]:
    """Describe sources, one mapping each.

    A file has `bytes` and `sha256` of its content. A directory (Zarr) has `bytes` and
    `sha256_of_listing`, over the names and sizes of its files alone: its content may be terabytes.
    A URL has what its server reports without a download: `bytes` and `etag`, where known.
    """
    described = []
    for done, source in enumerate(sources, start=1):
        path = Path(source)
        if is_remote(source):
            described.append(_remote(source))
        elif path.is_dir():
            described.append(_directory(path))
        else:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            described.append({"path": path.name, "bytes": path.stat().st_size, "sha256": digest})
        if progress is not None:
            progress(done, len(sources), "hashing sources")
    return described


def _directory(path: Path) -> dict[str, Any]:
    files = sorted(file for file in path.rglob("*") if file.is_file())
    sizes = [file.stat().st_size for file in files]
    listing = "".join(
        f"{file.relative_to(path).as_posix()}\t{size}\n"
        for file, size in zip(files, sizes, strict=True)
    )
    digest = hashlib.sha256(listing.encode()).hexdigest()
    return {"path": path.name, "bytes": sum(sizes), "sha256_of_listing": digest}


def _remote(url: str) -> dict[str, Any]:
    filesystem = filesystem_of(url)
    info = filesystem.info(url) if filesystem.exists(url) else {}
    described: dict[str, Any] = {"path": url}
    if info.get("type") == "file":
        described["bytes"] = info.get("size")
        etag = info.get("etag") or info.get("ETag")
        if etag:
            described["etag"] = str(etag).strip('"')
    else:
        described["note"] = "a remote directory: neither size nor hash is known"
    return described


MOST_SOURCES = 8
"""Sources that a report names; the store's attributes have all."""


def provenance_in_words(
    store: str | Path, attrs: Mapping[str, Any], record: Path, step: int
) -> dict[str, str]:
    """What a report says of where data and weights come from, by name.

    Args:
        store: where the data lie.
        attrs: the store's attributes, as `prepare` wrote them.
        record: the checkpoint's `checkpoint.json`.
        step: the checkpoint's optimizer step.
    """
    made = attrs.get("provenance", {})
    if isinstance(made, str):  # as Zarr's attributes of a weather store hold it
        made = json.loads(made)
    sources = [_in_words(source) for source in made.get("sources", ())]
    words = {f"Source {number}": text for number, text in enumerate(sources[:MOST_SOURCES], 1)}
    if (left := len(sources) - MOST_SOURCES) > 0:
        words["Further sources"] = f"{left}, named in the store's attributes"
    words["Store"] = str(store)
    if package := made.get("package"):
        words["Prepared with"] = str(package)
    digest = hashlib.sha256(record.read_bytes()).hexdigest()
    words["Checkpoint"] = f"{record.parent.name}, step {step}, sha256 of its {record.name} {digest}"
    words["Evaluated with"] = f"sciml-dchag {__version__}"
    return words


def _in_words(source: Any) -> str:
    """A source as `describe_sources` and its like describe it."""
    if not isinstance(source, Mapping):
        return str(source)
    words = [str(source.get("path", source.get("name", "")))]
    if "bytes" in source:
        words.append(f"{source['bytes']} bytes")
    for key in ("sha256", "sha256_of_listing", "etag"):
        if key in source:
            words.append(f"{key.replace('_', ' ')} {source[key]}")
    return ", ".join(word for word in words if word)
