"""What a reader gives of one trial."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptydask.model import Image, Scalar, TrialRecord
from ptydask.store.artifacts import StoredFile


@dataclass(frozen=True)
class StoredArray:
    """An array in the file, read when it is asked for."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    units: str
    long_name: str
    _fetch: Callable[[Any], NDArray[Any]] = field(repr=False)

    def __getitem__(self, part: Any) -> NDArray[Any]:
        """The part of the array that a NumPy index names; only that is read."""
        return self._fetch(part)

    def read(self) -> NDArray[Any]:
        """The whole array."""
        return self._fetch(())


@dataclass(frozen=True)
class TrialData:
    """Everything that is kept of one trial."""

    record: TrialRecord
    curve: Mapping[str, NDArray[Any]]
    """``step`` and one column for each metric."""
    arrays: Mapping[str, StoredArray]
    image: Image | None
    attributes: Mapping[str, Scalar]
    log: str
    snapshots: Mapping[int, Mapping[str, StoredArray]]
    """Iteration -> arrays."""
    lost: str
    """What could not be kept, and why; "" where all was."""
    dropped: str = ""
    """What was taken out of the file later, and by which rule; "" where nothing was."""
    merged: str = ""
    """Which trial of which store it was, where it was merged from there."""
    command: str = ""
    """What ran, quoted for a POSIX shell; "" where no program did."""
    artifacts: Mapping[str, StoredFile] = field(default_factory=dict)
    """Files that the program wrote, by their paths."""
    left_out: tuple[str, ...] = ()
    """One sentence for each thing that the engine did not keep, and why."""
