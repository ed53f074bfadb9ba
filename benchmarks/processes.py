"""What several benchmarks need: CPU time, the tests' engine and its studies, a checkpoint never due, the journal."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def run_toy_study(params: Path, workers: int, **options: Any) -> None:
    """Run the study of a params file with the tests' engine on workers of this machine, its driver in this process."""
    import ptydask

    fixed: dict[str, Any] = {"engine": "toy", "cluster": "local", "search": "file", "progress": False}
    ptydask.run(params, workers=workers, **fixed, **options)


def watch_journal(hear: Callable[[bool], None]) -> None:
    """Have ``hear`` called at each call of a journal that this process serves, with whether it ends a trial."""
    from ptydask.storage.transport import JournalService

    answer = JournalService.answer

    async def heard(self: JournalService, *arguments: Any, **message: Any) -> Any:
        hear(bool(message.get("durable")))
        return await answer(self, *arguments, **message)

    JournalService.answer = heard  # type: ignore[method-assign]


class NeverSaved:
    """A checkpoint that there is none of, and that is never due."""

    def load(self) -> bytes | None:
        return None

    def due(self) -> bool:
        return False

    def save(self, step: int, state: bytes) -> None:
        raise AssertionError
