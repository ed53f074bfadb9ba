"""The fast paths of the engine ``ptyrad``: equal to PtyRAD's own functions to the last bit, and fewer operations."""

from __future__ import annotations

import importlib
import random
import warnings
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from engine_cases import NEVER, SLOT, VARIANTS, assert_same, go_on, params, plan, trial, write_patterns

from ptydask.engines.ptyrad import PtyradEngine, fast_paths, measurements, reconstruction, release
from ptydask.engines.ptyrad.fast_path_choice import SWITCH, FastPaths
from ptydask.engines.ptyrad.fast_paths import adam, iteration, multislice, patches
from ptydask.engines.ptyrad.reconstruction import Reconstruction, WorkerState
from ptydask.engines.ptyrad.session import PtyradSession
from ptydask.errors import ConfigError
from ptydask.model import HeldOut, Slot, StudyPlan, TrialOutput

pytestmark = [pytest.mark.ptyrad, pytest.mark.filterwarnings("ignore")]

NAMES = [path.name for path in fields(FastPaths)]
RICH = VARIANTS["every loss"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    release.installed()
    return write_patterns(tmp_path_factory.mktemp("data"))


def run(data: Path, switch: str, changes: Mapping[str, Any], **of_plan: Any) -> TrialOutput:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SWITCH, switch)
        session = PtyradSession(plan(params(data, changes), **of_plan), SLOT)
    return session.run(trial(), go_on, NEVER)


def start(
    data: Path, paths: FastPaths, changes: Mapping[str, Any] | None = None, device: str = "cpu"
) -> Reconstruction:
    config = params(data, changes)
    with reconstruction.seeded(7):
        patterns = measurements.load(config, 7, device, None)
        recon = reconstruction.prepare(config, trial(), patterns, WorkerState(device, fast_paths=paths), plan(config))
    release.solver().toggle_grad_requires(recon.model, 1)
    return recon


@pytest.fixture(scope="module")
def plain(data: Path) -> TrialOutput:
    return run(data, "none", RICH)


@pytest.mark.parametrize("name", NAMES)
def test_each_alone_changes_no_bit(data: Path, plain: TrialOutput, name: str) -> None:
    """Of losses, object, probe and positions of a trial with three slices, and with every mode and loss."""
    assert_same(run(data, f"{name}, iteration" if name == "optimizer" else name, RICH), plain)


UNUSUAL: dict[str, dict[str, Any]] = {
    "slopes": {"differentiable": frozenset({"scale", "rotation", "tilt_y", "dz"})},
    "positions held out": {"held_out": HeldOut("positions", 0.06), "metric": "heldout"},
    "counts held out": {"held_out": HeldOut("counts", 0.1), "metric": "counts"},
}


@pytest.mark.parametrize("of_plan", UNUSUAL.values(), ids=UNUSUAL)
def test_what_else_a_trial_computes_is_the_same(data: Path, of_plan: dict[str, Any]) -> None:
    """Slopes in parameters that PtyRAD keeps fixed, too, and scores of what is held out."""
    changes = {"init_params.obj_Nlayer": 2}
    ours, theirs = (run(data, switch, changes, **of_plan) for switch in ("all", "none"))
    assert_same(ours, theirs)
    assert ours.gradient == theirs.gradient


@pytest.mark.parametrize("slices", [1, 2, 3])
@pytest.mark.parametrize("pixels", [12, 16, 17, 18, 23])
def test_what_rounds_alike_is_equal(pixels: int, slices: int) -> None:
    """Patterns and gradients, of any number of modes and positions; with several slices only of some sizes."""
    if not multislice.rounds_alike(slices, pixels**2, "cpu"):
        assert slices > 1
        assert pixels % 4
        return
    release.installed()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    for modes, probe_modes, positions, kernels in ((1, 1, 7, 1), (3, 2, 4, 4), (2, 3, 1, 1)):
        shape = (positions, modes, slices, pixels, pixels)
        amplitude, phase = (torch.randn(shape, generator=generator).requires_grad_() for _ in range(2))
        probes, kernel = (
            torch.randn(count, pixels, pixels, dtype=torch.complex64, generator=generator)
            for count in (positions * probe_modes, kernels)
        )
        probes = probes.view(positions, probe_modes, pixels, pixels).requires_grad_()
        occupancy, weight = torch.rand(modes, generator=generator), torch.randn(pixels, pixels, generator=generator)
        results = []
        for function in (importlib.import_module("ptyrad.core.forward").multislice_forward, multislice.model_patterns):
            patterns = function(amplitude, phase, probes, kernel, occupancy)
            gradients = torch.autograd.grad((patterns * weight).sum(), (amplitude, phase, probes))
            results.append((patterns.detach(), *gradients))
        assert all(map(torch.equal, *results))


