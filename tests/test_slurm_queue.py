"""A queue of studies on SLURM: one job cancelled, one file's data broken, the driver killed."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from slurm_sandbox import Sandbox
from slurm_studies import Study, write_profile

from ptydask.store import reader

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
NAMES = ("first", "second", "third")


@pytest.mark.parametrize("seed", [1, 2])
def test_exact_budgets_whatever_is_lost(
    seed: int, slurm: Sandbox, toy_params: Callable[..., Path], tmp_path: Path
) -> None:
    """The study with broken data fails, the others have every trial once, no job and no file of theirs is left."""
    files = [
        toy_params(3, "first", sleep=0.3),
        toy_params(3, "unread", bad_data=True),
        toy_params(3, "second", sleep=0.3),
        toy_params(3, "third", sleep=0.1),
    ]
    out, rng = tmp_path / "out", random.Random(seed)
    profile = ("--cluster", str(write_profile(tmp_path)), "--workers", "2")
    command = [sys.executable, "-m", "ptydask", "run", *map(str, files), "--engine", "toy", *profile]
    it = Study(slurm, command, out / "first.h5", 6, cwd=tmp_path)

    def recorded() -> int:
        return sum(len(list((out / f"{name}.trials").glob("[0-9]*.h5"))) for name in NAMES if not packed(name))

    def packed(name: str) -> bool:
        return not (out / f"{name}.trials").exists() and (out / f"{name}.h5").exists()

    def after(trials: int) -> None:
        it.until(lambda: recorded() + 6 * sum(map(packed, NAMES)) >= trials)
        time.sleep(rng.uniform(0, 1.0))

    cancelled = rng.randint(1, 4)
    killed = rng.randint(cancelled + 2, 12)
    it.begin()
    try:
        after(cancelled)
        slurm.scancel(it.running()[0].id)
        after(killed)
        it.process.kill()
        it.process.wait()
        it.begin()
        assert it.finish() == 2, it.text
    finally:
        it.end()
    again = []
    for name in NAMES:
        with reader.open(out / f"{name}.h5") as results:
            records = results.records()
        assert [record.state for record in records] == ["COMPLETE"] * 6
        assert len({record.number for record in records}) == 6
        assert len({json.dumps(dict(record.params), sort_keys=True) for record in records}) == 6
        again += [record.attempt for record in records if record.attempt > 1]
    assert len(again) <= 3, "one trial was lost with the job, and at most two with the driver"
    assert max(again, default=1) <= 3
    left = [job for job in slurm.jobs() if job.name.startswith("ptydask-") and not job.over]
    assert not [job for job in left if job.state != "COMPLETING"], left
    expected = {f"{name}{end}" for name in NAMES for end in (".h5", ".journal")}
    assert {path.name for path in out.iterdir()} == expected, (
        "also where the kill came while the one that fails was open"
    )
