"""A hyperspectral image as its file holds it: what every reader gives and `plants` works on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.files.memory import in_gibibytes
from sciml_dchag.files.remote import in_short

ReadLines = Callable[[slice], NDArray[Any]]
"""Reads some lines, (lines, samples, bands), in the file's own numbers and order of bands."""


@dataclass(frozen=True, eq=False, kw_only=True)
class RawCube:
    """An image opened lazily: nothing is read before `read_lines` asks for some lines.

    Bands are in the order of the file, which need not be that of their wavelengths.
    """

    path: Path
    """The file with the numbers."""
    lines: int
    """Rows of the image; a push-broom camera takes one after the other."""
    samples: int
    """Columns of the image: the pixels of a push-broom camera's sensor."""
    wavelength_nm: NDArray[np.float64]
    """Centre of each band, (bands,)."""
    dtype: np.dtype[Any]
    """Of the numbers."""
    read_lines: ReadLines
    """Reads lines."""
    fwhm_nm: NDArray[np.float64] | None = None
    """Full width of each band at half its height, (bands,); None where the file does not say."""
    good_bands: NDArray[np.bool_] | None = None
    """False for bands that the file lists as bad, (bands,); None where it lists none."""
    exposure_ms: float | None = None
    """Exposure time; None where the file does not say."""
    scale: float = 1.0
    """What the numbers are divided by to give what they stand for (ENVI's scale factor)."""
    band_gain: NDArray[np.float64] | None = None
    """What the numbers of each band are multiplied by instead of `scale`, (bands,)."""
    band_offset: NDArray[np.float64] | None = None
    """What is added then, (bands,)."""
    settings: tuple[tuple[str, str], ...] = ()
    """Settings of the camera that counts depend on, name and value: gain, binning."""
    saturation: float | None = None
    """Numbers from here on are saturated, before `scale`; None where nothing is known."""
    ceiling_said: bool = False
    """Whether the file says so, and it is not merely the largest number of its type."""
    missing: float | None = None
    """The number that stands for no data; None where there is none."""
    lost_lines: frozenset[int] = frozenset()
    """Lines that were not scanned and have no value, whatever their numbers."""
    radiance: bool = False
    """Whether the file says that its numbers stand for radiance."""
    simulated: bool = False
    """Whether the file says that it is synthetic."""
    remarks: tuple[str, ...] = field(default=())
    """What had to be assumed to read it, one sentence each."""

    @property
    def bands(self) -> int:
        """Number of bands."""
        return len(self.wavelength_nm)

    @property
    def may_be_counts(self) -> bool:
        """Whether numbers may be counts: whole ones that the file does not scale."""
        return self.dtype.kind in "iu" and self.scale == 1 and self.band_gain is None

    def require_memory(self, most: int) -> None:
        """Refuse an image of which one line, or the map of its plants, does not fit in memory.

        Args:
            most: bytes of memory.

        Raises:
            ValueError: it takes more.
        """
        line = self.samples * self.bands * (self.dtype.itemsize + 4 * 8)  # four times as float64
        needed = line + 16 * self.lines * self.samples
        if needed > most:
            raise ValueError(
                f"{self.path} has lines of {self.samples} samples x {self.bands} bands and "
                f"{self.lines} of them, which take {in_gibibytes(needed)} of memory where "
                f"{in_gibibytes(most)} is there: correct its header, or cut it into parts."
            )

    def factors(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What turns numbers into what they stand for, number x factor + offset, (bands,) each.

        Raises:
            ValueError: the file gives one scale for all bands, and others by band.
        """
        if self.scale != 1 and self.band_gain is not None:
            raise ValueError(
                f"{self.path.name} gives a scale of {self.scale:g} and gains by band as well: say "
                f"what its numbers are to be divided by with `scale={self.scale:g}`."
            )
        factor = np.full(self.bands, 1 / self.scale) if self.band_gain is None else self.band_gain
        offset = np.zeros(self.bands) if self.band_offset is None else self.band_offset
        return factor, offset


class BrokenImageError(ValueError):
    """An image that could be opened and cannot be read to its end."""

    def __init__(self, path: Path, error: Exception) -> None:
        super().__init__(
            f"{path} cannot be read to its end ({in_short(error)}): it was cut off or changed "
            f"after it was opened, so copy it again."
        )
        self.path = path


def read_lines(raw: RawCube, lines: slice) -> NDArray[Any]:
    """Read lines of an image, (lines, samples, bands).

    Raises:
        BrokenImageError: they cannot be read.
    """
    try:
        numbers = raw.read_lines(lines)
    except MemoryError:
        raise
    except Exception as error:  # every format's reader has exceptions of its own
        raise BrokenImageError(raw.path, error) from error
    if len(numbers) != lines.stop - lines.start:
        short = ValueError(f"{len(numbers)} of {lines.stop - lines.start} lines are there")
        raise BrokenImageError(raw.path, short)
    return numbers
