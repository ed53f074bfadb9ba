"""How far modelled diffraction patterns are from measured ones that the reconstruction did not see.

Both are sums over all values, in double precision, so that sums over parts of the data can be added. Neither changes
which of two models is the better one where all intensities are given in another unit.
"""

from __future__ import annotations

import torch

_FLOOR = 1e-6
"""Of the mean modelled intensity: no less is expected of any pixel, where a logarithm is taken. Scattering that no
model has, far outside of the disk, would otherwise decide alone."""


def amplitude_misfit(measured: torch.Tensor, modelled: torch.Tensor) -> float:
    """Sum of (sqrt n - sqrt m)^2. Four times that is the Poisson deviance where n and m are large and near."""
    return float((measured.sqrt() - modelled.sqrt()).square().sum(dtype=torch.float64))


def poisson_deviance(measured: torch.Tensor, expected: torch.Tensor) -> float:
    """Sum of 2 [n ln(n / m) - (n - m)], n ln n = 0 for n = 0: of independent Poisson counts n with means m about 1 each
    where m >> 1 is right. Measured and expected in electrons; in another unit it is so many times as large.
    """
    return float(deviance_terms(measured, expected).sum(dtype=torch.float64))


def deviance_terms(measured: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """What :func:`poisson_deviance` sums, value by value, none of them negative."""
    expected = expected.clamp(min=float(expected.mean()) * _FLOOR)
    return 2 * (torch.xlogy(measured, measured / expected) - (measured - expected))
