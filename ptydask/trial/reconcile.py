"""What to do about trials that nobody is working on: pure decisions, no Optuna, no Dask, no files.

A trial belongs to a run by its lease (the store's id). The store says which trials are recorded; Optuna says which
were begun. Where the two disagree, somebody died in between, and this page says how each case is put right.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from ptydask.model import Reason, Scalar, TrialRecord, TrialState
from ptydask.run_snapshot import RunningTrial

ALIKE = 3
"""So many trials that fail alike before any other has ended well are the study's fault, not theirs."""
TASK = "task"
"""What the lease of a trial calls the key of its task, which no other trial has."""
OUTLIVED = 1.25, 2.0
"""A trial has outlived those that failed after so many times their longest time, and so many seconds more."""


@dataclass(frozen=True, slots=True)
class BegunTrial:
    """A trial as Optuna has it."""

    number: int
    state: str
    """Optuna's state name: WAITING, RUNNING, COMPLETE, PRUNED, FAIL."""
    params: Mapping[str, Scalar]
    store: str
    """The store's id in its lease; empty where it has none."""
    task: str = ""
    attempt: int = 1
    losses: int = 0
    """How many of the earlier attempts lost their worker and got no further than the one before."""
    resumed: int = 0
    """The step after which this attempt went on."""
    retry_of: int | None = None
    first: int = -1
    """The first attempt's number, under which the checkpoint lies."""
    origin: str = "sampler"
    reason: str = ""
    progress: int = 0
    """The step of the checkpoint that it left."""

    @property
    def spent(self) -> int:
        """Losses that count towards the retries, this attempt's included if its worker was lost.

        An attempt that left a later checkpoint than it began from does not count: with a short walltime a long trial
        may take many.
        """
        return self.losses + (self.reason == Reason.LOST and self.progress <= self.resumed)


class ReconcileAction(StrEnum):
    """What the driver does with a trial; in this order where there are several."""

    ADOPT = "adopt"
    """Recorded, but Optuna was not told: tell it."""
    REFUSE = "refuse"
    """Recorded after all, but too late: its parameters are being tried again. Remove the record."""
    RECOVER = "recover"
    """Optuna was told, but there is no record and no file: record the numbers again."""
    CLOSE = "close"
    """Neither: close it in Optuna."""
    RETRY = "retry"
    """Try the same parameters again."""
    GIVE_UP = "give up"
    """Attempts are used up: record it as failed, reason lost."""


@dataclass(frozen=True, slots=True)
class ReconcileStep:
    """One action on one trial."""

    action: ReconcileAction
    trial: BegunTrial


def begun_from_attrs(number: int, state: str, params: Mapping[str, Any], attrs: Mapping[str, Any]) -> BegunTrial:
    """A :class:`BegunTrial` from the attributes that :func:`lease` writes; ``params`` are kept, not copied."""
    lease = attrs.get("lease") or {}
    return BegunTrial(
        number,
        state,
        params,
        store=str(lease.get("store", attrs.get("store", ""))),
        task=str(lease.get(TASK, "")),
        attempt=int(attrs.get("attempt", 1)),
        losses=int(attrs.get("losses", 0)),
        resumed=int(attrs.get("resumed", 0)),
        first=int(attrs.get("first", number)),
        retry_of=attrs.get("retry_of"),
        origin=str(attrs.get("origin", "sampler")),
        reason=str(attrs.get("reason", "")),
    )


def lease(store: str, task: str, worker: str, host: str, job: str) -> dict[str, str]:
    """What a trial carries while somebody works on it."""
    return {"store": store, TASK: task, "worker": worker, "host": host, "job": job}


