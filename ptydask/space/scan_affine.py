"""PtyRAD's scan affine: where a scan generator's raster truly was. Pure."""

from __future__ import annotations

import math


def affine_matrix(
    scale: float, asymmetry: float, rotation: float, shear: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    """(2, 2): a centred row (y, x) times it is where the scan affine moves it; ``rotation`` and ``shear`` in degree.

    The product of stretch, rotation and shear of PtyRAD's ``compose_affine_matrix``.
    """
    slow, fast = scale * (1 + asymmetry / 2), scale * (1 - asymmetry / 2)
    turn, lean = math.radians(rotation), math.tan(math.radians(shear))
    sin, cos = math.sin(turn), math.cos(turn)
    return (slow * cos + slow * sin * lean, slow * sin), (-fast * sin + fast * cos * lean, fast * cos)
