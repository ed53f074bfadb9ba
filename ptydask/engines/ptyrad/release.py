"""The PtyRAD that is installed. What differs between 0.1.0b13.post3 and 1.x is decided here alone."""

from __future__ import annotations

import inspect
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ptydask.engines.ptyrad import put_off, torchvision_schema
from ptydask.errors import require

if TYPE_CHECKING:
    from ptydask.engines.ptyrad.reconstruction import Reconstruction

_USED_LATER = ("ptyrad.params", "torch._dynamo")
"""Imported by a trial's first iteration otherwise, within the time that is measured."""


@dataclass(frozen=True, slots=True)
class PtyradRelease:
    """One version of PtyRAD behind the calls that a trial makes."""

    version: str
    schedules: bool
    """Learning rates may follow a scheduler (1.x): its optimizer step takes the scheduler and its unit."""

    def scheduler(self, model: Any, optimizer: Any) -> Any | None:
        """The learning-rate scheduler that the params ask for; None where there is none, as with LBFGS."""
        if not self.schedules or model.scheduler_params is None or model.optimizer_params["name"] == "LBFGS":
            return None
        return solver().create_scheduler(model.scheduler_params, optimizer)

    def iterate(self, niter: int, recon: Reconstruction, grad_accumulation: int) -> Mapping[str, Sequence[Any]]:
        """One iteration over all batches (PtyRAD's ``recon_step``); the model keeps its loss and time.

        Returns the loss's terms, each with its value in every batch, in the order of PtyRAD's ``CombinedLoss``.
        """
        _import_compiler()
        arguments = [recon.batches, grad_accumulation, recon.model, recon.optimizer]
        keywords = {"compute_loss_fn": recon.compute_loss}
        if self.schedules:
            arguments.append(recon.scheduler)
            keywords["scheduler_step_unit"] = (recon.model.scheduler_params or {}).get("step_unit", "iter")
        terms: Mapping[str, Sequence[Any]]
        terms = solver().recon_step(*arguments, recon.loss, recon.constraint, niter, **keywords)
        return terms


@cache
def _import_compiler() -> None:
    """Import what PyTorch compiles with, which ``recon_step`` tells of each step: without words, and untimed."""
    with warnings.catch_warnings(action="ignore"):
        import_module("torch._inductor.cudagraph_trees")


def scheduler_state(scheduler: Any | None) -> dict[str, Any] | None:
    """What a learning-rate scheduler changes as it goes, for its ``load_state_dict``; None where there is none.

    PtyRAD 1.x puts its own ``step`` on the scheduler, which would be part of the state. Functions, and milestones,
    are settings: a scheduler made from the same params has them.
    """
    if scheduler is None:
        return None
    state = scheduler.state_dict()
    return {name: value for name, value in state.items() if not callable(value) and not isinstance(value, Counter)}


def shifts_probes(model: Any) -> bool:
    """Whether PtyRAD's forward pass moves the probes by their positions' fractions of a pixel; 1.x always does."""
    return bool(getattr(model, "shift_probes", True))


@cache
def installed() -> PtyradRelease:
    """Import PtyRAD without a display, a figure or a word on the terminal.

    Raises MissingDependency where it is not installed or its version is not one that is known to work.
    """
    require("ptyrad", "the engine 'ptyrad' needs", "ptyrad")
    with warnings.catch_warnings(action="ignore"):  # on import PtyRAD uses what its dependencies deprecate
        torchvision_schema.make_importable()
        import_module("matplotlib").use("Agg")
        put_off.put_off("matplotlib.pyplot")  # PtyRAD draws in a run of its own alone
        for module in (solver, core, initializer):
            module()
        for name in _USED_LATER:
            import_module(name)
    parameters = inspect.signature(solver().recon_step).parameters
    return PtyradRelease(version=import_module("ptyrad").__version__, schedules="scheduler" in parameters)


def solver() -> Any:
    """PtyRAD's module of reconstruction functions."""
    return import_module("ptyrad.solver.reconstruction")


def core() -> Any:
    """PtyRAD's module of model, loss and constraints."""
    return import_module("ptyrad.core")


def initializer() -> Any:
    """PtyRAD's module of the Initializer."""
    return import_module("ptyrad.init.initializer")
