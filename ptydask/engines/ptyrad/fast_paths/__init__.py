"""Ways through PtyRAD's iteration that come to the same values with fewer operations and without waiting for a GPU.

Each takes the place of some of PtyRAD's functions on one trial's model or loss, and of nothing in PtyRAD's modules.
It does so only where those functions read as they do in a PtyRAD that is known (by their source's checksum), and where
the settings leave it something to do; otherwise PtyRAD's own run. On a CPU results are equal to the last bit with and
without each, which tests/test_fast_paths.py holds; ``PTYDASK_FAST_PATHS`` in the environment is for comparisons.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import torch

from ptydask.engines.ptyrad.fast_path_choice import FastPaths
from ptydask.engines.ptyrad.fast_paths import known, multislice, patches, probe_shift
from ptydask.engines.ptyrad.fast_paths.loss_terms import TERMS, LossTerms

_MODEL, _LOSSES = "ptyrad.core.models.ptycho:PtychoModel", "ptyrad.core.losses:CombinedLoss"

_REPLACED: Mapping[str, tuple[str, ...]] = {
    "measurements": ("ptyrad.io.dataloader:MeasDataLoader.__getitem__", f"{_MODEL}.get_measurements"),
    "losses": (f"{_LOSSES}.forward", f"{_LOSSES}.get_loss_single"),
    "propagators": (f"{_MODEL}.get_propagators",),
    "patches": (f"{_MODEL}.get_obj_patches",),
    "probes": (f"{_MODEL}.get_probes", "ptyrad.core.functional:imshift_batch", "ptyrad.core.functional:torch_phasor"),
    "multislice": ("ptyrad.core.forward:multislice_forward", f"{_MODEL}.get_forward_pattern|get_forward_meas"),
    "iteration": ("ptyrad.solver.reconstruction:recon_step",),
    "optimizer": (),  # PyTorch's, and compared with it
}
"""PtyRAD's functions that each way takes the place of; see :func:`known.checksum`."""


def applicable(paths: FastPaths) -> FastPaths:
    """Those among them that take the place of functions of the installed PtyRAD as they are known."""
    names = [field.name for field in fields(paths) if getattr(paths, field.name)]
    return paths.of(*(name for name in names if all(map(known.is_known, _REPLACED[name]))))


def install(paths: FastPaths, model: Any, loss: Any, compiled: bool) -> None:
    """Put them onto one trial's model and loss. What torch.compile compiles stays PtyRAD's own."""
    if paths.measurements:
        model.get_measurements = _Measurements(model)
    if compiled:
        return
    if paths.losses and any(loss.loss_params[name]["state"] for name in TERMS):
        loss.forward = LossTerms(loss)
    if paths.propagators:
        _replace(model, "get_propagators", _propagators)
    if paths.patches:
        model.get_obj_patches = _Patches(model)
    if paths.probes:
        one = torch.ones((), device=model.device)
        _replace(model, "get_probes", lambda own, model, indices: _probes(own, model, indices, one))
    if paths.multislice and multislice.rounds_alike(model.opt_objp.shape[1], model.H.numel(), str(model.device)):
        name = "get_forward_pattern" if hasattr(model, "get_forward_pattern") else "get_forward_meas"
        occupancy = None if model.omode_occu.tolist() == [1.0] else model.omode_occu
        _replace(model, name, lambda own, model, *inputs: _patterns(own, model, occupancy, *inputs))


def _replace(model: Any, name: str, function: Callable[..., Any]) -> None:
    """Have ``function(own, model, ...)`` called in place of the model's method ``own``."""
    own = getattr(model, name)
    setattr(model, name, lambda *inputs: function(own, model, *inputs))


class _Measurements:
    """``get_measurements``: patterns by a batch's indices, padded and resampled on the fly as PtyRAD does it."""

    def __init__(self, model: Any) -> None:
        self._loader, self._own = model.meas_loader, model.get_measurements
        self._corners = None if self._loader.meas_padded is None else self._loader.meas_padded_idx.tolist()

    def __call__(self, indices: torch.Tensor | None = None) -> Any:
        loader = self._loader
        scale = loader.meas_scale_factors
        on_device = indices is not None and isinstance(loader.data, torch.Tensor)
        if not on_device or (scale is not None and any(factor != 1 for factor in scale)):
            return self._own(indices)
        patterns = loader.data[indices]
        if self._corners is None:
            return patterns
        top, bottom, left, right = self._corners
        canvas = loader.meas_padded.expand(len(patterns), *loader.meas_padded.shape[-2:]).clone()
        canvas[..., top:bottom, left:right] = patterns
        return canvas


def _propagators(own: Any, model: Any, indices: torch.Tensor) -> torch.Tensor:
    if model.change_thickness or (model.tilt_obj and model.lr_params["obj_tilts"] != 0):
        return own(indices)
    if not model.tilt_obj:
        return model.H[None].contiguous()
    tilted = model.H_fixed_tilts_full
    return tilted if len(model.opt_obj_tilts) == 1 else tilted[indices]


class _Patches:
    """``get_obj_patches``."""

    def __init__(self, model: Any) -> None:
        self._model, self._columns = model, model.opt_objp.shape[-1]
        rows, columns = model.opt_probe.shape[-3:-1]
        y, x = torch.arange(rows, device=model.device), torch.arange(columns, device=model.device)
        self._within = y[:, None] * self._columns + x
        corners = model.crop_pos.long()
        self._first = corners[:, 0] * self._columns + corners[:, 1]

    def __call__(self, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return patches.take_patches(self._model.opt_obja, self._model.opt_objp, self._first[indices], self._within)


def _probes(own: Any, model: Any, indices: torch.Tensor, one: torch.Tensor) -> torch.Tensor:
    if not getattr(model, "shift_probes", True):
        return own(indices)
    probe, shifts = model.get_complex_probe_view(), model.opt_probe_pos_shifts
    return probe_shift.shift_probes(probe, shifts, indices, model.shift_probes_grid, one)


def _patterns(
    own: Any,
    model: Any,
    occupancy: torch.Tensor | None,
    amplitude: torch.Tensor,
    phase: torch.Tensor,
    probes: torch.Tensor,
    propagators: torch.Tensor,
) -> torch.Tensor:
    if propagators.requires_grad or (model.detector_blur_std and own.__name__ == "get_forward_meas"):
        return own(amplitude, phase, probes, propagators)
    return multislice.model_patterns(amplitude, phase, probes, propagators, occupancy)
