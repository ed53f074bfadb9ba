"""Imports PtyRAD and all that a trial needs of it. Workers are forks of a process that has done so once.

Raises ImportError for whatever is wrong with it, as that process passes over nothing else.
"""

from __future__ import annotations

try:
    from ptydask.engines.ptyrad import release, session

    release.installed()
except Exception as error:
    raise ImportError(str(error)) from error

__all__ = ["session"]
