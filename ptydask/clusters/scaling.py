"""How many workers there should be, and which jobs to start or close for that: pure decisions.

Workers come in jobs of a fixed size (one worker each on this machine). Between the number that is aimed at when growing
and the number that is kept when shrinking nothing happens, so the fleet never swings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

AT_ONCE = 10
"""Jobs that are asked for at one time: a batch system is shared with others."""
STARTING_PER_CORE = 2
"""Interpreters of this machine that load programs side by side, a core: of many each would take as long as all."""
LONGEST_PAUSE = 60.0
"""Seconds between two attempts to submit, however often it failed."""


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """What a run asks for."""

    least: int
    """As many workers are kept while anything is left to do."""
    most: int
    """Never more workers than these; but one job there may always be."""
    per_job: int = 1
    """Workers that one job brings."""


@dataclass(frozen=True, slots=True)
class JobLoad:
    """One job as the scaling sees it."""

    name: str
    asked: float
    """When it was asked for, on any clock."""
    workers: int
    """Those that are there and those that it will still bring."""
    joined: int = 0
    busy: int = 0
    """Workers with a trial, or getting ready for one."""


@dataclass(frozen=True, slots=True)
class ScalingDecision:
    """What to do now."""

    start: int = 0
    """Jobs to ask for."""
    close: tuple[str, ...] = ()
    """Names of jobs to close: none of their workers is busy."""


def target_workers(unfinished: int, limits: WorkerLimits) -> int:
    """Workers to grow to: never more than there are trials to do, nor than the most that are allowed."""
    return max(0, min(unfinished, limits.most))


def workers_to_keep(unfinished: int, limits: WorkerLimits) -> int:
    """Workers that shrinking leaves: those that have something to do, the least while anything is; else none."""
    return max(target_workers(unfinished, limits), min(limits.least, limits.most)) if unfinished > 0 else 0


def decide_scaling(
    jobs: Sequence[JobLoad], *, unfinished: int, limits: WorkerLimits, leaving: int = 0, at_once: int = AT_ONCE
) -> ScalingDecision:
    """Which jobs to start or to close.

    ``leaving`` workers belong to jobs that are being closed: they do no more work but still count as there.
    At most ``at_once`` jobs are started. Jobs that still wait are closed before idle ones, the youngest of them first;
    of the idle ones the oldest first, whose walltime ends first. A job with a busy worker is never closed.
    """
    workers = sum(job.workers for job in jobs)
    # Never both: the number to keep is at least the number to grow to.
    close = _jobs_to_close(jobs, surplus=workers - workers_to_keep(unfinished, limits))
    if close:
        return ScalingDecision(close=close)
    missing = max(0, target_workers(unfinished, limits) - workers)
    # One job there may be, however many workers it brings.
    room = max(0, max(limits.most, limits.per_job) - workers - leaving)
    return ScalingDecision(start=min(at_once, math.ceil(missing / limits.per_job), room // limits.per_job))


def _jobs_to_close(jobs: Sequence[JobLoad], surplus: int) -> tuple[str, ...]:
    waiting = sorted((job for job in jobs if not job.joined), key=lambda job: -job.asked)
    idle = sorted((job for job in jobs if job.joined and not job.busy), key=lambda job: job.asked)
    close = []
    for job in (*waiting, *idle):
        # A job is closed whole or not at all; one that brings nobody any more ends by itself.
        if 0 < job.workers <= surplus:
            close.append(job.name)
            surplus -= job.workers
    return tuple(close)


def processes_at_once(cores: int, starting: int) -> int:
    """Worker processes that may be started on a machine of so many cores, while ``starting`` have not come up."""
    return max(0, STARTING_PER_CORE * cores - starting)


def jobs_at_once(failures: int) -> int:
    """Jobs that may be asked for at one time after so many failed attempts in a row: half as many after each."""
    return max(1, AT_ONCE // 2**failures)


def retry_delay(failures: int) -> float:
    """Seconds to wait after so many failed attempts in a row: 1, 2, 4 ... up to a minute; none after none."""
    return min(LONGEST_PAUSE, 2.0 ** (failures - 1)) if failures > 0 else 0.0
