"""Staged studies on SLURM: the same jobs from the first stage to the last, also over a killed driver."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from slurm_sandbox import Sandbox
from slurm_studies import Study, write_profile
from stage_cases import summarise, write_staged

from ptydask.store import reader

Params = Callable[..., Path]

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
COUNTS = [("rough", 4), ("turn", 5), ("again", 3), ("final", 1)]


@contextmanager
def staged(slurm: Sandbox, toy_params: Params, *args: str) -> Iterator[Study]:
    """A staged run in the background."""
    params = write_staged(toy_params, sleep=0.2)
    profile = write_profile(params.parent)
    command = [sys.executable, "-m", "ptydask", "run", str(params), "--engine", "toy", "--cluster", str(profile), *args]
    it = Study(slurm, command, params.parent / "out" / "toy.h5", 13, cwd=params.parent)
    it.begin()
    try:
        yield it
    finally:
        it.end()


def jobs_by_stage(results: Path) -> dict[str, set[str]]:
    with reader.open(results) as file:
        jobs = {}
        for name in file.stage_names():
            with file.stage(name) as stage:
                jobs[name] = {record.job for record in stage.records()}
    return jobs


def expect_all(it: Study) -> None:
    assert [(stage["name"], len(stage["trials"])) for stage in summarise(it.results)] == COUNTS
    left = [job for job in it.slurm.jobs() if job.name.startswith("ptydask-") and not job.over]
    assert not [job for job in left if job.state != "COMPLETING"], left
    assert sorted(path.name for path in it.results.parent.iterdir()) == ["toy.h5", "toy.journal"]


def test_jobs_outlive_their_stage(slurm: Sandbox, toy_params: Params) -> None:
    """As many as are asked for, for all stages; adaptive ones are not sent home where a stage has few trials left."""
    with staged(slurm, toy_params, "--adapt", "1:2") as it:
        assert it.finish() == 0, it.text
    expect_all(it)
    jobs = jobs_by_stage(it.results)
    assert len(set.union(*jobs.values())) <= 2, jobs
    assert jobs["rough"] & jobs["again"]


def test_a_driver_killed_in_a_later_stage(slurm: Sandbox, toy_params: Params) -> None:
    """What it left running is known by the results file, whatever stage asked for it; the same command goes on."""
    with staged(slurm, toy_params, "--workers", "2") as it:
        it.until(lambda: "stage 2 of 4: turn begins" in it.text)
        it.until(lambda: it.recorded() > 0)
        it.process.kill()
        it.process.wait()
        it.begin()
        assert it.finish() == 0, it.text
    expect_all(it)
