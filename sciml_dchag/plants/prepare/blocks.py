"""One image on its way into a store: reflectance block by block of lines.

A line is calibrated, made into the store's bands and clipped while it lies in a core's cache; the
lines of a block are spread over threads and the next block is read meanwhile. Memory is bounded by
a few blocks, whatever the image's length.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.plants.prepare import bands
from sciml_dchag.plants.prepare.bands import BandMaker
from sciml_dchag.plants.prepare.calibration import Calibration, Counts
from sciml_dchag.plants.prepare.finding import FoundPlants
from sciml_dchag.plants.prepare.quicklooks import Caption, Sketch, save
from sciml_dchag.plants.read.raw_cube import RawCube, read_lines

MOST_VALUE = 1e6
"""What is larger is no value of whatever scale."""
SMALL_LINE = 2**15
"""Lines of fewer bytes take less time than handing them to a thread does."""


@dataclass(eq=False, kw_only=True)
class ImageToPrepare:
    """An image, or some of its columns, with all that decides how it is prepared."""

    raw: RawCube
    calibrate: Callable[[], Calibration]
    """Works out the calibration of the whole image; asked when its turn comes."""
    references: dict[str, str]
    """Files of its references, `white` and `dark`."""
    maker: BandMaker
    columns: slice
    """Which columns of the image."""
    found: FoundPlants
    """The plants of the whole image."""
    clip: tuple[float, float] | None = None
    """Bounds of reflectance."""
    snv: bool = False
    """Whether each spectrum loses its mean and is divided by its deviation."""
    derivative: BandMaker | None = None
    """Makes derivatives of spectra; None for reflectance itself."""
    sketch: Sketch | None = None
    """What is kept for the picture; filled as blocks are made."""
    draw: bool = False
    """Whether a picture is wanted."""
    counts: Counts = field(default_factory=Counts)
    """Filled as blocks are made."""
    _hash: Future[str] | None = None

    @property
    def width(self) -> int:
        """Columns."""
        return self.columns.stop - self.columns.start

    def mask_to_write(self) -> NDArray[np.int32]:
        """Begin: give 0 for background and the number of each plant, (lines, columns)."""
        self._hash = _in_background(lambda: _blake2b(self.raw.path))
        mine = np.ascontiguousarray(self.found.labels()[:, self.columns])
        if self.draw:
            self.sketch = Sketch(self.maker.wavelength_nm, mine)
        return mine

    def blocks(self, lines: int) -> Iterator[NDArray[np.float32]]:
        """Prepare the image: yields (C, lines, columns), NaN where not known.

        Raises:
            BrokenImageError: the file cannot be read to its end.
        """
        self.counts = Counts()
        used = self.maker.used
        run = bool((np.diff(used) == 1).all())
        chosen: Any = slice(int(used[0]), int(used[-1]) + 1) if run else used
        calibration = self.calibrate().select(used, self.columns)
        gaps = calibration.unusable > 0
        products = None if self.maker.selects else list(self.maker.products())
        slopes = None if self.derivative is None else list(self.derivative.products())
        kept = threading.local()  # one buffer a thread: fresh memory costs as much as the work

        def prepare(line: int, numbers: NDArray[Any], out: NDArray[np.float32]) -> Counts:
            raw = numbers.T[chosen, self.columns]
            if line in self.raw.lost_lines:
                out[:] = np.nan
                counts = Counts(values=raw.size, missing=raw.size)
            elif products is None:
                counts = calibration.apply(raw, out)
            else:
                if not hasattr(kept, "buffer"):
                    kept.buffer = np.empty((len(used), self.width), np.float32)
                counts = calibration.apply(raw, kept.buffer)
                lost = counts.saturated + counts.missing
                bands.apply(products, kept.buffer, out, gaps=gaps or lost > 0)
            if raw.dtype.kind == "f":
                counts.missing += _set_aside(out)
            if self.clip is not None:
                low, high = self.clip
                counts.clipped = int(np.count_nonzero(out < low) + np.count_nonzero(out > high))
                np.clip(out, low, high, out=out)
            if self.sketch is not None:
                self.sketch.add(line, out)
            if self.snv:
                _standardise(out)
            if slopes is not None:
                bands.apply(slopes, out.copy(), out, gaps=True)
            return counts

        spans = [
            slice(first, min(first + lines, self.raw.lines))
            for first in range(0, self.raw.lines, lines)
        ]
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
        with ThreadPoolExecutor(workers) as pool, ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(read_lines, self.raw, spans[0])
            size = (len(self.maker.wavelength_nm), spans[0].stop, self.width)
            buffers = [np.empty(size, np.float32) for _ in spans[:2]]
            for number, span in enumerate(spans):
                numbers = ahead.result()
                if span is not spans[-1]:
                    ahead = reader.submit(read_lines, self.raw, spans[number + 1])
                out = buffers[number % 2][:, : len(numbers)]
                lines_here = range(span.start, span.stop)
                spread = pool.map if numbers[0].nbytes > SMALL_LINE else map
                parts = spread(prepare, lines_here, numbers, out.transpose(1, 0, 2))
                for counts in parts:
                    self.counts.add(counts)
                yield out

    def attrs(self) -> dict[str, Any]:
        """What is recorded of the image in the store."""
        assert self._hash is not None
        raw = self.raw
        given = {} if raw.exposure_ms is None else {"exposure_ms": raw.exposure_ms}
        part = {} if self.width == raw.samples else {
            "source_columns": [self.columns.start, self.columns.stop]
        }  # fmt: skip
        return {
            "source": raw.path.name,
            "source_bytes": raw.path.stat().st_size,
            "source_blake2b": self._hash.result(),
            "source_bands": raw.bands,
            "simulated": int(raw.simulated),
            **given,
            **part,
            **self.references,
            **self.found.details,
            **{f"count_{name}": value for name, value in asdict(self.counts).items()},
        }

    def draw_into(self, store: Path, name: str, attribution: str) -> None:
        """Put the picture of the image into a store, and forget what it was made of."""
        if self.sketch is None:
            return
        by = self.found.details["mask"]
        threshold = self.found.details.get("mask_threshold")
        save(
            self.sketch,
            Caption(
                name=name,
                attribution=attribution,
                simulated=self.raw.simulated,
                plants_by=by if threshold is None else f"{by}, threshold {threshold:.2f}",
            ),
            store,
        )
        self.sketch = None


def _set_aside(values: NDArray[np.float32]) -> int:
    """Make what cannot be a value NaN, such as 1e30; returns how many there are.

    Squares of a single such number would end training, wherever in an image it stands.
    """
    highest, lowest = np.nanmax(values, initial=0), np.nanmin(values, initial=0)
    if max(highest, -lowest) <= MOST_VALUE:
        return 0
    wrong = np.abs(values) > MOST_VALUE
    values[wrong] = np.nan
    return int(wrong.sum())


def _standardise(spectra: NDArray[np.float32]) -> None:
    """Standard normal variate (Barnes, Dhanoa and Lister 1989, eq. 1): spectra (C, pixels)."""
    values = spectra.astype(np.float64)
    values -= values.mean(axis=0)
    deviation = np.sqrt((values**2).sum(axis=0) / (len(values) - 1))
    np.divide(values, deviation, out=values, where=deviation > 0)
    values[:, deviation == 0] = np.nan
    spectra[:] = values


def _in_background(work: Callable[[], str]) -> Future[str]:
    pool = ThreadPoolExecutor(1)
    future = pool.submit(work)
    pool.shutdown(wait=False)
    return future


def _blake2b(path: Path) -> str:
    """Hash a file, as `b2sum` does; SHA-256 takes nearly twice as long."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()
