"""Fourier ring correlation: its definition, its thresholds, and what must not matter to it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from ptydask.analysis import fourier_ring
from ptydask.analysis.fourier_ring import compare_images, fourier_ring_correlation
from ptydask.model import Image
from ptydask.ring_correlation import HALF_BIT, ONE_BIT, FourierRing, threshold

Array = NDArray[np.float64]


def image(data: Array, pixel: float = 0.2, first: float = 0.0) -> Image:
    y, x = (first + pixel * np.arange(size) for size in data.shape)
    return Image(data, y, x, "rad", "angstrom", "Phase")


def noise(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def coloured(seed: int, size: int, exponent: float) -> Array:
    """An image whose amplitude goes with this power of the frequency."""
    radius = np.hypot.outer(np.fft.fftfreq(size), np.fft.fftfreq(size))
    radius[0, 0] = np.inf if exponent < 0 else 1
    return np.asarray(np.fft.ifft2(np.fft.fft2(noise(seed, size, size)) * radius**exponent).real)


def curve(correlation: list[float] | Array, pixels: int = 10**8) -> FourierRing:
    """Rings at 1, 2, ... 1/angstrom, of so many pixels that the half-bit line is flat."""
    values = np.asarray(correlation, dtype=float)
    return FourierRing(np.arange(1.0, len(values) + 1), values, np.full(len(values), pixels))


# --- the definition ----------------------------------------------------------------------------------------


def test_an_example_computed_by_hand() -> None:
    """8 x 8 pixels; a wave of amplitude A is two pixels of A * 32 in the transform.

    Ring 1: 2 cos x against cos x + cos y: 2 * 64 * 32 / sqrt(2 * 64^2 * 4 * 32^2) = 1 / sqrt 2.
    Ring 2: cos 2x against sin 2x, a quarter of a period apart: 0.
    Ring 3: cos 3y against -cos 3y: -1, of which fold_slice has the absolute value.
    Ring 4: nothing. Pixels at distances rounded to 1, 2, 3, 4: 8, 12, 16, 22.
    """
    y, x = np.meshgrid(*[2 * np.pi * np.arange(8) / 8] * 2, indexing="ij")
    a = 2 * np.cos(x) + np.cos(2 * x) + np.cos(3 * y)
    b = np.cos(x) + np.cos(y) + np.sin(2 * x) - np.cos(3 * y)
    ring = fourier_ring_correlation(a, b, pixel_size=0.5)
    np.testing.assert_allclose(ring.correlation[:3], [0.5**0.5, 0, -1], atol=1e-12)
    np.testing.assert_array_equal(ring.pixels, [8, 12, 16, 22])
    np.testing.assert_allclose(ring.spatial_frequency, [0.25, 0.5, 0.75, 1.0])
    # (0.2071 + 2 * 0.455082 / 2.828427 + 1 / 2.828427) / (0.2071 + 2 * 0.455082 / 2.828427 + 1)
    assert ring.half_bit[0] == pytest.approx(0.88245 / 1.52889, abs=1e-4)
    # 16 pixels: (0.5 + 2 * 0.707107 / 4 + 1 / 4) / (0.5 + 2 * 0.707107 / 4 + 1)
    assert ring.one_bit[2] == pytest.approx(1.10355 / 1.85355, abs=1e-4)


def test_the_absolute_value_is_fold_slices_definition() -> None:
    """Ring by ring over all pixels within half a pixel of it, for real images of even and of odd sides."""
    for size in (16, 21):
        a, b = noise(size, 2, size, size)
        transforms = [np.fft.fftshift(np.fft.fft2(values)) for values in (a, b)]
        side = np.arange(size) - size // 2
        distance = np.hypot.outer(side, side)
        expected = []
        for radius in range(1, size // 2 + 1):
            inside = (distance >= radius - 0.5) & (distance <= radius + 0.5)
            first, other = (transform[inside] for transform in transforms)
            power = np.sqrt((np.abs(first) ** 2).sum() * (np.abs(other) ** 2).sum())
            expected.append(np.abs((first * other.conj()).sum()) / power)
        # Of an even side the Nyquist row has no counterpart: only there the sum has an imaginary part.
        last = None if size % 2 else -1
        measured = np.abs(fourier_ring_correlation(a, b, 1.0).correlation)
        np.testing.assert_allclose(measured[:last], np.array(expected)[:last], atol=1e-12)


@pytest.mark.parametrize("shape", [(32, 32), (33, 33), (24, 60), (61, 20)])
def test_copies_agree_everywhere(shape: tuple[int, int]) -> None:
    """1 in every ring, also times a factor, and of complex images; and what is upside down is -1."""
    data = noise(1, *shape)
    for a, b in ((data, data), (data, 3 * data), (data * (1 + 2j), data * (1 + 2j))):
        np.testing.assert_allclose(fourier_ring_correlation(a, b, 0.1).correlation, 1)
    np.testing.assert_allclose(fourier_ring_correlation(data, -data, 0.1).correlation, -1)
    ring = compare_images(image(data), image(data.copy()))
    np.testing.assert_allclose(ring.correlation, 1)
    assert (ring.crossing, ring.resolution, ring.area) == (None, pytest.approx(1 / ring.nyquist), pytest.approx(1))
    assert f"better than {ring.resolution:.3g}" in ring.describe()


@pytest.mark.parametrize("snr", [0.2071, 0.5, 2.0, 10.0])
def test_noise_of_known_strength(snr: float) -> None:
    """Two realisations of signal to noise S, in power, correlate by S / (S + 1) (Frank & Al-Ali 1975)."""
    signal = np.sqrt(snr) * noise(1, 192, 192)
    ring = fourier_ring_correlation(signal + noise(2, 192, 192), signal + noise(3, 192, 192), 0.1)
    expected = snr / (snr + 1)
    off = (ring.correlation - expected) * np.sqrt(ring.pixels)
    assert np.abs(off).max() < 5
    assert np.average(ring.correlation, weights=ring.pixels) == pytest.approx(expected, abs=0.02)


def test_the_half_bit_line_is_where_its_ratio_is() -> None:
    """In the mean of two images 0.2071 is 0.4142, and log2(1 + 0.4142) is half a bit; 0.5 is one bit."""
    assert threshold(1e12, HALF_BIT) == pytest.approx(HALF_BIT / (1 + HALF_BIT), abs=1e-5)
    assert np.log2(1 + 2 * HALF_BIT) == pytest.approx(0.5, abs=1e-4)
    assert np.log2(1 + 2 * ONE_BIT) == 1
    few, many = threshold([10, 10_000], HALF_BIT)
    assert few > many


def test_the_crossing_is_where_the_signal_meets_the_line() -> None:
    """Power falling as f^-4 on white noise, equal to it at f0: a correlation of S / (S + 1) with S = (f0 / f)^4."""
    size, equal = 384, 0.2  # 1/pixel
    signal = coloured(1, size, -2) * equal**2
    ring = fourier_ring_correlation(signal + noise(2, size, size), signal + noise(3, size, size), pixel_size=1.0)
    snr = (equal / ring.spatial_frequency) ** 4
    expected = ring.spatial_frequency[snr / (snr + 1) < ring.half_bit][0]
    assert 0.25 < expected < 0.3
    # Rings fluctuate by 1 / sqrt(n), and the first to fall below is somewhat early.
    assert expected * 0.9 < (ring.crossing or 0) < expected


@pytest.mark.parametrize(
    ("shape", "whole"), [((32, 32), False), ((48, 90), False), ((64, 64), True), ((128, 128), True)]
)
def test_noise_stays_under_the_half_bit_line(shape: tuple[int, int], whole: bool) -> None:
    """At 95 % of rings, also after the two were moved onto each other and tapered."""
    above: list[bool] = []
    for seed in range(30):
        a, b = noise(seed, 2, *shape)
        ring = compare_images(image(a), image(b)) if whole else fourier_ring_correlation(a, b, 0.2)
        above += (ring.correlation > ring.half_bit).tolist()
    assert np.mean(above) < 0.05


def test_rings_of_an_oblong_image_are_at_physical_frequencies() -> None:
    """A wave of a period of 1.6 angstrom is in the ring at 0.625 1/angstrom, along whichever side it runs."""
    y, x = 0.2 * np.arange(40), 0.2 * np.arange(96)
    for wave in (np.cos(2 * np.pi * y / 1.6)[:, None] + 0 * x, np.cos(2 * np.pi * x / 1.6) + 0 * y[:, None]):
        dust = 1e-6 * noise(1, 2, 40, 96)
        ring = fourier_ring_correlation(wave + dust[0], wave + dust[1], 0.2)
        assert ring.nyquist == 2.5
        assert ring.spatial_frequency[ring.correlation.argmax()] == pytest.approx(0.625)
        assert ring.correlation.max() == pytest.approx(1)


# --- what must not matter ----------------------------------------------------------------------------------


def test_constant_and_ramp_do_not_matter() -> None:
    """A phase has no zero, and its slope is the probe's tilt."""
    signal = coloured(1, 96, -1)
    a, b = signal + 0.3 * noise(2, 96, 96), signal + 0.3 * noise(3, 96, 96)
    y, x = np.mgrid[:96, :96]
    plain = compare_images(image(a), image(b))
    sloping = compare_images(image(a + 5 - 0.3 * y), image(b + 0.2 * x + 0.1 * y))
    np.testing.assert_allclose(sloping.correlation, plain.correlation, atol=1e-9)


