"""A confirmation on SLURM jobs, of which one is cancelled."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from slurm_sandbox import Sandbox
from slurm_studies import Study, write_profile
from store_cases import put, record

import ptydask
from ptydask.driver.provenance import study_meta
from ptydask.model import TrialOutput
from ptydask.store import Store, confirmation, reader

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
FIT = """\
import os, time

def fit(params, report):
    for step in range(10):
        time.sleep(0.2)
        report(step, loss=params["x"] + int(os.environ["PTYDASK_SEED"]))
"""


def finished_study(folder: Path) -> Path:
    """Three trials of a function, with the seed 0."""
    (folder / "fit.py").write_text(FIT)
    sweep = {
        "name": "fits",
        "method": "random",
        "metric": {"name": "loss"},
        "parameters": {"x": {"min": 0.0, "max": 1.0}},
        "engine": {"callable": f"{folder}/fit.py:fit"},
        "run_cap": 3,
    }
    (folder / "sweep.json").write_text(json.dumps(sweep))
    plan = ptydask.validate(folder / "sweep.json", results=folder / "fits.h5")
    store = Store.open(plan.results, study_meta(plan))
    for number in range(3):
        made = record(number, number / 4, params={"x": number / 4}, metrics={"loss": number / 4}, seed=0)
        put(store, made, TrialOutput({"loss": number / 4}, {"step": [1.0], "loss": [number / 4]}))
    return store.finish()


def test_a_job_cancelled_in_a_repeat(slurm: Sandbox, tmp_path: Path) -> None:
    """Its repeat is run again; each is there once, with its seed, in the study's file."""
    path = finished_study(tmp_path)
    profile = write_profile(tmp_path)
    command = [sys.executable, "-m", "ptydask", "confirm", str(path), "--cluster", str(profile), "--workers", "2"]
    it = Study(slurm, [*command, "--top", "2", "--seeds", "2"], confirmation.companion_of(path), 4, cwd=tmp_path)
    it.begin()
    try:
        it.until(lambda: "repeat 1/" in it.text)
        slurm.scancel(it.running()[0].id)
        assert it.finish() == 0, it.text
    finally:
        it.end()
    with reader.open(path) as results:
        repeats = results.confirmation()
        assert repeats is not None
        with repeats:
            made = repeats.records()
            assert repeats.path == path
    assert sorted((r.params["trial"], r.params["seed"], r.error) for r in made) == [
        (0, 1, 1.0),
        (0, 2, 2.0),
        (1, 1, 1.25),
        (1, 2, 2.25),
    ]
    assert all(r.job for r in made)
