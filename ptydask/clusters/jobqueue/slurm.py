"""What SLURM says of our jobs, in its words and in plain ones. Everything here may wait: call it in a thread."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ptydask.clusters.jobqueue.profile import clock_text, parse_time
from ptydask.errors import one_line

ANSWER = 20.0
"""Seconds for a command of SLURM to answer."""
OVER = frozenset(
    [
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
    ]
)
"""States that a job does not leave again."""
WAITING = frozenset(["PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"])
"""States of a job that has no node yet, or has none any more and may get one."""
_FORMAT = "%i|%T|%r|%N|%e"
_SQUEUE_LINE = re.compile(r"(\d+)[^|]*\|([A-Z_]+)\|(.*)\|([^|]*)\|([^|]*)")
"""The reason is the only field that SLURM does not choose from a list: there may be a ``|`` in it."""
_SOFT = (
    "unable to contact slurm controller",
    "socket timed out",
    "connection refused",
    "zero bytes were transmitted",
    "slurm temporarily unable to accept job",
    "slurm backup controller in standby mode",
    "transport endpoint is not connected",
    "connection timed out",
    "unable to connect",
    "message connection failure",
    "slurm_msg_sendto",
    "unexpected missing socket error",
    "resource temporarily unavailable",
    "did not answer within",
)
_NEVER = (
    "invalid partition",
    "invalid node name",
    "invalid account",
    "invalid qos",
    "invalid generic resource",
    "invalid feature",
    "invalid --",
    "invalid wckey",
    "invalid job array",
    "invalid constraint",
    "invalid license",
    "invalid time limit",
    "requested time limit is invalid",
    "requested node configuration is not available",
    "requested partition configuration not available",
    "memory required by task is not available",
    "memory specification can not be satisfied",
    "more processors requested than permitted",
    "node count specification invalid",
    "group not permitted to use this partition",
    "account not permitted to use this partition",
    "access/permission denied",
    "unrecognized option",
    "invalid option",
    "option requires an argument",
    "no such file or directory",
    "command not found",
)
_WAITS = {
    "": "SLURM has not looked at it yet",
    "Priority": "other jobs come first",
    "Resources": "no free nodes",
    "ReqNodeNotAvail": "nodes that it needs are down or reserved",
    "NodesNotAvail": "its nodes are down, drained or taken by jobs that come first",
    "BeginTime": "it may not begin yet",
    "Dependency": "it depends on another job",
    "Licenses": "no free license",
    "Reservation": "its reservation has not begun",
    "Prolog": "its node is being prepared",
    "NodeDown": "its node is down",
    "MaxMemPerLimit": "its partition's memory limit",
}
_HOPELESS = {
    "PartitionTimeLimit": "its walltime is longer than the partition allows",
    "PartitionNodeLimit": "the partition has too few nodes that are up for it",
    "PartitionDown": "the partition is down",
    "PartitionInactive": "the partition is inactive",
    "BadConstraints": "no node meets its constraints",
    "InvalidAccount": "the account is not valid",
    "AccountNotAllowed": "the account may not use the partition",
    "InvalidQOS": "the quality of service is not valid",
    "QOSNotAllowed": "the quality of service may not use the partition",
    "JobHeldUser": "it is held: scontrol release lets it go",
    "JobHeldAdmin": "an administrator holds it",
    "JobHoldMaxRequeue": "it was requeued too often and is held",
    "DependencyNeverSatisfied": "the job that it depends on failed",
    "ReservationDeleted": "its reservation was deleted",
}
_OVER_ITS_LIMIT = re.compile(r"(Assoc|QOS)(Max|Min)\w*(PerJob(Limit)?|NotSatisfied|PerNode(Limit)?)$|QOSMin\w+")
"""A single job asks for more (or less) than it may: no other job's end will help."""
_SHARED_LIMIT = re.compile(r"^(Assoc|QOS)\w*$")
_EPOCH = re.compile(r"\d{6,}")