def test_the_plane_that_fits_best_is_taken_off() -> None:
    """As least squares has it."""
    data = noise(4, 20, 33)
    y, x = np.mgrid[:20, :33]
    terms = np.stack([np.ones(data.size), y.ravel(), x.ravel()], axis=1)
    fitted = terms @ np.linalg.lstsq(terms, data.ravel(), rcond=None)[0]
    np.testing.assert_allclose(fourier_ring.remove_ramp(data), data - fitted.reshape(data.shape), atol=1e-12)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (3.0, -2.0), (0.5, 0.25), (-2.37, 1.44)])
def test_a_shift_does_not_matter(shift: tuple[float, float]) -> None:
    """By whole pixels and by parts of one; the axes may know of it or not."""
    whole = coloured(5, 256, -1)
    moved = fourier_ring._move(whole, shift)
    a, b = (values[80:176, 80:176] for values in (whole, moved))
    ring = compare_images(image(a), image(b))
    assert ring.correlation[:-2].min() > 0.98
    assert ring.area > 0.99
    apart = compare_images(image(whole[80:176, 80:176]), image(whole[83:179, 83:179], first=0.6))
    np.testing.assert_allclose(apart.correlation, 1, atol=1e-9)


def test_halves_of_different_size_are_compared_where_both_are() -> None:
    """A checkerboard's halves may end one row apart."""
    data = coloured(6, 96, -1)
    ring = compare_images(image(data[:95]), image(data[1:, :94], first=0.0))
    assert len(ring.correlation) == 94 // 2
    assert ring.correlation.min() > 0.99


