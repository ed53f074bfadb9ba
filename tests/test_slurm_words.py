"""What SLURM says and what is made of it; the output is that of Slurm 22.05."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ptydask.clusters.jobqueue import slurm
from ptydask.clusters.jobqueue.slurm import GONE, BatchSystemUnavailable, JobStatus

SQUEUE = """\
2|PENDING|PartitionDown||N/A
13|PENDING|Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions||N/A
19_[1-3]|PENDING|ReqNodeNotAvail, UnavailableNodes:node4||N/A
10|COMPLETED|None|node2|1795337503
8|FAILED|NonZeroExitCode|node2|1795337503
5|PENDING|Resources||1795344703
1|RUNNING|None|node1|1795341103
3|PENDING|PartitionTimeLimit||N/A
"""
SHOWN = "JobId=8 JobName=wrap JobState=FAILED Reason=NonZeroExitCode Requeue=0 BatchFlag=1 ExitCode={} RunTime=00:00:00"


def sbatch(stderr: str) -> str:
    """The error that dask-jobqueue raises over a failed sbatch."""
    command = "sbatch /tmp/tmp8w7v2nkc.sh"
    return f"Command exited with non-zero exit code.\nExit code: 1\nCommand:\n{command}\nstdout:\n\nstderr:\n{stderr}\n"


def test_squeue_is_read() -> None:
    seen = slurm.parse_squeue(SQUEUE)
    assert seen["1"] == JobStatus("RUNNING", "None", "node1", 1795341103.0)
    assert seen["8"] == JobStatus("FAILED", "NonZeroExitCode", "node2", 1795337503.0)
    assert seen["2"] == JobStatus("PENDING", "PartitionDown", "", None)
    assert seen["19"].reason == "ReqNodeNotAvail, UnavailableNodes:node4"
    assert {number for number, one in seen.items() if one.over} == {"10", "8"}


@pytest.mark.parametrize(
    "line",
    [
        "",
        "slurm_load_jobs error: Invalid job id specified",
        "JOBID|STATE|REASON|NODELIST|END",
        "12|RUNNING",
        "12|?|a|b|c",
    ],
)
def test_lines_of_another_shape_are_passed_over(line: str) -> None:
    assert slurm.parse_squeue(f"{line}\n{SQUEUE}") == slurm.parse_squeue(SQUEUE)


@pytest.mark.parametrize(
    ("line", "end"), [("7|RUNNING|a|b|node1|12345678", 12345678.0), ("7|RUNNING|a|b|n|NONE", None)]
)
def test_a_reason_may_hold_anything(line: str, end: float | None) -> None:
    assert (slurm.parse_squeue(line)["7"].reason, slurm.parse_squeue(line)["7"].end) == ("a|b", end)


@pytest.mark.parametrize(("code", "words"), [("127:0", "exit code 127"), ("0:9", "signal 9"), ("0:0", "")])
def test_exit_codes_in_words(code: str, words: str) -> None:
    assert slurm.parse_exit(SHOWN.format(code)) == words


def test_no_exit_code_no_words() -> None:
    assert slurm.parse_exit("slurm_load_jobs error: Invalid job id specified") == ""


@pytest.mark.parametrize(
    ("stderr", "words", "soft", "final"),
    [
        (
            "sbatch: error: invalid partition specified: nope\n"
            "sbatch: error: Batch job submission failed: Invalid partition name specified",
            "invalid partition specified: nope; Invalid partition name specified",
            False,
            True,
        ),
        (
            "sbatch: error: Memory specification can not be satisfied\n"
            "sbatch: error: Batch job submission failed: Requested node configuration is not available",
            "Memory specification can not be satisfied; Requested node configuration is not available",
            False,
            True,
        ),
        (
            "sbatch: unrecognized option '--frobnicate'\nTry \"sbatch --help\" for more information",
            "unrecognized option '--frobnicate'",
            False,
            True,
        ),
        ("sbatch: error: Invalid --time specification", "Invalid --time specification", False, True),
        (
            "sbatch: error: Batch job submission failed: Invalid feature specification",
            "Invalid feature specification",
            False,
            True,
        ),
        (
            "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
            "Unable to contact slurm controller (connect failure)",
            True,
            False,
        ),
        (
            "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
            "Socket timed out on send/recv operation",
            True,
            False,
        ),
        (
            "sbatch: error: slurm_msg_sendto: address:port=10.0.0.1:1 msg_type=4003: Unexpected missing socket error\n"
            "sbatch: error: Batch job submission failed: Unexpected missing socket error",
            "slurm_msg_sendto: address:port=10.0.0.1:1 msg_type=4003: Unexpected missing socket error; "
            "Unexpected missing socket error",
            True,
            False,
        ),
        (
            "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates "
            "accounting/QOS policy (job submit limit, user's size and/or time limits)",
            "QOSMaxSubmitJobPerUserLimit; Job violates accounting/QOS policy (job submit limit, user's size and/or "
            "time limits)",
            False,
            False,
        ),
    ],
)
def test_what_sbatch_says_when_it_refuses(stderr: str, words: str, soft: bool, final: bool) -> None:
    said = slurm.refusal_text(sbatch(stderr))
    assert (said, slurm.is_soft(said), slurm.is_final(said)) == (words, soft, final)


def test_a_missing_sbatch_is_final() -> None:
    said = slurm.refusal_text("[Errno 2] No such file or directory: 'sbatch'")
    assert slurm.is_final(said)
    assert "sbatch" in said


@pytest.mark.parametrize(
    "reason",
    [
        *(
            "PartitionTimeLimit",
            "PartitionNodeLimit",
            "PartitionDown",
            "BadConstraints",
            "InvalidAccount",
            "InvalidQOS",
        ),
        *("JobHeldUser", "JobHeldAdmin", "AssocMaxCpuPerJobLimit", "QOSMaxWallDurationPerJobLimit", "QOSMinGRES"),
        *("QOSMinCpuNotSatisfied", "AssocMaxGRESPerJob", "QOSMaxMemoryPerNode", "DependencyNeverSatisfied"),
    ],
)
def test_reasons_that_waiting_does_not_help(reason: str) -> None:
    assert slurm.is_hopeless(reason)
    assert slurm.in_words(reason).startswith(f"{reason}: ")


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("Priority", "Priority: other jobs come first"),
        ("Resources", "Resources: no free nodes"),
        ("None", "SLURM has not looked at it yet"),
        ("ReqNodeNotAvail, UnavailableNodes:node4", "ReqNodeNotAvail: nodes that it needs are down or reserved"),
        ("ReqNodeNotAvail, Reserved for maintenance", "ReqNodeNotAvail: nodes that it needs are down or reserved"),
        (
            "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions",
            "its nodes are down, drained or taken by jobs that come first",
        ),
        ("QOSMaxJobsPerUserLimit", "QOSMaxJobsPerUserLimit: a limit of this account or quality of service is reached"),
        ("QOSJobLimit", "QOSJobLimit: a limit of this account or quality of service is reached"),
        ("AccountingPolicy", "AccountingPolicy"),
        ("AssocMaxJobsLimit", "AssocMaxJobsLimit: a limit of this account or quality of service is reached"),
        ("AssocGrpGRES", "AssocGrpGRES: a limit of this account or quality of service is reached"),
        ("SomethingNew", "SomethingNew"),
    ],
)
def test_reasons_that_pass(reason: str, words: str) -> None:
    assert not slurm.is_hopeless(reason)
    assert slurm.in_words(reason) == words


# --- the commands ---


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that alone is on the PATH; the programs in it stand in for SLURM's."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def program(folder: Path, name: str, python: str) -> None:
    path = folder / name
    path.write_text(f"#!{sys.executable}\nimport os, sys, time\n{python}\n")
    path.chmod(0o755)


def test_one_question_for_all_jobs(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's own filters do not hide jobs; a job that SLURM has forgotten is gone."""
    monkeypatch.setenv("SQUEUE_PARTITION", "other")
    program(
        commands,
        "squeue",
        f"assert 'SQUEUE_PARTITION' not in os.environ and sys.argv[-1] == '1,2,99'\nprint({SQUEUE!r})",
    )
    seen = slurm.query_jobs({"1", "99", "2"})
    assert (seen["1"].state, seen["2"].state, seen["99"]) == ("RUNNING", "PENDING", GONE)


