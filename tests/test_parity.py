"""A trial gives what PtyRAD's own normal run gives with the same params and seed, to the last bit, on the CPU."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
from engine_cases import NEVER, SINCE_1, SLOT, VARIANTS, assert_same, go_on, params, plan, trial, write_patterns

from ptydask.engines.ptyrad import release
from ptydask.engines.ptyrad.session import PtyradSession
from ptydask.model import TrialOutput

pytestmark = [
    pytest.mark.ptyrad,
    pytest.mark.filterwarnings("ignore"),  # PtyRAD's own run warns; that ours does not is tested elsewhere
]

SEED = 7


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    release.installed()
    return write_patterns(tmp_path_factory.mktemp("data"))


class _OneProcess:
    """As much of an Accelerator as PtyRAD's LBFGS asks for outside of ``ptyrad run``."""

    num_processes, is_main_process = 1, True

    def backward(self, loss: Any) -> None:
        loss.backward()

    def wait_for_everyone(self) -> None: ...


def ptyrad_normal_run(config: dict[str, Any], seed: int) -> Any:
    """PtyRAD's model after its own reconstruction."""
    from ptyrad.solver import PtyRADSolver

    lbfgs = config["model_params"]["optimizer_params"]["name"] == "LBFGS"
    config = {**config, "hypertune_params": {**config["hypertune_params"], "if_hypertune": False}}
    solver = PtyRADSolver(config, device="cpu", seed=seed, acc=_OneProcess() if lbfgs else None)
    solver.reconstruct()
    return solver.reconstruct_results


@pytest.mark.parametrize("variant", [*VARIANTS, *SINCE_1])
def test_a_trial_equals_ptyrads_own_run(data: Path, variant: str) -> None:
    """The loss of every iteration and every array of the result are those of PtyRAD's own run."""
    if variant in SINCE_1 and not release.installed().schedules:
        pytest.skip("PtyRAD has this since 1.0")
    config = params(data, (VARIANTS | SINCE_1)[variant])
    ours = PtyradSession(plan(config), SLOT).run(trial(seed=SEED), go_on, NEVER)
    theirs = ptyrad_normal_run(config, SEED)
    assert list(ours.curve["loss"]) == [float(loss) for _, loss in theirs.loss_iters]
    _assert_arrays(ours, theirs)


def _assert_arrays(ours: TrialOutput, theirs: Any) -> None:
    def cpu(tensor: Any) -> Any:
        return tensor.detach().cpu().numpy()

    expected = {
        "object_phase": cpu(theirs.opt_objp),
        "object_amplitude": cpu(theirs.opt_obja),
        "probe": cpu(theirs.get_complex_probe_view()),
        "slice_thickness": cpu(theirs.opt_slice_thickness),
        "object_tilts": cpu(theirs.opt_obj_tilts),
    }
    for key, array in expected.items():
        np.testing.assert_array_equal(ours.arrays[key].data, array, err_msg=key)
    corner = cpu(theirs.crop_pos).astype(float) + cpu(theirs.opt_probe_pos_shifts)
    np.testing.assert_allclose(ours.arrays["positions"].data, corner * float(theirs.dx), rtol=1e-6)


def test_contrast_is_ptyrads_for_one_object_mode(data: Path) -> None:
    """The contrast equals PtyRAD's ``get_objp_contrast`` of the same model, to the last bit."""
    from ptyrad.core.losses import get_objp_contrast

    config = params(data, {"init_params.obj_Nlayer": 2})
    ours = PtyradSession(plan(config), SLOT).run(trial(seed=SEED), go_on, NEVER)
    theirs = get_objp_contrast(ptyrad_normal_run(config, SEED), np.arange(64))
    assert ours.metrics["contrast"] == float(theirs)


TEN: list[dict[str, Any]] = [
    {"rotation": 3.0},
    {"scale": 1.05, "rotation": 0.0},
    {"scale": 1.0, "rotation": 0.0},
    {"dx": 0.2},
    {"dz": 8.0, "Nlayer": 2},
    {"tilt_y": 5.0, "tilt_x": -5.0, "Nlayer": 2},
    {"optimizer": "SGD", "oplr": 1e-3},
    {"conv_angle": 22.0, "C10": -80.0},
    {"batch_size": 9, "pmode_max": 3},
    {},
]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["random", "sparse"])
def test_the_order_of_trials_does_not_matter(data: Path, mode: str) -> None:
    """Ten trials in two orders, and each a second time in the same session, give identical results."""
    session = PtyradSession(plan(params(data, {"recon_params.GROUP_MODE": mode})), SLOT)
    there = [session.run(trial(values, n), go_on, NEVER) for n, values in enumerate(TEN)]
    back = [session.run(trial(values, n), go_on, NEVER) for n, values in reversed(list(enumerate(TEN)))]
    for a, b in zip(there, reversed(back), strict=True):
        assert_same(a, b)
    assert_same(there[2], there[9])  # the identity is what the file has
    assert len({a.metrics["loss"] for a in there}) == len(TEN) - 1


ON_ITS_OWN = """
import hashlib, json, sys, warnings
warnings.simplefilter("ignore")
from pathlib import Path
from engine_cases import NEVER, SLOT, go_on, params, plan, trial
from ptydask.engines.ptyrad import release
release.installed()
from ptydask.engines.ptyrad.session import PtyradSession
session = PtyradSession(plan(params(Path(sys.argv[1]))), SLOT)
for values in json.loads(sys.argv[2]):
    result = session.run(trial(values), go_on, NEVER)
    sums = [hashlib.sha256(q.data.tobytes()).hexdigest() for _, q in sorted(result.arrays.items())]
    print(json.dumps([values, list(result.curve["loss"]), sums]))
"""


@pytest.mark.slow
def test_one_worker_or_two_give_the_same(data: Path, commands: forked.Commands) -> None:
    """Ten trials in one process, and shared out to two, give identical losses and arrays."""

    def run_on_its_own(trials: list[dict[str, Any]]) -> dict[str, str]:
        """Trials in a process of their own: their results as text, by their values."""
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
        done = commands.run([str(data), json.dumps(trials)], data.parent, env, 120, forked.PTYRAD, ON_ITS_OWN)
        assert (done.returncode, done.stderr) == (0, "")
        return {json.dumps(json.loads(line)[0]): line for line in done.stdout.splitlines()}

    together = run_on_its_own(TEN)
    shared = run_on_its_own(TEN[1::2]) | run_on_its_own(TEN[::2])
    assert together == shared
    assert len(together) == len(TEN)
