"""What became of jobs, in words; when a run has to end for it; what is known of one job. Without any SLURM."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ptydask.clusters.jobqueue import diagnosis
from ptydask.clusters.jobqueue.diagnosis import FailureCounts
from ptydask.clusters.jobqueue.jobs import Job, find_log
from ptydask.clusters.jobqueue.slurm import GONE, JobStatus

STORY = Job("job1", 1, 100.0, None, id="12")
JOINED = {"tls://10.0.0.1:4242"}
RAISED = """\
2026-11-22 09:06:12,341 - distributed.nanny - INFO - Start Nanny at: 'tls://10.0.0.1:4242'
Traceback (most recent call last):
  File "/site-packages/click/core.py", line 1514, in __call__
    return self.main(*args, **kwargs)
           ^^^^^^^^^^^^^^^^^^^^^^^^^^
ModuleNotFoundError: No module named 'does_not_exist'
"""
NOT_FOUND = "/var/spool/slurmd/job00008/slurm_script: line 21: /nope/python: No such file or directory\n"
CANCELLED = "loading\nslurmstepd-node2: error: *** JOB 20 ON node2 CANCELLED AT 2026-11-22T08:51:47 ***\n"


# --- endings ---


@pytest.mark.parametrize(
    ("seen", "joined", "text", "early"),
    [
        (
            JobStatus("FAILED", "NonZeroExitCode", "node2", code="exit code 127"),
            False,
            "job 12 on node2 ended before its worker joined: FAILED (NonZeroExitCode), exit code 127",
            True,
        ),
        (
            JobStatus("COMPLETED", "None", "node2"),
            False,
            "job 12 on node2 ended before its worker joined: COMPLETED",
            True,
        ),
        (
            JobStatus("TIMEOUT", "TimeLimit", "n1"),
            False,
            "job 12 on n1 ended before its worker joined: TIMEOUT (TimeLimit)",
            True,
        ),
        (JobStatus("CANCELLED", "None", ""), False, "job 12 was cancelled while it waited (CANCELLED)", False),
        (
            JobStatus("CANCELLED", "None", "n1"),
            False,
            "job 12 on n1 was cancelled before its worker joined (CANCELLED)",
            False,
        ),
        (JobStatus("NODE_FAIL", "NodeDown", "n1"), False, "job 12 on n1 lost its node (NODE_FAIL)", False),
        (
            JobStatus("PREEMPTED", "None", "n1"),
            False,
            "job 12 on n1 had to make way for a job that comes first (PREEMPTED)",
            False,
        ),
        (GONE, False, "SLURM no longer knows job 12", True),
        (
            JobStatus("TIMEOUT", "TimeLimit", "n1"),
            True,
            "job 12 on n1 reached the end of its walltime (TIMEOUT)",
            False,
        ),
        (JobStatus("NODE_FAIL", "None", "n1"), True, "job 12 on n1 lost its node (NODE_FAIL)", False),
        (JobStatus("CANCELLED", "None", "n1"), True, "job 12 on n1 was cancelled (CANCELLED)", False),
        (
            JobStatus("OUT_OF_MEMORY", "OutOfMemory", "n1"),
            True,
            "job 12 on n1 ran out of memory (OUT_OF_MEMORY): its job needs more `memory`",
            False,
        ),
        (
            JobStatus("FAILED", "NonZeroExitCode", "n1", code="signal 9"),
            True,
            "job 12 on n1 ended: FAILED (NonZeroExitCode), signal 9",
            False,
        ),
        (JobStatus("COMPLETED", "None", "n1"), True, "job 12 on n1 ended (COMPLETED)", False),
    ],
)
def test_each_ending_in_its_words(seen: JobStatus, joined: bool, text: str, early: bool) -> None:
    assert diagnosis.judge_ending(replace(STORY, seen=seen, known=JOINED if joined else set())) == diagnosis.JobOutcome(
        text, early
    )


def test_an_early_death_shows_the_end_of_its_log() -> None:
    job, log = replace(STORY, seen=JobStatus("FAILED")), "/jobs/x-12.out"
    assert diagnosis.judge_ending(job, log, "no such module").text.endswith(
        "FAILED; its log ends: no such module (/jobs/x-12.out)"
    )
    assert diagnosis.judge_ending(job, log).text.endswith("FAILED; its log is empty")


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (RAISED, "ModuleNotFoundError: No module named 'does_not_exist'"),
        (NOT_FOUND, NOT_FOUND.strip()),
        (CANCELLED, "loading"),
        ("", ""),
        ("\n \n", ""),
        ("one\ntwo\nthree\nfour\n", "two | three | four"),
    ],
)
def test_a_log_in_one_line(log: str, words: str) -> None:
    assert diagnosis.last_words(log) == words


def test_a_huge_binary_log_gives_a_short_line(tmp_path: Path) -> None:
    path = tmp_path / "ptydask-x-7.out"
    path.write_bytes(b"\xff\x00" * 500_000 + b"\nthe end\n")
    assert diagnosis.last_words(diagnosis.read_tail(path)).endswith("the end")
    assert len(diagnosis.last_words(diagnosis.read_tail(path))) <= 300
    assert diagnosis.read_tail(tmp_path / "none") == ""


def test_logs_are_found_by_the_whole_id(tmp_path: Path) -> None:
    for name in ("ptydask-x-7.out", "ptydask-x-71.out", "ptydask-7b-5.out"):
        (tmp_path / name).touch()
    assert find_log(tmp_path, "7") == tmp_path / "ptydask-x-7.out"
    assert find_log(tmp_path, "8") is None
    assert find_log(tmp_path, "") is None
    assert find_log(tmp_path / ("x" * 300), "7") is None, "a disk that raises errors ends no run"


# --- waiting ---


def pending(reason: str, asked: float = 0.0, hopeless_since: float | None = None) -> Job:
    return Job("job1", 1, asked, None, id="1", seen=JobStatus("PENDING", reason), hopeless_since=hopeless_since)


def test_what_jobs_wait_for_in_a_few_words() -> None:
    stories = [pending("Priority"), pending("Priority"), pending("Resources"), Job("job9", 1, 0.0, None)]
    assert diagnosis.waiting_text(stories) == "2 jobs pending (Priority), 1 job pending (Resources), 1 job starting"
    assert diagnosis.waiting_text([]) == ""
    assert diagnosis.waiting_text([replace(STORY, known=JOINED)]) == ""


def test_a_reason_is_told_once_and_again_after_the_queue_was_empty() -> None:
    told: frozenset[str] = frozenset()
    lines = []
    for now in range(60):
        news, told = diagnosis.queue_news([pending("Priority")], told, float(now))
        lines += news
    assert lines == ["job 1 has waited in the queue for 10 s: Priority: other jobs come first"]
    news, told = diagnosis.queue_news([pending("Resources"), pending("Resources")], told, 70.0)
    assert news == ["2 jobs have waited in the queue for 70 s: Resources: no free nodes"]
    _, told = diagnosis.queue_news([replace(STORY, known=JOINED)], told, 80.0)
    assert diagnosis.queue_news([pending("Priority", asked=80)], told, 95.0)[0] != []


def test_a_queue_that_never_grants_ends_the_run() -> None:
    down = pending("PartitionDown", hopeless_since=10.0)
    assert diagnosis.stuck_reason([down], 11.0) == ""
    assert diagnosis.stuck_reason([down], 30.0) == "job 1 will not start: PartitionDown: the partition is down"
    assert diagnosis.stuck_reason([down, down], 30.0).startswith("2 jobs, job 1 the first of them, will not start")


def test_hope_from_one_job_is_enough() -> None:
    down = pending("PartitionDown", hopeless_since=10.0)
    for other in (pending("Priority"), replace(STORY, known=JOINED, there=JOINED), Job("job3", 1, 0.0, None)):
        assert diagnosis.stuck_reason([down, other], 60.0) == ""
    assert diagnosis.stuck_reason([], 60.0) == ""


def test_a_worker_that_is_long_in_coming_is_told_of() -> None:
    runs = replace(STORY, seen=JobStatus("RUNNING", nodes="n1"), running_since=100.0)
    assert diagnosis.late_join_text(runs, 200.0) == ""
    assert diagnosis.late_join_text(runs, 230.0) == "job 12 runs on n1 for 130 s, and no worker has joined"
    assert diagnosis.late_join_text(replace(runs, known=JOINED), 230.0) == ""
    assert diagnosis.late_join_text(STORY, 500.0) == "job 12 was asked for 400 s ago, and no worker has joined"


# --- counting ---


def test_five_early_deaths_in_a_row_end_the_run_with_the_text_of_the_last() -> None:
    tally = FailureCounts()
    for number in range(5):
        assert diagnosis.verdict(tally, fit=0, alive=1) == ""
        tally = diagnosis.count_death(tally, f"job {number} ended", 0.0)
    assert (
        diagnosis.verdict(tally, fit=0, alive=1)
        == "5 jobs in a row ended before a worker got ready; the last: job 4 ended"
    )


def test_jobs_that_others_end_are_asked_for_again_but_not_for_ever() -> None:
    tally = FailureCounts()
    for number in range(20):
        assert diagnosis.verdict(tally, fit=0, alive=1) == ""
        tally = diagnosis.count_setback(tally, f"job {number} was cancelled", 0.0)
    assert "20 jobs in a row were ended by others" in diagnosis.verdict(tally, fit=0, alive=1)
    assert tally.not_before == 60.0, "and more and more seldom"
    assert diagnosis.verdict(diagnosis.count_success(tally), fit=0, alive=1) == ""


def test_a_worker_that_got_ready_in_between_starts_the_count_anew() -> None:
    tally = FailureCounts()
    for _ in range(20):
        tally = diagnosis.count_death(diagnosis.count_success(diagnosis.count_death(tally, "x", 0.0)), "x", 0.0)
        assert diagnosis.verdict(tally, fit=0, alive=1) == ""


def test_while_others_work_a_broken_node_ends_no_run() -> None:
    tally = FailureCounts()
    for _ in range(9):
        tally = diagnosis.count_death(tally, "x", 100.0)
    assert diagnosis.verdict(tally, fit=1, alive=3) == ""
    assert tally.not_before == 160.0, "but jobs are asked for less and less often"


def test_what_can_never_be_accepted_ends_the_run_at_once() -> None:
    tally = diagnosis.count_refusal(FailureCounts(), "invalid partition specified: nope", 0.0)
    assert diagnosis.verdict(tally, fit=0, alive=0) == "the job was not accepted: invalid partition specified: nope"


def test_after_an_accepted_job_or_with_others_alive_a_refusal_ends_nothing() -> None:
    words = "invalid partition specified: gone"
    assert (
        diagnosis.verdict(
            diagnosis.count_refusal(diagnosis.count_accepted(FailureCounts()), words, 0.0), fit=0, alive=0
        )
        == ""
    )
    limit = FailureCounts()
    for _ in range(9):
        limit = diagnosis.count_refusal(limit, "QOSMaxSubmitJobPerUserLimit", 0.0)
    assert diagnosis.verdict(limit, fit=1, alive=2) == ""
    assert "9 times in a row" in diagnosis.verdict(limit, fit=0, alive=0)


def test_the_controllers_trouble_is_never_counted() -> None:
    tally = FailureCounts()
    for _ in range(50):
        tally = diagnosis.count_refusal(tally, "Unable to contact slurm controller (connect failure)", 0.0)
    assert diagnosis.verdict(tally, fit=0, alive=0) == ""
    assert tally.not_before == 60.0
    assert diagnosis.count_accepted(tally).failures == 0


# --- one job ---


def job(**more: object) -> Job:
    return Job("job1", 2, 0.0, None, id="7", **more)  # type: ignore[arg-type]


def test_the_workers_of_a_job() -> None:
    one = job()
    assert list(one.worker_names()) == ["job1-0", "job1-1"]
    assert one.load(()).workers == 2
    one.update_workers({"a", "b"}, set(), 1.0)
    assert (one.load({"b", "z"}).joined, one.load({"b", "z"}).busy) == (2, 1)
    one.update_workers({"a", "b"}, {"a"}, 2.0)
    assert (one.workers, one.fit) == (1, {"b"}), "a was told to go and brings nobody back"


def test_a_lost_worker_is_waited_for_and_noticed_when_it_is_back() -> None:
    one = job()
    assert one.update_workers({"a", "b"}, set(), 1.0) == (False, False)
    assert one.update_workers({"b"}, set(), 2.0) == (True, False)
    assert (one.workers, one.empty_since) == (2, None)
    assert one.update_workers({"b", "c"}, set(), 3.0) == (False, True)
    assert one.update_workers(set(), set(), 4.0) == (True, False)
    assert one.empty_since == 4.0


def test_a_worker_that_was_sent_away_is_no_loss() -> None:
    one = job(leaving={"a"})
    one.update_workers({"a", "b"}, set(), 1.0)
    assert one.update_workers({"b"}, set(), 2.0) == (False, False)


@pytest.mark.parametrize(
    ("state", "over"), [("COMPLETING", False), ("RUNNING", False), ("PREEMPTED", True), ("GONE", True)]
)
def test_a_job_is_over_by_slurms_word_alone(state: str, over: bool) -> None:
    one = job()
    one.update_status(GONE if state == "GONE" else JobStatus(state), 5.0)
    assert (one.over is not None) == over


def test_a_job_that_slurm_forgot_is_not_over_while_its_worker_is_there() -> None:
    one = job()
    one.update_workers({"a"}, set(), 1.0)
    one.update_status(GONE, 2.0)
    assert one.over is None


def test_a_requeued_job_begins_anew() -> None:
    one = job()
    one.update_status(JobStatus("RUNNING"), 1.0)
    one.update_workers({"a", "b"}, set(), 2.0)
    one.update_workers(set(), {"a"}, 3.0)
    one.update_status(JobStatus("PENDING", "BeginTime"), 4.0)
    assert (one.workers, one.known, one.empty_since, one.running_since) == (2, set(), None, None)
