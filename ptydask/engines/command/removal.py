"""Removes a folder, whatever is in it. Standard library only: the guard runs this where the worker is dead."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path


def remove(folder: str | Path) -> bool:
    """Remove a folder and all in it. Links are removed, never followed. Returns whether it is gone; raises nothing.

    Nobody may be writing in there any more.
    """
    _make_writable(str(folder))
    shutil.rmtree(folder, ignore_errors=True)
    return not os.path.lexists(folder)


def _make_writable(folder: str) -> None:
    """Let their owner write in ``folder`` and in all folders below it."""
    waiting = [folder]
    while waiting:
        path = waiting.pop()
        try:
            mode = os.lstat(path).st_mode
            if not stat.S_ISDIR(mode):
                continue
            if mode & 0o700 != 0o700:
                os.chmod(path, 0o700)  # noqa: PTH101 - no link, as was just seen
            with os.scandir(path) as entries:
                waiting += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            continue
