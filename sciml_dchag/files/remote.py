"""Files by URL: which file system reads them, and what its errors say."""

from __future__ import annotations

from typing import Any

ANONYMOUS: dict[str, dict[str, Any]] = {
    "gs": {"token": "anon"},
    "gcs": {"token": "anon"},
    "s3": {"anon": True},
}
"""By scheme, what lets fsspec read public data without credentials."""


def is_remote(source: str) -> bool:
    """Say whether a source is a URL."""
    return "://" in source


def filesystem_of(url: str) -> Any:
    """Return fsspec's file system for a URL, without credentials where data are public.

    Raises:
        ValueError: an unknown scheme.
        ModuleNotFoundError: an extra is missing; the message names it.
    """
    import fsspec

    scheme = url.split("://")[0]
    try:
        return fsspec.filesystem(scheme, **ANONYMOUS.get(scheme, {}))
    except ImportError as error:
        raise ModuleNotFoundError(
            f"{scheme}:// needs a package that is not installed: pip install 'sciml-dchag[cloud]'."
        ) from error


def lacks_package(source: str) -> bool:
    """Say whether a source is a URL that no installed package can open, asking no network."""
    import fsspec

    if not is_remote(source):
        return False
    try:
        fsspec.get_filesystem_class(source.split("://")[0])
    except (ImportError, ValueError):
        return True
    return False


def in_short(error: Exception) -> str:
    """Say a backend's error in some words of one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 120 else f"{text[:117]}..."
