"""A Gaussian process over values and slopes of a loss.

The loss is modelled as a constant and a Gaussian process with a squared exponential kernel,
k(x, x') = exp(-sum_j (x_j - x'_j)^2 / (2 l_j^2)), of which any derivative is a Gaussian process, too, with the kernel's
derivatives as covariances (Rasmussen and Williams, Gaussian Processes for Machine Learning, section 9.4). So a trial's
slope in one parameter is one more observation, beside its value.

How far observations can be trusted is learned, by the posterior of four kinds of hyperparameters: the length scales;
the roughness of the values (a loss after so many iterations is no smooth function); the relative error of the slopes;
and their bias, one offset for each parameter in all trials alike. The bias matters: after too few iterations a smaller
scan scale has the lower loss, since patches that overlap more converge faster, and every slope leans that way.

GPyTorch has such kernels (``RBFKernelGrad``), for inputs that all have slopes, at all points, with one noise. Here some
parameters have slopes and some trials have values, and the noise is structured: a page of NumPy says it more plainly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

LENGTH, CHOICE_LENGTH, ROUGHNESS, ERROR, BIAS = 0.4, 1.2, 0.02, 0.15, 0.2
"""Prior medians: length scales in shares of a range, of choices such that they have much in common; roughness in
standard deviations of the values; the error of a slope in shares of its own size; bias in root mean squares of the
slopes in one parameter."""
FLOOR = 0.1
"""Beside its own size, a slope is wrong by the error's share of so much of the root mean square: near the optimum they
are small and well known, and those of far trials must not drown them."""
_SPREAD_LENGTH, _SPREAD_NOISE = 0.7, 1.0
"""Standard deviations of their natural logarithms."""
_PSEUDO = 4.0
"""The signal's variance has an inverse gamma prior worth so many observations of variance 1."""
_EVALUATIONS = 80
"""Of the posterior, in the search for the hyperparameters."""
_JITTER = 1e-8


@dataclass(frozen=True, slots=True, eq=False)
class Observations:
    """What trials told, in the coordinates of a unit cube; NaN where a trial did not tell it.

    The arrays are never changed.
    """

    points: Floats
    """(n, d)"""
    values: Floats
    """(n,)"""
    slopes: Floats
    """(n, d), per unit of each coordinate."""
    is_choice: NDArray[np.bool_]
    """(d,), whether a coordinate stands for one of several choices."""
    doubt: Floats
    """(n,), by how much the errors of a trial's slopes are larger than others': 1 for a trial that ran to its end."""


