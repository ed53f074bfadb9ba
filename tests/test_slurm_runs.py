"""Whole studies on SLURM: workers and their GPUs, as many as there is work, files over the connection, PtyRAD."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from slurm_sandbox import Sandbox
from slurm_studies import STEPS, Study, study, worker_processes, write_profile

from ptydask.store import reader

Params = Callable[..., Path]
Ptydask = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


# --- GPUs ---------------------------------------------------------------------------------------------


def gpus_of_jobs(it: Study) -> dict[str, dict[str, set[str]]]:
    """Job -> worker -> the CUDA_VISIBLE_DEVICES that its trials had."""
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    with reader.open(it.results) as results:
        for record in results.records():
            found[record.job][record.worker].add(str(results.trial(record.number).attributes["cuda"]))
    return found


@pytest.mark.parametrize(
    ("workers", "more", "jobs", "gpus"),
    [
        (3, {"exclude": "node3"}, 3, 1),
        (2, {"gpus": 2, "cpus": 2}, 1, 2),
        (2, {"cpus": 2, "per_gpu": 2}, 1, 1),
    ],
    ids=["one-each", "two-a-job", "two-on-one"],
)
def test_workers_and_their_gpus(
    slurm: Sandbox, toy_params: Params, workers: int, more: dict[str, object], jobs: int, gpus: int
) -> None:
    """Workers of a node have different GPUs, in one job or several; ``--workers-per-gpu 2`` puts two on one."""
    params = toy_params(walk=True, iterations=STEPS, sleep=0.2)
    per_gpu = int(str(more.pop("per_gpu", 1)))
    profile = write_profile(params.parent, **more)
    options = ("--workers", workers, "--workers-per-gpu", per_gpu)
    with study(slurm, params, *options, total=2 * workers, cluster=profile) as it:
        assert it.finish() == 0, it.text
    it.expect_all()
    found = gpus_of_jobs(it)
    assert len(found) == jobs
    on_node: dict[str, list[str]] = defaultdict(list)
    for job, having in found.items():
        assert all(len(cuda) == 1 for cuda in having.values())  # a worker stays where it is
        assert len(set.union(*having.values())) == gpus
        on_node[slurm.job(int(job)).node] += [next(iter(cuda)) for cuda in having.values()]
    assert sum(map(len, on_node.values())) == workers
    assert any(len(cuda) > 1 for cuda in on_node.values())
    assert all(cuda.count(one) == per_gpu for cuda in on_node.values() for one in set(cuda))


# --- as many workers as there is work -----------------------------------------------------------------


def test_adapt(slurm: Sandbox, toy_params: Params) -> None:
    """``--adapt 0:3``: three workers, and towards the end no more than there are trials left; no trial is lost."""
    params = toy_params(walk=True, iterations=STEPS, sleep=0.8)
    with study(slurm, params, "--adapt", "0:3", total=4) as it:

        def active() -> list[int]:
            return [job.id for job in it.running() if worker_processes(slurm, job.id)]

        it.until(lambda: len(active()) == 3)
        it.until(lambda: it.recorded() == 3)
        assert len(active()) > 1  # they leave now
        it.until(lambda: len(active()) == 1)
        assert it.recorded() == 3  # the last one is under way
        (last,) = active()
        assert it.finish() == 0, it.text
    assert all(record.attempt == 1 for record in it.expect_all())
    assert len(slurm.jobs()) == 3
    assert {job.state for job in slurm.jobs() if job.id != last} == {"COMPLETED"}  # they left, and were not cancelled


# --- what is said beforehand --------------------------------------------------------------------------


def test_dry_run_prints_the_job_script(slurm: Sandbox, toy_params: Params, ptydask: Ptydask) -> None:
    """SLURM takes it as it is; nothing is submitted and nothing written."""
    params = toy_params()
    env = dict(slurm.env)
    profile = params.with_name("profile.yaml")

    def dry_run(**values: object) -> subprocess.CompletedProcess[str]:
        profile.write_text(json.dumps({"memory": "1GB", **values}))
        return ptydask("run", params, "--engine", "toy", "--cluster", profile, "--workers", 3, "--dry-run", env=env)

    done = dry_run()
    assert done.returncode == 0, done.stderr
    assert "to start at" in done.stderr.splitlines()[-1]
    assert done.stdout.startswith("#!/usr/bin/env bash\n")
    assert "\n#SBATCH -J ptydask-toy\n" in done.stdout
    assert f"exec {sys.executable} -m distributed.cli.dask_worker" in done.stdout
    assert "3 workers in 3 SLURM jobs" in done.stderr
    assert slurm.jobs() == []
    assert sorted(path.name for path in params.parent.iterdir()) == ["profile.yaml", "toy.yaml"]
    for wrong in ({"queue": "nope"}, {"gpu_type": "h100"}, {"constraint": "nope"}, {"exclude": "node99"}):
        done = dry_run(**wrong)
        assert (done.returncode, "would not take" in done.stderr.splitlines()[-1]) == (1, True), done.stderr
    for late in ({"queue": "closed"}, {"queue": "short"}):
        assert "not start it" in dry_run(**late).stderr.splitlines()[-1]
    for right in ({"memory": 0}, {"memory": None, "directives": ["--mem-per-gpu=1G"]}):
        assert "to start at" in dry_run(**right).stderr.splitlines()[-1]


def test_auto_is_slurm_where_it_answers(slurm: Sandbox, toy_params: Params, ptydask: Ptydask) -> None:
    """And this machine where it does not, or is not there; the first lines say why."""

    def workers(env: dict[str, str]) -> str:
        done = ptydask("run", toy_params(), "--engine", "toy", "--workers", 2, "--dry-run", env=env)
        (line,) = (line for line in done.stderr.splitlines() if line.startswith("workers"))
        return line

    env = dict(slurm.env)
    there = workers(env)
    assert "2 workers in 2 SLURM jobs" in there
    assert "(SLURM answers: " in there
    assert there.endswith(" is UP)")
    slurm.kill_slurmctld()
    silent = workers(env)
    assert "2 workers on this machine" in silent
    assert silent.endswith("(SLURM does not answer)")
    without = workers({**env, "PATH": str(Path(sys.executable).parent)})
    assert "2 workers on this machine" in without
    assert without.endswith("(sbatch is not on the PATH)")


# --- what trials leave --------------------------------------------------------------------------------


def test_files_travel_where_jobs_do_not_see_the_folder(slurm: Sandbox, toy_params: Params) -> None:
    """Trials' files of more than one message, and checkpoints: a trial goes on from one that came the same way."""
    size = 5_000_000
    params = toy_params(walk=True, iterations=STEPS, sleep=0.4, blind=True, array=size)
    with study(slurm, params, "--workers", 2, total=2) as it:
        it.until(lambda: it.under_way() >= 2)
        slurm.scancel(it.running()[0].id)
        assert it.finish() == 0, it.text
    records = it.expect_all()
    assert it.resumed()
    with reader.open(it.results) as results:
        for record in records:
            noise = results.trial(record.number).arrays["noise"].read()
            np.testing.assert_array_equal(noise, np.random.default_rng(record.seed).random(size, np.float32))


