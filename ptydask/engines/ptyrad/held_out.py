"""Which scan positions a reconstruction does not see: chosen by a seed, checked before the run. Pure, no PyTorch.

A held-out position must be predicted by what its neighbours say of the object, so that none of them is held out, too;
none lies at the border, where the object is known from one side alone. A lattice would drop whole columns of the scan,
and what repeats with it would never be seen: the positions are drawn at random.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptydask.errors import ConfigError
from ptydask.model import HeldOut

Indices = NDArray[np.intp]

LEAST_POSITIONS = 4
"""Fewer positions than these say too little; a smaller share is rounded up to them."""
_ATTEMPTS = 20
"""Orders that are tried before a share counts as too large."""
_KEY = "ptydask.held_out"


@dataclass(frozen=True, slots=True)
class ScanDivision:
    """Indices of scan positions in rising order."""

    chosen: Indices
    """Those that the params file chooses (``INDICES_MODE``)."""
    reconstructed: Indices
    held_out: Indices


def divide_scan(chosen: Indices, columns: int, held_out: HeldOut | None, half: int, seed: int) -> ScanDivision:
    """Divide the ``chosen`` positions of a scan with so many ``columns`` (its fast axis).

    Held-out positions are those of the whole scan for either half. A half is every other position, as on a
    checkerboard; with held-out counts both halves have all positions, and each its own electrons. Raises ConfigError
    where the positions to be held out do not fit.
    """
    hidden = np.empty(0, np.intp)
    if held_out is not None and held_out.kind == "positions":
        hidden = hidden_positions(chosen, columns, held_out.share, seed)
    seen = chosen[~np.isin(chosen, hidden)]
    if half and (held_out is None or held_out.kind == "positions"):
        rows, cols = np.unique(chosen // columns), np.unique(chosen % columns)
        # By their places among those that are chosen: every second row and column of the scan may be.
        place = np.searchsorted(rows, seen // columns) + np.searchsorted(cols, seen % columns)
        seen = seen[place % 2 == half - 1]
    return ScanDivision(chosen, seen, hidden)


def hidden_positions(chosen: Indices, columns: int, share: float, seed: int) -> Indices:
    """About ``share`` of the ``chosen`` positions, which are the crossings of some rows and columns of the scan.

    Raises ConfigError where so many do not fit.
    """
    rows, row = np.unique(chosen // columns, return_inverse=True)
    cols, col = np.unique(chosen % columns, return_inverse=True)
    place = np.empty((len(rows), len(cols)), np.intp)
    place[row, col] = chosen
    count = max(LEAST_POSITIONS, round(share * len(chosen)))
    drawn, most = _draw_apart((len(rows), len(cols)), count, seed)
    if most < count:
        rule = f"of {len(rows)} x {len(cols)} scan positions {most} can be held out with no two neighbours, not {count}"
        hint = "tune by another metric, for example counts"
        if most >= LEAST_POSITIONS:  # other seeds, as of a confirmation, may find room for some fewer
            hint = f"a share of {int(90 * most / len(chosen)) / 100:g} fits, or tune by counts"
        raise ConfigError(rule, key=f"{_KEY}.share", value=share, hint=hint)
    return np.sort(place.reshape(-1)[drawn])


def _draw_apart(grid: tuple[int, int], count: int, seed: int) -> tuple[Indices, int]:
    """Flat indices of ``count`` cells of the grid: no two are neighbours, not even by a corner; none at the border.

    Also how many there are; fewer, where not so many fit.
    """
    rows, columns = grid
    inner = np.arange(rows * columns).reshape(grid)[1:-1, 1:-1].reshape(-1)
    random = np.random.default_rng(seed)
    best: list[int] = []
    for _ in range(_ATTEMPTS):
        free = np.ones(grid, bool)
        drawn: list[int] = []
        for cell in random.permutation(inner).tolist():
            row, column = divmod(cell, columns)
            if free[row, column]:
                free[row - 1 : row + 2, column - 1 : column + 2] = False
                drawn.append(cell)
            if len(drawn) == count:
                return np.array(drawn, np.intp), count
        best = max(best, drawn, key=len)
    return np.array(best, np.intp), len(best)


# --- rules of the params file -----------------------------------------------------------------------

_ENDS_COUNTING = {
    "meas_resample": "neighbouring pixels are mixed",
    "meas_add_source_size": "neighbouring patterns are mixed",
    "meas_add_detector_blur": "neighbouring pixels are mixed",
    "meas_add_poisson_noise": "noise is drawn over the patterns that were split",
}


def check_plan(held_out: HeldOut, config: Mapping[str, Any], grid: tuple[int, int], seed: int) -> int:
    """How many of the ``grid``'s (rows, columns) chosen scan positions an iteration does not see.

    Raises ConfigError for positions that do not fit, and, for counts, preprocessing after which a value is no number of
    electrons any more.
    """
    if held_out.kind == "positions":
        return len(hidden_positions(np.arange(grid[0] * grid[1]), grid[1], held_out.share, seed))
    _check_counting(config["init_params"])
    return 0


def describe(held_out: HeldOut, hidden: int, grid: tuple[int, int], seed: int) -> str:
    """A line for the plan; ``hidden`` is what :func:`check_plan` returned."""
    if held_out.kind == "positions":
        return f"{hidden} of {grid[0] * grid[1]} scan positions, drawn by seed {seed}"
    return f"{held_out.share:.3g} of the electrons of each pattern, gain {held_out.gain:g}, drawn by seed {seed}"


def _check_counting(init: Mapping[str, Any]) -> None:
    hint = "tune by heldout, which holds out whole patterns"
    for name, reason in _ENDS_COUNTING.items():
        entry = init.get(name)
        if not entry or (isinstance(entry, Mapping) and "mode" in entry and entry["mode"] is None):
            continue
        rule = f"the metric counts needs patterns of counted electrons, but {reason}"
        raise ConfigError(rule, key=f"init_params.{name}", value=entry, hint=hint)
    negative = init.get("meas_remove_neg_values") or {}
    if negative.get("force") and negative.get("mode", "clip_neg") != "clip_neg":
        rule = "the metric counts needs patterns of counted electrons, but these are changed"
        raise ConfigError(rule, key="init_params.meas_remove_neg_values", value=dict(negative), hint=hint)
