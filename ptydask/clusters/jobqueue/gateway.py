"""Whatever waits for a batch system or for workers: begun here, looked up later; nothing of it holds up the driver."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection, Coroutine, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distributed.protocol import pickle

from ptydask.clusters.jobqueue import diagnosis, slurm
from ptydask.clusters.jobqueue.jobs import Job, find_log
from ptydask.clusters.jobqueue.preload import end_process
from ptydask.clusters.jobqueue.slurm import BatchSystemUnavailable, JobStatus

if TYPE_CHECKING:
    from dask_jobqueue.core import JobQueueCluster

_SUBMIT = 180.0
"""Seconds for the submitting command; sbatch itself tries for two minutes where SLURM has too much to do."""
_ACCEPTED = r"(?:\A|Submitted batch job )(?P<job_id>\d+)"
"""What sbatch says, also behind a site's banner, in which there may be other numbers."""
_RETIRE = 5.0
"""Seconds for the last results of idle workers to be fetched."""
_KILL = 3.0
"""Seconds for all workers to hear that they end now."""
_CANCEL = 20.0
"""Seconds for the cancelling command of a batch system other than SLURM."""
_ENDING = 3.0
"""Seconds for jobs to end once they are cancelled, before they are left to SLURM."""
_RECANCEL = 5.0
"""Seconds until they are cancelled again."""
_AGAIN = 0.4
"""Seconds between two looks while the end is awaited."""
_TAKES_WORK = ("init", "running")
"""Dask's words for workers that stay: one that registers says `init` first, and `running` a moment later."""


@dataclass(frozen=True, slots=True)
class SlurmQuery:
    """What SLURM is asked, or told."""

    ids: frozenset[str] = frozenset()
    cancel: frozenset[str] = frozenset()
    sweep: bool = False
    """Cancel all jobs of the run's name that are not among ``ids``."""


@dataclass(frozen=True, slots=True)
class SlurmReply:
    """What SLURM said."""

    seen: Mapping[str, JobStatus] = field(default_factory=dict)
    tails: Mapping[str, str] = field(default_factory=dict)
    """How the logs of those jobs end that are over, in one line."""
    swept: int = 0
    trouble: str = ""
    """Why there is no answer; nothing else is to be believed then."""