@pytest.mark.ptyrad
def test_ptyrad_goes_on_bit_for_bit(slurm: Sandbox, tmp_path: Path) -> None:
    """A reconstruction whose job is cancelled in the middle ends with the arrays of an undisturbed one, here."""
    from ptydask import demo

    params = demo.write(tmp_path / "demo")  # its own values are what is tried first
    run = [sys.executable, "-m", "ptydask", "run", str(params), "--set", "recon_params.NITER=40"]
    run += ["--trials", "1", "--workers", "1", "--checkpoint-every", "0"]
    core = min(os.sched_getaffinity(0))  # a job has one core, so has the worker here
    local = ["taskset", "-c", str(core), *run, "--cluster", "local", "--results", "here.h5"]
    on_slurm = [*run, "--cluster", str(write_profile(tmp_path, memory="2GB"))]
    disturbed = Study(slurm, on_slurm, tmp_path / "demo" / "demo.h5", 1, cwd=tmp_path)
    undisturbed = Study(slurm, local, tmp_path / "here.h5", 1, cwd=tmp_path)
    try:
        disturbed.begin()
        disturbed.until(lambda: disturbed.under_way() == 1)
        slurm.scancel(disturbed.running()[0].id)
        undisturbed.begin()
        assert undisturbed.finish() == 0, undisturbed.text
        assert disturbed.finish() == 0, disturbed.text
    finally:
        disturbed.end()
        undisturbed.end()
    assert disturbed.resumed(), disturbed.text
    assert not undisturbed.resumed()
    with reader.open(disturbed.results) as there, reader.open(undisturbed.results) as here:
        (ours,), (theirs,) = there.records(), here.records()
        assert (ours.attempt, ours.params) == (2, theirs.params)
        found, wanted = there.trial(ours.number), here.trial(theirs.number)
        assert set(found.arrays) == set(wanted.arrays) > {"probe"}
        for name, array in wanted.arrays.items():
            np.testing.assert_array_equal(found.arrays[name].read(), array.read(), err_msg=name)
        assert set(found.curve) == set(wanted.curve)
        for name in set(wanted.curve) - {"seconds"}:
            np.testing.assert_array_equal(found.curve[name], wanted.curve[name], err_msg=name)
