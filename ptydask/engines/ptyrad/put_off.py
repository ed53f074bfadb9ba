"""Packages that PtyRAD imports whether it uses them or not: they come in when they are used.

Each took half a second to a second of a worker's start.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec
from threading import RLock
from types import ModuleType
from typing import Any

_EXECUTION = RLock()


class _ModulePutOff(ModuleType):
    """Executed at the first use of what it does not have yet, and then a module as any other.

    As ``importlib.util.LazyLoader`` has it, but a second import statement is no use: PtyRAD has several.
    """

    def __getattr__(self, name: str) -> Any:
        self._execute()
        return getattr(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._execute()
        setattr(self, name, value)

    def __dir__(self) -> list[str]:
        self._execute()
        return dir(self)

    def _execute(self) -> None:
        with _EXECUTION:
            if type(self) is _ModulePutOff:
                loader: Any = self.__spec__.loader  # type: ignore[union-attr]
                object.__setattr__(self, "__class__", _ModuleInExecution)
                try:
                    loader.exec_module(self)
                except BaseException:
                    object.__setattr__(self, "__class__", _ModulePutOff)
                    raise
                object.__setattr__(self, "__class__", ModuleType)


class _ModuleInExecution(ModuleType):
    """What it lacks, threads other than the one that executes it wait for."""

    def __getattr__(self, name: str) -> Any:
        with _EXECUTION:
            if type(self) is not _ModuleInExecution:
                return getattr(self, name)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}", name=name, obj=self)


def put_off(name: str) -> None:
    """Have the module ``name`` of a package that is imported executed at the first use of anything in it."""
    spec = None if name in sys.modules else find_spec(name)
    if spec is not None:
        module = module_from_spec(spec)
        module.__class__ = _ModulePutOff
        package, _, last = name.rpartition(".")
        sys.modules[name] = vars(sys.modules[package])[last] = module


@contextmanager
def without_clustering(mode: str) -> Iterator[None]:
    """PtyRAD's ``make_batches`` looks for scikit-learn in any mode, and uses it in one, ``compact``.

    The import must succeed: where it fails, as it does for Optuna's importances (``analysis.rank_importances``),
    PtyRAD makes every mode ``random``.
    """
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
        if sys.modules.get(name) is unused:
            del sys.modules[name]
