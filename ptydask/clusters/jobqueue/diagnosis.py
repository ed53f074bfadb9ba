"""What became of jobs, in plain words, and when it is enough: pure decisions over what is known of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from ptydask.clusters import scaling
from ptydask.clusters.jobqueue import slurm
from ptydask.clusters.jobqueue.slurm import JobStatus
from ptydask.errors import one_line

EARLY_DEATHS = 5
"""In a row; then the next will not be better."""
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
class JobSnapshot:
    """What is known of one job."""

    title: str
    """``job 12``."""
    asked: float
    """When it was asked for, seconds since the epoch, as all times here."""
    seen: JobStatus | None = None
    """What the batch system says last; None where it was not asked, or has not answered yet."""
    joined: bool = False
    """Whether a worker of it was ever there."""
    here: bool = False
    """Whether one is there now."""
    tail: str = ""
    """The end of its log, in one line."""
    log: str = ""
    """Where its log is."""
    hopeless_since: float | None = None
    running_since: float | None = None

    @property
    def waits(self) -> bool:
        """Whether it is known to have no node yet."""
        return self.seen is not None and self.seen.state in slurm.WAITING and not self.here


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """How a job ended."""

    text: str
    early: bool
    """Whether it could not work, by a fault that the next one will have as well."""


def judge_ending(story: JobSnapshot) -> JobOutcome:
    """What to say of a job that is over and was not asked to end."""
    seen = story.seen or slurm.GONE
    where = f"{story.title} on {seen.nodes}" if seen.nodes else story.title
    how = ", ".join(part for part in (_state_text(seen), seen.code) if part)
    match seen.state:
        case "PREEMPTED":
            return JobOutcome(f"{where} had to make way for a job that comes first (PREEMPTED)", False)
        case "NODE_FAIL" | "BOOT_FAIL":
            return JobOutcome(f"{where} lost its node ({seen.state})", False)
        case "TIMEOUT" | "DEADLINE" if story.joined:
            return JobOutcome(f"{where} reached the end of its walltime ({seen.state})", False)
        case "OUT_OF_MEMORY":
            said = f"{where} ran out of memory (OUT_OF_MEMORY): its job needs more `memory`"
            return JobOutcome(_with_log(said, story), not story.joined)
        case "CANCELLED":
            when = "" if story.joined else " before its worker joined" if seen.nodes else " while it waited"
            return JobOutcome(f"{where} was cancelled{when} (CANCELLED)", False)
        case "COMPLETED" if story.joined:
            return JobOutcome(f"{where} ended (COMPLETED)", False)
        case "GONE":
            said = f"SLURM no longer knows {story.title}"
            return JobOutcome(_with_log(said, story), not story.joined)
    if story.joined:
        return JobOutcome(_with_log(f"{where} ended: {how}", story), False)
    said = f"{where} ended before its worker joined: {how}"
    return JobOutcome(_with_log(said, story), seen.state not in _NOT_ITS_FAULT)


def own_fault(seen: JobStatus) -> bool:
    """Whether a job in this state ended by what is in it, and not by what was done to it."""
    return seen.state not in _NOT_ITS_FAULT | {"CANCELLED", "TIMEOUT", "DEADLINE"}


def _state_text(seen: JobStatus) -> str:
    plain = seen.reason in ("", "None")
    return seen.state if plain else f"{seen.state} ({seen.reason})"


def _with_log(said: str, story: JobSnapshot) -> str:
    if story.tail:
        return f"{said}; its log ends: {story.tail}" + (f" ({story.log})" if story.log else "")
    return f"{said}; its log is empty" if story.log else said


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


def waiting_text(stories: Iterable[JobSnapshot]) -> str:
    """For the live view: ``2 jobs pending (Priority), 1 job starting``; empty where no job is awaited."""
    reasons: dict[str, int] = {}
    starting = 0
    for story in stories:
        if story.joined:
            continue
        if story.waits and story.seen is not None:
            reason = slurm.reason_name(story.seen.reason)
            reasons[reason] = reasons.get(reason, 0) + 1
        else:
            starting += 1
    parts = [
        f"{_jobs_text(n)} pending ({reason})" if reason else f"{_jobs_text(n)} pending" for reason, n in reasons.items()
    ]
    return ", ".join([*parts, *([f"{_jobs_text(starting)} starting"] if starting else [])])


def queue_news(stories: Iterable[JobSnapshot], told: frozenset[str], now: float) -> tuple[list[str], frozenset[str]]:
    """Lines on reasons for waiting that nobody has been told of yet, and all that have been told.

    A reason is told again only after no job has waited any more.
    """
    long: dict[str, list[JobSnapshot]] = {}
    pending = [story for story in stories if story.waits]
    for story in pending:
        if now - story.asked >= TELL_AFTER and story.seen is not None and story.seen.reason != "None":
            long.setdefault(slurm.reason_name(story.seen.reason), []).append(story)
    lines = []
    for name, those in long.items():
        if name not in told and those[0].seen is not None:
            since = now - min(story.asked for story in those)
            what = those[0].title + " has" if len(those) == 1 else f"{len(those)} jobs have"
            lines.append(f"{what} waited in the queue for {since:.0f} s: {slurm.in_words(those[0].seen.reason)}")
    return lines, (told | long.keys()) if pending else frozenset()


def late_join_text(story: JobSnapshot, now: float) -> str:
    """What to say of a job whose worker is long in coming; empty where it is not."""
    if story.joined:
        return ""
    log = f"; its log: {story.log}" if story.log else ""
    if story.running_since is not None and now - story.running_since > JOIN_NOTICE:
        nodes = story.seen.nodes if story.seen is not None else ""
        where = f" on {nodes}" if nodes else ""
        return f"{story.title} runs{where} for {now - story.running_since:.0f} s, and no worker has joined{log}"
    if story.seen is None and now - story.asked > UNSEEN_NOTICE:
        return f"{story.title} was asked for {now - story.asked:.0f} s ago, and no worker has joined{log}"
    return ""


def stuck_reason(stories: Iterable[JobSnapshot], now: float) -> str:
    """Why no worker will ever come: every job waits for something that waiting will not bring; empty where one may."""
    every = list(stories)
    if not every or any(story.here or not story.waits or story.hopeless_since is None for story in every):
        return ""
    if any(now - (story.hopeless_since or now) < HOPELESS_FOR for story in every):
        return ""
    first = every[0]
    assert first.seen is not None
    who = first.title if len(every) == 1 else f"{len(every)} jobs, {first.title} the first of them,"
    return f"{who} will not start: {slurm.in_words(first.seen.reason)}"


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


def count_accepted(tally: FailureCounts) -> FailureCounts:
    """A job was accepted."""
    return replace(tally, refusals=0, silences=0, accepted=True, never=False)


def count_refusal(tally: FailureCounts, words: str, now: float) -> FailureCounts:
    """A job was not accepted."""
    if slurm.is_soft(words):
        after = replace(tally, silences=tally.silences + 1)
    else:
        after = replace(
            tally, refusals=tally.refusals + 1, silences=0, never=slurm.is_final(words), last=f"not accepted: {words}"
        )
    return _with_pause(after, now)


def _with_pause(tally: FailureCounts, now: float) -> FailureCounts:
    return replace(tally, not_before=now + scaling.retry_delay(tally.failures))


def count_death(tally: FailureCounts, text: str, now: float) -> FailureCounts:
    """A job ended before it could work."""
    return _with_pause(replace(tally, deaths=tally.deaths + 1, last=text), now)


def set_back(tally: FailureCounts, text: str, now: float) -> FailureCounts:
    """A job ended before it could work, by no fault of its own."""
    return _with_pause(replace(tally, setbacks=tally.setbacks + 1, last=text), now)


def count_success(tally: FailureCounts) -> FailureCounts:
    """A worker got ready, or a trial was recorded."""
    held = tally.refusals or tally.silences
    return replace(tally, deaths=0, setbacks=0, ever_worked=True, not_before=tally.not_before if held else 0.0)


def verdict(tally: FailureCounts, *, fit: int, alive: int) -> str:
    """Why the run has to end; empty while it need not.

    ``fit`` workers are there and not known to be unfit: while they work, one broken node does not end a run.
    ``alive`` jobs wait or run.
    """
    if tally.deaths >= EARLY_DEATHS and not fit:
        return f"{tally.deaths} jobs in a row ended before a worker got ready; the last: {tally.last}"
    if tally.setbacks >= SETBACKS and not fit:
        return f"{tally.setbacks} jobs in a row were ended by others before a worker got ready; the last: {tally.last}"
    if tally.refusals and not alive:
        if tally.never and not tally.accepted:
            return f"the job was {tally.last}"
        if tally.refusals >= EARLY_DEATHS:
            return f"{tally.refusals} times in a row the job was {tally.last}"
    return ""
