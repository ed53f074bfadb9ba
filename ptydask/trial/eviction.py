"""The word that this process has to go: SLURM takes its node, its walltime is over, the run is being stopped.

A cluster sets it (from a signal handler); the trial under way hears of it through its checkpoint.
"""

from __future__ import annotations

import threading

asked = threading.Event()
"""Set once this process is told to go."""


class Evicted(BaseException):
    """The trial stops here; what it saved is where another worker goes on.

    No Exception, because it is no error of the trial and no engine may take it for one.
    """
