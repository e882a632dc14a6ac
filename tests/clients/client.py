"""Tools of others, which are installed for `make test-clients` alone."""

from __future__ import annotations

import os
from importlib import import_module
from types import ModuleType

import pytest


def client(module: str) -> ModuleType:
    """The module; tests are skipped where it is not there, unless `make test-clients` has just installed it."""
    if os.environ.get("NANOSAM_TEST_CLIENTS"):
        return import_module(module)
    return pytest.importorskip(module, reason=f"{module} is not installed; `make test-clients` runs this")
