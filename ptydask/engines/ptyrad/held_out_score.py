"""The metrics of a reconstruction under way on the data that it does not see: PtyRAD's forward model against them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ptydask.engines.ptyrad import release
from ptydask.engines.ptyrad.held_out import ScanDivision
from ptydask.engines.ptyrad.misfit import amplitude_misfit, deviance_terms, poisson_deviance
from ptydask.model import HeldOut, Scalar

_SAMPLE = 0.05
"""Share of the positions that counts are compared at after every iteration but the last: a forward pass takes about a
third of an iteration's time."""
_LEAST_SAMPLE = 16
_AT_ONCE = 64
"""Patterns in a batch where no model is involved."""


@dataclass(frozen=True, slots=True)
class HeldOutCounts:
    """Electrons that the reconstruction does not see."""

    counts: torch.Tensor
    """(N, ky, kx) integers, as far as the detector goes."""
    expected: float
    """Electrons held out that a modelled intensity of 1 stands for."""
    gain: float
    reference: torch.Tensor
    """(N,) float64: the deviance of each position's counts from the mean pattern, per pixel."""

    @classmethod
    def of(cls, counts: torch.Tensor, expected: float, gain: float, mean: torch.Tensor) -> HeldOutCounts:
        """``mean`` is the mean pattern (ky, kx) of what is reconstructed from, in the model's intensities."""
        model, parts = mean.to(counts.device) * expected, []
        for first in range(0, len(counts), _AT_ONCE):
            terms = deviance_terms(counts[first : first + _AT_ONCE].to(model), model)
            parts.append(terms.mean((1, 2), dtype=torch.float64))
        return cls(counts, expected, gain, torch.cat(parts))


class HeldOutScore(Protocol):
    """Scores one trial; made before its first iteration."""

    def move_hidden_positions(self, model: Any) -> None:
        """After an iteration, take positions that no batch has along with the others."""

    def metrics(self, model: Any, last: bool) -> dict[str, float]:
        """After an iteration; nothing of the model is changed, and no random number drawn."""

    def facts(self) -> dict[str, Scalar]:
        """What a reader of the trial must know of the data that were held out."""


def held_out_score(
    held_out: HeldOut | None,
    model: Any,
    division: ScanDivision,
    counts: HeldOutCounts | None,
    detector: slice,
    batch: int,
    seed: int,
    jitter: NDArray[np.floating[Any]] | None,
) -> HeldOutScore | None:
    """The score for a trial with these settings; None where nothing is held out.

    ``detector`` are the rows, and the columns, of a modelled pattern that were measured and not padded; ``jitter`` is
    by how many pixels (N, 2) PtyRAD displaced the positions at random.
    """
    if held_out is None:
        return None
    if held_out.kind == "positions":
        return PositionScore(model, division, detector, batch, seed, jitter)
    assert counts is not None
    return CountScore(counts, held_out.share, _on_device(division.reconstructed, model), detector, batch, seed)


