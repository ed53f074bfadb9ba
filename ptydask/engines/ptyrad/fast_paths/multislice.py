"""PtyRAD's multislice forward model as one node of the graph, whose backward pass is written out.

Its values are those of PtyRAD's ``multislice_forward``, its gradients those that autograd finds for that function, to
the last bit on a CPU where they :func:`round alike <rounds_alike>`: the same products, sums and transforms in the same
order. What is left out changes nothing: the transmission of all slices is computed at once; of conjugates, autograd
makes two for each product of complex tensors; of the amplitude and the phase of a slice it computes each by itself; a
sum over one mode is that mode.

With transmission t = a exp(i p), waves w_(n+1) = F^-1 H F (w_n t_n) and the pattern sum |F w_N t_N|^2, the gradient g
of the loss at a product w t is g conj(t) at w and, summed over the probe's modes, g conj(w) at t. Of the conjugate c of
the latter, Re(c t/|t|) is the gradient in a, and Re(c i t) = -Im(c t) that in p.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.fft import fft2, ifft2

_PIXELS = (-2, -1)
_VECTORS = 16
"""Complex numbers that a CPU's vector instructions take in one go, at the most: what is left over PyTorch computes one
by one, with other roundings."""


def rounds_alike(slices: int, pixels: int, device: str) -> bool:
    """Whether :func:`model_patterns` rounds every value of a CPU as PtyRAD does: the same ones must be left over.

    PtyRAD goes slice by slice, each of so many ``pixels``, where here one operation goes over all slices. On other
    devices order and rounding are their own anyway.
    """
    return device != "cpu" or slices == 1 or pixels % _VECTORS == 0


def model_patterns(
    amplitude: torch.Tensor,
    phase: torch.Tensor,
    probes: torch.Tensor,
    propagators: torch.Tensor,
    occupancy: torch.Tensor | None,
    eps: float = 1e-10,
) -> torch.Tensor:
    """The diffraction patterns (N, ky, kx) of object patches (N, omode, Nz, Ny, Nx) and probes (N, pmode, Ny, Nx).

    ``propagators`` (1 or N, Ny, Nx) have no gradient. ``occupancy`` (omode,) are the weights of the object modes; None
    stands for one mode of weight 1.
    """
    patterns: torch.Tensor = _Multislice.apply(amplitude, phase, probes, propagators, occupancy, eps)  # type: ignore[no-untyped-call]
    return patterns


class _Multislice(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        amplitude: torch.Tensor,
        phase: torch.Tensor,
        probes: torch.Tensor,
        propagators: torch.Tensor,
        occupancy: torch.Tensor | None,
        eps: float,
    ) -> torch.Tensor:
        transmission = torch.polar(amplitude, phase)
        slices = transmission.unbind(2)
        wave, kernel = probes[:, :, None], propagators[:, None, None]
        waves = [wave]
        for each in slices[:-1]:
            spectrum = fft2(wave * each[:, None])
            wave = ifft2(torch.mul(kernel, spectrum, out=spectrum))
            waves.append(wave)
        detected = fft2(wave * slices[-1][:, None], norm="ortho")
        modulus = detected.abs()
        intensity = modulus.square()
        if occupancy is not None:
            intensity = intensity * occupancy[:, None, None]
        modes = intensity.shape[1] * intensity.shape[2]
        summed = intensity.sum((1, 2)) if modes > 1 else intensity[:, 0, 0]
        ctx.save_for_backward(transmission, propagators, occupancy)
        ctx.waves = [*waves, modulus, detected]  # taken out as they are used, for they are most of the memory
        return torch.fft.fftshift(summed, dim=_PIXELS).add_(eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        transmission, propagators, occupancy = ctx.saved_tensors
        waves: list[torch.Tensor] = ctx.waves
        needs_amplitude, needs_phase, needs_probes = ctx.needs_input_grad[:3]
        needs_object = needs_amplitude or needs_phase
        rows, columns = gradient.shape[-2:]
        weight = torch.roll(gradient, (-(rows // 2), -(columns // 2)), _PIXELS)[:, None, None]
        if occupancy is not None:
            weight = weight * occupancy[:, None, None]
        # d|z|^2 as autograd takes it, through |z|: the factor 2 is exact wherever it stands
        back = waves.pop().sgn()
        torch.view_as_real(back).mul_(torch.mul(weight * 2, waves.pop())[..., None])
        back = ifft2(back, norm="ortho")
        at_slices = transmission.conj_physical()  # slice by slice, once its conjugate has been used
        kernel = propagators.conj_physical()[:, None, None] if len(waves) > 1 else None
        while waves:
            wave, of_slice = waves.pop(), at_slices[:, :, len(waves)]
            product = back.conj_physical().mul_(wave) if needs_object else None
            del wave
            if needs_probes or waves:
                back.mul_(of_slice[:, None])
            if product is not None:
                torch.sum(product, 1, out=of_slice)
            if waves:
                back = ifft2(fft2(back, norm="forward").mul_(kernel), norm="forward")
        at_amplitude = transmission.sgn().mul_(at_slices).real if needs_amplitude else None
        at_phase = at_slices.mul_(transmission).imag.neg() if needs_phase else None
        at_probes = None
        if needs_probes:
            at_probes = back.sum(2) if back.shape[2] > 1 else back[:, :, 0]
        return at_amplitude, at_phase, at_probes, None, None, None
