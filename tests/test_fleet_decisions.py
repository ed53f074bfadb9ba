"""What the fleet decides from tick to tick, with a batch system and workers that the test makes up."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ptydask.clusters import ClusterRequest, ClusterStatus, WorkerDemand
from ptydask.clusters.jobqueue import fleet as fleets
from ptydask.clusters.jobqueue import gateway as desks
from ptydask.clusters.jobqueue import slurm
from ptydask.clusters.jobqueue.fleet import Fleet
from ptydask.clusters.jobqueue.gateway import SlurmQuery, SlurmReply
from ptydask.clusters.jobqueue.jobs import Job
from ptydask.clusters.jobqueue.preload import pin_gpu
from ptydask.clusters.jobqueue.profile import Profile
from ptydask.clusters.jobqueue.slurm import BatchSystemUnavailable, JobStatus
from ptydask.errors import ClusterError

REFUSED = "Command exited with non-zero exit code.\nstdout:\n\nstderr:\nsbatch: error: {}\n"


class Desk:
    """A batch system without any: jobs are accepted as ``refuse`` says, and in the state that the test puts them."""

    is_slurm = True
    job_name = "ptydask-x"

    def __init__(self, *_args: object, **_more: object) -> None:
        self.connected: dict[str, list[tuple[str, bool]]] = {}
        self.states: dict[str, JobStatus] = {}
        self.submitted: list[Job] = []
        self.cancelled: list[str] = []
        self.retired: list[str] = []
        self.removed: list[str] = []
        self.questions: list[SlurmQuery] = []
        self.refuse = ""
        self.trouble = ""
        self._answer: SlurmReply | None = None

    def workers(self) -> Mapping[str, list[tuple[str, bool]]]:
        return self.connected

    def retire(self, addresses: Collection[str]) -> None:
        self.retired += addresses

    def remove(self, addresses: Iterable[str]) -> None:
        self.removed += addresses

    def submit(self, job: Job) -> None:
        self.submitted.append(job)
        job.submission = Future()
        if self.refuse:
            job.submission.set_exception(RuntimeError(REFUSED.format(self.refuse)))
        else:
            number = str(len(self.submitted))
            job.submission.set_result(number)
            self.states[number] = JobStatus("PENDING", "Resources")

    @property
    def waits_for_answer(self) -> bool:
        return self._answer is not None

    def ask(self, question: SlurmQuery) -> None:
        self.questions.append(question)
        self.cancelled += question.cancel
        seen = {number: self.states[number] for number in question.ids}
        self._answer = SlurmReply(trouble=self.trouble) if self.trouble else SlurmReply(seen)

    def answer(self) -> SlurmReply | None:
        answer, self._answer = self._answer, None
        return answer


class World:
    """A fleet, its made-up batch system, and the clock."""

    def __init__(self, fleet: Fleet, desk: Desk) -> None:
        self.fleet, self.desk, self.now = fleet, desk, 1000.0
        self.notices: list[str] = []

    def tick(self, unfinished: int, busy: Collection[str] = (), seconds: float = 1.0, **more: Any) -> ClusterStatus:
        self.now += seconds
        tended = self.fleet.tend(WorkerDemand(unfinished, busy, **more))
        self.notices += tended.notices
        return tended

    def id(self, job: Job) -> str:
        return str(self.desk.submitted.index(job) + 1)

    def join(self, job: Job, *addresses: str, end: float | None = None) -> None:
        self.desk.states[self.id(job)] = JobStatus("RUNNING", "None", "n1", end)
        for name, address in zip(job.worker_names(), addresses, strict=True):
            self.desk.connected[name] = [(address, True)]

    def leave(self, job: Job, state: str) -> None:
        self.desk.states[self.id(job)] = JobStatus(state, "None", "n1")
        for name in job.worker_names():
            self.desk.connected.pop(name, None)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., World]:
    def make(workers: int, **profile: Any) -> World:
        monkeypatch.setattr(fleets, "BatchGateway", Desk)
        request = ClusterRequest(workers, 0, folder=tmp_path, label="x")
        fleet = Fleet(SimpleNamespace(), Profile(**{"gpus": 1, "grace": 60, **profile}), request)  # type: ignore[arg-type]
        made = World(fleet, fleet._gateway)  # type: ignore[arg-type]
        monkeypatch.setattr(fleets, "time", SimpleNamespace(time=lambda: made.now))
        return made

    return make


def test_jobs_are_asked_for_ten_at_a_time(world: Callable[..., World]) -> None:
    it = world(32)
    grown = []
    for _ in range(5):
        it.tick(100)
        grown.append(len(it.desk.submitted))
    assert grown == [10, 20, 30, 32, 32]
    assert len({job.name for job in it.desk.submitted}) == 32


def test_a_job_that_ends_is_replaced_by_exactly_one(world: Callable[..., World]) -> None:
    it = world(3)
    it.tick(9)
    it.tick(9)
    for number, job in enumerate(it.desk.submitted):
        it.join(job, f"w{number}")
    it.tick(9)
    it.leave(it.desk.submitted[1], "PREEMPTED")
    for _ in range(20):
        it.tick(9, ["w0", "w2"])
    assert len(it.desk.submitted) == 4
    assert "job 2 on n1 had to make way for a job that comes first (PREEMPTED)" in it.notices


def test_a_worker_that_was_told_to_go_keeps_its_job_until_it_has_saved(world: Callable[..., World]) -> None:
    """Nothing is cancelled under it, nothing is sent to it, and the next job waits for its place."""
    it = world(1)
    it.tick(9)
    it.join(it.desk.submitted[0], "w0")
    it.tick(9)
    it.desk.connected["job1"] = [("w0", False)]
    for _ in range(30):
        assert it.tick(9, ["w0"]).closing == {"w0"}
    assert it.desk.cancelled == []
    assert len(it.desk.submitted) == 1
    it.leave(it.desk.submitted[0], "COMPLETING")
    it.tick(9)
    it.tick(9)
    assert len(it.desk.submitted) == 2


def test_idle_workers_go_when_the_study_runs_out(world: Callable[..., World]) -> None:
    it = world(2)
    it.tick(2)
    it.join(it.desk.submitted[0], "w0")
    it.tick(2)
    tended = it.tick(1, ["w0"])
    it.tick(1, ["w0"])
    assert it.desk.cancelled == ["2"], "the one that waits goes first"
    assert tended.coming == 0
    it.tick(0)
    assert it.desk.retired == ["w0"]


def test_an_outage_is_told_once_and_ends_nothing(world: Callable[..., World]) -> None:
    it = world(1)
    it.tick(5)
    it.join(it.desk.submitted[0], "w0")
    it.tick(5)
    it.desk.trouble = "Unable to contact slurm controller"
    for _ in range(100):
        assert it.tick(5, ["w0"]).waiting in ("", "the batch system does not answer")
    it.desk.trouble = ""
    for _ in range(40):
        it.tick(5, ["w0"])
    told = [line for line in it.notices if "answer" in line]
    assert [line[:33] for line in told] == ["the batch system does not answer ", "the batch system answers again"]
    assert len(it.desk.submitted) == 1


def test_while_no_job_can_be_asked_for_waiting_makes_sense(world: Callable[..., World]) -> None:
    """And the answer that got lost is looked for before anything is asked for again."""
    it = world(4)
    it.desk.refuse = "Batch job submission failed: Socket timed out on send/recv operation"
    for _ in range(300):
        assert it.tick(5).coming == 4
    assert len(it.desk.submitted) < 20
    assert any(question.sweep for question in it.desk.questions)
    it.desk.refuse = ""
    for _ in range(70):
        it.tick(5)
    assert len(it.fleet._jobs) == 4


def test_what_an_earlier_run_left_goes_before_a_job_is_asked_for(world: Callable[..., World]) -> None:
    """Also where the batch system does not answer at first: those jobs would keep nodes that nobody uses."""
    it = world(2)

    def sweep() -> int:
        raise BatchSystemUnavailable("connect failure")

    it.desk.sweep = sweep  # type: ignore[attr-defined]
    it.desk.trouble = "connect failure"
    it.fleet._first_sweep()
    for _ in range(20):
        assert it.tick(5).coming == 2
    assert it.desk.submitted == []
    it.desk.trouble = ""
    for _ in range(5):
        it.tick(5)
    assert all(question.sweep for question in it.desk.questions if not question.ids)
    assert len(it.desk.submitted) == 2
    assert [line[:33] for line in it.notices] == ["the batch system does not answer ", "the batch system answers again"]


def test_other_systems_go_on_after_an_outage(world: Callable[..., World]) -> None:
    """They cannot be asked what became of the request whose answer got lost."""
    it = world(2)
    it.desk.is_slurm = False
    it.desk.refuse = "qsub: cannot connect to server head (errno=111) Connection refused"
    for _ in range(5):
        it.tick(5)
    assert "the batch system does not answer" in it.tick(5).waiting
    it.desk.refuse = ""
    for _ in range(20):
        tended = it.tick(5)
    assert len(it.fleet._jobs) == 2
    assert tended.waiting == "2 jobs starting"


def test_a_request_that_is_refused_for_ever_ends_the_run_at_once(world: Callable[..., World]) -> None:
    it = world(4)
    it.desk.refuse = "invalid partition specified: nope"
    it.tick(5)
    with pytest.raises(ClusterError, match="not accepted: invalid partition specified: nope"):
        it.tick(5)


def test_five_unfit_workers_in_a_row_end_the_run(world: Callable[..., World]) -> None:
    it = world(1)

    for number in range(1, 6):
        it.tick(5, seconds=20.0)
        job = it.desk.submitted[-1]
        it.join(job, f"w{number}")
        it.tick(5, [f"w{number}"])
        if number == 5:
            break
        it.tick(5, unfit={f"w{number}": "no torch"})
        it.leave(job, "COMPLETED")
        it.tick(5)
        it.tick(5)
    with pytest.raises(ClusterError, match=r"5 jobs in a row ended before .* the last: job 5: no torch"):
        it.tick(5, unfit={"w5": "no torch"})
    assert [line for line in it.notices if "torch" in line] == [f"job {number}: no torch" for number in range(1, 5)]


def test_what_slurm_did_to_a_job_is_not_held_against_it(world: Callable[..., World]) -> None:
    """Workers that were getting ready when their jobs were preempted are no early deaths."""
    it = world(1)
    for _ in range(8):
        it.tick(5, seconds=20.0)
        job = it.desk.submitted[-1]
        it.join(job, f"of-{job.name}")
        it.tick(5, [f"of-{job.name}"])
        it.leave(job, "PREEMPTED")
        it.tick(5, unfit={f"of-{job.name}": "it died while it loaded the measurements"})
        for _ in range(8):
            it.tick(5)
    assert len(it.desk.submitted) >= 8
    assert not any("measurements" in line for line in it.notices)


def test_an_expired_worker_is_replaced(world: Callable[..., World]) -> None:
    it = world(1)
    it.tick(5)
    it.join(it.desk.submitted[0], "w0", end=5000.0)
    it.tick(5)
    for _ in range(3):
        it.tick(5)
    assert it.tick(5).deadlines == {"w0": 5000.0 - 60}, "a checkpoint needs its time"
    assert it.tick(5, expired=["w0"]).closing == {"w0"}
    assert it.desk.retired == ["w0"]
    it.leave(it.desk.submitted[0], "COMPLETED")
    it.tick(5)
    it.tick(5)
    assert len(it.desk.submitted) == 2


def test_a_worker_that_does_not_go_when_it_is_sent_away_is_cancelled(world: Callable[..., World]) -> None:
    it = world(1)
    it.tick(5)
    it.join(it.desk.submitted[0], "w0")
    it.tick(5)
    it.tick(5, expired=["w0"])
    for _ in range(5):
        it.tick(5)
    assert it.desk.cancelled == [], "it has a few seconds"
    for _ in range(10):
        it.tick(5)
    assert set(it.desk.cancelled) == {"1"}
    it.leave(it.desk.submitted[0], "CANCELLED")
    for _ in range(10):
        it.tick(5)
    assert len(it.desk.submitted) == 2


def test_a_job_without_its_worker_is_ended_for_another(world: Callable[..., World]) -> None:
    """Its nanny has a minute to start the worker again."""
    it = world(1)
    it.tick(5)
    it.join(it.desk.submitted[0], "w0")
    it.tick(5)
    it.desk.connected.clear()
    for _ in range(50):
        it.tick(5)
    assert it.desk.cancelled == []
    for _ in range(30):
        it.tick(5)
    assert set(it.desk.cancelled) == {"1"}
    assert len(it.desk.submitted) == 2


def test_a_worker_of_a_job_that_is_over_is_forgotten(world: Callable[..., World]) -> None:
    """Its node is lost to SLURM; the process may go on for long, and its trial is another's by now."""
    it = world(1)
    it.tick(5)
    it.join(it.desk.submitted[0], "w0")
    it.tick(5)
    it.desk.states["1"] = JobStatus("NODE_FAIL", "NodeDown", "n1")
    for _ in range(60):
        assert it.tick(5, ["w0"]).closing in ((), frozenset(), {"w0"})
    assert "w0" in it.desk.removed


