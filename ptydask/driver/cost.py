"""What a run and each of its stages will cost, before it starts: hours of workers, bytes of results. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

from ptydask.model import StudyPlan, TrialRecord, TrialState

_PACKING = 2.0
"""At the end of a run all trials are there twice for a moment: in files of their own, and in the packed one."""


@dataclass(frozen=True, slots=True)
class RunCost:
    """What the trials that are left will take."""

    seconds: float | None
    """Seconds of workers, all together; None before there is a trial to go by."""
    known_by: int
    """Completed trials that the seconds are known by."""
    on_gpus: bool
    """Whether those ran on GPUs."""
    size: float | None
    """Bytes of the results of the trials that are left; None where nothing says."""


def estimate_cost(
    left: int,
    records: Sequence[TrialRecord],
    *,
    iterations: int | None,
    trial_bytes: float | None,
    stored: int,
    workers_per_gpu: int = 1,
) -> RunCost:
    """The cost of ``left`` more trials of up to ``iterations`` iterations each.

    ``records`` are those of earlier trials, and ``stored`` are the bytes that they take; without any that completed,
    ``trial_bytes`` says what one takes. Seconds are those of workers, on GPUs of GPUs: trials that share one share it.
    """
    completed = [record for record in records if record.state is TrialState.COMPLETE and record.seconds > 0]
    if not completed:
        return RunCost(None, 0, False, None if trial_bytes is None else left * trial_bytes)
    on_gpus = all(record.device.startswith("cuda") for record in completed)
    seconds = left * _seconds_each(completed, records, iterations) / (workers_per_gpu if on_gpus else 1)
    return RunCost(seconds, len(completed), on_gpus, left * stored / len(records))


def _seconds_each(completed: Sequence[TrialRecord], records: Sequence[TrialRecord], iterations: int | None) -> float:
    """Seconds of a trial to come: the median of completed ones, shorter by what pruned ones save, for as many steps."""
    counted = [record for record in completed if record.last_step]
    if iterations is None or len(counted) < len(completed):
        return median(record.seconds for record in completed)
    a_step = median(record.seconds / (record.last_step or 1) for record in counted)
    whole = median(record.last_step or 1 for record in counted)
    ended = [record.last_step for record in records if record.state is not TrialState.FAIL and record.last_step]
    return a_step * iterations * min(1.0, fmean(ended) / whole)


@dataclass(frozen=True, slots=True)
class StageCost:
    """What one of several stages takes."""

    trials: int
    """That it is to have."""
    recorded: int
    left: int
    """Trials that are still to run; 0 for a stage that is over, however many it has."""
    scan_iterations: float | None
    """Iterations over the whole scan that all of its trials take at the most, none of them pruned; None where the
    iterations of a trial are not known."""
    seconds: float | None
    """Seconds of workers, on GPUs of GPUs, for the trials that are left; None before there is a trial to go by."""
    known_by: int
    """Completed trials that the seconds are known by."""
    on_gpus: bool
    """Whether those ran on GPUs."""


def estimate_stages(
    plans: Sequence[StudyPlan],
    totals: Sequence[int],
    records: Sequence[Sequence[TrialRecord]] = (),
    *,
    current: int = 0,
    workers_per_gpu: int = 1,
) -> tuple[StageCost, ...]:
    """The cost of every stage: its plan, the trials that it is to have and those recorded, all in the stages' order.

    ``records`` may be shorter: of stages that have not begun there are none. ``current`` is the place, from 0, of the
    stage that is to run next: those before it are over. A stage goes by trials of its own, else by those of the last
    stage before it that has some.
    """
    costs: list[StageCost] = []
    known: list[TrialRecord] = []
    for place, (plan, total) in enumerate(zip(plans, totals, strict=True)):
        own = records[place] if place < len(records) else ()
        completed = [r for r in own if r.state is TrialState.COMPLETE and r.seconds > 0 and r.iterations]
        known = completed or known
        left = 0 if place < current else max(0, total - len(own))
        each = None if plan.iterations is None else plan.iterations * plan.scan_share
        on_gpus = bool(known) and all(record.device.startswith("cuda") for record in known)
        seconds = 0.0 if not left else None
        if left and each is not None and known:
            pace = median(record.seconds / (record.iterations or 1) for record in known)
            seconds = left * each * pace / (workers_per_gpu if on_gpus else 1)
        whole = None if each is None else total * each
        costs.append(StageCost(total, len(own), left, whole, seconds, len(known), on_gpus))
    return tuple(costs)


def find_shortage(cost: RunCost, free: float) -> float | None:
    """Bytes that the run needs on its disk, where fewer are ``free``; None where there is room, or nothing says."""
    needed = None if cost.size is None else _PACKING * cost.size
    return needed if needed is not None and needed > free else None