class PositionScore:
    """Held-out positions: ``heldout``, the Poisson deviance, and ``heldout_amplitude``, that of amplitudes, over sum n.

    The deviance is a Bregman divergence: in the mean over any noise the true mean intensity has the least. The other is
    least where sqrt m is the mean of sqrt n, which is less: with few electrons it chooses models that are too weak.

    Nothing is refined by data that are held out, so that these positions (and the tilts of each of them, where each has
    its own) would stay behind when object and positions drift together, and be pushed the other way when PtyRAD's
    constraint ``pos_recenter`` takes a drift back. They go with the others: each is where it began, moved by as much as
    the reconstructed positions have moved in the mean. It began where the scan has it: PtyRAD's random displacement
    (``pos_scan_rand_std``), which refinement takes back elsewhere, is taken off.
    """

    def __init__(
        self,
        model: Any,
        division: ScanDivision,
        detector: slice,
        batch: int,
        seed: int,
        jitter: NDArray[np.floating[Any]] | None = None,
    ) -> None:
        self._hidden, self._seen = _on_device(division.held_out, model), _on_device(division.reconstructed, model)
        self._detector, self._batch, self._seed = detector, batch, seed
        self._share = len(division.held_out) / len(division.chosen)
        if jitter is not None and release.shifts_probes(model):
            with torch.no_grad():
                model.opt_probe_pos_shifts[self._hidden] -= torch.from_numpy(jitter).to(model.H.device)[self._hidden]
        each = [model.opt_probe_pos_shifts, model.opt_obj_tilts]
        self._starts = [(tensor, tensor.detach().clone()) for tensor in each if len(tensor) == len(model.crop_pos)]

    def move_hidden_positions(self, model: Any) -> None:
        """See :class:`HeldOutScore`."""
        with torch.no_grad():
            for tensor, start in self._starts:
                moved = (tensor[self._seen] - start[self._seen]).mean(0)
                tensor[self._hidden] = start[self._hidden] + moved

    def metrics(self, model: Any, last: bool) -> dict[str, float]:
        """See :class:`HeldOutScore`."""
        amplitude, deviance, total = 0.0, 0.0, 0.0
        rows = self._detector
        for batch, modelled in _modelled(model, self._hidden, self._batch, rows):
            measured = model.get_measurements(batch)[:, rows, rows]
            amplitude += amplitude_misfit(measured, modelled)
            deviance += poisson_deviance(measured, modelled)
            total += float(measured.sum(dtype=torch.float64))
        total = total or math.nan  # patterns without any intensity
        return {"heldout": deviance / total, "heldout_amplitude": amplitude / total}

    def facts(self) -> dict[str, Scalar]:
        """See :class:`HeldOutScore`."""
        return {"heldout_share": self._share, "heldout_positions": len(self._hidden), "heldout_seed": self._seed}


class CountScore:
    """Held-out electrons: ``counts``, the Poisson deviance in the mean over all pixels of all reconstructed positions;
    after an iteration that is not the last from those of a twentieth of them.

    Where more scatters, or more electrons happened to be held out, the deviance is larger for every model. How the
    sample compares with all in this, the mean pattern tells in place of a model: the deviance is multiplied by that.
    """

    def __init__(
        self, held_out: HeldOutCounts, share: float, positions: torch.Tensor, detector: slice, batch: int, seed: int
    ) -> None:
        self._held_out, self._share, self._positions = held_out, share, positions
        self._detector, self._batch, self._seed = detector, batch, seed
        size = max(_LEAST_SAMPLE, math.ceil(_SAMPLE * len(positions)))
        chosen = np.sort(np.random.default_rng(seed).permutation(len(positions))[:size])
        self._sample = positions[torch.from_numpy(chosen).to(positions.device)]
        reference = held_out.reference.to(positions.device)
        self._to_all = float(reference[positions].mean() / reference[self._sample].mean())

    def move_hidden_positions(self, model: Any) -> None:
        """See :class:`HeldOutScore`: every position is seen."""

    def metrics(self, model: Any, last: bool) -> dict[str, float]:
        """See :class:`HeldOutScore`."""
        positions = self._positions if last else self._sample
        counts, deviance = self._held_out.counts, 0.0
        for batch, modelled in _modelled(model, positions, self._batch, self._detector):
            measured = counts[batch.to(counts.device)].to(modelled)
            deviance += poisson_deviance(measured, modelled * self._held_out.expected)
        mean = deviance / (len(positions) * counts[0].numel())
        return {"counts": mean if last else mean * self._to_all}

    def facts(self) -> dict[str, Scalar]:
        """See :class:`HeldOutScore`."""
        return {"counts_share": self._share, "counts_gain": self._held_out.gain, "heldout_seed": self._seed}


def _modelled(
    model: Any, positions: torch.Tensor, size: int, detector: slice
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Positions, as many at a time as in a batch, and the patterns (n, ky, kx) that the model has there."""
    for first in range(0, len(positions), size):
        batch = positions[first : first + size]
        with torch.no_grad():
            modelled: torch.Tensor = model(batch)[:, detector, detector]
        model.clear_cache()
        yield batch, modelled


def _on_device(indices: Any, model: Any) -> torch.Tensor:
    return torch.from_numpy(np.asarray(indices, np.int64)).to(model.crop_pos.device)
