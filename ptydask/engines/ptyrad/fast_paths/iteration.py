"""PtyRAD's ``recon_step`` for optimizers that take one step for each evaluation (all but LBFGS).

The losses stay on the device until all batches are through; PtyRAD 0.1 fetches each term of each batch, and waits for
it. A division by one batch is not made.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ptydask.engines.ptyrad import release
from ptydask.engines.ptyrad.fast_paths import adam

if TYPE_CHECKING:
    from ptydask.engines.ptyrad.reconstruction import Reconstruction


def iterate(niter: int, recon: Reconstruction, grad_accumulation: int) -> Mapping[str, Sequence[Any]]:
    """One iteration over all batches, as :meth:`PtyradRelease.iterate` has it."""
    if not recon.fast_paths.iteration or isinstance(recon.optimizer, torch.optim.LBFGS):
        return release.installed().iterate(niter, recon, grad_accumulation)
    ptyrad, model = release.solver(), recon.model
    schedules: bool = release.installed().schedules
    scheduler: Any = recon.scheduler
    if schedules:
        _note_learning_rates(model, recon.optimizer, niter)
    by_batch, by_plateau = _kind_of(model, scheduler)
    start = ptyrad.time_sync(model.device)
    rows = _run_batches(recon, grad_accumulation, scheduler.step if by_batch else None)
    values = torch.stack(rows).cpu().numpy()
    # what PtyRAD takes its mean of: single precision before 1.0, double since then
    columns = [column.tolist() if schedules else list(column) for column in values.T]
    terms: dict[str, list[Any]] = dict(zip(recon.loss.loss_params, columns, strict=False))
    recon.constraint(model, niter)
    if by_plateau:
        scheduler.step(float(sum(np.mean(column) for column in terms.values())))
    elif scheduler is not None and not by_batch:
        scheduler.step()
    seconds = ptyrad.time_sync(model.device) - start
    model.loss_iters.append((niter, ptyrad.loss_logger(terms, niter, seconds)))
    model.iter_times.append(seconds)
    model.dz_iters.append((niter, model.opt_slice_thickness.detach().cpu().numpy()))
    _note_tilts(model, niter, schedules)
    return terms


def _run_batches(
    recon: Reconstruction, grad_accumulation: int, after_step: Callable[[], object] | None
) -> list[torch.Tensor]:
    """Forward, backward, step. Returns the terms of the loss of each batch, (terms,) on the device."""
    model, optimizer, last = recon.model, recon.optimizer, len(recon.batches)
    merge = recon.fast_paths.optimizer and adam.is_plain(optimizer)
    optimizer.zero_grad()
    rows = []
    for count, batch in enumerate(recon.batches, 1):
        if "torch._inductor.cudagraph_trees" in sys.modules:  # half a second's import, for what is compiled alone
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        measured = model.get_measurements(batch)
        loss, terms = recon.compute_loss(batch, model, model, measured, recon.loss)
        (loss if grad_accumulation == 1 else loss / grad_accumulation).backward()
        if count % grad_accumulation == 0 or count == last:
            if merge:
                adam.step(optimizer)
            else:
                optimizer.step()
            optimizer.zero_grad()
            if after_step is not None:
                after_step()
        model.clear_cache()
        with torch.no_grad():
            rows.append(torch.stack(terms))  # copied: a compiled graph uses its memory again
    return rows


def _kind_of(model: Any, scheduler: Any) -> tuple[bool, bool]:
    """Whether a scheduler steps after every optimizer step, and whether it goes by the loss of an iteration."""
    if scheduler is None:
        return False, False
    by_plateau = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
    return model.scheduler_params.get("step_unit", "iter") == "batch" and not by_plateau, by_plateau


def _note_learning_rates(model: Any, optimizer: Any, niter: int) -> None:
    names = [name for name, lr in model.lr_params.items() if lr != 0]
    model.lr_iters["niter"].append(niter)
    for name, group in zip(names, optimizer.param_groups, strict=False):
        model.lr_iters[name].append(float(group["lr"]))


def _note_tilts(model: Any, niter: int, by_name: bool) -> None:
    tilts = model.opt_obj_tilts.detach().mean(0).cpu().numpy()
    if not by_name:
        model.avg_tilt_iters.append((niter, tilts))
        return
    for name, value in zip(("niter", "tilt_y", "tilt_x"), (niter, *tilts.tolist()), strict=True):
        model.avg_tilt_iters[name].append(value)
