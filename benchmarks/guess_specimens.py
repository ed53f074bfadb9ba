"""Specimens for ``benchmarks/guess_sets.py`` that have nothing of the demo's: other lattices, and none at all."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ptydask.demo.microscope import Specimen, tungsten_diselenide


def perovskite(half_side: float, rng: np.random.Generator) -> Specimen:
    """SrTiO3 along [001], turned by 23 degrees, columns of 1/8 of the oxygen and 1/16 of the titanium missing."""
    a, turn = 3.905, math.radians(23.0)
    reach = math.ceil(2 * half_side / a) + 2
    i, j = (grid.ravel() for grid in np.mgrid[-reach : reach + 1, -reach : reach + 1])
    corner = np.stack([i * a, j * a], axis=1)
    parts, phases = [], []
    for shift, phase, missing in (
        ((0, 0), 0.6, 0.0),
        ((0.5, 0.5), 0.5, 1 / 16),
        ((0.5, 0), 0.15, 1 / 8),
        ((0, 0.5), 0.15, 1 / 8),
    ):
        there = rng.random(len(corner)) >= missing
        parts.append((corner + np.multiply(shift, a))[there])
        phases.append(np.full(there.sum(), phase))
    yx = np.concatenate(parts) @ _turning(turn)
    inside = np.abs(yx).max(axis=1) < half_side
    return Specimen(yx[inside], np.concatenate(phases)[inside], width=0.38)


def gold_on_carbon(half_side: float, rng: np.random.Generator) -> Specimen:
    """Clusters of gold, each turned another way, on amorphous carbon: one cluster in every 14 angstrom squared."""
    area = (2 * half_side) ** 2
    carbon = rng.uniform(-half_side, half_side, (round(0.4 * area), 2))
    parts, phases = [carbon], [np.full(len(carbon), 0.08)]
    i, j = (grid.ravel() for grid in np.mgrid[-6:7, -6:7])
    for _ in range(round(area / 14**2)):
        radius, turn = rng.uniform(3.0, 6.0), rng.uniform(0, math.pi / 2)
        atoms = np.stack([i * 2.35, (j + 0.5 * i) * 2.5], axis=1) @ _turning(turn)
        atoms = atoms[np.hypot(*atoms.T) < radius]
        parts.append(atoms + rng.uniform(-half_side, half_side, 2))
        phases.append(np.full(len(atoms), 0.5))
    yx = np.concatenate(parts)
    inside = np.abs(yx).max(axis=1) < half_side
    return Specimen(yx[inside], np.concatenate(phases)[inside], width=0.45)


def gallium_arsenide(half_side: float, rng: np.random.Generator) -> Specimen:
    """GaAs along [110], turned by 37 degrees: dumbbells in a rectangular lattice; 1/12 of the columns weaker."""
    a, turn = 5.653, math.radians(37.0)
    reach = math.ceil(2 * half_side / (a / math.sqrt(2))) + 2
    i, j = (grid.ravel() for grid in np.mgrid[-reach : reach + 1, -reach : reach + 1])
    corner = np.stack([i * a, j * a / math.sqrt(2)], axis=1)
    parts, phases = [], []
    for along, across, phase in ((0, 0, 0.45), (0.5, 0.5, 0.45), (0.25, 0, 0.5), (0.75, 0.5, 0.5)):
        parts.append(corner + np.array([along * a, across * a / math.sqrt(2)]))
        phases.append(phase * np.where(rng.random(len(corner)) < 1 / 12, 0.5, 1.0))
    yx = np.concatenate(parts) @ _turning(turn)
    inside = np.abs(yx).max(axis=1) < half_side
    return Specimen(yx[inside], np.concatenate(phases)[inside], width=0.4)


def ceria_on_carbon(half_side: float, rng: np.random.Generator) -> Specimen:
    """Particles of CeO2 along [110], each turned another way, on carbon that ends in the middle: vacuum is beyond."""
    carbon = rng.uniform(-half_side, half_side, (round(0.5 * (2 * half_side) ** 2), 2))
    carbon = carbon[carbon[:, 0] < 3.0 * np.sin(carbon[:, 1] / 4)]
    parts, phases = [carbon], [np.full(len(carbon), 0.07)]
    a, b = 5.411, 5.411 / math.sqrt(2)
    i, j = (grid.ravel() for grid in np.mgrid[-6:7, -6:7])
    corner = np.stack([i * a, j * b], axis=1)
    cell = ((0, 0, 0.55), (0.5, 0.5, 0.55), (0.25, 0.5, 0.16), (0.75, 0.5, 0.16), (0.25, 0, 0.16), (0.75, 0, 0.16))
    for _ in range(round((2 * half_side) ** 2 / 17**2)):
        radius, turn = rng.uniform(5.0, 9.0), rng.uniform(0, math.pi)
        middle = rng.uniform(-half_side, half_side, 2)
        for along, across, phase in cell:
            columns = corner + np.array([along * a, across * b])
            columns = columns[np.hypot(*columns.T) < radius] @ _turning(turn) + middle
            parts.append(columns)
            phases.append(np.full(len(columns), phase))
    yx = np.concatenate(parts)
    inside = np.abs(yx).max(axis=1) < half_side
    return Specimen(yx[inside], np.concatenate(phases)[inside], width=0.43)


SPECIMENS: dict[str, Callable[[float, np.random.Generator], Specimen]] = {
    "tungsten diselenide": tungsten_diselenide,
    "perovskite": perovskite,
    "gold on carbon": gold_on_carbon,
    "gallium arsenide": gallium_arsenide,
    "ceria on carbon": ceria_on_carbon,
}


def _turning(angle: float) -> NDArray[np.float64]:
    return np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