class BatchGateway:
    """The way to the batch system and to the workers, for one cluster."""

    def __init__(
        self, cluster: JobQueueCluster, *, is_slurm: bool, logs: Path, job_name: str, environ: Mapping[str, str]
    ) -> None:
        self._cluster, self._logs, self.job_name, self._environ = cluster, logs, job_name, environ
        self.is_slurm = is_slurm
        self._thread = ThreadPoolExecutor(1, "ptydask-jobs")
        self._reply: Future[SlurmReply] | None = None

    # --- workers ---

    def workers(self) -> dict[str, list[tuple[str, bool]]]:
        """Name -> addresses of connected workers, and whether each takes work."""
        by_name: dict[str, list[tuple[str, bool]]] = {}
        for state in list(self._cluster.scheduler.workers.values()):
            by_name.setdefault(str(state.name), []).append((state.address, state.status.name in _TAKES_WORK))
        return by_name

    def retire(self, addresses: Collection[str]) -> Future[Any]:
        """Have idle workers end, and their nannies with them; the scheduler sends them nothing more."""
        return self._run_on_loop(self._retire(addresses), _RETIRE + 1)

    async def _retire(self, addresses: Collection[str]) -> None:
        # Dask's own retire_workers keeps a worker for ever whose last result nobody else can take.
        scheduler = self._cluster.scheduler
        deadline = time.monotonic() + _RETIRE
        leaving = [scheduler.workers[address] for address in addresses if address in scheduler.workers]
        for state in leaving:
            scheduler.handle_worker_status_change("closing_gracefully", state, f"retire-{time.time()}")
        while any(state.has_what or state.processing for state in leaving) and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        for state in leaving:
            scheduler.close_worker(state.address)

    def remove(self, addresses: Iterable[str]) -> Future[Any]:
        """Have the scheduler forget workers, whatever they do."""
        return self._run_on_loop(self._remove(list(addresses)), _RETIRE)

    def end_workers(self) -> None:
        """Kill the processes of all workers, and wait a few seconds until they are gone."""
        scheduler = self._cluster.scheduler
        message = {"op": "run", "function": pickle.dumps(end_process)}
        self._run_on_loop(scheduler.broadcast(msg=message, nanny=True, on_error="ignore"), _KILL)
        deadline = time.monotonic() + _KILL
        while scheduler.workers and time.monotonic() < deadline:
            time.sleep(0.05)
        with contextlib.suppress(Exception):
            self.remove(list(scheduler.workers)).result(_RETIRE)

    async def _remove(self, addresses: list[str]) -> None:
        for address in addresses:
            await self._cluster.scheduler.remove_worker(address, stimulus_id=f"job-over-{time.time()}")

    def _run_on_loop(self, work: Coroutine[Any, Any, Any], limit: float) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, limit), self._cluster.loop.asyncio_loop)

    # --- jobs ---

    def submit(self, job: Job) -> None:
        """Ask for a job; its ``submission`` brings the id, or the error of the submitting command."""
        job.submission = asyncio.run_coroutine_threadsafe(self._submit(job), self._cluster.loop.asyncio_loop)

    async def _submit(self, job: Job) -> str:
        spec, scheduler = self._cluster.new_spec, self._cluster.scheduler
        address = getattr(scheduler, "contact_address", None) or scheduler.address
        job.handle = spec["cls"](address, name=job.name, **spec["options"])
        job.handle._call = partial(job.handle._call, env=self._environ)
        if self.is_slurm:
            job.handle.job_id_regexp = _ACCEPTED
        try:
            await asyncio.wait_for(job.handle.start(), _SUBMIT)
        except TimeoutError:
            raise BatchSystemUnavailable(f"{job.handle.submit_command} did not answer within {_SUBMIT:.0f} s") from None
        return str(job.handle.job_id)

    def ask(self, question: SlurmQuery) -> None:
        """Put a question to SLURM; one at a time."""
        assert self._reply is None
        self._reply = self._thread.submit(self._query_slurm, question)

    @property
    def waits_for_answer(self) -> bool:
        """Whether a question is under way, or its answer not yet picked up."""
        return self._reply is not None

    def answer(self) -> SlurmReply | None:
        """The answer, once."""
        if self._reply is None or not self._reply.done():
            return None
        reply, self._reply = self._reply.result(), None
        return reply

    def _query_slurm(self, question: SlurmQuery) -> SlurmReply:
        try:
            swept = self._unfinished_ids() - question.ids if question.sweep else set[str]()
            slurm.cancel(question.cancel | swept)
            states = slurm.query_jobs(question.ids)
        except BatchSystemUnavailable as error:
            return SlurmReply(trouble=str(error))
        failed = [job_id for job_id, status in states.items() if status.state == "FAILED"]
        for job_id in failed[: diagnosis.EXIT_CODES_ASKED]:  # a question each
            states[job_id] = replace(states[job_id], code=slurm.exit_code(job_id))
        ended = [job_id for job_id, status in states.items() if status.over or status == slurm.GONE]
        return SlurmReply(states, {job_id: self._log_tail(job_id) for job_id in ended}, len(swept))

    def _log_tail(self, job_id: str) -> str:
        path = find_log(self._logs, job_id)
        return diagnosis.last_words(diagnosis.read_tail(path)) if path is not None else ""

    def cancel(self, job: Job) -> Future[Any]:
        """End a job of a batch system other than SLURM."""
        return self._run_on_loop(job.handle.close(), _CANCEL)

    # --- the end ---

    def kill_jobs(self, jobs: Collection[Job]) -> Future[Any] | None:
        """Have jobs end at once, without time for a goodbye. Begins it only."""
        if not self.is_slurm:
            for job in jobs:
                self.cancel(job)
            return None
        return self._thread.submit(slurm.cancel, {job.id for job in jobs if job.id}, kill=True)

    def end_jobs(self, jobs: Collection[Job], limit: float) -> str:
        """End all jobs, and wait for their end ``limit`` seconds at most. What is left, in words; else empty."""
        deadline = time.monotonic() + limit
        wait([job.submission for job in jobs if job.submission is not None], limit / 2)
        if self.is_slurm:
            return self._thread.submit(self._end_slurm_jobs, deadline).result()
        cancelling = [self.cancel(job) for job in jobs if job.handle is not None]
        late = wait(cancelling, limit).not_done
        return f"{len(late)} jobs may be left: the batch system did not answer within {limit:.0f} s" if late else ""

    def _end_slurm_jobs(self, deadline: float) -> str:
        ending_since: float | None = None
        next_cancel: dict[str, float] = {}
        while True:
            try:
                # By name: also what was submitted while nobody listened any more.
                remaining = slurm.jobs_by_name(self.job_name)
                if not remaining:
                    return ""
                now = time.monotonic()
                uncancelled = [job_id for job_id, status in remaining.items() if status.state != "COMPLETING"]
                due = [job_id for job_id in uncancelled if now >= next_cancel.get(job_id, 0.0)]
                slurm.cancel(due)
                next_cancel |= dict.fromkeys(due, now + _RECANCEL)
                ending_since = None if uncancelled else ending_since or now
                if ending_since is not None and now - ending_since > _ENDING:
                    return ""  # its node does not answer; there is nothing left to cancel
                trouble = f"jobs {', '.join(sorted(remaining))} are still there"
            except BatchSystemUnavailable as error:
                trouble = f"SLURM does not answer ({error})"
            if time.monotonic() > deadline:
                return f"{trouble}; end what is left with: scancel --name={self.job_name}"
            time.sleep(_AGAIN)

    def sweep(self) -> int:
        """Cancel all jobs of this name. Returns how many there were. Raises BatchSystemUnavailable."""
        unfinished = self._unfinished_ids() if self.is_slurm else set[str]()
        slurm.cancel(unfinished)
        return len(unfinished)

    def _unfinished_ids(self) -> set[str]:
        jobs = slurm.jobs_by_name(self.job_name)
        return {job_id for job_id, status in jobs.items() if status.state != "COMPLETING"}

    def close(self) -> None:
        """No more questions."""
        self._thread.shutdown(wait=True, cancel_futures=True)
