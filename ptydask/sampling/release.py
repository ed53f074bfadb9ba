"""What the installed Optuna can do that an older one cannot."""

from __future__ import annotations

import optuna

_INSTALLED = tuple(map(int, optuna.__version__.split(".")[:2]))

GAUSSIAN_COUNTS_RUNNING = _INSTALLED >= (4, 8)
"""Whether the Gaussian process looks at trials that are running, and guesses what they will come to."""
QMC_DRAWS_CHOICES = _INSTALLED >= (5, 0)
"""Whether the quasi-random sequence has a dimension for choices; an older Optuna draws them independently."""
