"""What became of jobs, in plain words, and when it is enough: pure decisions over what is known of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from ptydask.clusters import scaling
from ptydask.clusters.jobqueue import slurm
from ptydask.clusters.jobqueue.jobs import Job
from ptydask.clusters.jobqueue.slurm import JobStatus
from ptydask.errors import one_line

DEATHS_TO_GIVE_UP = 5
"""Early deaths in a row; then the next job will not be better."""
REFUSALS_TO_GIVE_UP = 5
"""The same for jobs that the batch system did not take."""
EXIT_CODES_ASKED = 5
"""Of how many failed jobs SLURM is asked for the exit code: where many fail, they fail alike."""
SETBACKS = 20
"""The same for jobs that others ended before they could work: somebody, or something, wants none of them."""
HOPELESS_FOR = 8.0
"""Seconds that the reason why all jobs wait must have been a hopeless one."""
TELL_AFTER = 10.0
"""Seconds that a job waits before a person is told of it."""
JOIN_NOTICE = 120.0
"""Seconds between a job's start and the worker's joining after which a person is told."""
UNSEEN_NOTICE = 300.0
"""The same after a job was asked for, where the batch system does not say whether it runs."""
_NOT_ITS_FAULT = frozenset(["NODE_FAIL", "PREEMPTED", "REVOKED", "BOOT_FAIL"])
_NOISE = re.compile(
    r"^\s*$"
    r"|^\d{4}-\d\d-\d\d \S+ - distributed\S* - (INFO|DEBUG|WARNING) - "
    r"|^slurmstepd\S*: error: \*\*\* (JOB|STEP) "
    r"|^srun: |^\s+\^+\s*$|^-{10,}"
)
_RAISED = re.compile(r"^(?!Traceback)[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt|NotFound|Timeout)\b:? ?.*")


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """How a job ended."""

    text: str
    early: bool
    """Whether it could not work, by a fault that the next one will have as well."""


def judge_ending(job: Job, log: str = "", tail: str = "") -> JobOutcome:
    """What to say of a job that is over and was not asked to end; ``log`` is the path of its log, ``tail`` its end."""
    log_note = _log_note(log, tail)
    status = job.seen or slurm.GONE
    where = f"{job.title} on {status.nodes}" if status.nodes else job.title
    match status.state:
        case "PREEMPTED":
            return JobOutcome(f"{where} had to make way for a job that comes first (PREEMPTED)", False)
        case "NODE_FAIL" | "BOOT_FAIL":
            return JobOutcome(f"{where} lost its node ({status.state})", False)
        case "TIMEOUT" | "DEADLINE" if job.joined:
            return JobOutcome(f"{where} reached the end of its walltime ({status.state})", False)
        case "OUT_OF_MEMORY":
            message = f"{where} ran out of memory (OUT_OF_MEMORY): its job needs more `memory`"
            return JobOutcome(message + log_note, not job.joined)
        case "CANCELLED" if job.joined:
            return JobOutcome(f"{where} was cancelled (CANCELLED)", False)
        case "CANCELLED":
            when = "before its worker joined" if status.nodes else "while it waited"
            return JobOutcome(f"{where} was cancelled {when} (CANCELLED)", False)
        case "COMPLETED" if job.joined:
            return JobOutcome(f"{where} ended (COMPLETED)", False)
        case "GONE":
            return JobOutcome(f"SLURM no longer knows {job.title}{log_note}", not job.joined)
    how = ", ".join(filter(None, [_state_text(status), status.code]))
    if job.joined:
        return JobOutcome(f"{where} ended: {how}{log_note}", False)
    return JobOutcome(f"{where} ended before its worker joined: {how}{log_note}", status.state not in _NOT_ITS_FAULT)


def own_fault(status: JobStatus) -> bool:
    """Whether a job in this state ended by what is in it, and not by what was done to it."""
    return status.state not in _NOT_ITS_FAULT | {"CANCELLED", "TIMEOUT", "DEADLINE"}


def _state_text(status: JobStatus) -> str:
    return status.state if status.reason in ("", "None") else f"{status.state} ({status.reason})"


def _log_note(log: str, tail: str) -> str:
    if not tail:
        return "; its log is empty" if log else ""
    return f"; its log ends: {tail} ({log})" if log else f"; its log ends: {tail}"


def last_words(log: str, limit: int = 300) -> str:
    """What a job's log ends with, in one line: the exception where it ends with one, else its last three lines."""
    lines = [line.strip() for line in log.splitlines() if not _NOISE.match(line)]
    if not lines:
        return ""
    for line in reversed(lines[-15:]):
        if _RAISED.match(line):
            return one_line(line)[:limit]
    return one_line(" | ".join(dict.fromkeys(lines[-3:])))[-limit:]


