"""Probes moved by fractions of a pixel, as one node of the graph: PtyRAD's ``imshift_batch``, and its gradient.

With the probe's spectrum P and the ramp r = exp(-2 pi i (k . s)) the moved probe is F^-1 (P r). The gradient g of the
loss there, back in Fourier space G, is G conj(r) at P, summed over the positions; with the conjugate c of G conj(P),
summed over the modes, 2 pi Im(c r) k, summed over the pixels, is that at the shift s. All to the last bit as autograd
has it on a CPU; see :mod:`ptydask.engines.ptyrad.fast_paths.multislice`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.fft import fft2, ifft2


def shift_probes(
    probe: torch.Tensor, shifts: torch.Tensor, indices: torch.Tensor, grid: torch.Tensor, one: torch.Tensor
) -> torch.Tensor:
    """The probe (pmode, Ny, Nx) at the positions ``indices`` (n,), moved by their rows of ``shifts`` (N, 2), in pixels.

    ``grid`` (2, Ny, Nx) are the frequencies in cycles per pixel, ``one`` is the number 1 on the device.
    Returns (n, pmode, Ny, Nx).
    """
    moved: torch.Tensor = _ShiftedProbes.apply(probe, shifts, indices, grid, one)  # type: ignore[no-untyped-call]
    return moved


class _ShiftedProbes(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        probe: torch.Tensor,
        shifts: torch.Tensor,
        indices: torch.Tensor,
        grid: torch.Tensor,
        one: torch.Tensor,
    ) -> torch.Tensor:
        y, x = shifts[indices][..., None, None].unbind(1)
        ramp = torch.mul(x * grid[1] + y * grid[0], -2 * math.pi)
        ramp = torch.polar(one.expand_as(ramp), ramp)
        spectrum = fft2(probe)
        ctx.save_for_backward(spectrum, ramp, indices, grid)
        ctx.positions = shifts.shape
        return ifft2(spectrum * ramp[:, None])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        spectrum, ramp, indices, grid = ctx.saved_tensors
        back = fft2(gradient, norm="forward")
        at_probe = at_shifts = None
        if ctx.needs_input_grad[1]:
            at_ramp = back.conj_physical().mul_(spectrum).sum(1)
            at_phase = at_ramp.mul_(ramp).imag * (2 * math.pi)
            moments = torch.mul(at_phase[:, None], grid).sum((-2, -1))
            at_shifts = moments.new_zeros(ctx.positions).index_put_((indices,), moments, accumulate=True)
        if ctx.needs_input_grad[0]:
            at_probe = ifft2((back * ramp.conj_physical()[:, None]).sum(0), norm="forward")
        return at_probe, at_shifts, None, None, None
