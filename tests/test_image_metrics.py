"""Metrics of an image and of positions: their values on constructed cases, and what they must not depend on."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from ptydask.engines.ptyrad.image_metrics import BINS, NAMES, is_cheap, measure_image, position_drift


def atoms(noise: float = 0.0, size: int = 96) -> NDArray[np.float32]:
    """A lattice of Gaussian columns on a flat ground, with white noise."""
    y, x = np.mgrid[:size, :size] % 12 - 6.0
    image = np.exp(-(y * y + x * x) / 8) + noise * np.random.default_rng(0).normal(size=(size, size))
    return image.astype(np.float32)


def test_values_of_a_worked_example() -> None:
    """Four grey levels in equal stripes: contrast sqrt(5)/3, two bits, and two steps of gradient."""
    stripes = np.repeat([0.0, 1.0, 2.0, 3.0], 25)[None].repeat(100, 0)
    metrics = measure_image(stripes, 0.5)
    assert metrics["robust_contrast"] == pytest.approx(math.sqrt(1.25) / 1.5)
    assert metrics["entropy"] == pytest.approx(2.0)
    assert metrics["total_variation"] == pytest.approx(3 / 99 / (math.sqrt(1.25) * 0.5))


def test_the_most_entropy_is_that_of_equal_shares() -> None:
    """A ramp fills all bins alike, as far as its ends, which are pulled in, let it."""
    ramp = np.arange(10000.0).reshape(100, 100)
    assert measure_image(ramp, 1.0)["entropy"] == pytest.approx(math.log2(BINS), abs=0.05)


@pytest.mark.parametrize("change", [lambda i: i + 7, lambda i: 3 * i, lambda i: i[::-1, ::-1] * 0.1 - 1])
def test_a_phase_may_be_shifted_and_scaled(change: object) -> None:
    """Nothing of a phase's zero and scale is in the metrics; half a turn only moves the corners of the differences."""
    image = atoms(0.05).astype(np.float64)
    changed = measure_image(change(image), 0.2)  # type: ignore[operator]
    for name, value in measure_image(image, 0.2).items():
        assert changed[name] == pytest.approx(value, rel=0.02), name


@pytest.mark.parametrize("outlier", [-100.0, 100.0, 1e30])
@pytest.mark.parametrize("name", NAMES)
def test_a_few_wild_pixels_change_little(name: str, outlier: float) -> None:
    """PtyRAD's contrast of the same image changes by a factor; of wild pixels there may be up to one percent."""
    image = atoms(0.05)
    before = measure_image(image, 0.2)[name]
    image[[3, 40, 77], [50, 9, 33]] = outlier
    assert measure_image(image, 0.2)[name] == pytest.approx(before, rel=0.02)


def test_noise_raises_entropy_and_total_variation() -> None:
    """Of the same specimen, the noisier image is worse by both."""
    clean, noisy = measure_image(atoms(0.01), 0.2), measure_image(atoms(0.2), 0.2)
    assert noisy["entropy"] > clean["entropy"]
    assert noisy["total_variation"] > 1.5 * clean["total_variation"]


def test_total_variation_is_per_length() -> None:
    """The same specimen in pixels of half the size has the same total variation, as its gradient is per length."""
    fine = np.kron(atoms(), np.ones((2, 2)))
    smooth = (fine + np.roll(fine, 1, 0) + np.roll(fine, 1, 1) + np.roll(fine, (1, 1), (0, 1))) / 4
    coarse = measure_image(atoms(), 0.2)["total_variation"]
    assert measure_image(smooth, 0.1)["total_variation"] == pytest.approx(coarse, rel=0.1)


@pytest.mark.parametrize(
    "image",
    [
        np.ones((20, 20)),
        np.zeros((1, 1)),
        np.zeros((0, 7)),
        np.full((20, 20), np.nan),
        np.where(np.arange(400).reshape(20, 20) == 7, np.inf, np.arange(400.0).reshape(20, 20)),
    ],
    ids=["flat", "one pixel", "no pixel", "nan", "infinite"],
)
def test_what_cannot_be_measured_is_nan(image: NDArray[np.float64]) -> None:
    """A flat image must not win by a total variation of 0."""
    assert all(math.isnan(value) for value in measure_image(image, 1.0).values())


def test_one_row_has_no_gradient() -> None:
    """A line scan's image has a contrast and an entropy; a gradient in both directions it has not."""
    metrics = measure_image(np.arange(50.0)[None], 1.0)
    assert metrics["robust_contrast"] > 0
    assert metrics["total_variation"] == 0


def test_drift_leaves_out_what_all_positions_moved() -> None:
    """A common shift moves nothing; a third of the positions 3 px on is a drift of sqrt(2) px."""
    first = np.random.default_rng(0).normal(size=(90, 2)).astype(np.float32)
    assert position_drift(first + 2, first, 0.5) == pytest.approx(0, abs=1e-6)
    moved = first.copy()
    moved[::3, 0] += 3
    assert position_drift(moved, first, 0.5) == pytest.approx(0.5 * math.sqrt(2), rel=1e-5)


@pytest.mark.parametrize(
    ("pixels", "propagated", "batches", "cheap"),
    [
        (15 * 15, 8 * 8 * 32 * 32, 4, False),
        (31 * 31, 16 * 16 * 64 * 64, 16, True),
        (60 * 60, 24 * 24 * 64 * 64, 36, True),
        (350 * 350, 128 * 128 * 128 * 128 * 6 * 6, 16, True),
        (680 * 680, 256 * 256 * 128 * 128 * 6 * 6, 64, True),
        (16384 * 16384, 256 * 256 * 128 * 128, 64, False),
        (4000 * 4000, 16 * 16 * 256 * 256, 1, False),
    ],
)
def test_what_is_measured_after_every_iteration(pixels: int, propagated: int, batches: int, cheap: bool) -> None:
    """Usual scans are; wide steps over a large object, where measuring would be felt, are not."""
    assert is_cheap(pixels, propagated, batches) is cheap