def test_slurm_is_asked_often_after_something_happened_and_seldom_later(world: Callable[..., World]) -> None:
    it = world(1, poll=30.0)
    it.tick(5)
    it.join(it.desk.submitted[0], "w0")
    for _ in range(20):
        it.tick(5, ["w0"])
    first = len(it.desk.questions)
    for _ in range(600):
        it.tick(5, ["w0"])
    assert 3 <= first <= 5
    assert 18 <= len(it.desk.questions) - first <= 30


def test_a_tick_is_cheap(world: Callable[..., World]) -> None:
    it = world(100)
    for _ in range(12):
        it.tick(1000)
    for number, job in enumerate(it.desk.submitted):
        it.join(job, f"w{number}")
    busy = {f"w{number}" for number in range(100)}
    it.tick(1000, busy)
    began = time.perf_counter()
    for _ in range(50):
        it.tick(1000, busy)
    assert (time.perf_counter() - began) / 50 < 0.02


def desk_of(**cluster: Any) -> desks.BatchGateway:
    made = SimpleNamespace(**cluster)
    return desks.BatchGateway(cast(Any, made), is_slurm=True, logs=Path(), job_name="x", environ={"A": "b"})


def test_a_worker_that_is_registering_has_come_to_stay() -> None:
    """Dask calls it `init` until its registration is answered, which takes a while on a busy machine."""
    names = ("init", "running", "closing_gracefully", "closing")
    states = {n: SimpleNamespace(name=n, address=n, status=SimpleNamespace(name=n)) for n in names}
    desk = desk_of(scheduler=SimpleNamespace(workers=states))
    found = {name: takes_work for name, ((_, takes_work),) in desk.workers().items()}
    assert found == {"init": True, "running": True, "closing_gracefully": False, "closing": False}


