"""Engines, clusters and formats by name: entry points, so that a new one is one file and one line."""

from __future__ import annotations

import sys
from functools import cache
from importlib.metadata import EntryPoints, entry_points
from typing import Any

from ptydask.errors import UsageError, nearest_hint


@cache
def _entry_points(kind: str, _path: tuple[str, ...]) -> EntryPoints:
    """Asked once: looking through all that is installed takes some ten milliseconds."""
    return entry_points(group=f"ptydask.{kind}")


def names(kind: str) -> list[str]:
    """The registered names of ``engines``, ``clusters`` or ``formats``."""
    return sorted(point.name for point in _entry_points(kind, tuple(sys.path)))


def load(kind: str, name: str) -> Any:
    """The object registered as ``name``. Raises UsageError with the nearest name where there is none."""
    for point in _entry_points(kind, tuple(sys.path)):
        if point.name == name:
            return point.load()
    raise UsageError(f"no {kind.rstrip('s')} is called {name!r}; {nearest_hint(name, names(kind))}")