def draw_settings(number: int) -> dict[str, Any]:
    """Some of everything that an iteration depends on."""
    draw = random.Random(number)
    changes: dict[str, Any] = {}
    for variant in draw.sample(sorted(set(VARIANTS) - {"LBFGS", "padded object", "Poisson loss alone"}), 3):
        changes |= VARIANTS[variant]
    for tensor in ("obja", "objp", "probe", "probe_pos_shifts", "obj_tilts", "slice_thickness"):
        if draw.random() < 0.4:
            start = draw.choice((None, 1, 2))
            changes |= {f"model_params.update_params.{tensor}.lr": draw.choice((1e-4, 1e-2)) if start else 0}
            changes |= {f"model_params.update_params.{tensor}.start_iter": start}
    for constraint in ("ortho_pmode", "probe_mask_k", "fix_probe_int", "obj_rblur", "obja_thresh", "complex_ratio"):
        if draw.random() < 0.4:
            changes[f"constraint_params.{constraint}.start_iter"] = draw.choice((1, 2))
    optimizers = ("Adam", "Adam", "AdamW", "SGD", "RMSprop")
    changes["model_params.optimizer_params"] = {"name": draw.choice(optimizers), "configs": {}}
    batch = {"size": draw.choice((3, 7, 16, 64)), "grad_accumulation": draw.choice((1, 2, 3))}
    return changes | {
        "init_params.obj_Nlayer": draw.choice((1, 2, 3)),
        "init_params.probe_pmode_max": draw.choice((1, 2, 5)),
        "init_params.obj_omode_max": draw.choice((2, 3) if "loss_params.loss_simlar" in changes else (1, 1, 2, 3)),
        "recon_params.BATCH_SIZE": batch,
        "recon_params.NITER": 2,
    }


@pytest.mark.slow
@pytest.mark.parametrize("number", range(30))
def test_random_settings_give_the_same(data: Path, number: int) -> None:
    changes = draw_settings(number)
    assert_same(run(data, "all", changes), run(data, "none", changes))


def test_two_threads_of_a_cpu_give_the_same_every_time(data: Path) -> None:
    """PtyRAD's own gradients of overlapping patches are added in any order there."""
    threaded = Slot(threads=2)
    trials = [PtyradSession(plan(params(data)), threaded).run(trial(), go_on, NEVER) for _ in range(3)]
    for other in trials[1:]:
        assert_same(other, trials[0])


def test_all_are_taken_with_the_installed_ptyrad(data: Path) -> None:
    """The functions of both releases that the tests run with are known."""
    assert fast_paths.applicable(FastPaths()) == FastPaths()
    assert start(data, FastPaths()).fast_paths == FastPaths()


