"""A trial of the engine ``ptyrad`` that is interrupted and goes on elsewhere ends as if it had never stopped."""

from __future__ import annotations

import gc
import hashlib
import io
import os
import pickle
import random
import re
import weakref
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import engine_cases as cases
import forked
import numpy as np
import pytest
import torch
from engine_cases import NEVER, SINCE_1, SLOT, VARIANTS, go_on, params, plan, trial, write_patterns

from ptydask.engines.ptyrad import release
from ptydask.engines.ptyrad.session import PtyradSession
from ptydask.model import HeldOut, KeepOptions, Slot, TrialInput, TrialOutput
from ptydask.trial.eviction import Evicted

pytestmark = [
    pytest.mark.ptyrad,
    pytest.mark.filterwarnings("ignore"),  # PtyRAD's own, for some of the settings; they are in the trial's log
]

CONSTRAINTS = (
    *("probe_mask_k", "ortho_pmode", "fix_probe_int", "obj_rblur", "obj_zblur", "kr_filter", "kz_filter", "kr_thresh"),
    *("complex_ratio", "mirrored_amp", "obj_z_recenter", "obja_thresh", "objp_postiv", "pos_recenter", "tilt_smooth"),
)


def optimizer(name: str, **configs: Any) -> dict[str, Any]:
    return {"model_params.optimizer_params": {"name": name, "configs": configs}}


def schedule(name: str, unit: str = "iter", **configs: Any) -> dict[str, Any]:
    return {"model_params.scheduler_params": {"name": name, "configs": configs, "step_unit": unit}}


MORE: dict[str, dict[str, Any]] = {
    "AdamW": optimizer("AdamW", amsgrad=True),
    "SGD": optimizer("SGD", momentum=0.9),
    "RAdam": optimizer("RAdam"),
    "RMSprop": optimizer("RMSprop", centered=True, momentum=0.5),
    "Adafactor": optimizer("Adafactor"),
    "Adagrad": optimizer("Adagrad"),
    "Rprop": optimizer("Rprop"),
    "ASGD": optimizer("ASGD"),
    "LBFGS with a line search": optimizer("LBFGS", max_iter=3, history_size=2, line_search_fn="strong_wolfe"),
    "tensors that start and end": {
        "init_params.obj_Nlayer": 3,
        "model_params.update_params.slice_thickness": {"start_iter": 2, "lr": 1e-2},
        "model_params.update_params.probe": {"start_iter": 3, "lr": 1e-3},
        "model_params.update_params.obja": {"start_iter": 1, "end_iter": 3, "lr": 1e-3},
        "model_params.update_params.probe_pos_shifts": {"start_iter": 2, "end_iter": 4, "lr": 1e-3},
    },
    "nothing but the object": {
        "model_params.update_params.probe.lr": 0,
        "model_params.update_params.probe_pos_shifts.lr": 0,
    },
    "every constraint": {
        "init_params.obj_Nlayer": 3,
        "init_params.tilt_params": {"tilt_type": "each", "init_tilts": [[3.0, -2.0]]},
        "model_params.update_params.obj_tilts": {"start_iter": 1, "lr": 1e-2},
        **{f"constraint_params.{name}": {"start_iter": 1, "step": 2} for name in CONSTRAINTS},
    },
}

MORE_SINCE_1: dict[str, dict[str, Any]] = {
    "all that may be logged": {"hypertune_params.verbosity": "DEBUG"},
    "a mask in real space": {"constraint_params.probe_mask_r": {"start_iter": 1, "step": 1}},
    "StepLR": schedule("StepLR", step_size=2),
    "MultiStepLR": schedule("MultiStepLR", milestones=[2, 3], gamma=0.3),
    "ReduceLROnPlateau": schedule("ReduceLROnPlateau", patience=0, threshold=1.0),
    "CosineAnnealingLR": schedule("CosineAnnealingLR", T_max=4),
    "CosineAnnealingWarmRestarts": schedule("CosineAnnealingWarmRestarts", T_0=2),
    "LinearLR": schedule("LinearLR", total_iters=4),
    "PolynomialLR": schedule("PolynomialLR", total_iters=4),
    "CyclicLR": schedule("CyclicLR", "batch", base_lr=1e-4, max_lr=1e-3, step_size_up=3),
    "CyclicLR without momentum": schedule("CyclicLR", base_lr=1e-4, max_lr=1e-3, step_size_up=3, cycle_momentum=False),
}

