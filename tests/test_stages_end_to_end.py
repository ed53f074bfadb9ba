"""A staged study of the real thing: demo data, real PtyRAD, from the rough look to the picture."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from stage_cases import grid, summarise

from ptydask import demo
from ptydask.store import reader

pytestmark = [pytest.mark.ptyrad, pytest.mark.slow]


def test_from_the_rough_look_to_the_picture(
    ptydask: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """A look at every other position, then the whole scan from the best reconstruction, then the final one."""
    params = demo.write(tmp_path)
    data = yaml.safe_load(params.read_text())
    data["hypertune_params"]["pruner_params"] = None
    data["ptydask"] = {
        "stages": [
            {
                "name": "rough",
                "tune": ["scale"],
                "trials": 2,
                "iterations": 2,
                "scan": {"every": 2},
                "sampler": grid(scale=[1.0, 1.04]),
            },
            {
                "name": "turn",
                "tune": ["rotation"],
                "trials": 2,
                "iterations": 2,
                "start_from": "best",
                "sampler": grid(rotation=[-1.0, 2.0]),
            },
        ],
        "final": {"iterations": 3},
    }
    params.write_text(yaml.safe_dump(data, sort_keys=False))
    done = ptydask("run", params, "--workers", 2)
    assert done.returncode == 0, done.stderr
    rough, turn, final = summarise(tmp_path / "demo.h5")
    assert [len(stage["trials"]) for stage in (rough, turn, final)] == [2, 2, 1]
    assert turn["values"] == rough["best"]
    assert final["values"] == {**rough["best"], **turn["best"]}
    with reader.open(tmp_path / "demo.h5") as file:
        with file.stage("rough") as stage:
            assert stage.trial(0).attributes["scan_share"] == pytest.approx(0.25, abs=0.05)
        with file.stage("turn") as stage:
            assert stage.meta.lineage is not None
            assert stage.meta.lineage.start_stage == "rough"
            first = stage.trial(stage.records()[0].number)
            assert "scan_share" not in first.attributes
        assert file.meta.lineage is not None
        assert file.meta.lineage.name == "final"
        picture = file.trial(0)
        assert picture.record.last_step == 3
        assert picture.arrays["object_phase"].read().any()
    again = ptydask("run", params, "--workers", 2)
    assert again.returncode == 0
    assert "nothing left to do" in again.stderr
