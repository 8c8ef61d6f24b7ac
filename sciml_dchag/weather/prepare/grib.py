"""GRIB files as Datasets: the headers of all messages are read once, values when asked for.

What a message is (variable, level, valid time, member, version) comes from ecCodes; what our names
are is `layouts`' work. The file is read as it is, and nothing is written beside it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

FINAL, PRELIMINARY = "0001", "0005"
"""Versions of ERA5 and ERA5T."""

ON_PRESSURE = {"isobaricInhPa": "hPa", "isobaricInPa": "Pa"}
"""Kinds of level that are pressures, and their units."""

_MISSING = -1e34
_HOURS = {"s": 1 / 3600, "m": 1 / 60, "h": 1.0}
"""Units of steps as ecCodes gives them; longer ones it turns into hours."""
_PROBABILITIES, _PERCENTILES = (5, 9), (6, 10)
"""Templates of GRIB 2 whose fields are no states but what an ensemble says of them."""
_OF_ENSEMBLES = {2: "spread", 3: "spread", 4: "spread", 5: "anomaly_index", 7: "spread",
                 8: "least", 9: "largest"}  # fmt: skip
"""What is derived from an ensemble by table 4.7 of GRIB 2 and is no mean of it."""

ACCUMULATED_HOURS = "accumulated_hours"
"""Attribute of a field: over how many hours it is summed, where its messages say so."""

Offset = tuple[int, int]
"""Where a message begins in its file, and which field of it is meant."""


@dataclass(frozen=True, kw_only=True)
class _Message:
    """What the header of one message says."""

    variable: tuple[str, str, int, str]
    """Name, kind of level, hours over which it is summed, and the hash of its grid."""
    level: int
    time: np.datetime64
    member: int
    version: str
    offset: Offset


class _Fields(BackendArray):
    """Fields of messages, (..., rows, columns), read when they are indexed."""

    def __init__(self, path: str, offsets: NDArray[np.int64], grid: _Rows) -> None:
        self.path, self.offsets, self.grid = path, offsets, grid
        self.shape = (*offsets.shape[:-1], *grid.shape)
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )

    def _read(self, key: tuple[Any, ...]) -> NDArray[np.float32]:
        leading = self.offsets.ndim - 1
        offsets = self.offsets
        for axis in reversed(range(leading)):  # one after the other, as outer indexing is
            offsets = offsets[(*[slice(None)] * axis, key[axis])]
        wanted = offsets.reshape(-1, 2)
        fields = np.empty((len(wanted), *self.grid.shape), np.float32)
        from cfgrib.messages import Message

        with open(self.path, "rb") as file:  # noqa: PTH123 - ecCodes takes its descriptor
            for field, (offset, number) in zip(fields, wanted.tolist(), strict=True):
                where = (offset, number) if number else offset
                field[:] = self.grid.arranged(Message.from_file(file, where))
        rows, columns = key[leading:]
        return fields.reshape(*offsets.shape[:-1], *self.grid.shape)[..., rows, :][..., columns]


@dataclass(frozen=True, eq=False)
class _Rows:
    """How the values of a message lie on rows and columns."""

    kind: str
    shape: tuple[int, ...]
    by_column: bool
    alternating: bool
    westward: bool
    latitude: NDArray[np.float64] | None
    longitude: NDArray[np.float64] | None

    @classmethod
    def of(cls, message: Any) -> _Rows:
        """Read the grid of a message; of one without rows and columns its kind alone."""
        kind = str(message.message_get("gridType"))
        if kind not in ("regular_ll", "regular_gg"):
            size = int(message.message_get("numberOfPoints", int, 1))
            return cls(kind, (size,), False, False, False, None, None)
        shape = int(message.message_get("Nj", int)), int(message.message_get("Ni", int))
        by_column = bool(message.message_get("jPointsAreConsecutive", int, 0))
        alternating = bool(message.message_get("alternativeRowScanning", int, 0))
        westward = bool(message.message_get("iScansNegatively", int, 0))
        # The first line of a file is as it says, and places on other lines may be turned or not.
        y, x = (np.asarray(message.message_get(n, float)) for n in ("latitudes", "longitudes"))
        lines = shape[::-1] if by_column else shape
        along, across = (y, x) if by_column else (x, y)
        along, across = along.reshape(lines)[0], across.reshape(lines)[:, 0]
        latitude, longitude = (along, across) if by_column else (across, along)
        longitude = longitude[::-1] if westward else longitude
        return cls(kind, shape, by_column, alternating, westward, latitude, longitude)

    def arranged(self, message: Any) -> NDArray[np.float32]:
        """Read a message's values in rows, NaN where they are missing."""
        marked = message.message_get("bitmapPresent", int, 0) or message.message_get(
            "missingValueManagementUsed", int, 0
        )
        if marked:  # a mark that no field has as a value
            message.message_set("missingValue", _MISSING)
        values = np.asarray(message.message_get("values", float), np.float64)
        if marked:
            values[values == _MISSING] = np.nan
        return self._in_rows(values).astype(np.float32)

    def _in_rows(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        if len(self.shape) == 1:
            return values
        rows, columns = self.shape
        field = values.reshape((columns, rows) if self.by_column else (rows, columns))
        if self.alternating:
            field = field.copy()
            field[1::2] = field[1::2, ::-1]
        field = field.T if self.by_column else field
        return field[:, ::-1] if self.westward else field


def open_grib(source: str) -> list[xr.Dataset]:
    """Open a GRIB file as one Dataset per variable and set of levels with the same times.

    Where final and preliminary data of ERA5 are there for one time, the final ones are taken. Any
    other time that is there twice stays twice, for whoever joins the times to refuse.

    Raises:
        ModuleNotFoundError: cfgrib or ecCodes is missing.
        Exception: those of ecCodes, for a damaged file.
    """
    try:
        import cfgrib  # noqa: F401 - its submodule may be there already, and it not
        from cfgrib.messages import FileStream
    except (ImportError, RuntimeError) as error:  # the latter where it does not find ecCodes
        raise ModuleNotFoundError(
            f"{source} is GRIB, which needs cfgrib: pip install 'sciml-dchag[grib]'."
        ) from error
    groups: dict[tuple[str, str, int, str], dict[int, list[_Message]]] = {}
    attrs: dict[tuple[str, str, int, str], dict[str, Any]] = {}
    grids: dict[str, _Rows] = {}
    origin: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # cfgrib's own use of others
        for offset, message in FileStream(source, errors="raise").items():
            header = _header(message, offset)
            key = header.variable
            if key not in groups:
                attrs[key] = _attributes(message, key)
                if key[3] not in grids:
                    grids[key[3]] = _Rows.of(message)
                origin = origin or {
                    "GRIB_centre": str(message.message_get("centre", str, "")),
                    "GRIB_class": str(message.message_get("class", str, "")),
                }
            groups.setdefault(key, {}).setdefault(header.level, []).append(header)
    return [
        dataset.assign_attrs(origin)
        for key, by_level in groups.items()
        for dataset in _datasets(source, by_level, attrs[key], grids[key[3]])
    ]


def _header(message: Any, offset: Any) -> _Message:
    get = message.message_get
    name = str(get("cfVarName", str, "unknown"))
    if name == "unknown":
        name = str(get("shortName", str, "unknown"))
    if name in ("unknown", "~"):
        name = f"parameter_{get('paramId', int, 0)}"
    if (derived := _derived(get)) is not None:
        name = f"{derived}_of_{name}"
    kind = str(get("typeOfLevel", str, "unknown"))
    hours = 0
    if str(get("stepType", str, "instant")) == "accum":
        steps = int(get("endStep", int, 0)) - int(get("startStep", int, 0))
        span = steps * _HOURS.get(str(get("stepUnits", str, "h")), 1.0)
        hours = round(span)
        if abs(span - hours) > 1e-6:
            name = f"{name}_over_{span * 60:g}_minutes"
    date, time = int(get("validityDate", int)), int(get("validityTime", int))
    when = f"{date // 10000:04d}-{date // 100 % 100:02d}-{date % 100:02d}T{time // 100:02d}:"
    return _Message(
        variable=(name, kind, hours, str(get("md5GridSection", str, ""))),
        level=int(get("level", int, 0)),
        time=np.datetime64(f"{when}{time % 100:02d}", "ns"),
        member=int(get("number", int, 0)),
        version=str(get("experimentVersionNumber", str, "")),
        offset=offset if isinstance(offset, tuple) else (int(offset), 0),
    )


def _derived(get: Any) -> str | None:
    """What a field is of an ensemble, that is no state; None for a state or a mean of states."""
    if str(get("dataType", str, "")) == "es":
        return "spread"
    template = int(get("productDefinitionTemplateNumber", int, -1))
    if template in _PROBABILITIES:
        return "probability"
    if template in _PERCENTILES:
        return "percentile"
    return _OF_ENSEMBLES.get(int(get("derivedForecast", int, -1)))


def _attributes(message: Any, key: tuple[str, str, int, str]) -> dict[str, Any]:
    get = message.message_get
    return {
        "name": key[0],
        "kind_of_level": key[1],
        "units": str(get("units", str, "")),
        "long_name": str(get("name", str, "")),
        "GRIB_gridType": str(get("gridType", str, "")),
        "GRIB_stepType": str(get("stepType", str, "")),
        **({ACCUMULATED_HOURS: key[2]} if key[2] else {}),
    }


def _datasets(
    source: str, by_level: dict[int, list[_Message]], attrs: dict[str, Any], grid: _Rows
) -> Iterator[xr.Dataset]:
    """Make Datasets of the messages of one variable: levels of the same times lie in one."""
    attrs = dict(attrs)
    name, kind = attrs.pop("name"), attrs.pop("kind_of_level")
    chosen = {level: _final(messages) for level, messages in sorted(by_level.items())}
    alike: dict[tuple[Any, ...], list[int]] = {}
    for level, messages in chosen.items():
        # Levels that are no pressures are fields of their own, such as winds at 10 and 100 m.
        own = None if kind in ON_PRESSURE else level
        alike.setdefault((own, *((m.time, m.member) for m in messages)), []).append(level)
    for levels in alike.values():
        messages = chosen[levels[0]]
        members = sorted({m.member for m in messages})
        columns = [np.array([m.offset for m in chosen[level]], np.int64) for level in levels]
        offsets = np.stack(columns, axis=1)  # (messages, levels, 2)
        times = np.array([m.time for m in messages])
        dims: tuple[str, ...] = ("time", kind)
        if len(members) > 1:  # refused where it is asked for; one member's times are enough
            first = [i for i, m in enumerate(messages) if m.member == members[0]]
            offsets, times = np.stack([offsets[first]] * len(members)), times[first]
            dims = ("number", *dims)
        where = ("latitude", "longitude") if len(grid.shape) == 2 else ("values",)
        data = indexing.LazilyIndexedArray(_Fields(source, offsets, grid))
        level_attrs = {"units": ON_PRESSURE[kind]} if kind in ON_PRESSURE else {}
        coords: dict[str, Any] = {"time": times, kind: (kind, np.array(levels), level_attrs)}
        if grid.latitude is not None:
            coords |= {"latitude": grid.latitude, "longitude": grid.longitude}
        yield xr.Dataset({name: xr.Variable((*dims, *where), data, attrs)}, coords=coords)


def _final(messages: list[_Message]) -> list[_Message]:
    """Order messages by time; of final and preliminary data of one time keep the final ones."""
    final = {(m.time, m.member) for m in messages if m.version == FINAL}
    kept = [m for m in messages if m.version != PRELIMINARY or (m.time, m.member) not in final]
    return sorted(kept, key=lambda m: (m.time, m.member))
