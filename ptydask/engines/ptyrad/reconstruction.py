"""One trial: a fresh start from its params, then PtyRAD's own iterations; nothing is left from other trials.

The order of batches and every random number are those of ``ptyrad run`` on a params file with these values
and this ``random_seed``, so that a trial's result comes back there.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isfinite, nan
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ptydask.engines import Report
from ptydask.engines.ptyrad import fast_paths, image_metrics, kept_arrays, release
from ptydask.engines.ptyrad.compiled_loss import CompiledLoss
from ptydask.engines.ptyrad.contrast import ScannedRegion, phase_contrast, projected_phase
from ptydask.engines.ptyrad.fast_path_choice import FastPaths
from ptydask.engines.ptyrad.fast_paths import iteration
from ptydask.engines.ptyrad.geometry_gradient import GeometryGradient
from ptydask.engines.ptyrad.grouping import Grouping, choose_indices
from ptydask.engines.ptyrad.held_out import Indices, divide_scan
from ptydask.engines.ptyrad.held_out_score import HeldOutScore, held_out_score
from ptydask.engines.ptyrad.measurements import Measurements
from ptydask.engines.ptyrad.started_trial import StartedTrial
from ptydask.model import KeepOptions, Quantity, StudyPlan, TrialInput
from ptydask.space.metrics import to_angstrom
from ptydask.trial import slopes

_STAGES = (
    "set_variables_dict",
    "init_probe",
    "init_pos",
    "init_obj",
    "init_omode_occu",
    "init_H",
    "init_obj_tilts",
    "init_check",
)
"""Of ``Initializer.init_all``, what follows on measurements and calibration."""


_JITTER = "ptydask: random displacement of the positions"
"""Among PtyRAD's variables: (N, 2), in pixels."""

COLUMNS = ("step", "metrics", "seconds", "gradient")
"""What is noted of every iteration."""

_DATA_TERMS = 3
"""The first terms of PtyRAD's loss compare patterns (single, Poisson, PACBED), those after them regularise."""


class NonFiniteLoss(ArithmeticError):  # noqa: N818 - the name says it
    """The reconstruction diverged."""


@dataclass(slots=True)
class WorkerState:
    """What trials on one worker share, none of which changes a result."""

    device: str
    grouping: Grouping = field(default_factory=Grouping)
    compiled: CompiledLoss = field(default_factory=CompiledLoss)
    fast_paths: FastPaths = field(default_factory=FastPaths.chosen)


@dataclass(slots=True)
class Reconstruction:
    """A trial under way."""

    model: Any
    optimizer: Any
    scheduler: Any | None
    loss: Any
    constraint: Any
    batches: list[torch.Tensor]
    region: ScannedRegion
    variables: Mapping[str, Any]
    compute_loss: Any
    gradient: GeometryGradient
    chosen: torch.Tensor
    """The positions of all batches, (n,)."""
    first_shifts: NDArray[Any]
    """Their shifts (n, 2) in pixels before the first iteration."""
    fast_paths: FastPaths
    measures_always: bool
    """The image is measured after every iteration, not after the last alone."""
    score: HeldOutScore | None = None
    """On the data that it does not see; None where it sees all."""
    held_out: Indices | None = None
    """The scan positions that it does not see, in rising order; None where it sees each of them."""


@dataclass(slots=True)
class IterationHistory:
    """What happened, iteration by iteration; the last entry of each column is the result."""

    step: list[float] = field(default_factory=list)
    metrics: dict[str, list[float]] = field(default_factory=dict)
    """Of each metric that is known at every iteration, one value an iteration."""
    seconds: list[float] = field(default_factory=list)
    """Spent in the iteration itself."""
    gradient: dict[str, list[float]] = field(default_factory=dict)
    """Slope of the loss in each parameter that has one; NaN at iterations that did not know it."""
    snapshots: dict[int, Mapping[str, Quantity]] = field(default_factory=dict)

    def columns(self) -> dict[str, list[float]]:
        """All but the snapshots, by name."""
        columns = {"step": self.step, **self.metrics, "seconds": self.seconds}
        return columns | {f"{slopes.COLUMN}{name}": values for name, values in self.gradient.items()}

    @property
    def last(self) -> dict[str, float]:
        """The metrics of the last iteration."""
        return {name: values[-1] for name, values in self.metrics.items()}

    def add_metrics(self, metrics: Mapping[str, float]) -> None:
        """Note metrics of the iteration that was noted last."""
        for name, value in metrics.items():
            self.metrics.setdefault(name, []).append(value)

    def add_gradient(self, slopes: Mapping[str, float]) -> None:
        """Note the slopes of the iteration that was noted last."""
        for name in {*self.gradient, *slopes}:
            column = self.gradient.setdefault(name, [])
            column.extend([nan] * (len(self.step) - 1 - len(column)))
            column.append(slopes.get(name, nan))