class GaussianProcess:
    """The process given some observations, of which one value or slope at least is finite.

    The hyperparameters are fitted, or those of another process, ``like``.
    """

    def __init__(self, observations: Observations, like: GaussianProcess | None = None) -> None:
        points, values, slopes = observations.points, observations.values, observations.slopes
        self._points = points
        self._valued = np.flatnonzero(np.isfinite(values))
        self._rows, self._axes = np.nonzero(np.isfinite(slopes))
        known_values, known_slopes = values[self._valued], slopes[self._rows, self._axes]
        self._sizes = _root_mean_squares(slopes)
        spread = float(np.std(known_values)) if len(known_values) > 1 else 0.0
        typical = float(np.sqrt(np.mean(known_slopes**2))) if len(known_slopes) else 0.0
        self._scale = max(spread, 0.3 * typical, 1e-12)
        """One unit of the normalised loss."""
        self._targets = np.concatenate([known_values, known_slopes]) / self._scale
        self._is_value = np.concatenate([np.ones(len(known_values)), np.zeros(len(known_slopes))])
        self._doubt = observations.doubt[self._rows]
        self._medians = np.log([*np.where(observations.is_choice, CHOICE_LENGTH, LENGTH), ROUGHNESS, ERROR, BIAS])
        self._spreads = np.array([*[_SPREAD_LENGTH] * points.shape[1], *[_SPREAD_NOISE] * 3])
        self._parameters = self._medians
        self._condition(self._fit() if like is None else like._parameters)
        # NumPy knows no triangular systems: one inverse serves all predictions.
        self._inverse = np.linalg.inv(self._factor)
        self._weights = self._inverse.T @ self._residuals

    # --- hyperparameters ---

    def _fit(self) -> Floats:
        """The logarithms of the hyperparameters at a maximum of their posterior, by a pattern search.

        Hooke and Jeeves, J. ACM 8 (1961) 212: steps along each axis, halved when none helps. It needs no derivatives
        of the likelihood, and is the same on every machine but for rounding.
        """
        best, parameters = self._posterior(self._medians), self._medians
        step, evaluations = 0.6, 1
        while step > 0.1 and evaluations < _EVALUATIONS:
            moved = False
            for axis in range(len(parameters)):
                for sign in (1.0, -1.0):
                    tried = parameters.copy()
                    tried[axis] += sign * step
                    value = self._posterior(tried)
                    evaluations += 1
                    if value > best + 1e-9:
                        best, parameters, moved = value, tried, True
                        break
            step = step if moved else step / 2
        return parameters

    def _posterior(self, parameters: Floats) -> float:
        try:
            evidence = self._condition(parameters)
        except np.linalg.LinAlgError:
            return -np.inf
        return evidence - 0.5 * float(np.sum(((parameters - self._medians) / self._spreads) ** 2))

    def _condition(self, parameters: Floats) -> float:
        """Condition the process on the observations; the logarithm of their likelihood, but for a constant.

        The constant mean is the one of greatest likelihood, the signal's variance that of its posterior.
        """
        self._parameters = parameters
        self._factor = np.linalg.cholesky(self._covariance())
        ones, targets = np.linalg.solve(self._factor, np.stack([self._is_value, self._targets], axis=1)).T
        weight = float(ones @ ones)
        self._mean = float(ones @ targets) / weight if weight > 0 else 0.0
        residuals = targets - self._mean * ones
        count = len(residuals) + _PSEUDO
        self._variance = float(residuals @ residuals + _PSEUDO) / count
        self._residuals = residuals
        return -0.5 * count * float(np.log(self._variance)) - float(np.log(np.diag(self._factor)).sum())

    @property
    def evidence(self) -> float:
        """The logarithm of the likelihood of what was told, as a density in its own units."""
        count, order = len(self._residuals), 0.5 * (len(self._residuals) + _PSEUDO)
        # The variance is integrated over its inverse gamma prior, which leaves a density of Student's t.
        scatter = 0.5 * (float(self._residuals @ self._residuals) + _PSEUDO)
        constant = math.lgamma(order) - math.lgamma(0.5 * _PSEUDO) + 0.5 * _PSEUDO * math.log(0.5 * _PSEUDO)
        width = 0.5 * count * math.log(2 * math.pi) + count * math.log(self._scale)
        return constant - width - order * math.log(scatter) - float(np.log(np.diag(self._factor)).sum())

    @property
    def lengths(self) -> Floats:
        """The length scales (d,), in shares of a range."""
        return np.exp(self._parameters[:-3])

    def _covariance(self) -> Floats:
        """Of all observations, in units of the signal's variance, with their noise."""
        roughness, error, bias = np.exp(self._parameters[-3:])
        matrix = self._cross_covariance(self._points, self._valued, self._rows, self._axes)
        sizes = self._sizes[self._axes] / self._scale
        errors = error * self._doubt * (np.abs(self._targets[len(self._valued) :]) + FLOOR * sizes)
        noise = np.concatenate([np.full(len(self._valued), roughness), errors])
        matrix[np.diag_indices_from(matrix)] += noise**2 + _JITTER
        # An offset that all slopes in one parameter share.
        same = self._axes[:, None] == self._axes[None, :]
        matrix[len(self._valued) :, len(self._valued) :] += same * (bias * sizes)[:, None] ** 2
        return matrix

    def _cross_covariance(self, points: Floats, valued: Indices, rows: Indices, axes: Indices) -> Floats:
        """Of values at ``points[valued]``, and slopes at ``points[rows]`` along ``axes``, with the observations."""
        squares = self.lengths**2
        apart = points[:, None, :] - self._points[None, :, :]
        scaled = apart / squares
        kernel = np.exp(-0.5 * np.einsum("abj,abj->ab", apart, scaled))
        own_rows, own_axes, count = self._rows, self._axes, len(valued)
        matrix = np.empty((count + len(rows), len(self._valued) + len(own_rows)))
        known = len(self._valued)
        matrix[:count, :known] = kernel[np.ix_(valued, self._valued)]
        # dk/dx'_j = k (x_j - x'_j) / l_j^2, and dk/dx_j its negative.
        matrix[:count, known:] = (kernel[:, own_rows] * scaled[:, own_rows, own_axes])[valued]
        matrix[count:, :known] = -(kernel[rows] * scaled[rows, :, axes])[:, self._valued]
        # d2k/dx_i dx'_j = k (delta_ij / l_i^2 - (x_i - x'_i) (x_j - x'_j) / (l_i^2 l_j^2))
        pair = np.ix_(rows, own_rows)
        product = scaled[pair[0], pair[1], axes[:, None]] * scaled[pair[0], pair[1], own_axes[None, :]]
        matrix[count:, known:] = kernel[pair] * ((axes[:, None] == own_axes[None, :]) / squares[own_axes] - product)
        return matrix

    # --- predictions ---

    def predict_values(self, points: Floats) -> tuple[Floats, Floats]:
        """Mean (m,) and standard deviation (m,) of the smooth loss at ``points`` (m, d)."""
        none = np.empty(0, dtype=np.intp)
        cross = self._cross_covariance(points, np.arange(len(points)), none, none)
        mean = self._scale * (self._mean + cross @ self._weights)
        solved = self._inverse @ cross.T
        shares = np.maximum(1.0 - np.einsum("ij,ij->j", solved, solved), 0.0)
        return mean, self._scale * np.sqrt(self._variance * shares)

    def predict_slopes(self, point: Floats, axes: Indices) -> tuple[Floats, Floats]:
        """Mean (k,) and covariance (k, k) of the slopes of the smooth loss at ``point`` (d,) along ``axes`` (k,)."""
        none, rows = np.empty(0, dtype=np.intp), np.zeros(len(axes), dtype=np.intp)
        cross = self._cross_covariance(point[None, :], none, rows, axes)
        solved = self._inverse @ cross.T
        prior = np.diag(1.0 / self.lengths[axes] ** 2)
        covariance = self._scale**2 * self._variance * (prior - solved.T @ solved)
        return self._scale * (cross @ self._weights), covariance


def _root_mean_squares(slopes: Floats) -> Floats:
    """Of each column (d,) of slopes (n, d) that may be NaN; 0 where all are."""
    known = np.isfinite(slopes)
    squares = np.where(known, slopes, 0.0) ** 2
    return np.asarray(np.sqrt(squares.sum(0) / np.maximum(known.sum(0), 1)))
