"""The contrast of the reconstructed phase: the error metric that does not depend on the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ScannedRegion:
    """Rows and columns of the object under the probe centres of the chosen positions, both ends included."""

    top: int
    bottom: int
    left: int
    right: int

    @classmethod
    def of(cls, model: Any, indices: NDArray[Any]) -> ScannedRegion:
        """The region that the scan positions ``indices`` span on the model's object."""
        window = torch.tensor(model.opt_probe.shape[-3:-1], device=model.crop_pos.device)
        centres = model.crop_pos[indices].detach() + window // 2
        (top, left), (bottom, right) = centres.amin(0).tolist(), centres.amax(0).tolist()
        return cls(top, bottom, left, right)

    def crop(self, image: torch.Tensor) -> torch.Tensor:
        """The region's part of an image (y, x) of the whole object."""
        return image[self.top : self.bottom + 1, self.left : self.right + 1]


def projected_phase(model: Any) -> torch.Tensor:
    """The object's phase (y, x) in rad, summed over depth; object modes are weighted by their occupancy."""
    phase = model.opt_objp.detach().sum(1)
    if phase.shape[0] == 1:
        return phase[0]
    return (phase * model.omode_occu[:, None, None]).sum(0)


def phase_contrast(projected: torch.Tensor, region: ScannedRegion) -> float:
    """Standard deviation over mean of the ``projected`` phase in the scanned region, its minimum taken as zero.

    For one object mode this is PtyRAD's ``get_objp_contrast`` to the last bit, with its region, which is
    shifted by one pixel towards the origin. Positive, larger is sharper; 0 for a flat image.
    """
    with torch.no_grad():
        image = projected[region.top - 1 : region.bottom, region.left - 1 : region.right]
        low, high = image.min(), image.max()
        image = (image - low) / (high - low)
        value = float(torch.std(image) / (torch.mean(image) + 1e-8))
        return 0.0 if np.isnan(value) and bool(low == high) else value
