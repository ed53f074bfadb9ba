"""What to do where a run cannot have its jobs."""

from __future__ import annotations

import pytest

from ptydask.clusters.jobqueue import advice


@pytest.mark.parametrize(
    ("said", "key"),
    [
        ("its log ends: ptydask: the python of the profile, /no/python, is not there on n1", "`python`"),
        ("its log ends: ModuleNotFoundError: No module named 'ptydask'", "`environment`"),
        ("module: command not found | ptydask: module load cuda failed on n1", "`modules`"),
        ("the job was not accepted: invalid partition specified: gpus", "`queue`"),
        ("job 3 will not start: PartitionDown: the partition is down", "`queue`"),
        ("the job was not accepted: Requested time limit is invalid", "`walltime`"),
        ("the job was not accepted: Invalid account or account/partition combination specified", "`account`"),
        ("the job was not accepted: Invalid qos specification", "`qos`"),
        ("the job was not accepted: Invalid generic resource (gres) specification", "`gpu_type`"),
        ("the job was not accepted: Invalid feature specification", "`constraint`"),
        ("the job was not accepted: Requested node configuration is not available", "no node has what a job asks for"),
        ("job 3 on n1 ended before its worker joined: FAILED (JobLaunchFailure), signal 53", "`shared_directory`"),
        ("the job was not accepted: unrecognized option '--nope'", "`directives`"),
    ],
)
def test_advice_names_what_to_change(said: str, key: str) -> None:
    assert key in advice.advice_for(said)


def test_nothing_to_advise() -> None:
    assert (
        advice.advice_for("5 jobs in a row ended before a worker got ready; the last: job 12 on n2 ended: signal 9")
        == ""
    )