# --- the crossing, and what is said ------------------------------------------------------------------------


def test_rings_of_few_pixels_do_not_decide() -> None:
    """Below 0.05 of the Nyquist frequency nothing counts; the first ring that does may be below the line already."""
    values = np.full(40, 0.9)
    values[0] = 0.0
    assert curve(values).crossing is None
    values[1:] = 0.0
    assert curve(values).crossing == 2.0
    assert curve(values).resolution == 0.5


def test_the_crossing_lies_between_rings() -> None:
    """The line is at 0.1716; the first crossing counts, whatever comes after."""
    line = HALF_BIT / (1 + HALF_BIT)
    ring = curve([0.9, line + 0.3, line - 0.1, 0.9, 0.0])
    assert ring.crossing == pytest.approx(2.75, abs=1e-3)
    assert ring.area == pytest.approx(ring.correlation.mean())
    assert "never" not in ring.describe()


def test_flat_images_have_nothing_in_common() -> None:
    """No power, no correlation, and no warning."""
    ring = compare_images(image(np.ones((16, 16))), image(np.zeros((16, 16))))
    assert not ring.correlation.any()
    assert ring.area == 0
    assert not fourier_ring_correlation(np.zeros((9, 9)), noise(1, 9, 9), 1.0).correlation.any()


@pytest.mark.parametrize(
    ("first", "other", "word"),
    [
        (image(noise(1, 32, 32)), image(noise(1, 32, 32), pixel=0.25), "size"),
        (image(noise(1, 32, 32)), image(np.full((32, 32), np.nan)), "no numbers"),
        (image(noise(1, 6, 32)), image(noise(1, 6, 32)), "common"),
        (image(noise(1, 32, 32)), image(noise(1, 32, 32), first=50.0), "common"),
        (replace(image(noise(1, 32, 32)), y=0.3 * np.arange(32)),) * 2 + ("square",),
        (replace(image(noise(1, 32, 32)), y=np.array([])), image(noise(1, 32, 32)), "axes"),
    ],
)
def test_images_that_cannot_be_compared(first: Image, other: Image, word: str) -> None:
    """The reason, in a word."""
    with pytest.raises(ValueError, match=word):
        compare_images(first, other)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (np.ones((9, 9)), np.ones((9, 10))),
        (np.ones((7, 9)), np.ones((7, 9))),
        (np.ones(9), np.ones(9)),
        (np.full((9, 9), np.inf), np.ones((9, 9))),
    ],
)
def test_arrays_that_have_no_rings(a: Array, b: Array) -> None:
    with pytest.raises(ValueError, match="image"):
        fourier_ring_correlation(a, b, 1.0)
