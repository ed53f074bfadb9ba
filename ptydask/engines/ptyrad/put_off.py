"""Packages that PtyRAD imports whether it uses them or not: they come in when they are used.

Each took half a second to a second of a worker's start.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch


def put_off_pyplot() -> None:
    """PtyRAD draws in a run of its own alone: pyplot is imported at the first use of anything in it."""
    name = "matplotlib.pyplot"
    if name in sys.modules:
        return
    standing_in = ModuleType(name)

    def attribute(of_pyplot: str) -> Any:
        if sys.modules.get(name) is standing_in:
            del sys.modules[name]
        return getattr(import_module(name), of_pyplot)

    standing_in.__getattr__ = attribute  # type: ignore[method-assign]
    sys.modules[name] = standing_in
    vars(import_module("matplotlib"))["pyplot"] = standing_in


def put_off_compiler() -> None:
    """PtyRAD tells of each step's begin those that compiled it: where nothing is compiled nobody need be told."""
    mark = torch.compiler.cudagraph_mark_step_begin

    def mark_if_compiled() -> None:
        if "torch._inductor.cudagraph_trees" in sys.modules:
            mark()  # type: ignore[no-untyped-call]

    torch.compiler.cudagraph_mark_step_begin = mark_if_compiled


@contextmanager
def without_clustering(mode: str) -> Iterator[None]:
    """PtyRAD's ``make_batches`` looks for scikit-learn in any mode, and uses it in one, ``compact``."""
    name = "sklearn.cluster"
    if mode == "compact" or name in sys.modules or find_spec("sklearn") is None:
        yield
        return
    unused = ModuleType(name)
    unused.MiniBatchKMeans = None  # type: ignore[attr-defined]
    sys.modules[name] = unused
    try:
        yield
    finally:
        del sys.modules[name]
