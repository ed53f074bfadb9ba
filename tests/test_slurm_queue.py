"""A queue of studies on SLURM: one job cancelled, one file's data broken, the driver killed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from slurm_sandbox import Sandbox
from slurm_studies import Study, write_profile

from ptydask.store import reader

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def test_exact_budgets_whatever_is_lost(slurm: Sandbox, toy_params: Callable[..., Path], tmp_path: Path) -> None:
    """The study with broken data fails, the others have every trial once, no job is left."""
    files = [
        toy_params(3, "first", sleep=0.3),
        toy_params(3, "unread", bad_data=True),
        toy_params(3, "second", sleep=0.3),
        toy_params(3, "third", sleep=0.1),
    ]
    profile = ("--cluster", str(write_profile(tmp_path)), "--workers", "2")
    command = [sys.executable, "-m", "ptydask", "run", *map(str, files), "--engine", "toy", *profile]
    it = Study(slurm, command, tmp_path / "out" / "first.h5", 6, cwd=tmp_path)
    it.begin()
    try:
        it.until(lambda: it.recorded() > 0)
        slurm.scancel(it.running()[0].id)
        it.until(lambda: "study 3 of 4" in it.text)
        it.process.kill()
        it.process.wait()
        it.begin()
        assert it.finish() == 2, it.text
    finally:
        it.end()
    for name in ("first", "second", "third"):
        with reader.open(tmp_path / "out" / f"{name}.h5") as results:
            assert len(results.records()) == 6
    left = [job for job in slurm.jobs() if job.name.startswith("ptydask-") and not job.over]
    assert not [job for job in left if job.state != "COMPLETING"], left
