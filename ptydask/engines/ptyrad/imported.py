"""Imports PtyRAD and all that a trial needs of it. Workers are forks of a process that has done so once.

Raises ImportError for whatever is wrong with it, as that process passes over nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_CACHE = "TORCHINDUCTOR_CACHE_DIR"


@contextmanager
def _without_empty_cache() -> Iterator[None]:
    """Importing what PyTorch compiles with makes a folder for what is compiled, in most studies for nothing.

    Whoever compiles makes it again. One that the user has chosen stays.
    """
    chosen = _CACHE in os.environ
    yield
    if not chosen and _CACHE in os.environ:  # set by PyTorch
        with suppress(OSError):  # not empty
            Path(os.environ.pop(_CACHE)).rmdir()


try:
    with _without_empty_cache():
        from ptydask.engines.ptyrad import release, session

        release.installed()
except Exception as error:
    raise ImportError(str(error)) from error

__all__ = ["session"]
