"""The halves of a confirmation's trials against each other: their Fourier ring correlation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from ptydask.analysis.fourier_ring import FourierRing, compare_images
from ptydask.errors import one_line
from ptydask.model import Image, TrialRecord, TrialState
from ptydask.store.confirmation import RingCurve
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


def correlate_halves(confirmed: Results) -> tuple[dict[int, RingCurve], list[str]]:
    """Trial -> the correlation of the phase images of its halves; and why, for each trial that has none.

    Raises StoreError where a repeat cannot be read, MissingDependency without SciPy.
    """
    curves, troubles = {}, []
    for trial, numbers in pair_halves(confirmed.records()).items():
        first, other = (confirmed.trial(number).image for number in numbers)
        if first is None or other is None:
            troubles.append(f"trial {trial}: no FRC, as its halves have no images")
            continue
        try:
            curves[trial] = _curve_of(first, other)
        except ValueError as error:
            troubles.append(f"trial {trial}: no FRC: {one_line(str(error))}")
    return curves, troubles


def _curve_of(first: Image, other: Image) -> RingCurve:
    ring = compare_images(first, other)
    return RingCurve(
        spatial_frequency=ring.spatial_frequency,
        correlation=ring.correlation,
        half_bit=ring.half_bit,
        pixels=ring.pixels,
        crossing=ring.crossing,
        resolution=ring.resolution,
        area=ring.area,
        length_unit=ring.length_unit,
    )


def read_rings(confirmed: Results) -> dict[int, FourierRing]:
    """Trial -> the correlation of its halves, as it is in the file. Raises StoreError."""
    return {
        trial: FourierRing(
            curve.spatial_frequency.astype(np.float64),
            curve.correlation.astype(np.float64),
            curve.pixels.astype(np.int64),
            curve.length_unit,
        )
        for trial, curve in confirmed.ring_curves().items()
    }
