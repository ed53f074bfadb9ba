"""Counted electrons split in two by chance: one part is reconstructed from, the other scores the result. No PyTorch.

Of n electrons, n Poisson distributed with mean m, each is held out with probability eps: the held-out electrons
B ~ Binomial(n, eps) and the others A = n - B are then independent Poisson variables, with means eps m and (1 - eps) m.
So what A says of m predicts B, and the noise of A does not. That is true of counts alone: values that are sums of
something else, or electrons times a gain, have to be turned into counts first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptydask.model import HeldOut

_TOLERANCE = 1e-3
"""How far from a whole number a count may be: a gain is written in few digits, patterns in single precision."""
_GAIN_KEY = "ptydask.held_out.gain"


@dataclass(frozen=True, slots=True)
class CountSplit:
    """Which electrons a reconstruction does not see."""

    share: float
    """Of the electrons, that is held out."""
    gain: float
    """Detector units an electron gives."""
    seed: int
    half: int = 0
    """1 or 2: of the other electrons, this half is reconstructed from."""

    @classmethod
    def of(cls, held_out: HeldOut | None, half: int, seed: int) -> CountSplit | None:
        """The split that belongs to a trial; None where it sees all electrons of its patterns."""
        if held_out is None or held_out.kind != "counts":
            return None
        return cls(held_out.share, held_out.gain, seed, half)

    @property
    def exposure(self) -> float:
        """Expected electrons held out over those reconstructed from."""
        return self.share / (1 - self.share) * (2 if self.half else 1)


def split_counts(raw: NDArray[np.float32], split: CountSplit) -> NDArray[np.signedinteger[Any]]:
    """Take the held-out electrons (and the other half's) out of ``raw``, in detector units, in place; return them.

    The first axis may be anything: what is drawn depends on the order of the values in the file and on the seed alone.
    """
    random = np.random.default_rng(split.seed)
    most = float(raw.max()) / split.gain
    kind = next(kind for kind in (np.int8, np.int16, np.int32) if most < np.iinfo(kind).max)
    held_out: NDArray[np.signedinteger[Any]] = np.zeros(raw.shape, kind)
    for values, hidden in zip(raw, held_out, strict=True):
        lit = values > 0
        electrons = np.rint(values[lit] / split.gain).astype(np.int64)
        hidden_here = random.binomial(electrons, split.share)
        seen = electrons - hidden_here
        if split.half:
            first = random.binomial(seen, 0.5)
            seen = first if split.half == 1 else seen - first
        hidden[lit] = hidden_here
        values[lit] = seen * split.gain
    return held_out


def explain_uncounted(
    raw: NDArray[np.float32], gain: float, indices: Sequence[int] | None = None
) -> tuple[str, str] | None:
    """Why ``raw`` are no counts times ``gain``, as a rule and a hint; None where they are.

    ``indices`` say where along the first axis of the patterns they are from, where they are not all of them. Whole
    numbers that all are multiples of a larger one are no counts either: split as if they were, the two parts of them
    would not be independent.
    """
    divisor = 0
    for index, values in enumerate(raw):
        electrons = values.astype(np.float64) / gain
        whole = np.rint(electrons)
        wrong = (np.abs(electrons - whole) > _tolerance(electrons)) | (whole < 0)
        if wrong.any():
            place = (index, *np.argwhere(wrong)[0].tolist())
            shown = place if indices is None else (indices[index], *place[1:])
            rule = f"the metric counts needs whole electrons times the gain {gain:g}, but at index {shown} is"
            return f"{rule} {float(raw[place]):g}", _gain_hint(raw)
        if divisor != 1:
            divisor = math.gcd(divisor, int(np.gcd.reduce(np.unique(whole).astype(np.int64))))
    if divisor > 1:
        rule = f"the metric counts needs counted electrons, but with the gain {gain:g} all counts are multiples of"
        return f"{rule} {divisor}", f"set {_GAIN_KEY}: {gain * divisor:g}"
    return None


def _tolerance(electrons: NDArray[np.float64]) -> NDArray[np.float64]:
    """Single precision and a gain of six digits are right to a few millionths."""
    return _TOLERANCE + 3e-6 * np.abs(electrons)


def _gain_hint(raw: NDArray[np.float32]) -> str:
    gain = nearest_gain(raw)
    if gain is None:
        return "no gain makes them whole: tune by heldout, which holds out whole patterns"
    return f"with {_GAIN_KEY}: {gain:g} they are"


def nearest_gain(raw: NDArray[np.float32]) -> float | None:
    """The largest gain with which all values are whole numbers of electrons, judged by some of them; None for none."""
    step = max(1, raw.size // 1_000_000)
    values = np.unique(raw.reshape(-1)[::step].astype(np.float64))
    if len(values) < 3 or values[0] < 0:
        return None
    gaps = np.diff(values)
    distinct = gaps[gaps > 1e-5 * values[-1]]  # closer ones are one number, rounded in two ways
    for start in sorted({values[values > 0][0], *distinct[:1], distinct.min()}, reverse=True):
        for parts in range(1, 9):
            gain = _refine_gain(values, start / parts)
            electrons = values / gain
            if electrons[-1] < 1e5 and (np.abs(electrons - np.rint(electrons)) <= _tolerance(electrons)).all():
                return gain
    return None


def _refine_gain(values: NDArray[np.float64], gain: float) -> float:
    """The gain that fits larger and larger values, each by the one that fits the smaller ones."""
    for value in values[np.unique(np.geomspace(1, len(values) - 1, 30).astype(int))]:
        if (electrons := round(value / gain)) > 0:
            gain = value / electrons
    return float(f"{gain:.6g}")