class Handle:
    """A job of dask-jobqueue whose submitting command prints its environment, or hangs."""

    submit_command = "sbatch"
    hangs = False

    def __init__(self, _address: str, name: str) -> None:
        self.job_id = name

    async def start(self) -> None:
        self.job_id = await self._call(["sbatch", "script"])

    @staticmethod
    async def _call(_command: list[str], **more: object) -> str:
        await asyncio.sleep(60 * Handle.hangs)
        return str(more)


def test_a_submission_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts as an outage: the job may be there all the same."""
    monkeypatch.setattr(desks, "_SUBMIT", 0.1)
    desk = desk_of(scheduler=SimpleNamespace(address="a"), new_spec={"cls": Handle, "options": {}})
    assert asyncio.run(desk._submit(Job("job1", 1, 0.0, None))) == "{'env': {'A': 'b'}}"
    monkeypatch.setattr(Handle, "hangs", True)
    with pytest.raises(BatchSystemUnavailable, match=r"sbatch did not answer within 0 s") as raised:
        asyncio.run(desk._submit(Job("job1", 1, 0.0, None)))
    assert slurm.is_soft(str(raised.value))


@pytest.mark.parametrize(
    "said",
    [
        "Submitted batch job 77\n",
        "  Welcome to the Stampede3 Supercomputer\n--> 2 checks...OK\nSubmitted batch job 77 on cluster c2\n",
        "77;cluster\n",
    ],
)
def test_the_id_of_a_job_is_found_behind_a_banner(said: str) -> None:
    found = re.search(desks._ACCEPTED, said)
    assert found is not None
    assert found["job_id"] == "77"


def test_few_questions_are_asked_when_many_jobs_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """One for all of them; an exit code, which is a question each, only where it says something."""
    states = {str(n): JobStatus("FAILED" if n < 20 else "PREEMPTED") for n in range(100)}
    asked: list[str] = []
    monkeypatch.setattr(slurm, "query_jobs", lambda _ids: dict(states))

    def exit_code(number: str) -> str:
        asked.append(number)
        return "exit code 1"

    monkeypatch.setattr(slurm, "exit_code", exit_code)
    answer = desk_of()._query_slurm(SlurmQuery(frozenset(states)))
    assert answer.seen["0"].code == "exit code 1"
    assert len(asked) == 5
    assert all(answer.seen[number].state == "FAILED" for number in asked)


@pytest.mark.parametrize(
    ("name", "given", "own"),
    [
        ("job7", "3", "3"),
        ("job7-0", "0,1,2,3", "0"),
        ("job7-3", "0,1,2,3", "3"),
        ("job7-5", "0,1", "1"),
        ("job7-1", "MIG-a,MIG-b", "MIG-b"),
        ("job7-1", "", ""),
    ],
)
def test_each_worker_of_a_job_has_its_gpu(name: str, given: str, own: str) -> None:
    environ = {"CUDA_VISIBLE_DEVICES": given}
    pin_gpu(name, environ)
    assert environ == {"CUDA_VISIBLE_DEVICES": own}


def test_where_there_is_no_gpu_none_is_made_up() -> None:
    environ: dict[str, str] = {}
    pin_gpu("job7-1", environ)
    assert environ == {}


@pytest.mark.parametrize("worked", [False, True])
def test_a_partition_that_closes_after_work_was_done_is_waited_for(worked: bool, world: Callable[..., World]) -> None:
    """It was open, and opens again after maintenance; one that never gave a worker is a mistake in the profile."""
    it = world(1)
    it.tick(5)
    if worked:
        it.join(it.desk.submitted[0], "w0")
        it.tick(5, ["w0"])
        it.tick(5)
        it.leave(it.desk.submitted[0], "TIMEOUT")
        for _ in range(60):
            it.tick(5)
    it.desk.states[it.id(it.desk.submitted[-1])] = JobStatus("PENDING", "PartitionDown")

    def wait() -> None:
        for _ in range(60):
            it.tick(5)

    if worked:
        wait()
        assert any("PartitionDown" in notice for notice in it.notices)
    else:
        with pytest.raises(ClusterError, match="PartitionDown"):
            wait()
