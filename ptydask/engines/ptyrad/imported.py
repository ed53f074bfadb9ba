"""Imports PtyRAD and all that a trial needs of it. Workers are forks of a process that has done so once.

Raises ImportError for whatever is wrong with it, as that process passes over nothing else.
"""

from __future__ import annotations

import gc

_collects = gc.isenabled()
gc.disable()  # it would look a hundred times at all that comes in and stays, in a quarter of the time
try:
    from ptydask.engines.ptyrad import release, session

    release.installed()
except Exception as error:
    raise ImportError(str(error)) from error
finally:
    gc.freeze()  # nor does a fork look at it, which would make each page of it the fork's own
    if _collects:
        gc.enable()

__all__ = ["session"]
