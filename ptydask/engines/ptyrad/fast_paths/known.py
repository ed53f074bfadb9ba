"""Functions of PtyRAD whose values and effects are known, by the checksums of their sources."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

_IN_BOTH = """
    e4106828d72d04ee b37d08c36b14ce1c 70ed6156ba95c245 7f7af19f13d27f89 7d5332c084171ba4 38f9eb50e9560746
    c38c30981a5b02bd
"""
_IN_0_1 = "02ed794dce952553 0791b4b565f16bc0 e536708d286683f1 0fcbb00dac2ff0e8 cc44e18657cef8df"
"""0.1.0b13.post3."""
_IN_1_0 = "f24fae118f334d97 721a46e599ad42e0 5c7cc715420d555b b436399881a6c5f9 a0b3f5bc399e7983"
"""1.0.0."""
_KNOWN = frozenset(f"{_IN_BOTH} {_IN_0_1} {_IN_1_0}".split())


def is_known(where: str) -> bool:
    """Whether the installed PtyRAD's function ``where`` is one of them."""
    return checksum(where) in _KNOWN


def checksum(where: str) -> str:
    """Of the source of PtyRAD's function ``where``, 16 digits; empty where there is none.

    ``where`` is ``module:name``, or ``module:name|other`` for the first that the module has.
    """
    module, _, path = where.partition(":")
    *owners, names = path.split(".")
    try:
        owner: Any = import_module(module)
        for name in owners:
            owner = getattr(owner, name)
        return _source_checksum(next(getattr(owner, name) for name in names.split("|") if hasattr(owner, name)))
    except (ImportError, AttributeError, StopIteration, OSError, TypeError):
        return ""


@cache
def _source_checksum(function: Callable[..., Any]) -> str:
    return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:16]