def prepare(
    params: Mapping[str, Any], trial: TrialInput, measurements: Measurements, worker: WorkerState, plan: StudyPlan
) -> Reconstruction:
    """Build model, optimizer and batches from ``params``, which are those of ``trial`` and are modified.

    Of the ``plan`` count the reconstruction that trials start from, the parameters in which slopes are taken, what is
    held out, and the metric that is tuned: that one is computed after every iteration, whatever it costs. With a start
    every random number is what it is without one, so that the order of batches is. Raises ValueError for a start that
    does not fit.
    """
    held_out, seed = plan.held_out, trial.seed
    core, solver, ptyrad = release.core(), release.solver(), release.installed()
    started = None if plan.start is None else StartedTrial(plan.start, params, trial)
    variables = _initial_variables(params["init_params"], seed, measurements)
    if started is not None:
        started.put_into(variables, variables.pop(_JITTER, None))
    settings = params["model_params"]
    if measurements.resident is not None:
        settings = {**settings, "preload_data": False}  # the patterns are on the device already
    model = core.PtychoModel(variables, settings, device=worker.device)
    measurements.lend_to(model)
    if started is not None:
        started.put_onto(model)
    optimizer = solver.create_optimizer(model.optimizer_params, model.optimizable_params)
    scan = (variables["N_scan_slow"], variables["N_scan_fast"])
    steps = params["recon_params"]
    division = divide_scan(choose_indices(steps, scan), scan[1], held_out, trial.half, seed)
    batches = worker.grouping.batches(model, steps, division.reconstructed, seed)
    region, chosen = ScannedRegion.of(model, division.chosen), torch.cat(batches)
    size, unseen, jitter = steps["BATCH_SIZE"]["size"], measurements.held_out, variables.get(_JITTER)
    loss = core.CombinedLoss(params["loss_params"], device=worker.device)
    paths = fast_paths.applicable(worker.fast_paths)
    fast_paths.install(paths, model, loss, compiled=steps["compiler_configs"].get("enable", False))
    return Reconstruction(
        model=model,
        optimizer=optimizer,
        scheduler=ptyrad.scheduler(model, optimizer),
        loss=loss,
        constraint=core.CombinedConstraint(params["constraint_params"], device=worker.device),
        batches=batches,
        region=region,
        variables=variables,
        compute_loss=worker.compiled.function(steps["compiler_configs"], model, batches),
        gradient=GeometryGradient(model, variables["scan_affine"], plan.differentiable),
        chosen=chosen,
        first_shifts=model.opt_probe_pos_shifts.detach()[chosen].cpu().numpy(),
        fast_paths=paths,
        measures_always=plan.metric in image_metrics.NAMES or _is_cheap(model, region, batches),
        score=held_out_score(held_out, model, division, unseen, measurements.detector, size, seed, jitter),
        held_out=division.held_out if len(division.held_out) else None,
    )


def _is_cheap(model: Any, region: ScannedRegion, batches: Sequence[torch.Tensor]) -> bool:
    pixels = (region.bottom - region.top + 1) * (region.right - region.left + 1)
    window = model.opt_probe.shape[-3] * model.opt_probe.shape[-2]
    propagated = sum(map(len, batches)) * window * model.opt_probe.shape[0] * model.opt_objp.shape[1]
    return image_metrics.is_cheap(pixels, propagated, len(batches))


def iterate(
    recon: Reconstruction,
    recon_params: Mapping[str, Any],
    keep: KeepOptions,
    report: Report,
    course: IterationHistory,
    between: Callable[[int, Reconstruction], None],
) -> None:
    """Run the iterations that ``course`` does not have, until the last one or until ``report`` asks to stop.

    ``between`` is called with the number of each iteration that another one follows. Raises NonFiniteLoss where an
    iteration's loss is NaN or infinite.
    """
    model, last = recon.model, recon_params["NITER"]
    grad_accumulation, by_steps = _updates(recon, recon_params)
    for niter in range(len(course.step) + 1, last + 1):
        release.solver().toggle_grad_requires(model, niter)
        with recon.gradient.listen(len(recon.batches), grad_accumulation, by_steps):
            terms = iteration.iterate(niter, recon, grad_accumulation)
        if recon.score is not None:
            recon.score.move_hidden_positions(model)
        _record_iteration(course, niter, recon, terms)
        if recon.score is not None:
            course.add_metrics(recon.score.metrics(model, niter == last))
        gradient = recon.gradient.slopes()
        course.add_gradient(gradient)
        if keep.snapshot_every and niter % keep.snapshot_every == 0:
            course.snapshots[niter] = kept_arrays.arrays(model, float(recon.variables["dx"]))
        if report(niter, course.last, gradient):
            break
        if niter < last:
            between(niter, recon)


