"""The order in which PtyRAD recommends to tune the geometry, and which step comes after a study. Pure.

"dz first, then scale with rotation, then all 4 scan_affine, lastly object tilts", no more than four at a time: PtyRAD's
documentation of ``hypertune_params``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ptydask.space.tunables import AFFINE, TILTS, ineffective_reason

STEPS: tuple[tuple[str, ...], ...] = (("dz",), ("scale", "rotation"), AFFINE, TILTS)
MOST = 4
"""Parameters that are tuned at once, at most."""


def next_step(config: Mapping[str, Any], tuned: Collection[str]) -> tuple[str, ...] | None:
    """The parameters that come after a study that tuned ``tuned``; None where it was the last step.

    ``config`` is the study's params file, defaults filled in. Steps that would change nothing (slices or tilts of an
    object of one slice) are left out. A study that tuned none of the order is followed by its first step; one that went
    past the scan by the scan, where the file gives no affine.
    """
    steps = [names for names in STEPS if not any(ineffective_reason(config, name, names) for name in names)]
    affine = (config.get("init_params") or {}).get("pos_scan_affine")
    done = max((i for i, names in enumerate(steps) if set(names) <= set(tuned)), default=None)
    if done is None:
        touched = (i for i, names in enumerate(steps) if set(names) & set(tuned))
        # The scan's affine is in the file: somebody was further than dz.
        ahead = 1 if affine is not None and len(steps) > 1 and steps[0] == ("dz",) and "dz" not in tuned else 0
        done = next(touched, ahead) - 1
    scan = next((i for i, names in enumerate(steps) if names == STEPS[1]), None)
    if scan is not None and scan <= done and affine is None and not set(tuned) & set(AFFINE):
        return steps[scan]
    return steps[done + 1] if done + 1 < len(steps) else None