def read_tail(path: Path, size: int = 16_384) -> str:
    """The last bytes of a file as text; empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - size))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


# --- waiting ---


def waiting_text(jobs: Iterable[Job]) -> str:
    """For the live view: ``2 jobs pending (Priority), 1 job starting``; empty where no job is awaited."""
    reasons = Counter[str]()
    starting = 0
    for job in jobs:
        if job.joined:
            continue
        if job.waits and job.seen is not None:
            reasons[slurm.reason_name(job.seen.reason)] += 1
        else:
            starting += 1
    parts = [f"{_jobs_text(count)} pending" + (f" ({reason})" if reason else "") for reason, count in reasons.items()]
    if starting:
        parts.append(f"{_jobs_text(starting)} starting")
    return ", ".join(parts)


def queue_news(jobs: Iterable[Job], told: frozenset[str], now: float) -> tuple[list[str], frozenset[str]]:
    """Lines on reasons for waiting that nobody has been told of yet, and all that have been told.

    A reason is told again only after no job has waited any more.
    """
    by_reason: dict[str, list[Job]] = {}
    pending = [job for job in jobs if job.waits]
    for job in pending:
        if now - job.asked >= TELL_AFTER and job.seen is not None and job.seen.reason != "None":
            by_reason.setdefault(slurm.reason_name(job.seen.reason), []).append(job)
    lines = []
    for name, waiting in by_reason.items():
        first = waiting[0]
        if name not in told and first.seen is not None:
            seconds = now - min(job.asked for job in waiting)
            subject = f"{first.title} has" if len(waiting) == 1 else f"{len(waiting)} jobs have"
            lines.append(f"{subject} waited in the queue for {seconds:.0f} s: {slurm.in_words(first.seen.reason)}")
    return lines, (told | by_reason.keys()) if pending else frozenset()


def late_join_text(job: Job, now: float) -> str:
    """What to say of a job whose worker is long in coming; empty where it is not."""
    if job.joined:
        return ""
    if job.running_since is not None and now - job.running_since > JOIN_NOTICE:
        nodes = job.seen.nodes if job.seen is not None else ""
        where = f" on {nodes}" if nodes else ""
        return f"{job.title} runs{where} for {now - job.running_since:.0f} s, and no worker has joined"
    if job.seen is None and now - job.asked > UNSEEN_NOTICE:
        return f"{job.title} was asked for {now - job.asked:.0f} s ago, and no worker has joined"
    return ""


def stuck_reason(jobs: Iterable[Job], now: float) -> str:
    """Why no worker will ever come: every job waits for something that waiting will not bring; empty where one may."""
    live = list(jobs)
    for job in live:
        if not job.waits or job.hopeless_since is None or now - job.hopeless_since < HOPELESS_FOR:
            return ""
    first = live[0] if live else None
    if first is None or first.seen is None:
        return ""
    subject = first.title if len(live) == 1 else f"{len(live)} jobs, {first.title} the first of them,"
    return f"{subject} will not start: {slurm.in_words(first.seen.reason)}"


def _jobs_text(number: int) -> str:
    return f"{number} job{'s' * (number != 1)}"


# --- counting ---


@dataclass(frozen=True, slots=True)
class FailureCounts:
    """What went wrong in a row."""

    deaths: int = 0
    """Jobs that ended before they could work."""
    setbacks: int = 0
    """Jobs that others ended before they could work."""
    refusals: int = 0
    """Times that a job was not accepted, the controller's own trouble aside."""
    silences: int = 0
    """Times that the controller could not be reached."""
    accepted: bool = False
    """Whether a job was ever accepted."""
    ever_worked: bool = False
    """Whether a worker ever got ready: a queue that is closed now is then one that was open, and may open again."""
    never: bool = False
    """Whether the last refusal is one for ever."""
    last: str = ""
    not_before: float = 0.0
    """When the next job may be asked for."""

    @property
    def failures(self) -> int:
        """What slows down the asking."""
        return max(self.refusals, self.silences, self.deaths - 1, self.setbacks // 2)


def count_accepted(counts: FailureCounts) -> FailureCounts:
    """A job was accepted."""
    return replace(counts, refusals=0, silences=0, accepted=True, never=False)


def count_refusal(counts: FailureCounts, words: str, now: float) -> FailureCounts:
    """A job was not accepted."""
    if slurm.is_soft(words):
        return _with_pause(replace(counts, silences=counts.silences + 1), now)
    refused = replace(counts, refusals=counts.refusals + 1, silences=0)
    return _with_pause(replace(refused, never=slurm.is_final(words), last=f"not accepted: {words}"), now)


def _with_pause(counts: FailureCounts, now: float) -> FailureCounts:
    return replace(counts, not_before=now + scaling.retry_delay(counts.failures))


def count_death(counts: FailureCounts, text: str, now: float) -> FailureCounts:
    """A job ended before it could work."""
    return _with_pause(replace(counts, deaths=counts.deaths + 1, last=text), now)


def count_setback(counts: FailureCounts, text: str, now: float) -> FailureCounts:
    """A job ended before it could work, by no fault of its own."""
    return _with_pause(replace(counts, setbacks=counts.setbacks + 1, last=text), now)


def count_success(counts: FailureCounts) -> FailureCounts:
    """A worker got ready, or a trial was recorded."""
    not_before = counts.not_before if counts.refusals or counts.silences else 0.0
    return replace(counts, deaths=0, setbacks=0, ever_worked=True, not_before=not_before)


def verdict(counts: FailureCounts, *, fit: int, alive: int) -> str:
    """Why the run has to end; empty while it need not.

    ``fit`` workers are there and not known to be unfit: while they work, one broken node does not end a run.
    ``alive`` jobs wait or run.
    """
    if counts.deaths >= DEATHS_TO_GIVE_UP and not fit:
        return f"{counts.deaths} jobs in a row ended before a worker got ready; the last: {counts.last}"
    if counts.setbacks >= SETBACKS and not fit:
        return (
            f"{counts.setbacks} jobs in a row were ended by others before a worker got ready; the last: {counts.last}"
        )
    if counts.refusals and not alive:
        if counts.never and not counts.accepted:
            return f"the job was {counts.last}"
        if counts.refusals >= REFUSALS_TO_GIVE_UP:
            return f"{counts.refusals} times in a row the job was {counts.last}"
    return ""