def test_functions_that_are_not_known_stay_ptyrads(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another PtyRAD's methods, and those that somebody else has replaced, run as they are."""
    from ptyrad.core.models.ptycho import PtychoModel

    own = PtychoModel.get_obj_patches

    def another(self: Any, indices: Any) -> Any:
        return own(self, indices)

    monkeypatch.setattr(PtychoModel, "get_obj_patches", another)
    monkeypatch.delattr(release.solver(), "recon_step")
    recon = start(data, FastPaths())
    assert recon.fast_paths == replace(FastPaths(), patches=False, iteration=False)
    assert recon.model.get_obj_patches.__func__ is another


def test_what_is_compiled_stays_ptyrads(data: Path) -> None:
    """torch.compile sees PtyRAD's functions."""
    recon = start(data, FastPaths(), {"recon_params.compiler_configs.enable": True})
    assert {"get_obj_patches", "get_probes", "get_propagators"}.isdisjoint(vars(recon.model))
    assert "forward" not in vars(recon.loss)


@pytest.mark.parametrize(
    "changes",
    [
        {"model_params.optimizer_params": {"name": "Adam", "configs": {"weight_decay": 0.1}}},
        {"model_params.optimizer_params": {"name": "Adam", "configs": {"amsgrad": True}}},
        {"model_params.optimizer_params": {"name": "AdamW"}},
        {"model_params.optimizer_params": {"name": "SGD"}},
    ],
)
def test_only_plain_adam_is_stepped_together(data: Path, changes: dict[str, Any]) -> None:
    assert adam.is_plain(start(data, FastPaths()).optimizer)
    assert not adam.is_plain(start(data, FastPaths(), changes).optimizer)


def test_a_schedule_knows_that_a_step_was_taken() -> None:
    """PyTorch warns, in the trial's log, of a scheduler that goes on before its optimizer has."""
    tensor = torch.ones(3, requires_grad=True)
    optimizer = torch.optim.Adam([tensor], lr=0.1)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    tensor.grad = torch.ones(3)
    assert adam.is_plain(optimizer)
    adam.step(optimizer)
    with warnings.catch_warnings(action="error"):
        scheduler.step()


@pytest.mark.parametrize("first", [[0, 5, 61], [3, 3, 3, 4], [82], [7, 1, 7, 82, 0]], ids=str)
def test_gradients_of_patches_are_added_in_their_order(first: list[int]) -> None:
    """Patches that overlap or are the same one: as autograd adds them for PtyRAD's indices, to the last bit."""
    shape, size = (2, 3, 12, 11), (5, 4)  # the object's, a patch's: its last first pixel is 7 * 11 + 7
    generator = torch.Generator().manual_seed(1)
    whole = torch.randn(shape, generator=generator, requires_grad=True)
    begin = torch.tensor(first)
    y, x = torch.arange(size[0]), torch.arange(size[1])
    rows = (begin // shape[-1])[:, None, None] + y[:, None]
    columns = (begin % shape[-1])[:, None, None] + x
    taken = whole[:, :, rows, columns].permute(2, 0, 1, 3, 4).contiguous()
    gradient = torch.randn(taken.shape, generator=generator) * 10.0 ** torch.randint(
        -6, 6, taken.shape, generator=generator
    )
    (expected,) = torch.autograd.grad(taken, whole, gradient)
    within = y[:, None] * shape[-1] + x
    ours, _ = patches.take_patches(whole, whole, begin, within)
    assert torch.equal(ours, taken)
    for add in (patches.add_windows, patches.add_indexed):
        both = add([gradient, 2 * gradient], begin, within, whole.shape)
        assert torch.equal(both[0], expected)
        assert torch.equal(both[1], 2 * expected)


@pytest.fixture
def operations(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The counter of benchmarks/engine.py."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    return importlib.import_module("operations")


def count_step(operations: SimpleNamespace, recon: Reconstruction) -> Mapping[str, float]:
    counted = []
    for niter, batches in enumerate((1, 2, 4), 1):
        each = replace(recon, batches=recon.batches[:batches])
        counted.append(
            operations.count(lambda niter=niter, each=each: iteration.iterate(niter, each, 1), recon.optimizer)
        )
    return counted[2].per_step(counted[1], 2)


@pytest.mark.parametrize("changes", [{}, {"init_params.obj_Nlayer": 3}], ids=["one slice", "three slices"])
def test_a_step_has_fewer_operations_and_does_not_wait(
    operations: SimpleNamespace, data: Path, changes: dict[str, Any]
) -> None:
    """A third fewer, the transforms all there, and nothing crosses between host and device."""
    changes = changes | {"loss_params.loss_sparse.state": False}
    before, after = (count_step(operations, start(data, paths, changes)) for paths in (FastPaths.of(), FastPaths()))
    assert before["crossings"] > 0
    assert after["crossings"] == 0
    assert after["total"] < 0.7 * before["total"]
    assert after["transforms"] == before["transforms"]


@pytest.mark.parametrize("changes", [{}, VARIANTS["padded on the fly"], RICH], ids=["usual", "padded", "every loss"])
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_step_does_not_wait_for_the_gpu(data: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA itself says so: the loop over the batches raises wherever the host would wait."""
    changes = {name: value for name, value in changes.items() if name != "loss_params.loss_simlar"}
    recon = start(data, FastPaths(), changes, "cuda")
    iteration.iterate(1, recon, 1)  # the optimizer's state, and the libraries' plans, are made

    inner = iteration._run_batches

    def strict(*arguments: Any) -> Any:
        torch.cuda.set_sync_debug_mode("error")
        try:
            return inner(*arguments)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(iteration, "_run_batches", strict)
    iteration.iterate(2, recon, 1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_values_agree_to_rounding(data: Path) -> None:
    """The loss of each iteration with and without fast paths."""
    losses = []
    for paths in (FastPaths.of(), FastPaths()):
        recon = start(data, paths, {"init_params.obj_Nlayer": 3}, "cuda")
        for niter in (1, 2, 3):
            iteration.iterate(niter, recon, 1)
        losses.append([float(loss) for _, loss in recon.model.loss_iters])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", FastPaths()),
        ("", FastPaths()),
        ("none", FastPaths.of()),
        ("patches, probes", FastPaths.of("patches", "probes")),
    ],
)
def test_the_switch(text: str, expected: FastPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, text)
    assert FastPaths.chosen() == expected


@pytest.mark.parametrize("text", ["patch", "patches;probes", "none,patches", "0"])
def test_a_switch_that_is_none(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, text)
    with pytest.raises(ConfigError, match="must be all, none, or some of"):
        FastPaths.chosen()
    with pytest.raises(ConfigError, match=SWITCH):  # as before a run
        PtyradEngine().validate(cast(StudyPlan, None))


def test_each_is_on_the_page() -> None:
    page = (Path(__file__).parents[1] / "docs" / "from-ptyrad.md").read_text(encoding="utf-8")
    assert [name for name in NAMES if f"\n| `{name}` |" not in page] == []
    assert SWITCH in page
