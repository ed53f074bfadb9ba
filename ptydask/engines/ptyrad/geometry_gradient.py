"""The slope of a trial's loss in the geometry that it was given: scan affine, object tilts, slice thickness.

A reconstruction minimises the loss L(x, p) over object, probe and positions x at fixed geometry p. At the minimum
dL/dx is zero, so that the tuned loss L*(p) = min_x L(x, p) has the slope dL*/dp = dL/dp, taken at fixed x (the envelope
theorem). Of dL/dp PtyRAD's own backward pass computes nearly all: the gradients of the probe positions, of the tilts
and of the slice thickness. They are read by hooks as they go by; nothing that PtyRAD computes is changed.

Positions: in pixels, the position i is p_i A + c with the nominal position p_i, centred, and PtyRAD's affine matrix
A(scale, asymmetry, rotation, shear); c shifts object and positions alike and has no slope. With the gradient g_i
(N, 2) of the loss with respect to the positions, dL/dtheta = sum_i g_i . (p_i dA/dtheta).

An optimizer does not come to rest: with momentum, object and geometry swing against each other with a period of some
twenty batches, and at any one moment the slope may be ten times its mean. Hence slopes are means over the batches of
a whole iteration, each at its own moment, as PtyRAD's loss is. A tensor that the file keeps fixed is not in PtyRAD's
graph: then the slopes are those of one more iteration with it in the graph, of which nothing else is kept.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ptydask.engines.ptyrad import release
from ptydask.engines.ptyrad.fast_paths import iteration
from ptydask.space.tunables import AFFINE, DIFFERENTIABLE, TILTS

if TYPE_CHECKING:
    from ptydask.engines.ptyrad.reconstruction import Reconstruction

THICKNESS = "dz"


def affine_derivatives(affine: Sequence[float]) -> dict[str, NDArray[np.float64]]:
    """A^-1 dA/dtheta, (2, 2) each, for scale, asymmetry (1), rotation and shear (degree).

    ``affine`` are these four. A is that of PtyRAD's ``compose_affine_matrix``: A = S D R H, with S = scale times the
    identity, D = diag(1 + asymmetry/2, 1 - asymmetry/2), R a rotation and H a shear.
    """
    scale, asymmetry, rotation, shear = affine[0], affine[1], math.radians(affine[2]), math.radians(affine[3])
    cos, sin, degree = math.cos(rotation), math.sin(rotation), math.pi / 180
    stretch = scale * np.diag([1 + asymmetry / 2, 1 - asymmetry / 2])
    turn, lean = np.array([[cos, sin], [-sin, cos]]), np.array([[1, 0], [math.tan(shear), 1]])
    inverse = np.linalg.inv(stretch @ turn @ lean)
    turning = np.array([[-sin, cos], [-cos, -sin]]) * degree
    leaning = np.array([[0, 0], [degree / math.cos(shear) ** 2, 0]])
    return {
        "scale": np.eye(2) / scale,
        "asymmetry": inverse @ (scale * np.diag([0.5, -0.5]) @ turn @ lean),
        "rotation": inverse @ (stretch @ turning @ lean),
        "shear": inverse @ (stretch @ turn @ leaning),
    }


class GeometryGradient:
    """Takes the slopes of one trial's loss in the parameters ``names``; make it before the first iteration.

    ``affine`` are the trial's scale, asymmetry, rotation (degree) and shear (degree); None stands for the identity.
    """

    def __init__(self, model: Any, affine: Sequence[float] | None, names: Collection[str]) -> None:
        self._model = model
        self.names = tuple(name for name in DIFFERENTIABLE if name in names)
        affine_names = [name for name in self.names if name in AFFINE]
        self._tensors: dict[str, torch.Tensor] = {}
        if affine_names:
            self._tensors["positions"] = model.opt_probe_pos_shifts
            self._motions = _position_motions(model, affine or (1.0, 0.0, 0.0, 0.0), affine_names)
        if any(name in TILTS for name in self.names):
            self._tensors["tilts"] = model.opt_obj_tilts
        if THICKNESS in self.names:
            self._tensors["thickness"] = model.opt_slice_thickness
        self._sums: dict[str, torch.Tensor] = {}

    @contextmanager
    def listen(self, batches: int, grad_accumulation: int, by_steps: bool) -> Iterator[None]:
        """Hear the gradients of one iteration over so many ``batches``.

        PtyRAD divides each batch's loss by ``grad_accumulation``. An optimizer that evaluates the loss as often as it
        likes (LBFGS, not ``by_steps``) is not listened to.
        """
        self._sums = {}
        weight = grad_accumulation / batches
        handles = []
        for part, tensor in self._tensors.items():
            if by_steps and tensor.requires_grad and self._is_in_graph(part):
                handles.append(tensor.register_hook(self._adder(part, weight)))  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _is_in_graph(self, part: str) -> bool:
        """Whether PtyRAD's forward pass depends on the whole of it, by the model's own flags."""
        model = self._model
        if part == "positions":
            return release.shifts_probes(model)
        # With tilts that move and a fixed thickness the tilts' phase has the thickness in it, and the propagator not.
        if part == "thickness":
            return bool(model.change_thickness)
        return bool(model.tilt_obj and (model.change_thickness or model.lr_params["obj_tilts"] != 0))

    def _adder(self, part: str, weight: float) -> Any:
        def add(gradient: torch.Tensor) -> None:
            if part in self._sums:
                self._sums[part].add_(gradient, alpha=weight)
            else:
                self._sums[part] = gradient * weight  # not the gradient itself, which becomes PtyRAD's

        return add

    def slopes(self) -> dict[str, float]:
        """Of the last iteration, as far as it had them: loss per unit of the parameter (1, degree, mrad, angstrom)."""
        return self._to_slopes(self._sums)

    @property
    def is_incomplete(self) -> bool:
        """Whether the last iteration had not all slopes: one more is needed."""
        return self._sums.keys() < self._tensors.keys()

    def complete(self, recon: Reconstruction, grad_accumulation: int, by_steps: bool) -> dict[str, float]:
        """The slopes of the last iteration, and of one more iteration those that it had not.

        The reconstruction is then no more what the trial came to: take what is kept of it before.
        """
        missing = [part for part in self._tensors if part not in self._sums]
        if not missing:
            return self.slopes()
        known = self._sums
        try:
            with _in_graph(self._model, missing, [self._tensors[part] for part in missing]):
                if by_steps:
                    self._iterate(recon, grad_accumulation)
                else:
                    self._pass_over(recon)
        except Exception:  # such as no memory left: the trial is there, only these slopes are not
            logging.getLogger("ptyrad").exception("the slopes of what is kept fixed could not be taken")
            return self._to_slopes(known)
        # An object of one slice is not propagated through: it has no slope in tilt and thickness.
        late = {part: self._sums.get(part, torch.zeros_like(self._tensors[part])) for part in missing}
        self._sums = known | late
        return self.slopes()

    def _iterate(self, recon: Reconstruction, grad_accumulation: int) -> None:
        """Hear PtyRAD's next iteration, without what was compiled for another graph and without a schedule's end."""
        plain = replace(recon, compute_loss=release.solver().compute_loss, scheduler=None)
        with self.listen(len(recon.batches), grad_accumulation, by_steps=True):
            iteration.iterate(self._model.loss_iters[-1][0] + 1, plain, grad_accumulation)

    def _pass_over(self, recon: Reconstruction) -> None:
        """Hear one pass over the batches, with nothing moved."""
        with self.listen(len(recon.batches), 1, by_steps=True):
            for batch in recon.batches:
                measured = self._model.get_measurements(batch)
                loss, _ = release.solver().compute_loss(batch, self._model, self._model, measured, recon.loss)
                loss.backward()
                self._model.clear_cache()

    def _to_slopes(self, sums: Mapping[str, torch.Tensor]) -> dict[str, float]:
        slopes: dict[str, float] = {}
        if "positions" in sums:
            affine = [name for name in self.names if name in AFFINE]
            values = torch.einsum("knc,nc->k", self._motions, sums["positions"].double()).tolist()
            slopes |= dict(zip(affine, values, strict=True))
        if "tilts" in sums:
            slopes |= dict(zip(TILTS, sums["tilts"].double().sum(0).tolist(), strict=True))
        if "thickness" in sums:
            slopes[THICKNESS] = float(sums["thickness"].double().sum())
        return {name: slopes[name] for name in self.names if name in slopes}


def _position_motions(model: Any, affine: Sequence[float], names: Sequence[str]) -> torch.Tensor:
    """By how many pixels each position moves per unit of each parameter: (names, N, 2)."""
    positions = (model.crop_pos + model.opt_probe_pos_shifts).detach().double()
    centred = positions - positions.mean(0)
    derivatives = affine_derivatives(affine)
    matrices = torch.from_numpy(np.stack([derivatives[name] for name in names])).to(centred)
    return centred @ matrices


@contextmanager
def _in_graph(model: Any, parts: Sequence[str], tensors: Sequence[torch.Tensor]) -> Iterator[None]:
    """Have PtyRAD's forward pass depend on these tensors, too."""
    flags = {"tilt_obj": model.tilt_obj, "change_thickness": model.change_thickness}
    required = [tensor.requires_grad for tensor in tensors]
    shifts = model.opt_probe_pos_shifts.detach().clone()
    stood_still = "positions" in parts and not release.shifts_probes(model)
    try:
        for tensor in tensors:
            tensor.requires_grad = True
        if stood_still:
            model.shift_probes = True
            with torch.no_grad():  # the trial's probes stood at whole pixels
                model.opt_probe_pos_shifts.zero_()
        if "tilts" in parts or "thickness" in parts:
            model.change_thickness = True  # the propagator is then made of thickness and tilts, not looked up
            model.tilt_obj = model.tilt_obj or "tilts" in parts
        yield
    finally:
        for name, value in flags.items():
            setattr(model, name, value)
        if stood_still:
            model.shift_probes = False
            with torch.no_grad():
                model.opt_probe_pos_shifts.copy_(shifts)
        for tensor, value in zip(tensors, required, strict=True):
            tensor.requires_grad = value