ALL = VARIANTS | SINCE_1 | MORE | MORE_SINCE_1
QUICK = ("as PtyRAD's defaults", "LBFGS", "ASGD", "every constraint")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    release.installed()
    return write_patterns(tmp_path_factory.mktemp("data"))


class Shelf:
    """Keeps what is saved after every step; the worker has to go after the steps ``leave``."""

    def __init__(self, leave: Iterable[int] = (), state: bytes | None = None) -> None:
        self.leave, self.state = set(leave), state
        self.steps: list[int] = []

    def load(self) -> bytes | None:
        return self.state

    def due(self) -> bool:
        return True

    def save(self, step: int, state: bytes) -> None:
        self.state = state
        self.steps.append(step)
        if step in self.leave:
            self.leave.remove(step)
            raise Evicted


def to_the_end(
    open_session: Callable[[], PtyradSession], shelf: Shelf, what: TrialInput | None = None
) -> tuple[TrialOutput, list[int]]:
    """One trial, in as many attempts as it takes, each in a session of its own; also the steps that were reported."""
    reported: list[int] = []

    def report(step: int, metrics: Mapping[str, float], gradient: Mapping[str, float] | None = None) -> bool:
        reported.append(step)
        return False

    while True:
        try:
            return open_session().run(what or trial(), report, shelf), reported
        except Evicted:
            assert shelf.state is not None


def assert_identical(a: TrialOutput, b: TrialOutput) -> None:
    """All that a trial gives is the same to the last bit, but for times and the log."""
    cases.assert_same(a, b)
    assert a.snapshots.keys() == b.snapshots.keys()
    for n in a.snapshots:
        assert a.snapshots[n].keys() == b.snapshots[n].keys()
    for x, y in [(a.arrays, b.arrays), *((a.snapshots[n], b.snapshots[n]) for n in a.snapshots)]:
        for name in x:
            assert (x[name].units, x[name].long_name) == (y[name].units, y[name].long_name)
            assert x[name].data.dtype == y[name].data.dtype
            np.testing.assert_array_equal(x[name].data, y[name].data, err_msg=name)
    assert (a.image is None) == (b.image is None)
    if a.image is not None and b.image is not None:
        np.testing.assert_array_equal(a.image.data, b.image.data)
    timeless = [{k: v for k, v in out.attributes.items() if not k.endswith("_seconds")} for out in (a, b)]
    assert timeless[0] == timeless[1]


def lines(log: str) -> list[str]:
    """PtyRAD's part of a log, without the times."""
    return [
        re.sub(r" in [\d.]+ (min|sec|ms).*$", "", line) for line in log.splitlines() if not line.startswith("ptydask:")
    ]


def check(config: dict[str, Any], name: str, slot: Slot = SLOT, **fields: Any) -> None:
    """Undisturbed, and interrupted at two iterations that ``name`` draws: the same result, each step reported once."""
    last = config["recon_params"]["NITER"]

    def open_session() -> PtyradSession:
        return PtyradSession(plan(config, **fields), slot)

    undisturbed = open_session().run(trial(), go_on, NEVER)
    shelf = Shelf(random.Random(name).sample(range(1, last), 2))
    resumed, reported = to_the_end(open_session, shelf)
    assert_identical(resumed, undisturbed)
    assert lines(resumed.log) == lines(undisturbed.log)
    assert reported == list(range(1, last + 1))
    assert shelf.steps == list(range(1, last))
    assert resumed.log.count("goes on in another attempt") == 2


def config_of(data: Path, variant: str) -> dict[str, Any]:
    iterations = 3 if variant == "a schedule by the batch" else 5  # whose number of steps is given
    return params(data, {"recon_params.NITER": iterations} | ALL[variant])


@pytest.mark.parametrize("variant", [pytest.param(v, marks=() if v in QUICK else pytest.mark.slow) for v in ALL])
def test_an_interrupted_trial_gives_the_same(data: Path, variant: str) -> None:
    """Stopped after two of its iterations and continued on other workers, a trial's every bit is the same."""
    if variant in SINCE_1 | MORE_SINCE_1 and not release.installed().schedules:
        pytest.skip("PtyRAD has this since 1.0")
    check(config_of(data, variant), variant)


