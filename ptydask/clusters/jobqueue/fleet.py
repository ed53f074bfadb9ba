"""The fleet: the jobs of a run, started, watched, replaced and ended. See :class:`ptydask.clusters.Cluster`."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING

from distributed import Client

from ptydask.clusters import ClusterRequest, ClusterStatus, WorkerDemand, scaling
from ptydask.clusters.jobqueue import advice, diagnosis, launch, slurm, systems
from ptydask.clusters.jobqueue.gateway import BatchGateway, SlurmQuery, SlurmReply
from ptydask.clusters.jobqueue.jobs import Job, find_log
from ptydask.clusters.jobqueue.profile import Profile, worker_limits
from ptydask.clusters.jobqueue.slurm import BatchSystemUnavailable
from ptydask.clusters.settings import silence_dask
from ptydask.errors import ClusterError, one_line
from ptydask.stop_signals import held_back

if TYPE_CHECKING:
    from dask_jobqueue.core import JobQueueCluster

_HOT = 5.0
"""Seconds between questions to the batch system where something has just happened; then less and less often."""
_COOLS = 1.5
"""How the time between two questions grows."""
_GROWTH = 1.0
"""Seconds between two times that jobs are asked for."""
_BACK = 60.0
"""Seconds for a nanny to bring back its worker before the job is ended for another."""
_LEAVE = 8.0
"""Seconds for workers to leave a job that is to end before it is cancelled."""
_RECANCEL = 10.0
"""Seconds until a job that has not ended is cancelled again."""
_LINGER = 15.0
"""Seconds that a worker may stay connected when its job is over, before the scheduler forgets it."""
_SUSPECT = 45.0
"""Seconds for the batch system to say why a worker went that was getting ready."""
_NEVER_JOINS = 1800.0
"""Seconds that a job may run without its worker joining."""
_CLOSE = 20.0
"""Seconds for all jobs to end when the run does."""
_CLOSE_NOTHING = 3.0
"""The same where no job was ever accepted."""


class Fleet:
    """Jobs with workers on a batch system. One thread uses it, that of the driver."""

    client: Client

    def __init__(self, cluster: JobQueueCluster, profile: Profile, request: ClusterRequest) -> None:
        self._cluster, self._profile = cluster, profile
        self._limits = worker_limits(profile, request)
        self._logs = launch.log_folder(profile, request)
        self._gateway = BatchGateway(
            cluster,
            is_slurm=profile.system == "slurm",
            logs=self._logs,
            job_name=launch.job_name(request),
            environ=systems.submit_environment(profile, os.environ),
        )
        self._jobs: dict[str, Job] = {}
        self._counts = diagnosis.FailureCounts()
        self._notices: list[str] = []
        self._told_waits: frozenset[str] = frozenset()
        self._trouble = ""
        """Why SLURM does not answer; empty while it does."""
        self._number = 0
        self._next_question = 0.0
        self._hot = min(_HOT, profile.poll)
        self._interval = self._hot
        self._grown = 0.0
        self._sweep = False
        """Whether there may be jobs that nobody here knows: no other is asked for until they are gone."""
        self._sweeping = False
        self._unfinished: int | None = None
        self._was_busy: set[str] = set()
        self._keep_logs = False
        self._wanted = 0

    # --- beginning and end ---

    def __enter__(self) -> Fleet:
        """Connect, and cancel what a driver that died has left. Raises ClusterError."""
        silence_dask()
        try:
            with held_back():
                self.client = Client(self._cluster, set_as_default=False)
            self._first_sweep()
        except BaseException:
            self.close()
            raise
        return self

    def _first_sweep(self) -> None:
        try:
            cancelled = self._gateway.sweep()
        except BatchSystemUnavailable as error:
            self._sweep = True
            self._note_silence(str(error))
            return
        if cancelled:
            self._notices.append(f"{cancelled} jobs that an earlier run has left were cancelled")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End all jobs. The jobs' logs are removed, unless one of them ended too early."""
        with held_back():
            # A submission that brought no answer may have made a job all the same.
            may_have_jobs = self._counts.accepted or self._counts.silences > 0
            trouble = self._gateway.end_jobs(list(self._jobs.values()), _CLOSE if may_have_jobs else _CLOSE_NOTHING)
            if trouble:
                logging.getLogger(__name__).warning("%s", trouble)
            self._gateway.close()
            if hasattr(self, "client"):
                self.client.close()
            if not self._keep_logs:
                shutil.rmtree(self._logs, ignore_errors=True)

    def stop_workers(self) -> None:
        """End all workers now, in the middle of whatever they do; the scheduler goes on answering."""
        with held_back():
            self._gateway.kill_jobs(list(self._jobs.values()))
            self._gateway.end_workers()

    # --- a tick ---

    def tend(self, need: WorkerDemand) -> ClusterStatus:
        """See :meth:`ptydask.clusters.Cluster.tend`."""
        now = time.time()
        self._collect_submissions(now)
        self._update_workers(need, now)
        self._read_reply(now)
        self._judge_suspects(now)
        self._scale_jobs(need, now)
        self._finish_jobs(need, now)
        self._ask_slurm(now)
        self._raise_if_hopeless()
        return self._cluster_status(now)

    def _live_jobs(self) -> list[Job]:
        return [job for job in self._jobs.values() if job.live]

    def _ask_soon(self) -> None:
        self._interval = self._hot
        self._next_question = min(self._next_question, time.time() + self._hot)

    # --- what happened ---

    def _collect_submissions(self, now: float) -> None:
        for job in list(self._jobs.values()):
            if job.submission is None or not job.submission.done():
                continue
            try:
                job.accept(job.submission.result())
                self._counts = diagnosis.count_accepted(self._counts)
                if not self._gateway.is_slurm:  # no other is ever asked anything
                    self._note_answer()
                self._ask_soon()
            except Exception as error:
                del self._jobs[job.name]
                self._note_refusal(slurm.refusal_text(str(error) or type(error).__name__), now)

    def _note_refusal(self, words: str, now: float) -> None:
        before, self._counts = self._counts, diagnosis.count_refusal(self._counts, words, now)
        if self._counts.silences > before.silences:
            self._sweep = self._gateway.is_slurm  # it may have taken the job and lost the answer
            self._note_silence(words)
        elif self._counts.last != before.last:
            self._notices.append(f"a job was {self._counts.last}")

    def _note_silence(self, words: str) -> None:
        if not self._trouble:
            self._notices.append(f"the batch system does not answer ({words}); workers go on, jobs wait until it does")
        self._trouble = words

    def _note_answer(self) -> None:
        if self._trouble:
            self._notices.append("the batch system answers again")
            self._trouble = ""

    def _update_workers(self, need: WorkerDemand, now: float) -> None:
        by_name = self._gateway.workers()
        for job in self._jobs.values():
            workers = dict(worker for name in job.worker_names() for worker in by_name.get(name, ()))
            if workers and not job.known:
                self._ask_soon()  # only the batch system knows how long it may stay
            going = {address for address, takes_work in workers.items() if not takes_work}
            lost, back = job.update_workers(set(workers), going, now)
            if lost:
                self._ask_soon()
            if back:
                self._notices.append(f"a worker of {job.title} died, and was started again in the same job")
            for address in job.known & need.unfit.keys():
                self._note_unfit(job, address, need.unfit[address], now)
            self._send_away(job, job.fit & set(need.expired))
        self._note_work(need)

    def _note_unfit(self, job: Job, address: str, why: str, now: float) -> None:
        if address in job.there:
            self._send_away(job, {address})
            self._note_death(job, f"{job.title}: {why}", now)
        elif job.live:
            job.suspect = (now, why)
            self._ask_soon()

    def _send_away(self, job: Job, addresses: set[str]) -> None:
        if addresses:
            job.leaving |= addresses
            job.unwanted |= job.workers == 0
            self._gateway.retire(addresses)

    def _note_work(self, need: WorkerDemand) -> None:
        fit = {address for job in self._live_jobs() for address in job.fit}
        idle = (self._was_busy & fit) - set(need.busy)
        if idle or (self._unfinished is not None and need.unfinished < self._unfinished):
            self._counts = diagnosis.count_success(self._counts)
        self._was_busy, self._unfinished = set(need.busy), need.unfinished

    def _note_death(self, job: Job, text: str, now: float) -> None:
        if not job.dead:
            job.dead = True
            self._keep_logs |= find_log(self._logs, job.id) is not None
            self._counts = diagnosis.count_death(self._counts, text, now)
            self._notices.append(text)

    def _judge_suspects(self, now: float) -> None:
        for job in self._live_jobs():
            if job.suspect is not None and (job.there or now - job.suspect[0] > _SUSPECT):
                self._note_death(job, f"{job.title}: {job.suspect[1]}", now)
                self._begin_end(job, now)

    # --- what SLURM says ---

    def _read_reply(self, now: float) -> None:
        reply = self._gateway.answer()
        if reply is None:
            return
        swept, self._sweeping = self._sweeping, False
        if reply.trouble:
            self._note_silence(reply.trouble)
            return
        self._sweep = self._sweep and not swept
        self._note_answer()
        if reply.swept:
            self._notices.append(f"{reply.swept} jobs were cancelled that nobody was waiting for")
        for job in list(self._jobs.values()):
            if job.id in reply.seen:
                self._update_job(job, reply, now)

    def _update_job(self, job: Job, reply: SlurmReply, now: float) -> None:
        was_over = job.over is not None
        if job.update_status(reply.seen[job.id], now):
            self._ask_soon()
        if job.over is None or was_over or job.unwanted:
            return
        outcome = diagnosis.judge_ending(job, self._log_path(job), reply.tails.get(job.id, ""))
        if job.suspect is not None and job.seen is not None and diagnosis.own_fault(job.seen):
            # What the driver saw of its worker, and what the batch system says of the job: together the whole story.
            self._note_death(job, f"{job.title}: {job.suspect[1]}; {outcome.text}", now)
        elif outcome.early:
            self._note_death(job, outcome.text, now)
        elif not job.dead:
            self._notices.append(outcome.text)
            if not job.known:
                self._counts = diagnosis.count_setback(self._counts, outcome.text, now)

    # --- growing and shrinking ---

    def _scale_jobs(self, need: WorkerDemand, now: float) -> None:
        loads = [job.load(need.busy) for job in self._live_jobs()]
        leaving = sum(len(job.there) for job in self._jobs.values()) - sum(load.joined for load in loads)
        decision = scaling.decide_scaling(loads, unfinished=need.unfinished, limits=self._limits, leaving=leaving)
        self._wanted = decision.start
        for name in decision.close:
            self._begin_end(self._jobs[name], now)
        # No job is asked for while some may be there that nobody here knows, nor soon after a failure or the last ones.
        if self._sweep or now < self._counts.not_before or now - self._grown < _GROWTH:
            return
        if decision.start and not self._end_reason():
            self._grown = now
            submitting = sum(job.submission is not None for job in self._jobs.values())
            for _ in range(min(decision.start, scaling.jobs_at_once(self._counts.failures) - submitting)):
                self._start_job(now)

    def _start_job(self, now: float) -> None:
        self._number += 1
        job = Job(launch.worker_name(self._number), self._limits.per_job, now, None)
        self._jobs[job.name] = job
        self._wanted -= 1
        self._gateway.submit(job)

    def _log_path(self, job: Job) -> str:
        return str(find_log(self._logs, job.id) or "")

    def _begin_end(self, job: Job, now: float, *, unwanted: bool = True) -> None:
        if job.closing is None:
            job.closing, job.unwanted = now, job.unwanted or unwanted
            self._send_away(job, job.there - job.leaving)
            self._ask_soon()

    def _finish_jobs(self, need: WorkerDemand, now: float) -> None:
        """End jobs that are of no more use, and forget those of which nothing is left."""
        for job in list(self._jobs.values()):
            if job.unwanted and not job.there & set(need.busy):
                self._begin_end(job, now)  # its workers were all sent away: one that does not go is cancelled
            if job.live:
                self._check_running(job, now)
            if job.over is not None and job.there and now - job.over > _LINGER:
                job.over = now
                self._gateway.remove(job.there)
            if job.over is not None and not job.there:
                del self._jobs[job.name]
            elif job.closing is not None and not self._gateway.is_slurm and not job.there and job.submission is None:
                self._gateway.cancel(job)
                del self._jobs[job.name]

    def _check_running(self, job: Job, now: float) -> None:
        if job.empty_since is not None and now - job.empty_since > (_BACK if job.workers else _LEAVE):
            if job.workers:
                self._notices.append(f"{job.title} has lost its worker for {_BACK:.0f} s: another job is started")
            self._begin_end(job, now, unwanted=False)
        late = "" if job.told else diagnosis.late_join_text(job, now)
        if late:
            job.told = True
            log = self._log_path(job)
            self._notices.append(f"{late}; its log: {log}" if log else late)
        if job.running_since is not None and not job.known and now - job.running_since > _NEVER_JOINS:
            self._note_death(job, f"{job.title}: its worker did not join within {_NEVER_JOINS / 60:.0f} min", now)
            self._begin_end(job, now)

    def _to_cancel(self, now: float) -> Iterator[Job]:
        for job in self._jobs.values():
            # Its workers have a few seconds to leave by themselves; without any there is nothing to wait for.
            due = job.closing is not None and (not job.known or now - job.closing > _LEAVE)
            if due and job.id and job.over is None and now - job.cancelled > _RECANCEL:
                yield job

    # --- asking, telling ---

    def _ask_slurm(self, now: float) -> None:
        if not self._gateway.is_slurm or self._gateway.waits_for_answer:
            return
        cancel = [] if self._trouble and now < self._next_question else list(self._to_cancel(now))
        ids = frozenset(job.id for job in self._jobs.values() if job.id and job.over is None)
        question_due = now >= self._next_question and (ids or self._trouble or self._sweep)
        if not cancel and not question_due:
            return
        for job in cancel:
            job.cancelled = now
        submitting = any(job.submission is not None for job in self._jobs.values())
        self._sweeping = self._sweep and not submitting
        self._gateway.ask(SlurmQuery(ids, frozenset(job.id for job in cancel), self._sweeping))
        self._interval = min(self._profile.poll, self._interval * _COOLS)
        self._next_question = now + self._interval

    def _end_reason(self) -> str:
        live = self._live_jobs()
        fit = sum(len(job.fit) for job in live)
        stuck = "" if self._counts.ever_worked else diagnosis.stuck_reason(live, time.time())
        return diagnosis.verdict(self._counts, fit=fit, alive=len(live)) or stuck

    def _raise_if_hopeless(self) -> None:
        text = self._end_reason()
        if text:
            what_to_do = advice.advice_for(text) if self._gateway.is_slurm else ""
            raise ClusterError(one_line("; ".join(filter(None, [text, what_to_do]))))

    def _cluster_status(self, now: float) -> ClusterStatus:
        live = self._live_jobs()
        lines, self._told_waits = diagnosis.queue_news(live, self._told_waits, now)
        notices, self._notices = (*self._notices, *lines), []
        trouble = "the batch system does not answer" if self._trouble else ""
        waiting = ", ".join(filter(None, [diagnosis.waiting_text(live), trouble]))
        return ClusterStatus(
            notices=notices,
            coming=sum(job.workers - len(job.fit) for job in live) + self._wanted * self._limits.per_job,
            waiting=waiting,
            deadlines={
                address: job.seen.end - self._profile.grace
                for job in live
                if job.seen is not None and job.seen.end is not None and job.seen.state == "RUNNING"
                for address in job.there
            },
            closing=frozenset(address for job in self._jobs.values() for address in job.there - job.fit),
        )
