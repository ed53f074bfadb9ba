"""The object's patches around the scan positions, and the sum of their gradients.

PtyRAD takes them with index tensors as large as the patches, of amplitude and phase each by itself, and autograd adds
their gradients up with ``index_put(accumulate)``. A patch is a window of the object that begins at one pixel: here that
one number is its index.

Patches that overlap have their gradients added in their order in the batch, as with ``index_put`` on one thread of a
CPU: on a CPU window by window, whatever the number of threads; elsewhere by ``index_put``, which sorts, so that the
order is the same every time (``index_add`` and ``scatter_add`` add in any order there).
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable


def take_patches(
    amplitude: torch.Tensor, phase: torch.Tensor, first: torch.Tensor, within: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of amplitude and phase (omode, Nz, Y, X) the patches (N, omode, Nz, Ny, Nx).

    ``first`` (N,) int64 is each patch's first pixel, y X + x; ``within`` (Ny, Nx) int64 is how far from it the pixels
    of a patch are.
    """
    patches: tuple[torch.Tensor, torch.Tensor] = _Patches.apply(amplitude, phase, first, within)  # type: ignore[no-untyped-call]
    return patches


class _Patches(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, amplitude: torch.Tensor, phase: torch.Tensor, first: torch.Tensor, within: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.save_for_backward(first, within)
        ctx.object_shape = amplitude.shape
        ctx.set_materialize_grads(False)
        shape = within.shape
        return _windows(amplitude, shape).index_select(0, first), _windows(phase, shape).index_select(0, first)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, at_amplitude: torch.Tensor | None, at_phase: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, ...]:
        first, within = ctx.saved_tensors
        gradients = (at_amplitude, at_phase)
        given = {n: g for n, g in enumerate(gradients) if g is not None and ctx.needs_input_grad[n]}
        add = add_windows if first.device.type == "cpu" else add_indexed
        sums = dict(zip(given, add(list(given.values()), first, within, ctx.object_shape), strict=True))
        return sums.get(0), sums.get(1), None, None


def _windows(array: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """All windows of an array (omode, Nz, Y, X), by their first pixels: a view."""
    array = array.contiguous()
    modes, slices, rows, columns = array.shape
    first = rows * columns - (shape[0] - 1) * columns - shape[1] + 1
    strides = (1, slices * rows * columns, rows * columns, columns, 1)
    return array.as_strided((first, modes, slices, *shape), strides)


def add_windows(
    gradients: list[torch.Tensor], first: torch.Tensor, within: torch.Tensor, shape: torch.Size
) -> list[torch.Tensor]:
    """Each of the gradients (N, omode, Nz, Ny, Nx) of patches, added up where they are in an object of ``shape``."""
    rows, columns = within.shape
    corners = [divmod(pixel, shape[-1]) for pixel in first.tolist()]
    sums = [gradient.new_zeros(shape) for gradient in gradients]
    for gradient, total in zip(gradients, sums, strict=True):
        for (y, x), patch in zip(corners, gradient.unbind(0), strict=True):
            total[..., y : y + rows, x : x + columns].add_(patch)
    return sums


def add_indexed(
    gradients: list[torch.Tensor], first: torch.Tensor, within: torch.Tensor, shape: torch.Size
) -> list[torch.Tensor]:
    """The same with one ``index_put`` for all of them."""
    values = torch.stack(gradients, 1).view(len(first), -1, within.numel()).transpose(0, 1)
    total = values.new_zeros((len(gradients), *shape))
    pixels = first[:, None] + within.view(-1)
    torch.ops.aten.index_put_(total.view(len(values), -1), [None, pixels], values, True)
    return list(total.unbind(0))