@pytest.mark.slow
def test_a_compiled_trial_gives_the_same(data: Path) -> None:
    """What is compiled anew on another worker, and in another order, computes the same."""
    config = config_of(data, "tensors that start and end")
    config["recon_params"]["compiler_configs"] |= {"enable": True, "backend": "eager"}
    check(config, "compiled")


@pytest.mark.parametrize(
    "fields", [{"keep": KeepOptions(snapshot_every=2)}, {"keep": KeepOptions(arrays=False)}], ids=repr
)
def test_snapshots_come_along(data: Path, fields: dict[str, Any]) -> None:
    """Snapshots of iterations before the interruption are in the result, and none where nothing is kept."""
    check(params(data, {"recon_params.NITER": 5, "init_params.obj_Nlayer": 2}), "snapshots", **fields)


@pytest.mark.parametrize("held_out", [HeldOut("positions", 0.06), HeldOut("counts", 0.1)], ids=repr)
@pytest.mark.parametrize("variant", QUICK[::3])
def test_what_is_held_out_stays_held_out(data: Path, variant: str, held_out: HeldOut) -> None:
    """The scores of an interrupted trial are those of an undisturbed one."""
    check(config_of(data, variant), variant, held_out=held_out)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("variant", QUICK)
def test_on_a_gpu_too(data: Path, variant: str) -> None:
    """The same on a GPU."""
    check(config_of(data, variant), variant, Slot(threads=1, cuda="0"))