def steps(
    trials: Iterable[BegunTrial],
    *,
    store: str,
    recorded: Collection[int],
    in_flight: Collection[str] = (),
    retries: int,
    reason: Reason = Reason.LOST,
    exclusive: bool = False,
    progress: Callable[[int], int] = lambda first: 0,
) -> list[ReconcileStep]:
    """What puts Optuna and the store in agreement, for every trial of ``store`` that no task in flight works on.

    ``reason`` says why trials that are found RUNNING ended: LOST counts against ``retries``, INTERRUPTED does not.
    A worker may have begun a trial and not yet signed its lease, so unsigned trials are left alone while a task in
    flight has signed none; where others write the study, too, while anything is in flight. What others left RUNNING or
    WAITING is closed where only this run writes the study (``exclusive``).
    ``progress`` gives the step of the checkpoint that lies under a first attempt's number.
    Call it with every readable trial file recorded (:func:`to_adopt`): a trial without a record has lost its file.
    """
    trials = list(trials)
    # The trials that nobody works on. One without a task may be that of any task in flight that has signed none yet.
    unsigned_idle = _all_signed(trials, in_flight, exclusive)
    idle = [trial for trial in trials if trial.task not in in_flight and (trial.task or unsigned_idle)]
    retried = _retried_numbers(trials, store)
    out = []
    if exclusive:
        abandoned = [trial for trial in idle if trial.store != store and trial.state in ("RUNNING", "WAITING")]
        out += [ReconcileStep(ReconcileAction.CLOSE, trial) for trial in abandoned]
    for trial in idle:
        if trial.store != store or trial.state == "WAITING":
            continue  # not ours, or its turn comes
        if trial.number in recorded:
            # The store's word counts, unless another trial has these parameters already.
            if trial.state == "RUNNING":
                out.append(ReconcileStep(ReconcileAction.ADOPT, trial))
            elif trial.state == "FAIL" and trial.number in retried:
                out.append(ReconcileStep(ReconcileAction.REFUSE, trial))
            continue
        # From here on there is no record. A trial that told Optuna how it ended had written its file before.
        if trial.state in ("COMPLETE", "PRUNED") or trial.reason == Reason.FAILED:
            out.append(ReconcileStep(ReconcileAction.RECOVER, trial))
            continue
        if trial.state == "RUNNING":
            out.append(ReconcileStep(ReconcileAction.CLOSE, trial))
        if trial.number not in retried:
            # One that is closed already keeps the reason it was closed for: a driver may have died before the retry.
            ended = replace(trial, reason=trial.reason or reason, progress=progress(trial.first))
            action = ReconcileAction.GIVE_UP if ended.spent > retries else ReconcileAction.RETRY
            out.append(ReconcileStep(action, ended))
    return out


def _all_signed(trials: Iterable[BegunTrial], in_flight: Collection[str], exclusive: bool) -> bool:
    """Whether no task in flight may have begun a trial that it has not signed yet."""
    return not in_flight or (exclusive and {trial.task for trial in trials}.issuperset(in_flight))


def look_owed(trials: Iterable[BegunTrial], *, store: str, in_flight: Collection[str], exclusive: bool) -> bool:
    """Whether :func:`steps` left a trial alone that may be nobody's: to be looked at again, as no loss may follow."""
    trials = list(trials)
    unsigned = any(t.state == "RUNNING" and not t.task and (exclusive or t.store == store) for t in trials)
    return unsigned and not _all_signed(trials, in_flight, exclusive)


def to_adopt(
    trials: Iterable[BegunTrial], *, store: str, recorded: Collection[int], in_flight: Collection[str] = ()
) -> list[int]:
    """Trials that may have written their file and told nobody: record those whose file is there.

    Not those whose parameters are being tried again already; their result comes too late.
    """
    trials = list(trials)
    settled = {*recorded, *_retried_numbers(trials, store)}
    numbers = []
    for trial in trials:
        begun = trial.store == store and trial.state != "WAITING" and trial.task
        if begun and trial.task not in in_flight and trial.number not in settled:
            numbers.append(trial.number)
    return numbers


def _retried_numbers(trials: Iterable[BegunTrial], store: str) -> set[int]:
    """The trials of ``store`` whose parameters another trial has, or will have."""
    return {t.retry_of for t in trials if t.store == store and t.retry_of is not None}


