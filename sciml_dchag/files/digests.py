"""Digests that distinguish stores, checkpoints and files, without reading all of them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

WHOLE_BYTES = 2**20
"""Files up to this size are read whole."""
SAMPLE_BYTES = 2**16
SAMPLES = 1024
"""Samples of this size that are read in all of the larger files, evenly spaced; at least one each.

Trained weights, and fields of other weather, differ everywhere; damage is not what is looked for.
"""


def sampled_digest(path: str | os.PathLike[str]) -> str:
    """Return a SHA-256 of a file, or of all files of a folder: names, sizes, and bytes sampled."""
    root = Path(path)
    files = sorted(p for p in root.rglob("*") if p.is_file()) if root.is_dir() else [root]
    sizes = [file.stat().st_size for file in files]
    samples = max(1, SAMPLES // max(1, sum(size > WHOLE_BYTES for size in sizes)))
    digest = hashlib.sha256()
    for file, size in zip(files, sizes, strict=True):
        digest.update(f"{file.relative_to(root).as_posix()}\0{size}\0".encode())
        with file.open("rb") as opened:
            if size <= WHOLE_BYTES:
                digest.update(opened.read())
                continue
            for number in range(samples):
                opened.seek((size - SAMPLE_BYTES) * number // max(1, samples - 1))
                digest.update(opened.read(SAMPLE_BYTES))
    return digest.hexdigest()
