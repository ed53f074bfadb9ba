"""How the scan lies to the detector, from the centres of mass: turned until their field is a gradient.

The centre of mass of a pattern is the gradient of the specimen's phase, seen through the probe's intensity, at any
defocus (H. Rose, Ultramicroscopy 2 (1977) 251; I. Lazic, E. Bosch, S. Lazar, Ultramicroscopy 160 (2016) 265): along the
scan's own axes its field has no curl. PtyRAD's scan affine multiplies a row (y, x) of the scan from the right by
``A = [[cos t, sin t], [-sin t, cos t]]``, so that ``g = A c`` is the gradient along the dial's axes of a phase whose
gradient along the detector's is ``c``; its curl is ``K cos t - D sin t``, of the curl K and divergence D of ``c``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BLOCKS = 8
"""Parts of the scan that are left out in turn, for the deviation."""


@dataclass(frozen=True, slots=True)
class MassRotation:
    """The turn of the scan that leaves least curl. Angles in degree, as PtyRAD's scan affine has them."""

    rotation: float
    """From -180 to 180; the scan may as well be turned by 180 more, as far as the curl can tell."""
    deviation: float
    left: float
    """Curl that is left, as a share of the largest that any turn has: 0 of a gradient, 1 of noise."""
    mirrored: bool
    """Whether the detector is mirrored: the field is one of a transposed pattern."""
    left_otherwise: float
    """The same share, were it the other of the two."""
    twin: float
    """From -1 to 1: how well the phase of the field and the dark field look alike; the sign tells the turns of a pair
    apart, and near 0 nothing does."""


def measure_rotation(mass: NDArray[np.float64], dark: NDArray[np.float64] | None = None) -> MassRotation | None:
    """From the centres of mass (2, rows, columns), (y, x) in any unit, and the dark field (rows, columns).

    ``dark`` is bright where the specimen's phase is large, or None where the detector sees no dark field. Returns None
    for a scan of fewer than 4 x 4 positions, and for a field that is the same everywhere.
    """
    if min(mass.shape[1:]) < 4:
        return None
    field = _without_descan(mass)
    if not np.any(np.abs(field) > 1e-12 * np.abs(mass).max()):
        return None
    plain, swapped = _Turn.of(field), _Turn.of(field[::-1])
    mirrored = swapped.left < plain.left
    best, other = (swapped, plain) if mirrored else (plain, swapped)
    turned = field[::-1] if mirrored else field
    alike = 0.0 if dark is None else _compare_phase(turned, best.angle, dark)
    angle = best.angle + (180 if alike < 0 else 0)
    return MassRotation(
        rotation=wrap(angle),
        deviation=_deviation(turned, best.angle),
        left=best.left,
        mirrored=mirrored,
        left_otherwise=other.left,
        twin=abs(alike),
    )


def wrap(angle: float, turn: float = 360.0) -> float:
    """The angle as one from ``-turn / 2`` to ``turn / 2``."""
    return (angle + turn / 2) % turn - turn / 2


def _without_descan(mass: NDArray[np.float64]) -> NDArray[np.float64]:
    """The field less its plane: the beam's own way over the detector as it is scanned is none of the specimen's."""
    rows, columns = mass.shape[1:]
    y, x = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    terms = np.stack([np.ones(rows * columns), y.ravel(), x.ravel()], axis=1)
    flat = mass.reshape(2, -1).T
    return np.asarray((flat - terms @ np.linalg.lstsq(terms, flat, rcond=None)[0]).T.reshape(mass.shape))


@dataclass(frozen=True, slots=True)
class _Turn:
    angle: float
    """Degree, from -90 to 90."""
    left: float

    @classmethod
    def of(cls, field: NDArray[np.float64]) -> _Turn:
        return cls.from_moments(*_moments(field))

    @classmethod
    def from_moments(cls, curl: float, divergence: float, both: float) -> _Turn:
        """The t that makes ``sum (K cos t - D sin t)^2`` least: twice t is the angle of the second moments."""
        mean, half = (curl + divergence) / 2, math.hypot((curl - divergence) / 2, both)
        angle = math.degrees(0.5 * math.atan2(2 * both, divergence - curl))
        return cls(wrap(angle, 180), (mean - half) / (mean + half) if mean + half > 0 else 1.0)


def _moments(field: NDArray[np.float64]) -> tuple[float, float, float]:
    """Sums of K^2, D^2 and K D over the scan's frequencies, each taken once whatever its length."""
    rows, columns = field.shape[1:]
    window = np.hanning(rows + 2)[1:-1, None] * np.hanning(columns + 2)[None, 1:-1]
    y, x = np.fft.fft2(field * window)
    ky, kx = np.fft.fftfreq(rows)[:, None], np.fft.fftfreq(columns)[None, :]
    length = np.hypot(ky, kx)
    # Below: the window's own frequencies. Above: what the scan is too coarse for, folded back in another direction.
    length = np.where((length > 1.5 / min(rows, columns)) & (length < 0.5), length, np.inf)
    curl, divergence = (ky * x - kx * y) / length, (ky * y + kx * x) / length
    return (
        float(np.sum(np.abs(curl) ** 2)),
        float(np.sum(np.abs(divergence) ** 2)),
        float(np.sum((curl * divergence.conj()).real)),
    )


def _deviation(field: NDArray[np.float64], angle: float) -> float:
    """Of the turn, by the jackknife over parts of the scan: its halves and quarters along either axis left out."""
    others = []
    for axis in (1, 2):
        size = field.shape[axis]
        blocks = min(_BLOCKS // 2, size // 4)
        for block in range(blocks):
            part = np.arange(size) // math.ceil(size / blocks) == block
            kept = np.where(np.expand_dims(part, tuple({0, 1, 2} - {axis})), 0.0, field)
            others.append(wrap(_Turn.of(kept).angle - angle, 180))
    if not others:
        return math.inf
    return float(math.sqrt((len(others) - 1) / len(others) * np.sum(np.square(np.array(others) - np.mean(others)))))


def _compare_phase(field: NDArray[np.float64], angle: float, dark: NDArray[np.float64]) -> float:
    """The correlation of the phase whose gradient is the turned field, and the dark field: both go with the atoms.

    Both are seen through the same probe, so that its defocus reverses neither against the other.
    """
    rows, columns = field.shape[1:]
    ky, kx = np.fft.fftfreq(rows)[:, None], np.fft.fftfreq(columns)[None, :]
    y, x = np.fft.fft2(field)
    sin, cos = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    square = ky**2 + kx**2
    square[0, 0] = np.inf
    phase = np.fft.ifft2(-1j * (ky * (cos * y + sin * x) + kx * (cos * x - sin * y)) / square).real
    image = _without_descan(np.stack([dark, dark]))[0]
    size = float(np.sqrt(np.sum(phase**2) * np.sum(image**2)))
    return float(np.sum(phase * image) / size) if size > 0 else 0.0
