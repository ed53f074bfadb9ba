"""Tune electron-ptychography reconstructions with Dask and Optuna, into one HDF5 file."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ptydask.analysis.results import StudyResults

__version__ = "0.1.0"
__all__ = ["__version__", "open"]


def open(path: str | os.PathLike[str]) -> StudyResults:
    """The study in a results file, finished or running. Raises StoreError, in one line, where there is none to read.

    >>> study = ptydask.open("results.h5")  # doctest: +SKIP
    >>> study.best().image  # doctest: +SKIP
    """
    # Every module of ptydask imports this one: a statement here would have all of them depend on the analysis.
    results = importlib.import_module("ptydask.analysis.results")
    study: StudyResults = results.StudyResults(path)
    return study
