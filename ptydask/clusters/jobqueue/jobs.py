"""What the fleet knows of each of its jobs: no Dask, no batch system."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ptydask.clusters.jobqueue import slurm
from ptydask.clusters.jobqueue.slurm import JobStatus
from ptydask.clusters.scaling import JobLoad


@dataclass(slots=True)
class Job:
    """One job, from the moment that it is asked for until nothing of it is left. Times are seconds since the epoch."""

    name: str
    """Dask's name of its worker, or what the names of its workers begin with."""
    size: int
    """Workers that it brings."""
    asked: float
    submission: Future[Any] | None
    """None once it is answered."""
    handle: Any = None
    """dask-jobqueue's object for it."""
    id: str = ""
    seen: JobStatus | None = None
    there: set[str] = field(default_factory=set)
    """Its workers that are connected: Dask's addresses."""
    known: set[str] = field(default_factory=set)
    """All that ever were."""
    leaving: set[str] = field(default_factory=set)
    """Those that were sent away, or have been told to go by the batch system: they do not come back."""
    empty_since: float | None = None
    """Since when none of those that joined is left."""
    running_since: float | None = None
    hopeless_since: float | None = None
    closing: float | None = None
    """When the fleet began to end it."""
    unwanted: bool = False
    """Whether it is ended because there is no more use for it: its end is no news."""
    losses: int = 0
    """Workers that went without having been told to."""
    cancelled: float = 0.0
    """When the batch system was last asked to end it."""
    over: float | None = None
    """When the batch system was heard to say that it has ended."""
    suspect: tuple[float, str] | None = None
    """A worker of it went while it got ready, when and why as the driver saw it; the batch system may know better."""
    dead: bool = False
    """Whether it was counted as an early death."""
    told: bool = False
    """Whether a person was told that its worker is long in coming."""

    @property
    def title(self) -> str:
        """What it is called when a person is told of it."""
        return f"job {self.id}" if self.id else f"job {self.name}"

    @property
    def live(self) -> bool:
        """Whether it works, or will."""
        return self.over is None and self.closing is None

    @property
    def joined(self) -> bool:
        """Whether a worker of it was ever there."""
        return bool(self.known)

    @property
    def waits(self) -> bool:
        """Whether it is known to have no node yet."""
        return self.seen is not None and self.seen.state in slurm.WAITING and not self.there

    @property
    def brings(self) -> bool:
        """Whether its workers stay, or will come."""
        return self.live and (self.seen is None or self.seen.state != "COMPLETING")

    @property
    def workers(self) -> int:
        """Workers that are there to stay, and that it will still bring."""
        return max(0, self.size - len(self.leaving)) if self.brings else 0

    @property
    def fit(self) -> set[str]:
        """Workers that are there to stay."""
        return self.there - self.leaving if self.brings else set()

    def worker_names(self) -> Iterator[str]:
        """As ``dask worker --nworkers`` gives them."""
        yield from ([self.name] if self.size == 1 else [f"{self.name}-{i}" for i in range(self.size)])

    def load(self, busy: Iterable[str]) -> JobLoad:
        """For the scaling."""
        return JobLoad(self.name, self.asked, self.workers, len(self.fit), len(self.fit & set(busy)))

    def accept(self, number: str) -> None:
        """The batch system took it, under this number."""
        self.id, self.submission = number, None

    def update_workers(self, there: set[str], going: set[str], now: float) -> tuple[bool, bool]:
        """Take note of who is connected, ``going`` those that take no more work.

        Returns whether somebody was lost, and whether somebody has come back.
        """
        lost = len(self.there - there - self.leaving)
        back = min(self.losses, len(there - self.known))  # a nanny brings its worker back under another address
        self.losses += lost - back
        self.there = there
        self.known |= there
        self.leaving |= going
        if there or not self.known:
            self.empty_since = None
        elif self.empty_since is None:
            self.empty_since = now
        return lost > 0, back > 0

    def update_status(self, seen: JobStatus, now: float) -> bool:
        """Take note of what the batch system says. Whether that is news."""
        news = self.seen is None or (seen.state, seen.reason) != (self.seen.state, self.seen.reason)
        self.seen = seen
        waits = seen.state in slurm.WAITING
        if waits and self.running_since is not None:  # requeued: it begins anew
            self.known, self.leaving, self.losses = set(self.there), set(), 0
            self.running_since = self.empty_since = None
        if seen.state == "RUNNING" and self.running_since is None:
            self.running_since = now
        if not (waits and slurm.is_hopeless(seen.reason)):
            self.hopeless_since = None
        elif self.hopeless_since is None:
            self.hopeless_since = now
        if self.over is None and (seen.over or (seen == slurm.GONE and not self.there)):
            self.over = now
        return news


def find_log(folder: Path, number: str) -> Path | None:
    """The log of a job: the file with its id in the name."""
    if not number:
        return None
    try:
        matching = [path for path in folder.glob(f"*{number}*") if number in path.name.replace("-", ".").split(".")]
    except OSError:  # a network disk that does not answer
        return None
    return matching[0] if matching else None
