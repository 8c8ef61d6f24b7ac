"""The settings of `prepare plants`; see `sciml_dchag.config.knobs` for where it appears."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from sciml_dchag.config.knobs import knob

NO_MASK = "none"
"""The mask's name that takes every pixel for plant 1."""

References = Literal["column", "band"]
Response = Literal["gaussian", "linear"]
Index = Literal["ndvi", "excess-green", "brightness"]


@dataclass(frozen=True, kw_only=True)
class PreparePlants:
    """From raw images to the store (`sciml-dchag prepare plants`).

    Raises:
        ValueError: bounds that leave nothing, or fewer than one plant.
    """

    sources: tuple[str, ...] = knob((), argument=True)
    """ENVI, GeoTIFF, MATLAB or NumPy images or pictures, patterns or folders; `sample:maize_kernel`
    and `sample:coffee_leaves` are embedded samples."""
    white: str | None = knob(None, metavar="FILE")
    """White reference; without it, images are taken for reflectance, unless they have references of
    their own."""
    dark: str | None = knob(None, metavar="FILE")
    """Dark reference; without it, dark is 0, with a warning."""
    own_references: bool = True
    """Prefer references that lie beside an image to those given: `WHITEREF_x` and `DARKREF_x`
    beside the scan `x`, `white_reference` and `dark_reference` in its folder."""
    white_reflectance: str = knob("1", metavar="FACTOR")
    """Reflectance of the white panel: a number, or a CSV of wavelength and factor."""
    references: References = "column"
    """Average references over lines (`column`, for push-broom cameras), or over lines and columns
    (`band`)."""
    scale: float | None = knob(None, metavar="NUMBER")
    """What numbers are divided by to give reflectance, such as 10000, instead of what files say."""
    nodata: float | None = knob(None, metavar="NUMBER")
    """The number that stands for no data, such as -9999, instead of what files say."""
    bit_depth: int | None = knob(None, metavar="BITS")
    """Bits of the camera's counts, such as 12, whose largest number is saturated; without it, what
    files say, or a plateau."""
    wavelengths: str | None = knob(None, metavar="FILE")
    """Wavelengths, instead of those of the images and references."""
    bands: str = "400-900x500"
    """Bands of the store: `FIRST-LASTxNUMBER` in nm, `native`, wavelengths separated by commas, or
    a file of them."""
    drop_bands: str = knob("", metavar="SPANS")
    """Spans of the camera's bands in nm that are left out as bad, such as 1350-1460,1790-1960."""
    response: Response = "gaussian"
    """How bands are made from the camera's: by a Gaussian response, or by linear interpolation."""
    merge_bands: bool = False
    """Average bands of one wavelength instead of refusing them."""
    smooth: tuple[int, int] | None = knob(None, metavar="WINDOW,ORDER")
    """Savitzky-Golay filter over bands, window and order, such as 11,2."""
    derivative: tuple[int, int] | None = knob(None, metavar="WINDOW,ORDER")
    """First derivative of each spectrum, the change from band to band, by a Savitzky-Golay filter
    of this window and order, such as 21,2: neighbouring bands are then less
    correlated, and light counts less."""
    snv: bool = False
    """Standardise each spectrum (standard normal variate)."""
    clip: tuple[float, float] | None = knob(None, metavar="LOW,HIGH")
    """Bounds of reflectance, such as 0,1; without them, what lies outside is kept."""
    mask: str | None = knob(None, metavar="FILE")
    """PNG, TIFF or NPY of plants, or a folder with one called as each image; `none` takes every
    pixel for plant; without it, plants are found."""
    index: Index | None = None
    """What plants are detected by; without it, chosen for each image."""
    plants: int | None = None
    """Number of the largest plants to keep of each image; without it, all."""
    pots: str | None = knob(None, metavar="GRID")
    """Which plant is which: ROWSxCOLUMNS of pots that fill each image, such as 2x3, or a label
    image of them; without it, plants of a series of images are matched by their place."""
    pixel_mm: float | None = knob(None, metavar="MM")
    """Side of a pixel on the plants in mm, for areas in cm2."""
    table: str | None = knob(None, metavar="CSV")
    """What is known of the images, by file name; or `sample:NAME`."""
    split: str = "0.8/0.1/0.1"
    """Fractions for training, validation and test, drawn by image, or `spatial:0.62,guard=4`,
    which cuts each image; a column `split` of the table goes before."""
    group_by: str | None = knob(None, metavar="COLUMN")
    """Column of the table: images of one value are for the same purpose; without it, `plant_id` if
    there is one, and images whose names differ in a date alone."""
    attribution: str = ""
    """A sentence that pictures carry."""
    quicklooks: bool = True
    """Draw pictures of each image."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "sources", tuple(self.sources))
        if self.clip is not None and not self.clip[0] < self.clip[1]:
            low, high = self.clip
            raise ValueError(
                f"prepare.clip {low:g},{high:g} leaves nothing: give the lower bound first."
            )
        if self.derivative is not None and self.snv:
            raise ValueError(
                "prepare.derivative and prepare.snv are both set: a store holds derivatives or "
                "standardised spectra, choose one of them."
            )
        if self.plants is not None and self.plants < 1:
            raise ValueError(
                f"prepare.plants is {self.plants}: give the number of plants to keep, at least 1."
            )
        for name, value in (("scale", self.scale), ("pixel_mm", self.pixel_mm)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"prepare.{name} is {value:g}: give a number above 0.")
        if self.bit_depth is not None and not 1 <= self.bit_depth <= 32:
            raise ValueError(
                f"prepare.bit_depth is {self.bit_depth}: give the bits of a camera's counts, from "
                f"1 to 32."
            )