def test_a_single_forgotten_job_is_gone(commands: Path) -> None:
    program(commands, "squeue", "sys.exit('slurm_load_jobs error: Invalid job id specified')")
    assert slurm.query_jobs({"99"}) == {"99": GONE}


def test_no_question_without_jobs(commands: Path) -> None:
    assert slurm.query_jobs(set()) == {}


def test_a_controller_that_is_down_says_nothing_about_jobs(commands: Path) -> None:
    program(
        commands, "squeue", "sys.exit('slurm_load_jobs error: Unable to contact slurm controller (connect failure)')"
    )
    program(commands, "scancel", "sys.exit('scancel: error: Unable to contact slurm controller (connect failure)')")
    for ask in (slurm.query_jobs, slurm.cancel):
        with pytest.raises(BatchSystemUnavailable, match="Unable to contact"):
            ask({"1"})
    assert slurm.exit_code("1") == ""


def test_a_command_that_hangs_is_no_answer(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(commands, "squeue", "time.sleep(30)")
    monkeypatch.setattr(slurm._run_command, "__kwdefaults__", {"tolerant": False, "timeout": 0.2})
    with pytest.raises(BatchSystemUnavailable, match="did not answer"):
        slurm.query_jobs({"1"})


def test_cancelling_what_is_over_is_no_error(commands: Path) -> None:
    program(commands, "scancel", "sys.exit('scancel: error: Kill job error on job id 12: Invalid job id specified')")
    slurm.cancel({"12"}, kill=True)


def test_the_job_that_this_process_runs_in_is_not_one_of_ours(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(commands, "squeue", f"print({SQUEUE!r})")
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    assert sorted(slurm.jobs_by_name("ptydask-x")) == ["13", "19", "2", "3", "5"]


def test_the_module_loads_no_dask() -> None:
    """Words are needed where no Dask is, and in tests."""
    code = "import sys, ptydask.clusters.jobqueue.diagnosis; sys.exit('distributed' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