def to_submit(total: int, recorded: int, in_flight: int, idle: int) -> int:
    """How many trials to send now: one for each idle worker, never more than are still wanted."""
    return max(0, min(idle, total - recorded - in_flight))


class Prospect(StrEnum):
    """What the first trials of a run say of those to come."""

    GOES_ON = "goes on"
    WAITS = "waits"
    """They all failed alike: start no more, until those under way have told more."""
    HOPELESS = "hopeless"
    """They all failed alike, and no trial is under way any more."""


@dataclass(frozen=True, slots=True)
class Failures:
    """The trials that a run has recorded, as long as all of them failed alike.

    What fails in every trial (a program that is not there, an argument that it does not know) would spend the whole
    budget.
    """

    first: TrialRecord | None = None
    count: int = 0
    longest: float = 0.0
    """Seconds of the longest of them."""
    disproved: bool = False
    """Whether some trial ended in another way: nothing is concluded from failures any more."""

    def then(self, record: TrialRecord) -> Failures:
        """These and the trial that was recorded next."""
        failed = record.state is TrialState.FAIL and record.reason is Reason.FAILED
        first = self.first or record
        if self.disproved or not failed or not fail_alike(first, record):
            return Failures(disproved=True)
        return Failures(first, self.count + 1, max(self.longest, record.seconds))

    def prospect(self, running: Iterable[RunningTrial], in_flight: int) -> Prospect:
        """Whether to go on.

        A trial under way that has outlived those that failed shows that not every trial fails as they did.
        ``in_flight`` counts the trials that were sent and have not ended, those that Optuna does not show yet included.
        """
        times, more = OUTLIVED
        if self.count < ALIKE or any(trial.seconds > times * self.longest + more for trial in running):
            return Prospect.GOES_ON
        return Prospect.WAITS if in_flight else Prospect.HOPELESS


def fail_alike(one: TrialRecord, other: TrialRecord) -> bool:
    """Whether two failed trials say the same, whatever values of their own they repeat."""
    values = [*one.params.values(), *other.params.values()]
    # The longest first: 'adamw' is no 'adam' with a 'w'. Within a word a value is not looked for: 'a' is in most.
    spellings = sorted({text for value in values for text in _spellings(value)}, key=len, reverse=True)
    own = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, spellings))})(?!\w)" if spellings else "$^")
    return message_pattern(own.sub("#", one.message)) == message_pattern(own.sub("#", other.message))


def _spellings(value: Scalar) -> set[str]:
    """How programs write a value: as Python or JSON does, a label of a list or mapping as what it stands for."""
    texts = {str(value), repr(value)}
    if isinstance(value, str):
        with suppress(ValueError):
            texts |= {str(json.loads(value)), json.dumps(json.loads(value))}
    return texts - {""}


def message_pattern(message: str) -> str:
    """A message without what differs from trial to trial: numbers, addresses, the name of the trial's own folder."""
    without = re.sub(r"ptydask-trial-\w+", "ptydask-trial-", message)
    return re.sub(r"0x[0-9a-fA-F]+|\d+(\.\d+)?([eE][+-]?\d+)?", "#", without)


def time_for_another(seconds: float | None, longest: float, trials: int) -> bool:
    """Whether a worker may begin a trial in the ``seconds`` left of its job's walltime (None: no end known).

    Not if the longest trial seen would not end in time, unless this is the worker's first: a trial that is longer than
    the walltime goes on from its checkpoint in one job after the other.
    """
    return seconds is None or trials == 0 or seconds > longest


def time_left(seconds: float, done: int, total: int, running: Iterable[float]) -> float | None:
    """Seconds to the end by the pace so far; None before the first trial has ended.

    ``running`` holds, for each trial under way, the share of it that is done (0 to 1).
    """
    if done == 0 or seconds <= 0:
        return None
    work = done + sum(running)  # in trials; what is half done counts half
    return max(0.0, total - work) * seconds / work
