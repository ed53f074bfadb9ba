"""Which scan positions are processed together, and the groupings that are worth keeping between trials."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ptydask.engines.ptyrad import put_off, release

_KEPT = 4
"""Groupings that are remembered; one is (N,) integers."""


def choose_indices(recon_params: Mapping[str, Any], scan: tuple[int, int]) -> NDArray[Any]:
    """The indices (N,) of the scan positions that ``INDICES_MODE`` chooses, in rising order."""
    selection = {name: recon_params["INDICES_MODE"].get(name) for name in ("subscan_slow", "subscan_fast", "mode")}
    indices: NDArray[Any] = release.solver().select_scan_indices(*scan, **selection)
    return indices


class Grouping:
    """PtyRAD's batches in the order of its normal run, remembered for equal positions.

    Farthest-point sampling takes about two minutes on a scan of 256 x 256, so trials that tune a learning
    rate or the defocus should not repeat it.
    """

    def __init__(self) -> None:
        self._groupings: OrderedDict[bytes, tuple[list[NDArray[Any]], Any]] = OrderedDict()

    def batches(
        self, model: Any, recon_params: Mapping[str, Any], indices: NDArray[Any], seed: int
    ) -> list[torch.Tensor]:
        """The batches of the scan positions ``indices``, on the model's device."""
        positions = (model.crop_pos + model.opt_probe_pos_shifts).detach().cpu().numpy()
        size = min(recon_params["BATCH_SIZE"].get("size"), len(indices))  # of half the data there may be fewer
        mode = recon_params["GROUP_MODE"]
        groups = self._make_batches(indices, positions, size, mode, seed)
        return [torch.from_numpy(group).to(device=model.device) for group in groups]

    def _make_batches(
        self, indices: NDArray[Any], positions: NDArray[Any], size: int, mode: str, seed: int
    ) -> list[NDArray[Any]]:
        key = hashlib.sha256(repr((mode, size, seed, positions.shape)).encode())
        key.update(np.ascontiguousarray(indices).tobytes())
        key.update(np.ascontiguousarray(positions).tobytes())
        digest = key.digest()
        if digest not in self._groupings:
            with put_off.without_clustering(mode):
                groups = release.solver().make_batches(indices, positions, size, mode=mode, seed=seed)
            self._groupings[digest] = ([group.copy() for group in groups], np.random.get_state())
            if len(self._groupings) > _KEPT:
                self._groupings.popitem(last=False)
        self._groupings.move_to_end(digest)
        groups, random_state = self._groupings[digest]
        np.random.set_state(random_state)  # sampling draws from NumPy's global generator: leave it as if it had run
        return [group.copy() for group in groups]
