"""What several benchmarks need of processes: CPU time, the tests' engine, a checkpoint that is never due."""

from __future__ import annotations

import os
import resource
import sys

from sections import ROOT


def cpu_seconds(*, own: bool = False) -> float:
    """Processor time of every process that this one started and that has ended; with ``own``, its own, too."""
    whose = (resource.RUSAGE_CHILDREN, *[resource.RUSAGE_SELF] * own)
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, whose))


def use_toy_engine() -> None:
    """The tests' engine, for this process and its children."""
    plugins = str(ROOT / "tests" / "plugins")
    os.environ["PYTHONPATH"] = os.pathsep.join([plugins, *filter(None, [os.environ.get("PYTHONPATH")])])
    sys.path.insert(0, plugins)


class NeverSaved:
    """A checkpoint that there is none of, and that is never due."""

    def load(self) -> bytes | None:
        return None

    def due(self) -> bool:
        return False

    def save(self, step: int, state: bytes) -> None:
        raise AssertionError