class BatchSystemUnavailable(Exception):  # noqa: N818 - SLURM may be well, only not now
    """SLURM did not answer; nothing follows for its jobs."""


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A job as SLURM has it."""

    state: str
    reason: str = ""
    nodes: str = ""
    end: float | None = None
    """Seconds since the epoch: when it ended, or has to end by its walltime."""
    code: str = ""
    """Exit code, or the signal that ended it, in words; where it is over and that was asked for."""

    @property
    def over(self) -> bool:
        """Whether it will never run again."""
        return self.state in OVER


GONE = JobStatus("GONE")
"""A job that SLURM has forgotten: it has been over for long."""


def query_jobs(ids: Collection[str]) -> dict[str, JobStatus]:
    """Every one of our jobs, in one question. Raises BatchSystemUnavailable."""
    if not ids:
        return {}
    # Asked by user, the controller sends this user's jobs only, and ids that it has forgotten are no error.
    command = ["squeue", "-h", "-t", "all", "-u", str(os.getuid()), "-o", _FORMAT, "-j", ",".join(sorted(ids))]
    try:
        states = parse_squeue(_run_command(command))
    except BatchSystemUnavailable as error:
        if "invalid job id" not in str(error).lower():
            raise
        states = {}
    return {job_id: states.get(job_id, GONE) for job_id in ids}


def parse_squeue(text: str) -> dict[str, JobStatus]:
    """Job id -> what a line of ``squeue`` says; lines of another shape are passed over, arrays go by their number."""
    states = {}
    for line in text.splitlines():
        match = _SQUEUE_LINE.fullmatch(line.strip())
        if match is not None:
            job_id, state, reason, nodes, end = match.groups()
            states[job_id] = JobStatus(state, reason, nodes, float(end) if _EPOCH.fullmatch(end) else None)
    return states


def exit_code(job: str) -> str:
    """``exit code 127`` or ``signal 9``; empty where SLURM does not say."""
    try:
        return parse_exit(_run_command(["scontrol", "show", "job", "-o", job]))
    except BatchSystemUnavailable:
        return ""


def parse_exit(text: str) -> str:
    """The exit code in the words of :func:`exit_code` from ``scontrol show job``."""
    match = re.search(r"\bExitCode=(\d+):(\d+)", text)
    if match is None or match.groups() == ("0", "0"):
        return ""
    code, number = match.groups()
    return f"signal {number}" if number != "0" else f"exit code {code}"


def jobs_by_name(job_name: str) -> dict[str, JobStatus]:
    """This user's jobs of that name that are not over, but for the job that this process itself runs in.

    Raises BatchSystemUnavailable.
    """
    states = parse_squeue(_run_command(["squeue", "-h", "-u", str(os.getuid()), "-n", job_name, "-o", _FORMAT]))
    states.pop(os.environ.get("SLURM_JOB_ID", ""), None)
    return {job_id: status for job_id, status in states.items() if not status.over}


def try_job(script: str, environ: Mapping[str, str]) -> tuple[bool, str]:
    """Whether SLURM would take the job of a script, submitted in ``environ``, and what it says; nothing is submitted.

    Raises BatchSystemUnavailable where nobody knows.
    """
    try:
        done = subprocess.run(
            ["sbatch", "--test-only"],
            input=script,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ANSWER,
            env={**environ, "LC_ALL": "C"},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BatchSystemUnavailable(f"sbatch did not answer within {ANSWER:.0f} s") from error
    except OSError as error:
        raise BatchSystemUnavailable(f"sbatch: {error}") from error
    words = refusal_text(done.stderr)
    if done.returncode and not is_final(words):
        raise BatchSystemUnavailable(words or f"sbatch ended with exit code {done.returncode}")
    return done.returncode == 0, words


def partition_notes(queue: str | None, walltime: int | None) -> str:
    """Why a job of ``walltime`` seconds would wait for ever in its partition; empty where it would not, or who knows.

    ``sbatch --test-only`` does not look at either. Where several partitions are named, one that is right is enough.
    """
    of_queue = ["-p", queue] if queue else []
    try:
        lines = _run_command(["sinfo", "-h", *of_queue, "-o", "%P|%a|%l"]).splitlines()
    except BatchSystemUnavailable:
        return ""
    return partition_trouble(lines if queue else [line for line in lines if "*|" in line], walltime)


def partition_trouble(lines: Collection[str], walltime: int | None) -> str:
    """The words of :func:`partition_notes` from lines of ``sinfo``: ``gpu*|up|1-00:00:00``."""
    troubles = []
    for line in lines:
        name, state, limit = line.split("|")
        seconds = parse_time(limit)  # None for "infinite"
        if state != "up":
            troubles.append(f"the partition {name.rstrip('*')} is {state}")
        elif walltime is not None and seconds is not None and walltime > seconds:
            troubles.append(f"the partition {name.rstrip('*')} ends jobs after {clock_text(seconds)}: see `walltime`")
        else:
            return ""
    return ", and ".join(troubles)


def cancel(ids: Collection[str], *, kill: bool = False) -> None:
    """End jobs; ``kill`` gives them no time. Those that are over are no error. Raises BatchSystemUnavailable."""
    if not ids:
        return
    if kill:  # to the processes; the scancel below is for what is left of the job, and for those that wait
        _run_command(["scancel", "--quiet", "--signal=KILL", "--batch", *sorted(ids)], tolerant=True)
    _run_command(["scancel", "--quiet", *sorted(ids)], tolerant=True)


def _run_command(command: list[str], *, tolerant: bool = False, timeout: float = ANSWER) -> str:
    hidden = ("SQUEUE_", "SCANCEL_")  # a user's own filters and formats
    environ = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    environ |= {"SLURM_TIME_FORMAT": "%s", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env=environ,
            check=False,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C on the terminal is not for it
        )
    except subprocess.TimeoutExpired as error:
        raise BatchSystemUnavailable(f"{command[0]} did not answer within {timeout:.0f} s") from error
    except OSError as error:
        raise BatchSystemUnavailable(f"{command[0]}: {error}") from error
    if done.returncode != 0 and not (tolerant and not is_soft(done.stderr)):
        raise BatchSystemUnavailable(one_line(done.stderr) or f"{command[0]} ended with exit code {done.returncode}")
    return done.stdout


def in_words(reason: str) -> str:
    """SLURM's reason why a job waits, with what it means: ``Priority: other jobs come first``."""
    name, meaning = reason_name(reason), reason_meaning(reason)
    if name and meaning and name in reason:
        return f"{name}: {meaning}"
    return meaning or name


