"""How near the guesses come to the truth, on twelve planted scans: a table, by method.

    python benchmarks/guess.py [SET ...]

Needs the extra ``guess``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import h5py
import numpy as np
from guess_sets import CACHE, SETS, PlantedSet, write

from ptydask.guess.parallax import ParallaxFit, ParallaxScan, measure_parallax

HEAD = "| set | truth: rotation, mirrored, C10, C12 | guess | deviations | elsewhere | mirrored otherwise | twin | off | s |"


def true_turn(planted: PlantedSet) -> tuple[bool, float]:
    """What the patterns as stored have: whether they are mirrored, and the turn once they are transposed if so.

    ``meas_flipT`` of the truth is a transposition, or none, and a turn by quarters.
    """
    up_down, left_right, transposed = planted.flips
    matrix = np.diag([-1 if up_down else 1, -1 if left_right else 1]).astype(float)  # acts on columns (y, x)
    matrix = matrix[::-1] if transposed else matrix
    mirrored = bool(np.linalg.det(matrix) < 0)
    if mirrored:
        matrix = matrix @ np.array([[0.0, 1.0], [1.0, 0.0]])
    return mirrored, planted.rotation + float(np.degrees(np.arctan2(matrix[0, 1], matrix[0, 0])))


def scan_of(planted: PlantedSet) -> ParallaxScan:
    """The patterns as they are stored."""
    experiment = planted.experiment()
    with h5py.File(CACHE / f"{planted.name}.h5") as file:
        patterns = file["patterns"][:]
    patterns = patterns.reshape(experiment.scan, experiment.scan, experiment.pixels, experiment.pixels)
    pixel_angle = 1e3 * experiment.wavelength / (experiment.pixels * experiment.pixel_size)
    mean = patterns.mean((0, 1))
    y, x = np.nonzero(mean > mean.max() / 2)
    centre = (float(y.mean()), float(x.mean()))
    grid = np.indices(mean.shape)
    outside = np.hypot(grid[0] - centre[0], grid[1] - centre[1]) * pixel_angle > 1.1 * experiment.convergence
    return ParallaxScan(
        patterns=patterns.astype(np.float32),
        dark=patterns[:, :, outside].sum(-1, dtype=np.float64),
        centre=centre,
        pixel_angle=pixel_angle,
        convergence=experiment.convergence,
        wavelength=experiment.wavelength,
        step=experiment.scan_step,
    )


def row(planted: PlantedSet, fit: ParallaxFit, seconds: float) -> str:
    """Of the table."""
    mirrored, turn = true_turn(planted)
    turn = (turn + 180) % 360 - 180
    off = (fit.rotation - turn + 180) % 360 - 180
    truth = f"{turn:.0f}, {mirrored}, {planted.C10:g}, {planted.C12a:g}, {planted.C12b:g}"
    guess = f"{fit.rotation:.1f}, {fit.mirrored}, {fit.C10:.0f}, {fit.C12a:.0f}, {fit.C12b:.0f}"
    spread = f"{fit.rotation_deviation:.1f}, {fit.C10_deviation:.0f}, {fit.C12_deviation:.0f}"
    shares = f"{fit.elsewhere:.2f} | {fit.mirrored_otherwise:.2f} | {fit.twin:.2f}"
    return f"| {planted.name} | {truth} | {guess} | {spread} | {shares} | {off:.1f} | {seconds:.1f} |"


def main(names: Sequence[str]) -> None:
    print(HEAD)
    print("|" + "---|" * (HEAD.count("|") - 1))
    for planted in SETS:
        if names and planted.name not in names:
            continue
        write(planted)
        start = time.perf_counter()
        fit = measure_parallax(scan_of(planted))
        assert fit is not None
        print(row(planted, fit, time.perf_counter() - start), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="SET")
    main(parser.parse_args().names)
