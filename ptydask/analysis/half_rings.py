"""The halves of a confirmation's trials against each other: their Fourier ring correlation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from ptydask.analysis.fourier_ring import compare_images
from ptydask.errors import StoreError, one_line
from ptydask.model import TrialRecord, TrialState
from ptydask.ring_correlation import FourierRing
from ptydask.store.reader import Results


def pair_halves(records: Iterable[TrialRecord]) -> dict[int, tuple[int, int]]:
    """A confirmed trial -> the numbers of the repeats that are its two halves, of one seed, where both completed."""
    halves: dict[tuple[object, object], dict[object, int]] = defaultdict(dict)
    for record in records:
        if record.state is TrialState.COMPLETE and record.params.get("half"):
            halves[record.params["trial"], record.params["seed"]][record.params["half"]] = record.number
    pairs: dict[int, tuple[int, int]] = {}
    for (trial, _), numbers in halves.items():
        if numbers.keys() >= {1, 2}:
            pairs.setdefault(int(str(trial)), (numbers[1], numbers[2]))
    return dict(sorted(pairs.items()))


def correlate_halves(confirmed: Results) -> tuple[dict[int, FourierRing], list[str]]:
    """Trial -> the correlation of the phase images of its halves; and why, for each trial that has none.

    Raises StoreError where the records cannot be read, MissingDependency without SciPy.
    """
    curves, troubles = {}, []
    for trial, numbers in pair_halves(confirmed.records()).items():
        try:
            first, other = (confirmed.trial(number).image for number in numbers)
        except StoreError as error:  # one that is damaged keeps none of the others from its curve
            troubles.append(f"trial {trial}: no FRC: {one_line(str(error))}")
            continue
        if first is None or other is None:
            troubles.append(f"trial {trial}: no FRC, as its halves have no images")
            continue
        try:
            curves[trial] = compare_images(first, other)
        except ValueError as error:
            troubles.append(f"trial {trial}: no FRC: {one_line(str(error))}")
    return curves, troubles
