"""A few random faults over one study; benchmarks/chaos.py does a hundred."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from slurm_sandbox import Sandbox

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "chaos.py"
SEED, FAULTS, TRIALS = 248, 8, 12

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


@pytest.fixture(scope="module")
def chaos() -> ModuleType:
    spec = importlib.util.spec_from_file_location("chaos", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["chaos"] = importlib.util.module_from_spec(spec)
    path = sys.path[:]
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


def test_a_study_survives(slurm: Sandbox, tmp_path: Path, chaos: ModuleType) -> None:
    """Exactly the trials that were asked for, each as if nothing had happened, and nothing left running."""
    survived = chaos.survive(slurm, tmp_path, seed=SEED, faults=FAULTS, trials=TRIALS, workers=4, step=0.3)
    print("\n".join(survived.log))
    print(chaos.table(survived, None, TRIALS))
    assert survived.faults.total() == FAULTS
    assert len(survived.faults) >= FAULTS - 2  # of different kinds
    assert survived.begun > TRIALS
    assert survived.resumed
