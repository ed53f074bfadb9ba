"""Confirmations of studies that never ran: errors are drawn around known means, or given."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from ptydask.analysis.confirmation import Confirmation, Repeat
from ptydask.model import Direction, StudyMeta, TrialRecord, TrialState

PLAN_SEED = 42
META = StudyMeta("planted", "minimize", "heldout", "toy", "", "yaml", "{}", "{}")


def make_repeat(number: int, trial: int, seed: int, error: float | None, half: int = 0, message: str = "") -> Repeat:
    """One repeat; it failed where it has no ``error``."""
    state = TrialState.FAIL if error is None else TrialState.COMPLETE
    metrics = {} if error is None else {"heldout": error, "loss": 2 * error}
    params = {"trial": trial, "seed": seed, "half": half}
    return Repeat(trial, seed, half, TrialRecord(number, state, error, params, metrics, message=message))


def confirm(
    values: Mapping[int, Sequence[float | None]],
    records: Sequence[TrialRecord] = (),
    direction: Direction = "minimize",
) -> Confirmation:
    """Trial -> its errors with the first, second ... seed after the study's own; None is a repeat that failed."""
    every = [(trial, PLAN_SEED + i, error) for trial, errors in values.items() for i, error in enumerate(errors, 1)]
    repeats = tuple(make_repeat(i, *one, message="out of memory" * (one[2] is None)) for i, one in enumerate(every))
    return Confirmation("heldout", direction, repeats, records=tuple(records), meta=META)


def draw(
    rng: np.random.Generator,
    means: Mapping[int, float],
    seeds: int = 3,
    spreads: Collection[float] = (1.0,),
    seed_spread: float = 0.0,
) -> dict[int, list[float]]:
    """Trial -> errors: its mean, what a seed does to all, and a normal deviate of its own spread (the last if few)."""
    common = rng.normal(size=seeds) * seed_spread
    own = [*spreads, *[list(spreads)[-1]] * len(means)]
    return {
        t: list(mean + common + rng.normal(size=seeds) * sd) for (t, mean), sd in zip(means.items(), own, strict=False)
    }