def test_random_numbers_go_on(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An iteration that draws from any of the generators draws what it would have drawn."""
    step = release.solver().recon_step

    def noisy(batches: Any, accumulation: Any, model: Any, *more: Any, **named: Any) -> Any:
        with torch.no_grad():
            model.opt_objp += (random.gauss() + np.random.normal() + torch.rand(1)) * 1e-3
        return step(batches, accumulation, model, *more, **named)

    monkeypatch.setattr(release.solver(), "recon_step", noisy)
    check(params(data, {"recon_params.NITER": 5}), "noise")


def test_values_of_the_trial_count(data: Path) -> None:
    """A trial with tuned values goes on with them, also in a session that ran another trial between."""
    session = PtyradSession(plan(params(data, {"init_params.obj_Nlayer": 2})), SLOT)
    what = trial({"oplr": 2e-3, "rotation": 2.0, "dz": 8.0})
    undisturbed = session.run(what, go_on, NEVER)
    shelf = Shelf([2])
    with pytest.raises(Evicted):
        session.run(what, go_on, shelf)
    session.run(trial({"rotation": 5.0, "dx": 0.2}), go_on, NEVER)
    assert_identical(session.run(what, go_on, shelf), undisturbed)


def test_the_times_are_those_of_all_attempts(data: Path) -> None:
    """Seconds before the interruption are in the result's times."""
    config = params(data)
    first, shelf = Shelf([1]), Shelf()
    with pytest.raises(Evicted):
        PtyradSession(plan(config), SLOT).run(trial(), go_on, first)
    shelf.state = first.state
    result, _ = to_the_end(lambda: PtyradSession(plan(config), SLOT), shelf)
    facts, seconds = result.attributes, result.curve["seconds"]
    assert len(seconds) == 3
    assert facts["recon_seconds"] == sum(seconds)
    wall, start = facts["wall_seconds"], facts["initialisation_seconds"]
    assert isinstance(wall, float)
    assert isinstance(start, float)
    assert wall > sum(seconds) + start


ELSEWHERE = """
import sys, warnings
warnings.simplefilter("ignore")
from pathlib import Path
import test_engine_checkpoint as here
from ptydask.engines.ptyrad import release
release.installed()
shelf = here.Shelf([int(sys.argv[3])])
try:
    here.PtyradSession(here.plan(here.config_of(Path(sys.argv[1]), sys.argv[2])), here.SLOT).run(
        here.trial(), here.go_on, shelf
    )
except here.Evicted:
    Path(sys.argv[4]).write_bytes(shelf.state)
"""


@pytest.mark.slow
def test_another_process_goes_on(data: Path, tmp_path: Path, commands: forked.Commands) -> None:
    """What one process saved is continued by another."""
    variant, saved = "tilts that are refined", tmp_path / "state"
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = commands.run([str(data), variant, "3", str(saved)], tmp_path, env, 120, forked.PTYRAD, ELSEWHERE)
    assert done.returncode == 0, done.stderr
    session = PtyradSession(plan(config_of(data, variant)), SLOT)
    undisturbed = session.run(trial(), go_on, NEVER)
    shelf = Shelf(state=saved.read_bytes())
    assert_identical(session.run(trial(), go_on, shelf), undisturbed)
    assert shelf.steps == [4]


# --- what a trial does not go on from --------------------------------------------------------------


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def seal(content: Any) -> bytes:
    """Content as a checkpoint whose checksum is right."""
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue() + hashlib.sha256(file.getvalue()).digest()


def opened(state: bytes) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(io.BytesIO(state[:-32]), weights_only=True)
    return content


def other(**changes: Any) -> Callable[[bytes], bytes]:
    """A checkpoint of something else."""

    def change(state: bytes) -> bytes:
        content = opened(state)
        content["identity"] |= changes
        return seal(content)

    return change


def without(*path: Any) -> Callable[[bytes], bytes]:
    """A checkpoint in which something is missing."""

    def change(state: bytes) -> bytes:
        content = part = opened(state)
        for name in path[:-1]:
            part = part[name]
        del part[path[-1]]
        return seal(content)

    return change


def flipped(state: bytes) -> bytes:
    middle = len(state) // 2
    return state[:middle] + bytes([state[middle] ^ 4]) + state[middle + 1 :]


def regrouped(state: bytes) -> bytes:
    return seal(opened(state) | {"batches": "0" * 64})


def smaller(state: bytes) -> bytes:
    content = opened(state)
    content["model"]["opt_probe"] = content["model"]["opt_probe"][:, 1:]
    return seal(content)


USELESS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "nothing": (lambda _: b"", "damaged"),
    "text": (lambda _: b"what is this" * 20, "damaged"),
    "half of it": (lambda state: state[: len(state) // 2], "damaged"),
    "all but the last byte": (lambda state: state[:-1], "damaged"),
    "one bit": (flipped, "damaged"),
    "no archive": (lambda _: b"abc" + hashlib.sha256(b"abc").digest(), "cannot be read"),
    "a list": (lambda _: seal([1, 2]), "cannot be read"),
    "an empty dict": (lambda _: seal({}), "cannot be read"),
    "another PtyRAD": (other(PtyRAD="0.0"), "another PtyRAD"),
    "another torch": (other(torch="1.0"), "another torch"),
    "another format": (other(format=0), "another format"),
    "another device": (other(device="cuda"), "another device"),
    "other values": (other(trial={"oplr": 1.0}), "another trial"),
    "other params": (other(params="0"), "another params"),
    "a newer one": (other(weather="rain"), "another weather"),
    "other groups": (regrouped, "grouped in another way"),
    "no step": (without("course", "step"), "KeyError"),
    "no random state": (without("random", "torch"), "KeyError"),
    "no momenta": (without("optimizer", "groups", 0), "ValueError"),
    "no phase": (without("model", "opt_objp"), "opt_objp"),
    "another size": (smaller, "opt_probe"),
}


@pytest.fixture(scope="module")
def saved(data: Path) -> tuple[PtyradSession, bytes, TrialOutput]:
    """A session, what it saved of a trial after two of three iterations, and the trial's result."""
    session, shelf = PtyradSession(plan(params(data)), SLOT), Shelf([2])
    with pytest.raises(Evicted):
        session.run(trial(), go_on, shelf)
    assert shelf.state is not None
    return session, shelf.state, session.run(trial(), go_on, NEVER)


@pytest.mark.parametrize("what", USELESS)
def test_a_useless_checkpoint_costs_the_iterations_alone(
    saved: tuple[PtyradSession, bytes, TrialOutput], what: str
) -> None:
    """The trial starts from the beginning, its log says why, and its result is the right one."""
    session, state, expected = saved
    change, why = USELESS[what]
    shelf = Shelf(state=change(state))
    result, reported = to_the_end(lambda: session, shelf)
    assert reported == [1, 2, 3]
    cases.assert_same(result, expected)
    (said,) = [line for line in result.log.splitlines() if line.startswith("ptydask:")]
    assert said.startswith("ptydask: the trial starts from the beginning: its checkpoint could not be used, ")
    assert why in said
    assert shelf.steps == [1, 2]


def test_the_same_bytes_in_order_are_used(saved: tuple[PtyradSession, bytes, TrialOutput]) -> None:
    """What the useless ones were made from is no useless one."""
    session, state, expected = saved
    result, reported = to_the_end(lambda: session, Shelf(state=seal(opened(state))))
    assert_identical(result, expected)
    assert reported == [3]


@pytest.mark.parametrize("seed", [7, 8])
def test_a_checkpoint_belongs_to_one_seed_and_one_set_of_values(
    saved: tuple[PtyradSession, bytes, TrialOutput], seed: int
) -> None:
    """Another trial does not go on from it."""
    session, state, _ = saved
    what = trial({"oplr": 1e-3} if seed == 7 else {}, seed=seed)
    result, reported = to_the_end(lambda: session, Shelf(state=state), what)
    assert reported == [1, 2, 3]
    assert_identical(result, session.run(what, go_on, NEVER))


def test_no_code_in_a_checkpoint_is_executed(saved: tuple[PtyradSession, bytes, TrialOutput], tmp_path: Path) -> None:
    """A pickle that does something when it is loaded does not do it."""
    session, state, expected = saved
    mark = tmp_path / "executed"
    bomb = pickle.dumps(Bomb(mark))
    for bytes_ in (
        bomb,
        bomb + hashlib.sha256(bomb).digest(),
        seal(Bomb(mark)),
        seal(opened(state) | {"log": Bomb(mark)}),
    ):
        result, _ = to_the_end(lambda: session, Shelf(state=bytes_))
        cases.assert_same(result, expected)
        assert not mark.exists()
    pickle.loads(bomb)
    assert mark.exists()


# --- what saving leaves behind ---------------------------------------------------------------------


def test_a_state_that_cannot_be_saved_fails_no_trial(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial goes on without a checkpoint, and its log says so."""
    session = PtyradSession(plan(params(data)), SLOT)
    expected = session.run(trial(), go_on, NEVER)
    monkeypatch.setattr(torch, "get_rng_state", lambda: object())
    shelf = Shelf()
    monkeypatch.setattr(torch, "set_rng_state", lambda _: None)
    result = session.run(trial(), go_on, shelf)
    cases.assert_same(result, expected)
    assert shelf.steps == []
    assert "could not be saved after iteration 2: TypeError: a object cannot be kept in a checkpoint" in result.log


def test_nothing_is_saved_after_the_last_step(data: Path) -> None:
    """A trial that its report ends, or that is at its last step, saves nothing then."""
    shelf = Shelf()
    PtyradSession(plan(params(data)), SLOT).run(trial(), lambda step, *_: step == 2, shelf)
    assert shelf.steps == [1]


def test_an_evicted_trial_holds_no_memory(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is gone while somebody still holds the exception."""
    alive: list[weakref.ref[Any]] = []
    build = release.core().PtychoModel

    def remember(*args: Any, **kwargs: Any) -> Any:
        model = build(*args, **kwargs)
        alive.append(weakref.ref(model))
        return model

    monkeypatch.setattr(release.core(), "PtychoModel", remember)
    session, shelf = PtyradSession(plan(params(data)), SLOT), Shelf([1, 2])
    for _ in range(2):
        with pytest.raises(Evicted) as caught:
            session.run(trial(), go_on, shelf)
        gc.collect()
        assert [model() for model in alive] == [None] * len(alive)
        assert isinstance(caught.value, Evicted)
    assert len(alive) == 2


def test_a_checkpoint_is_as_large_as_what_changes(data: Path) -> None:
    """The tensors, twice more for Adam's moments, and no measurements."""
    config = params(data, {"recon_params.NITER": 2})
    session, shelf = PtyradSession(plan(config), SLOT), Shelf()
    arrays = session.run(trial(), go_on, shelf).arrays
    changing = sum(arrays[name].data.nbytes for name in ("object_phase", "object_amplitude", "probe"))
    assert shelf.state is not None
    assert len(shelf.state) < 3 * changing + 80_000
