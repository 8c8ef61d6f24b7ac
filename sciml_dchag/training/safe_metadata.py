"""Writing a checkpoint's tensors with their checksums, and reading them without running code.

PyTorch's `FileSystemReader` unpickles `.metadata` as it is, so that a checkpoint of somebody else
could run any code. Here only the classes that such metadata consist of are looked up.

Each rank takes the checksums of the tensors that it has written; a rank that reads compares those
of the tensors that it needs.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path, PurePath
from typing import IO, Any, NoReturn

import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader, _FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from sciml_dchag.files.checksums import (
    DamagedError,
    Part,
    changed,
    crc_of,
    growing,
    note,
    part_of,
    require_whole,
    seal,
)
from sciml_dchag.files.places import remove

_METADATA = "torch.distributed.checkpoint.metadata"
ALLOWED = frozenset(
    {
        *((_METADATA, name) for name in (
            "Metadata", "TensorStorageMetadata", "BytesStorageMetadata", "TensorProperties",
            "ChunkStorageMetadata", "MetadataIndex", "StorageMeta", "_MEM_FORMAT_ENCODING",
        )),
        ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
        ("torch.distributed.checkpoint.filesystem", "StorageMeta"),
        ("torch.serialization", "_get_layout"),
        ("torch", "Size"),
        ("torch", "device"),
        ("collections", "OrderedDict"),
        ("pathlib", "PosixPath"),
        ("pathlib", "WindowsPath"),
        ("pathlib", "Path"),
    }
)  # fmt: skip
"""Modules and names that are looked up, beside torch's dtypes."""
DTYPES = frozenset(name for name, value in vars(torch).items() if isinstance(value, torch.dtype))


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in ALLOWED or (module == "torch" and name in DTYPES):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a checkpoint")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError("a persistent object has no place in a checkpoint")


def read_metadata(file: Path) -> Metadata:
    """Read a checkpoint's `.metadata`.

    Raises:
        pickle.UnpicklingError: it is damaged, or holds something else.
        OSError: it cannot be read.
    """
    metadata = _Unpickler(io.BytesIO(file.read_bytes())).load()
    if not isinstance(metadata, Metadata):
        raise pickle.UnpicklingError(f"a {type(metadata).__name__} is no checkpoint's metadata")
    for stored in (metadata.storage_data or {}).values():
        name = PurePath(str(stored.relative_path))
        if name.is_absolute() or len(name.parts) != 1 or name.parts[0] == "..":
            raise pickle.UnpicklingError(f"{name} lies outside of the checkpoint")
    return metadata


class SummingWriter(_FileSystemWriter):
    """Writes this rank's tensors and puts a list of their checksums beside them."""

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Write, then read what was written for its checksums."""
        written = super().write_data(plan, planner)
        folder = Path(self.path)
        stored = sorted(
            (one.storage_data.relative_path, one.storage_data.offset, one.storage_data.length)
            for one in written.value()
        )
        if stored:
            beside = folder / f"{stored[0][0]}{_OF_A_RANK}"
            beside.mkdir(exist_ok=True)
            note(beside, (part_of(folder, *one) for one in stored))
        return written


_OF_A_RANK = ".sums.new"


def seal_checkpoint(folder: Path) -> None:
    """Join the lists of all ranks, which have written, to the folder's."""
    for beside in sorted(folder.glob(f"*{_OF_A_RANK}")):
        note(folder, growing(beside))
        remove(beside)
    seal(folder)


class SafeReader(FileSystemReader):
    """Reads tensors of a checkpoint folder and compares their checksums.

    Raises:
        DamagedError: a file is missing, cut short or changed.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        parts = require_whole(path, lambda name: name == ".metadata")
        self._parts = None if parts is None else {(p.path, p.offset): p for p in parts}

    def _slice_file(self, file: Any, sinfo: Any) -> IO[bytes]:
        """Read a tensor's bytes."""
        file.seek(sinfo.offset)
        content: bytes = file.read(sinfo.length)
        if self._parts is not None:
            part = Part(sinfo.relative_path, sinfo.offset, len(content), crc_of(content))
            if self._parts.get((part.path, part.offset)) != part:
                raise DamagedError(changed(Path(self.path), part.path))
        return io.BytesIO(content)

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Read what the checkpoint consists of."""
        metadata = read_metadata(Path(self.path) / ".metadata")
        if metadata.storage_meta is not None:
            metadata.storage_meta.load_id = self.load_id
        return metadata