def reason_meaning(reason: str) -> str:
    """What a reason means; empty where it is none that we know."""
    name = reason_name(reason)
    if name in _WAITS or name in _HOPELESS:
        return _WAITS.get(name) or _HOPELESS[name]
    if _OVER_ITS_LIMIT.fullmatch(name):
        return "it asks for more than one job of this account or quality of service may have"
    if _SHARED_LIMIT.fullmatch(name):
        return "a limit of this account or quality of service is reached"
    return ""


def reason_name(reason: str) -> str:
    """The reason without what SLURM writes behind it; empty where it has not looked at the job."""
    plain = reason.strip().strip("()")
    if plain.startswith("Nodes required for job"):
        return "NodesNotAvail"
    return "" if plain == "None" else plain.partition(",")[0]


def is_hopeless(reason: str) -> bool:
    """Whether a job that waits for this reason waits for ever, unless somebody changes the job or the partition."""
    name = reason_name(reason)
    return name in _HOPELESS or _OVER_ITS_LIMIT.fullmatch(name) is not None


def refusal_text(error: str) -> str:
    """What sbatch said, in one line, from the text of the error that dask-jobqueue makes of it."""
    _, mark, stderr = error.partition("stderr:")
    lines = []
    for line in (stderr if mark else error).splitlines():
        message = re.sub(r"^(sbatch|qsub|bsub|oarsub|msub|condor_submit): (error: )?", "", line.strip())
        message = re.sub(r"^(Batch job submission failed|allocation failure): ", "", message)
        if message and message not in lines and not message.startswith("Try "):
            lines.append(message)
    return one_line("; ".join(lines))[:300] or one_line(error)[:300]


def is_soft(words: str) -> bool:
    """Whether it is the controller's trouble, and the same will work once it is back."""
    text = words.lower()
    return any(phrase in text for phrase in _SOFT)


def is_final(words: str) -> bool:
    """Whether the same request will be refused for ever."""
    text = words.lower()
    return not is_soft(words) and any(phrase in text for phrase in _NEVER)
