"""Reading a checkpoint's `.metadata`, which is a pickle, without running what it may hold.

PyTorch's `FileSystemReader` unpickles that file as it is, so that a checkpoint of somebody else
could run any code. Here only the classes that such metadata consist of are looked up.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path, PurePath
from typing import Any, NoReturn

import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata

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


class SafeReader(FileSystemReader):
    """Reads tensors of a checkpoint folder; its metadata by `read_metadata`."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Read what the checkpoint consists of."""
        metadata = read_metadata(Path(self.path) / ".metadata")
        if metadata.storage_meta is not None:
            metadata.storage_meta.load_id = self.load_id
        return metadata
