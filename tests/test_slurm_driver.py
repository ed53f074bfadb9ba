"""The driver as a SLURM job: it stops in good order, queues again, and goes on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from slurm_sandbox import SCRIPTS, Sandbox
from slurm_studies import STEPS, Study, write_profile
from store_cases import packed, record

from ptydask.store import reader

Params = Callable[..., Path]

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def test_requeued_driver(slurm: Sandbox, toy_params: Params, tmp_path: Path) -> None:
    """Its workers were told to go with it; it goes on with the same study, to the trial and to the bit.

    The earlier study whose points it tries first is moved away meanwhile: each of them is tried once all the same.
    """
    last = packed(tmp_path / "last.h5", [record(n) for n in range(3)])
    params = toy_params(walk=True, iterations=STEPS, sleep=0.25)
    profile = write_profile(tmp_path)
    script = SCRIPTS / "driver.sbatch"
    log = tmp_path / "driver.log"
    options = ["--mem=1G", "--time=60", f"--chdir={tmp_path}", f"--output={log}"]
    arguments = [params, "--engine", "toy", "--cluster", profile, "--workers", "2", "--trials", "6", "--from", last]
    command = ["sbatch", "--parsable", *options, str(script), *map(str, arguments), "--checkpoint-every", "0"]
    environ = {**slurm.env, "PTYDASK_PYTHON": sys.executable}
    driver = int(subprocess.check_output(command, env=environ, cwd=tmp_path, text=True, timeout=60))
    folder = tmp_path / "out" / "toy.trials"
    slurm.wait(lambda: len(list(folder.glob("*.checkpoint"))) >= 2, 60)
    last.rename(tmp_path / "moved.h5")
    slurm.call("scancel", "--batch", "--signal=USR1", driver)
    slurm.wait(lambda: "queues again and goes on" in log.read_text(), 60)
    slurm.wait_for_state(driver, "COMPLETED", timeout=120)
    said = log.read_text()
    assert "the same command goes on from here" in said, said
    assert said.count("study     toy") == 2, said
    assert "goes on without it" in said, said
    it = Study(slurm, command, tmp_path / "out" / "toy.h5", 6, cwd=tmp_path)
    it.said.append(said)
    it.expect_all()
    assert it.resumed()
    with reader.open(it.results) as study:
        taken = [record.origin for record in study.records() if record.origin.startswith("from ")]
    assert sorted(taken) == [f"from last.h5, trial {n}" for n in range(3)]
