"""The workers of one cluster, shared by studies that run at the same time: who has which, and who gives some up.

Each study sees a :class:`LentCluster`, with its own workers alone. Who gets a worker, and who has to give one up, are
pure decisions by the order of the studies: an earlier one comes first.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ptydask.clusters import Cluster, ClusterRequest, ClusterStatus, Place, WorkerDemand, workers_of

if TYPE_CHECKING:
    from distributed import Client

_LOOK = 0.2
"""Seconds between two looks at what is waited for."""
_TOGETHER = 10.0
"""Seconds that a study which is to stop waits for the others before the workers are ended."""

_NONE: Mapping[int, Collection[str]] = MappingProxyType({})


def allot_workers(
    connected: Collection[str],
    owners: Mapping[str, int],
    unfinished: Mapping[int, int],
    refused: Mapping[int, Collection[str]] = _NONE,
) -> dict[str, int]:
    """Which study has which worker, by address: each that is free goes to the first study that has a trial for it.

    ``owners`` is how it was before, ``unfinished`` the trials that each open study has not recorded, by its place;
    ``refused`` are the workers that could not get ready for it.
    """
    allotted = {worker: study for worker, study in owners.items() if worker in connected and study in unfinished}
    count = Counter(allotted.values())
    for worker in connected:
        wants = (s for s in sorted(unfinished) if count[s] < unfinished[s] and worker not in refused.get(s, ()))
        if worker not in allotted and (study := next(wants, None)) is not None:
            allotted[worker] = study
            count[study] += 1
    return allotted


def workers_to_give_up(
    study: int,
    busy: Collection[str],
    owners: Mapping[str, int],
    unfinished: Mapping[int, int],
    refused: Mapping[int, Collection[str]] = _NONE,
) -> list[str]:
    """The workers that ``study`` is to give up: idle ones now, busy ones after their trial.

    Idle ones for which it has no trial; and as many as earlier studies lack, whose trials were lost, and can use.
    """
    own = sorted((worker for worker, owner in owners.items() if owner == study), key=lambda worker: worker in busy)
    count = Counter(owners.values())
    idle = [worker for worker in own if worker not in busy]
    surplus = max(0, len(own) - unfinished.get(study, 0))
    leaving = idle[:surplus]
    wanted = list[str]()
    for other in sorted(earlier for earlier in unfinished if earlier < study):
        usable = [worker for worker in own if worker not in wanted and worker not in refused.get(other, ())]
        wanted += usable[: max(0, unfinished[other] - count[other])]
    return list(dict.fromkeys([*leaving, *wanted]))


@dataclass
class LentWorkers:
    """The workers of a cluster and the studies that share them. Each study uses it from a thread of its own."""

    cluster: Cluster
    upcoming: int
    """Trials of studies that are not open yet: workers are kept for them."""
    unfinished: dict[int, int] = field(default_factory=dict)
    """Trials that each open study has not recorded, by its place in the queue."""
    owners: dict[str, int] = field(default_factory=dict)
    stopping: bool = False
    """Whether all studies are to stop."""
    refused: dict[int, set[str]] = field(default_factory=dict)
    """Workers that could not get ready for a study, by its place: others may have better luck with them."""
    _busy: dict[int, Collection[str]] = field(default_factory=dict)
    _expired: dict[int, Collection[str]] = field(default_factory=dict)
    _status: ClusterStatus = field(default_factory=ClusterStatus)
    _running: set[int] = field(default_factory=set)
    """Studies that may have trials under way."""
    _stopped: bool = False
    _change: threading.Condition = field(default_factory=threading.Condition)

    def open_study(self, study: int, unfinished: int) -> None:
        """From here on this study has a share."""
        with self._change:
            self.unfinished[study] = unfinished
            self.upcoming = max(0, self.upcoming - unfinished)

    def close_study(self, study: int) -> None:
        """It needs no workers any more: they are free for others. Harmless when called again."""
        with self._change:
            for known in (self.unfinished, self.refused, self._busy, self._expired):
                known.pop(study, None)
            self._running.discard(study)
            self.owners = {worker: owner for worker, owner in self.owners.items() if owner != study}
            self._change.notify_all()

    def find_spare(self) -> bool:
        """Whether a worker is there that no open study has a trial for. Raises OSError as :func:`workers_of` does."""
        with self._change:
            connected = self._allot()
            return any(worker not in self.owners and worker not in self._status.closing for worker in connected)

    def lent_to(self, study: int) -> Mapping[str, Any]:
        """The workers that this study has now, by address. Raises OSError as :func:`workers_of` does."""
        with self._change:
            self._running.add(study)
            connected = self._allot()
            return {worker: facts for worker, facts in connected.items() if self.owners.get(worker) == study}

    def _allot(self) -> Mapping[str, Any]:
        """Give every worker that is free to a study; all that there are. Called with the lock held: a list from before
        it was had may lack a worker that another study was given since, and take it away."""
        connected = workers_of(self.cluster.client)
        # Addresses are used again.
        self.refused = {study: workers & connected.keys() for study, workers in self.refused.items()}
        self.owners = allot_workers(connected, self.owners, self.unfinished, self.refused)
        return connected

    def tend(self, study: int, need: WorkerDemand) -> ClusterStatus:
        """Tend the cluster for all studies; what it says, as ``study`` is to take it."""
        with self._change:
            if study in self.unfinished:
                self.unfinished[study] = need.unfinished
                self.refused.setdefault(study, set()).update(need.unfit)
            for worker in need.unfit:
                self.owners.pop(worker, None)
            self._busy[study], self._expired[study] = need.busy, need.expired
            leaving = workers_to_give_up(study, need.busy, self.owners, self.unfinished, self.refused)
            for worker in leaving:
                if worker not in need.busy:
                    del self.owners[worker]
            self._status = self.cluster.tend(self._whole_need(need))
            own = sum(owner == study for owner in self.owners.values())
            elsewhere = len(self.owners) - own
            status, waiting = self._status, self._status.waiting
            if elsewhere and not own and not waiting:
                waiting = "the workers are with other studies"
            return replace(
                status, coming=status.coming + elsewhere, waiting=waiting, closing={*status.closing, *leaving}
            )

    def _whole_need(self, need: WorkerDemand) -> WorkerDemand:
        busy = {worker for workers in self._busy.values() for worker in workers} | self.owners.keys()
        idle = {worker for workers in self._expired.values() for worker in workers}
        return WorkerDemand(
            unfinished=sum(self.unfinished.values()) + self.upcoming,
            busy=busy - idle,
            unfit=need.unfit,
            expired=idle,
        )

    def stop_study(self, study: int) -> None:
        """No trial of this study is under way on return.

        Where all are to stop, the workers are ended, once all studies have come here: one that goes on collecting would
        take its trials for lost. Where others go on, its last trials end by themselves.
        """
        with self._change:
            self._running.discard(study)
            self._change.notify_all()
        while not self.stopping and self._has_trial(study):
            time.sleep(_LOOK)
        if self.stopping:
            with self._change:
                self._change.wait_for(lambda: not self._running, _TOGETHER)
                if not self._stopped:
                    self._stopped = True
                    self.cluster.stop_workers()

    def _has_trial(self, study: int) -> bool:
        if self.cluster.client.status != "running":
            return False
        with self._change:
            own = {worker for worker, owner in self.owners.items() if owner == study}
        try:
            tasks = self.cluster.client.processing()
        except OSError:  # without a scheduler nothing is under way that anybody could hear of
            return False
        return any(str(key).startswith("trial-") for worker in own for key in tasks.get(worker, ()))


@dataclass
class LentCluster:
    """See :class:`ptydask.clusters.Cluster`: what one study sees of the cluster that it shares."""

    workers: LentWorkers
    study: int
    client: Client

    def connected(self) -> Mapping[str, Any]:
        """The workers that are this study's now; see :func:`ptydask.clusters.workers_of`."""
        return self.workers.lent_to(self.study)

    def tend(self, need: WorkerDemand) -> ClusterStatus:
        """Say what this study needs; workers that it is to give up are told of as closing."""
        return self.workers.tend(self.study, need)

    def stop_workers(self) -> None:
        """See :meth:`LentWorkers.stop_study`."""
        self.workers.stop_study(self.study)


@dataclass(frozen=True)
class LendingPlace(Place):
    """A place that lends one study its share of a cluster that is open."""

    place: Place
    workers: LentWorkers
    study: int

    def default_workers(self) -> int:
        """As of the place itself."""
        return self.place.default_workers()

    def describe(self, request: ClusterRequest) -> str:
        """As of the place itself."""
        return self.place.describe(request)

    @contextmanager
    def open(self, request: ClusterRequest) -> Iterator[Cluster]:
        """The share, which is given back at the end."""
        try:
            yield LentCluster(self.workers, self.study, self.workers.cluster.client)
        finally:
            self.workers.close_study(self.study)
