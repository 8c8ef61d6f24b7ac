"""Packages that pip alone does not bring, and the tests that need them."""

import pytest


def xesmf_imports() -> bool:
    """Whether xESMF is there, and the ESMF that it needs."""
    try:
        import xesmf  # noqa: F401
    except (ImportError, KeyError, OSError):  # esmpy raises the latter two without ESMF
        return False
    return True


needs_esmf = pytest.mark.skipif(
    not xesmf_imports(), reason="ESMF comes with environment.yml, not with pip"
)
