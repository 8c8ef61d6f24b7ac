"""Centres of bands as files give them, to nanometres: units said or not, lists, and text files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sciml_dchag.files.tables import read_rows, read_text

BELIEVABLE_NM = (100.0, 100_000.0)
"""Ultraviolet to thermal infrared: what lies outside is in other units than it says."""

LEAST_IN_NM = 100.0
"""Where units are not said, numbers from here on are nanometres."""
MOST_IN_UM = 30.0
"""Where units are not said, numbers up to here are micrometres."""

NANOMETRES = ("nm", "nanometer", "nanometers", "nanometre", "nanometres")
MICROMETRES = (
    "um", "µm", "μm", "micrometer", "micrometers", "micrometre", "micrometres", "micron", "microns",
)  # fmt: skip
LENGTHS = {
    **dict.fromkeys(NANOMETRES, 1.0),
    **dict.fromkeys(MICROMETRES, 1e3),
    **dict.fromkeys(("angstrom", "angstroms", "ångström", "ångströms", "å"), 0.1),
    **dict.fromkeys(("mm", "millimeter", "millimeters", "millimetre", "millimetres"), 1e6),
    **dict.fromkeys(("cm", "centimeter", "centimeters", "centimetre", "centimetres"), 1e7),
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), 1e9),
}
"""Units of wavelengths in nm."""
RECIPROCALS = {
    **dict.fromkeys(("wavenumber", "wavenumbers", "cm-1", "1/cm"), 1e7),
    "mhz": 299_792_458e3,
    "ghz": 299_792_458.0,
    "thz": 299_792.458,
}
"""Of wavenumbers and frequencies: which number, divided by them, gives nm (the speed of light)."""
COMMENTS = "#;"
"""With which lines of a file of wavelengths begin that say nothing."""
UNSAID = ("", "unknown", "none")

_NAMED = re.compile(
    rf"(\d+(?:[.,]\d+)?)\s*({'|'.join(sorted(NANOMETRES + MICROMETRES, key=len, reverse=True))})\b",
    re.IGNORECASE,
)


def to_nm(
    values: Sequence[object] | NDArray[np.float64], units: str | None, where: str
) -> tuple[NDArray[np.float64], str | None]:
    """Turn wavelengths into nanometres.

    Args:
        values: numbers, or text that holds them.
        units: units as the file says them, also wavenumbers and frequencies; None where it does
            not.
        where: the file, for messages.

    Returns:
        Wavelengths in nm, float64, in the order of the file, and a sentence where the units were
        taken from the magnitude, or are no length.

    Raises:
        ValueError: what is no finite number, units that are no length, or numbers that are not
            believable in their units.
    """
    try:
        numbers = np.array([float(str(value)) for value in values], np.float64)
    except ValueError:
        wrong = next(value for value in values if not _is_number(str(value)))
        raise ValueError(
            f"The wavelengths of {where} hold {str(wrong)!r} where a number is needed: fix the "
            f"list, or give one with `wavelengths=FILE`."
        ) from None
    if not np.isfinite(numbers).all():
        wrong = int(np.flatnonzero(~np.isfinite(numbers))[0])
        raise ValueError(
            f"The wavelength of band {wrong + 1} of {where} is {numbers[wrong]}: fix the list, or "
            f"give one with `wavelengths=FILE`."
        )
    remark = None
    said = known_units(units or "") or (units or "").strip().lower()
    if said in UNSAID:
        said = _units_by_magnitude(numbers, where)
        remark = (
            f"{where} does not say the units of its wavelengths, {numbers.min():g} to "
            f"{numbers.max():g}: taken as {said}."
        )
    if said in LENGTHS:
        nm = numbers if LENGTHS[said] == 1 else np.round(numbers * LENGTHS[said], 6)
    elif said in RECIPROCALS:
        if not (numbers > 0).all():
            raise ValueError(
                f"The bands of {where} hold {numbers.min():g} {units}, where a number above 0 is "
                f"needed: give wavelengths with `wavelengths=FILE`."
            )
        nm = np.round(RECIPROCALS[said] / numbers, 6)
        remark = (
            f"{where} gives its bands in {units}, {numbers.min():g} to {numbers.max():g}: they are "
            f"the wavelengths {nm.min():g} to {nm.max():g} nm."
        )
    else:
        raise ValueError(
            f"The wavelengths of {where} are in {units!r}, where nm, um, another length, "
            f"wavenumbers (cm-1) or a frequency (GHz) are known: give them with "
            f"`wavelengths=FILE`."
        )
    if nm.min() < BELIEVABLE_NM[0] or nm.max() > BELIEVABLE_NM[1]:
        raise ValueError(
            f"The wavelengths of {where} run from {numbers.min():g} to {numbers.max():g} in "
            f"{units or said}, which no camera takes: correct their units, or give them with "
            f"`wavelengths=FILE`."
        )
    return nm, remark


def known_units(text: str) -> str | None:
    """Units as `LENGTHS` and `RECIPROCALS` have them, also in brackets; None where it is none."""
    plain = text.lower().replace("^", "").translate(str.maketrans("{}\u2212⁻¹", "  --1"))
    words = ["".join(word.split()) for word in re.split(r"[()\[\]_]", plain)]
    words = [word for word in words if word and not word.startswith("wavelength")]
    factors = {LENGTHS.get(word, RECIPROCALS.get(word)) for word in words}
    return words[-1] if len(factors) == 1 and factors != {None} else None


def from_names(names: Sequence[str]) -> NDArray[np.float64] | None:
    """Read wavelengths in nm out of names of bands such as `652.3 nm`.

    Returns:
        None where a name has none, or numbers that are none, such as widths of bands.
    """
    found = [_NAMED.search(name) for name in names]
    if not names or not all(found):
        return None
    nm = [
        float(match[1].replace(",", ".")) * (1.0 if match[2].lower() in NANOMETRES else 1000.0)
        for match in found
        if match
    ]
    if min(nm) < BELIEVABLE_NM[0] or max(nm) > BELIEVABLE_NM[1]:
        return None
    return np.array(nm, np.float64)


def read_wavelengths(path: str | Path) -> tuple[NDArray[np.float64], str | None]:
    """Read wavelengths from a text file: one a line, or a table with a column `wavelength...`.

    Numbers without a header may also stand side by side, between commas, blanks or tabs; lines
    that begin with `#` or `;` are comments. Units are taken from the column's name
    (`wavelength_nm`, `wavelength (um)`), or else from the magnitude.

    Returns:
        As `to_nm`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no wavelengths.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path} of wavelengths: check its name.")
    lines = [line.strip() for line in read_text(path).splitlines()]
    lines = [line for line in lines if line and line[0] not in COMMENTS]
    if not lines:
        raise ValueError(f"{path} holds no wavelengths: it needs one number a line.")
    if _is_number(re.split(r"[,;\s]+", lines[0].strip(", "))[0]):
        return to_nm(_plain_numbers(path, lines), None, str(path))
    rows, separator = read_rows(path, COMMENTS)
    if not re.search(r"[,;\t]", lines[0]):  # one column, in which a comma is a decimal one
        rows, separator = [[line] for line in lines], ""
    names = [name.lower() for name in rows[0]]
    chosen = [i for i, name in enumerate(names) if name.startswith(("wave", "lambda"))]
    if len(names) == 1:
        chosen = [0]
    if len(chosen) != 1 or any(len(row) != len(names) for row in rows[1:]) or len(rows) == 1:
        raise ValueError(
            f"{path} has the columns {', '.join(names)}: one of them has to be `wavelength_nm`, "
            f"with a number in each row."
        )
    units = units_in(names[chosen[0]])
    cells = [row[chosen[0]] for row in rows[1:]]
    if separator != ",":
        cells = [cell.replace(",", ".") for cell in cells]
    return to_nm(cells, units, str(path))


