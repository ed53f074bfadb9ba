"""Metrics of one's own to begin with: `ptydask: {metrics: {sharpness: "configs/metrics.py:sharpness"}}`."""

import numpy as np


def sharpness(trial):
    """Mean gradient of the phase in the scanned region, rad per angstrom. It rewards noise as well as edges."""
    return np.hypot(*np.gradient(trial.image.data, trial.pixel_size)).mean()


def lattice(trial):
    """Share of the phase's power that is in the strongest hundredth of its frequencies: 1 for a perfect lattice."""
    phase = trial.image.data - trial.image.data.mean()
    window = np.multiply.outer(*(np.hanning(size) for size in phase.shape))
    power = np.sort((np.abs(np.fft.fft2(window * phase)) ** 2).ravel())
    return power[-max(1, power.size // 100) :].sum() / power.sum()
