"""How a study stands, for a person in Python: ``study.status``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Status:
    """How a study stands."""

    state: Literal["running", "stopped", "finished"]
    """``running`` while a driver has it, ``stopped`` where the same command would go on, ``finished``."""
    complete: int
    pruned: int
    failed: int
    running: int = 0
    """Trials under way."""
    total: int | None = None
    """How many trials were asked for; None where no driver says so."""

    @property
    def recorded(self) -> int:
        """Trials that have ended."""
        return self.complete + self.pruned + self.failed

    def __str__(self) -> str:
        of = f" of {self.total}" if self.total else ""
        counts = f"{self.complete} complete, {self.pruned} pruned, {self.failed} failed"
        under_way = f", {self.running} under way" if self.running else ""
        return f"{self.state}: {self.recorded}{of} trials ({counts}{under_way})"