def units_in(name: str) -> str | None:
    """Units that a name of a column or array says; all of it, where it is an unknown wavenumber."""
    name = name.lower()
    if (units := known_units(name)) is not None or "wavenumber" in name:
        return units or name
    words = re.findall(r"[a-zµμå]+", name)
    return next((word for word in words if word in LENGTHS), None)


def _plain_numbers(path: Path, lines: Sequence[str]) -> list[str]:
    """Numbers of a file without names, of one row or one column.

    Raises:
        ValueError: there are several columns.
    """
    # Between semicolons or tabs a comma is a decimal one; else it separates.
    decimal = any(re.search(r"[;\t]", line.strip(";\t")) for line in lines)
    between = r"[;\s]+" if decimal else r"[,;\s]+"
    rows = [[cell for cell in re.split(between, line) if cell] for line in lines]
    if len(rows) > 1 and max(map(len, rows)) > 1 and len({len(row) for row in rows}) == 1:
        raise ValueError(
            f"{path} has {len(rows[0])} columns without names: name that of the wavelengths "
            f"`wavelength_nm`, or keep it alone, with decimal points."
        )
    cells = [cell for row in rows for cell in row]
    return [cell.replace(",", ".") for cell in cells] if decimal else cells


def _units_by_magnitude(numbers: NDArray[np.float64], where: str) -> str:
    if numbers.min() >= LEAST_IN_NM:
        return "nm"
    if len(numbers) > 1 and (numbers == numbers[0] + np.arange(len(numbers))).all():
        raise ValueError(
            f"The wavelengths of {where}, {numbers[0]:g} to {numbers[-1]:g} in steps of 1, are "
            f"numbers of bands: give wavelengths with `wavelengths=FILE`."
        )
    if numbers.max() <= MOST_IN_UM:
        return "um"
    raise ValueError(
        f"The wavelengths of {where} run from {numbers.min():g} to {numbers.max():g} in units that "
        f"it does not say, neither nm nor um by their magnitude: give them with "
        f"`wavelengths=FILE`."
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