def complete_gradient(recon: Reconstruction, recon_params: Mapping[str, Any]) -> dict[str, float]:
    """The slopes of the last iteration, all of them; see :meth:`GeometryGradient.complete`."""
    return recon.gradient.complete(recon, *_updates(recon, recon_params))


def _updates(recon: Reconstruction, recon_params: Mapping[str, Any]) -> tuple[int, bool]:
    """Batches in an update, and whether the optimizer evaluates the loss once for each update."""
    return recon_params["BATCH_SIZE"].get("grad_accumulation", 1), recon.model.optimizer_params["name"] != "LBFGS"


def _record_iteration(
    course: IterationHistory, niter: int, recon: Reconstruction, terms: Mapping[str, Sequence[Any]]
) -> None:
    loss = float(recon.model.loss_iters[-1][1])
    if not isfinite(loss):
        advice = "lower the learning rates or narrow the ranges tried"
        raise NonFiniteLoss(f"the loss is {loss} at iteration {niter}; {advice}")
    # By their places: PtyRAD names the terms in the order of the params file, and computes them in its own.
    data_loss = sum(np.mean(values) for values in list(terms.values())[:_DATA_TERMS])
    course.step.append(niter)
    course.add_metrics({"loss": loss, "data_loss": float(data_loss), **_measure(recon, recon.measures_always)})
    course.seconds.append(float(recon.model.iter_times[-1]))


def _measure(recon: Reconstruction, whole: bool) -> dict[str, float]:
    """The metrics of the reconstruction as it is; without those of the image unless ``whole``."""
    model = recon.model
    pixel = to_angstrom(float(recon.variables["dx"]), kept_arrays.length_unit(model))
    projected = projected_phase(model)
    shifts = model.opt_probe_pos_shifts.detach()[recon.chosen].cpu().numpy()
    image = image_metrics.measure_image(recon.region.crop(projected).cpu().numpy(), pixel) if whole else {}
    drift = image_metrics.position_drift(shifts, recon.first_shifts, pixel)
    return {"contrast": phase_contrast(projected, recon.region), **image, "position_drift": drift}


def final_metrics(course: IterationHistory, recon: Reconstruction) -> dict[str, float]:
    """The metrics of the last iteration, those among them that are too costly to have a curve."""
    return course.last | ({} if recon.measures_always else _measure(recon, whole=True))


def _initial_variables(init_params: Mapping[str, Any], seed: int, measurements: Measurements) -> dict[str, Any]:
    init = release.initializer().Initializer(init_params, seed=seed)
    measurements.give_to(init)
    displace = init._pos_scan_add_random_displacement

    def noting_displacement(positions: NDArray[Any], std: float | None) -> NDArray[Any]:
        displaced: NDArray[Any] = displace(positions, std)
        init.init_variables[_JITTER] = (displaced - positions).astype(np.float32)
        return displaced

    init._pos_scan_add_random_displacement = noting_displacement
    with _without_pattern_fit():
        init.init_calibration()
    for stage in _STAGES:
        getattr(init, stage)()
    variables: dict[str, Any] = init.init_variables
    variables["recon_provenance"] = {}  # for PtyRAD's own files, which are not written
    return variables


@contextmanager
def _without_pattern_fit() -> Iterator[None]:
    """Skip a fit that PtyRAD makes for its log alone: half a second at 64 pixels, more at 256."""
    module = release.initializer()
    fit = module.fit_cbed_pattern
    module.fit_cbed_pattern = lambda *_args, **_kwargs: None
    try:
        yield
    finally:
        module.fit_cbed_pattern = fit


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed every generator that PtyRAD draws from; the process has its own random state back afterwards."""
    state = random_state("cpu")
    start_random(seed)
    try:
        yield
    finally:
        set_random_state(state, "cpu")


def start_random(seed: int) -> None:
    """Start every generator that PtyRAD draws from at ``seed``."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def random_state(device: str) -> dict[str, Any]:
    """Where those generators are, in tensors and plain data."""
    name, keys, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if device == "cuda" else None,
    }


def set_random_state(saved: Mapping[str, Any], device: str) -> None:
    """Put them back to where :func:`random_state` found them."""
    name, keys, *rest = saved["numpy"]
    random.setstate(saved["python"])
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(saved["torch"])
    if device == "cuda":
        torch.cuda.set_rng_state(saved["cuda"])
