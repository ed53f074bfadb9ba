"""Spectra, probe modes, refined positions and differences: numbers that were planted come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_cases import meta, output, put, record

import ptydask
from ptydask.analysis import reciprocal_space, registration, scan_positions
from ptydask.analysis.scan_positions import PositionShifts
from ptydask.errors import StoreError
from ptydask.model import Image, Quantity
from ptydask.store import Store


def lattice(shape: tuple[int, int], pixel: float, *spots: tuple[float, float]) -> np.ndarray[Any, np.dtype[Any]]:
    """Cosines of these frequencies (ky, kx) in 1/angstrom."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    return sum((np.cos(2 * np.pi * pixel * (ky * y + kx * x)) for ky, kx in spots), np.zeros(shape))


def calibrated(data: np.ndarray[Any, Any], pixel: float = 0.2, first: float = 3.0) -> Image:
    y, x = (first + pixel * np.arange(size) for size in data.shape)
    return Image(data, y, x, "rad", "angstrom", "")


def texture(shape: tuple[int, int], seed: int = 0) -> np.ndarray[Any, np.dtype[Any]]:
    """Noise without its upper half of frequencies, as what is resolved of an amorphous film."""
    noise = np.fft.fft2(np.random.default_rng(seed).normal(size=shape))
    far = np.hypot(*np.meshgrid(*(np.fft.fftfreq(size) for size in shape), indexing="ij"))
    return np.fft.ifft2(noise * np.exp(-((far / 0.12) ** 2))).real


# --- power spectrum ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(64, 64), (55, 80), (33, 47)])
@pytest.mark.parametrize("spot", [(0.0, 0.5), (0.35, 0.0), (0.4, -0.3)])
def test_a_planted_lattice_has_its_spot(shape: tuple[int, int], spot: tuple[float, float]) -> None:
    """At the frequency that was planted, to the nearest pixel of the spectrum, whatever constant lies below it."""
    spectrum = reciprocal_space.power_spectrum(7 + lattice(shape, 0.25, spot), 0.25)
    row, column = np.unravel_index(int(spectrum.data.argmax()), spectrum.data.shape)
    at = np.array([spectrum.y[row], spectrum.x[column]])
    sign = 1 if np.dot(at, spot) > 0 else -1
    assert np.abs(sign * at - spot).max() <= 0.5 / (0.25 * min(shape)) + 1e-9
    assert spectrum.axis_units == "1/angstrom"
    assert (np.diff(spectrum.y) > 0).all()
    assert spectrum.y[shape[0] // 2] == spectrum.x[shape[1] // 2] == 0


def test_a_spectrum_integrates_to_the_mean_square() -> None:
    """Of what lies below the window, in the image's units squared; a complex object has both signs of a wave apart."""
    data = texture((60, 50))
    spectrum = reciprocal_space.power_spectrum(data, 0.3)
    cell = (spectrum.y[1] - spectrum.y[0]) * (spectrum.x[1] - spectrum.x[0])
    window = np.multiply.outer(np.hanning(62)[1:-1], np.hanning(52)[1:-1])
    expected = np.mean((window * (data - data.mean())) ** 2) / np.mean(window**2)
    assert np.sum(10**spectrum.data) * cell == pytest.approx(expected)
    wave = np.exp(2j * np.pi * 0.4 * 0.25 * np.arange(64))[None].repeat(64, 0)
    spectrum = reciprocal_space.power_spectrum(wave, 0.25)
    assert spectrum.x[spectrum.data[32].argmax()] == pytest.approx(0.4, abs=0.04)
    assert spectrum.data[32].max() - spectrum.data[32, np.abs(spectrum.x + 0.4).argmin()] > 4


@pytest.mark.parametrize("data", [np.ones((3, 30)), np.ones(30), np.full((8, 8), np.nan), np.ones((2, 8, 8))])
def test_what_has_no_spectrum_is_refused(data: np.ndarray[Any, Any]) -> None:
    with pytest.raises(ValueError, match=r"spectrum|no numbers"):
        reciprocal_space.power_spectrum(data, 0.2)


def test_a_flat_image_has_an_even_spectrum() -> None:
    """Zero has no logarithm, and rounding is no lattice."""
    assert np.isfinite(reciprocal_space.power_spectrum(np.full((8, 8), 3.0), 0.2).data).all()


@pytest.mark.parametrize(
    ("limit", "frequencies"),
    [
        (1.19, [0.5, 1.0]),
        (3.4, [1, 2, 3]),
        (1.0, [0.5, 1.0]),
        (25, [10, 20]),
        (0.07, [0.02, 0.04, 0.06]),
    ],
)
def test_rings_are_round(limit: float, frequencies: list[float]) -> None:
    rings = reciprocal_space.choose_rings(limit)
    assert [ring.frequency for ring in rings] == pytest.approx(frequencies)
    assert [ring.frequency * ring.spacing for ring in rings] == pytest.approx([1] * len(rings))


@pytest.mark.parametrize("limit", [0.0, -1.0, np.nan, np.inf])
def test_no_rings_without_a_scale(limit: float) -> None:
    assert reciprocal_space.choose_rings(limit) == ()


# --- probe -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [(1.0,), (3.0, 1.0), (0.6, 0.3, 0.08, 0.02)])
def test_shares_are_those_of_intensity(weights: tuple[float, ...]) -> None:
    rng = np.random.default_rng(3)
    modes = rng.normal(size=(len(weights), 16, 16)) + 1j * rng.normal(size=(len(weights), 16, 16))
    modes *= np.sqrt(np.array(weights) / (np.abs(modes) ** 2).sum((1, 2)))[:, None, None]
    shares = reciprocal_space.mode_shares(modes)
    assert shares.sum() == pytest.approx(1)
    assert shares == pytest.approx(np.array(weights) / sum(weights))
    assert np.isnan(reciprocal_space.mode_shares(np.zeros((2, 4, 4), complex))).all()


def test_a_probe_s_aperture_is_as_wide_as_it_was() -> None:
    """A disc of 20 mrad at 80 kV comes back at 20 mrad around the middle, with the probe's intensity."""
    n, pixel, wavelength = 96, 0.3, 0.0418
    k = np.fft.fftfreq(n, pixel)
    disc = np.hypot(k[:, None], k[None]) * wavelength <= 0.02
    probe = np.fft.fftshift(np.fft.ifft2(disc))[None]
    seen = reciprocal_space.transform_probe(probe, pixel, wavelength)
    assert seen.angles is not None
    bright = np.abs(seen.modes[0]) > 0.5 * np.abs(seen.modes[0]).max()
    radius = np.hypot(*np.meshgrid(*seen.angles, indexing="ij"))
    assert radius[bright].max() <= 20.0
    assert radius[~bright].min() > 20.0
    assert seen.intensity.sum() == pytest.approx((np.abs(probe) ** 2).sum())
    assert reciprocal_space.transform_probe(probe, pixel).angles is None


# --- positions -------------------------------------------------------------------------------------------


def test_a_common_shift_is_no_refinement() -> None:
    nominal = scan_positions.raster_positions(4, 5, 2.0)
    moved = PositionShifts(nominal, nominal + np.array([0.3, -0.2]))
    assert moved.mean == pytest.approx([0.3, -0.2])
    assert moved.largest == pytest.approx(0)
    apart = nominal.copy()
    apart[7] += [0.0, 2.0]
    moved = PositionShifts(nominal, apart)
    assert moved.largest == pytest.approx(1.9)
    assert moved.rms == pytest.approx(np.sqrt(19 * 0.1**2 / 20 + 1.9**2 / 20))


@pytest.mark.parametrize("flips", [(0, 0, 0), (1, 0, 0), (0, 1, 1)])
@pytest.mark.parametrize("affine", [(1, 0, 0, 0), (1.04, 0.01, -1.5, 0.5)])
@pytest.mark.ptyrad
@pytest.mark.slow
def test_a_raster_is_ptyrad_s_own(flips: tuple[int, ...], affine: tuple[float, ...]) -> None:
    from types import SimpleNamespace

    release = pytest.importorskip("ptydask.engines.ptyrad.release")
    release.installed()  # first: it makes PtyRAD importable beside a torch without CUDA
    initializer = release.initializer()
    raster = scan_positions.raster_positions(3, 4, 2.5, flips=flips, affine=affine)
    grid = 2.5 * np.array([(y, x) for y in range(3) for x in range(4)], dtype=float)
    scan = SimpleNamespace(init_variables={"N_scan_slow": 3, "N_scan_fast": 4})
    theirs = initializer.Initializer._pos_scan_flipT(scan, grid - grid.mean(0), list(flips))
    np.testing.assert_allclose(raster, theirs @ initializer.compose_affine_matrix(*affine), atol=1e-12)


def test_a_guess_at_the_first_positions_is_proven_by_the_rounded_ones() -> None:
    """The right one of two is taken, moved by whole pixels; none where neither was rounded to these."""
    right = scan_positions.raster_positions(6, 6, 2.3, affine=(1.02, 0, 2, 0))
    wrong = scan_positions.raster_positions(6, 6, 2.1)
    crop = np.round(right + np.array([40, 31])).astype(np.int32)
    np.testing.assert_allclose(scan_positions.nominal_positions(crop, [wrong, right]), right + np.array([40, 31]))
    assert scan_positions.nominal_positions(crop, [wrong]) is None
    assert scan_positions.nominal_positions(crop, [right[:-1]]) is None


# --- difference ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [(0, 0), (3, -2), (-7, 5)])
@pytest.mark.parametrize("constant", [0.0, 1.5])
def test_a_copy_moved_by_whole_pixels_has_no_difference(shift: tuple[int, int], constant: float) -> None:
    """And the shift and the constant that were planted are told."""
    whole = texture((120, 100))
    mine = whole[20:90, 20:80]
    theirs = whole[20 - shift[0] : 90 - shift[0], 20 - shift[1] : 80 - shift[1]] - constant
    found = registration.subtract_images(calibrated(mine), calibrated(theirs))
    assert found.rms < 1e-6 * mine.std()
    assert found.shift == pytest.approx((0.2 * shift[0], 0.2 * shift[1]), abs=1e-9)
    assert found.constant == pytest.approx(constant)
    assert found.correlation == pytest.approx(1)
    assert found.image.data.shape == (70 - abs(shift[0]), 60 - abs(shift[1]))
    assert found.image.y[0] == pytest.approx(3.0 + 0.2 * max(0, -shift[0]))


def test_axes_say_where_images_are() -> None:
    """The same content on axes that begin elsewhere is a shift by that, also where it is parts of a pixel."""
    whole = texture((90, 90))
    found = registration.subtract_images(calibrated(whole[:80, 5:85]), calibrated(whole[4:84, :80], first=3.05))
    assert found.shift == pytest.approx((-0.8 + 0.05, 1.0 + 0.05))
    assert found.rms < 1e-6


@pytest.mark.parametrize("shift", [(0.3, -0.4), (2.5, 1.25), (-0.05, 0.0)])
def test_a_copy_moved_by_parts_of_a_pixel_has_next_to_none(shift: tuple[float, float]) -> None:
    whole = texture((96, 96))
    ky, kx = np.fft.fftfreq(96)[:, None], np.fft.fftfreq(96)[None]
    moved = np.fft.ifft2(np.fft.fft2(whole) * np.exp(-2j * np.pi * (ky * shift[0] + kx * shift[1]))).real
    found = registration.subtract_images(calibrated(whole[10:-10, 10:-10]), calibrated(moved[10:-10, 10:-10]))
    assert found.shift == pytest.approx((0.2 * shift[0], 0.2 * shift[1]), abs=0.01 * 0.2)
    assert found.rms < 0.02 * whole.std()


def test_large_images_are_registered_by_their_middle() -> None:
    """As exactly, and the difference is that of the whole."""
    whole = texture((1130, 1120))
    found = registration.subtract_images(calibrated(whole[10:, :1110]), calibrated(whole[:1120, 10:]))
    assert found.shift == pytest.approx((2.0, -2.0))
    assert found.image.data.shape == (1110, 1100)
    assert found.rms < 1e-6


def test_a_lattice_is_not_moved_by_a_period() -> None:
    """It fits itself at every period: the small shift is the right one."""
    data = lattice((90, 90), 0.2, (0.5, 0.0), (0.0, 0.5)) + 0.01 * texture((90, 90))
    found = registration.subtract_images(calibrated(data[2:82, :80]), calibrated(data[:80, 1:81]))
    assert found.shift == pytest.approx((0.4, -0.2), abs=1e-3)


def test_pixels_of_another_size_are_interpolated() -> None:
    """Where the pixel size was tuned the same structure is as large in angstrom, and that is what is compared."""

    def sample(pixel: float, count: int) -> Image:
        at = pixel * (np.arange(count) - (count - 1) / 2)
        return calibrated(np.sin(at)[:, None] * np.cos(1.3 * at)[None] + np.exp(-(at**2))[:, None], pixel)

    found = registration.subtract_images(sample(0.2, 81), sample(0.21, 77))
    assert found.resampled
    assert found.rms < 1e-3
    assert "pixel size" in found.removed()


@pytest.mark.parametrize(
    ("first", "other"),
    [
        (calibrated(np.full((8, 8), np.nan)), calibrated(np.ones((8, 8)))),
        (calibrated(np.ones((8, 8))), calibrated(np.ones((1, 8)))),
        (calibrated(np.ones((2, 8))), calibrated(np.ones((8, 8)))),
        (calibrated(np.ones((8, 8))), Image(np.ones((8, 8)), np.arange(3), np.arange(3), "rad", "angstrom", "")),
    ],
)
def test_what_cannot_be_compared_is_refused(first: Image, other: Image) -> None:
    with pytest.raises(ValueError, match=r"no numbers|in common|compared"):
        registration.subtract_images(first, other)


def test_flat_images_have_no_difference() -> None:
    found = registration.subtract_images(calibrated(np.ones((8, 8))), calibrated(np.zeros((8, 8))))
    assert (found.rms, found.constant) == pytest.approx((0, 1))
    assert np.isnan(found.correlation)


# --- of a trial ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> ptydask.analysis.results.StudyResults:
    """0 and 1: three slices, two probe modes, a raster of 6 x 5 of which four were reconstructed; 2 has nothing."""
    pixel, folder = 0.25, tmp_path_factory.mktemp("microscopy")
    raster = scan_positions.raster_positions(6, 5, 1.3 / pixel, affine=(1.05, 0, 0, 0))
    drawn = 0.15 * np.random.RandomState(0).randn(30, 2)
    crop = np.round(raster + drawn + 20).astype(np.int32)
    object_phase = np.stack([np.full((48, 52), depth) for depth in (0.1, 0.2, 0.4)])[None].astype(np.float32)
    object_phase[0, 0] += 0.5 * lattice((48, 52), pixel, (0.0, 0.5))
    probe = np.zeros((2, 8, 8), np.complex64)
    probe[0, 4, 4], probe[1, 4, 4] = 3, 1j
    arrays = {
        "object_phase": Quantity(object_phase, "rad"),
        "object_amplitude": Quantity(np.ones_like(object_phase)),
        "probe": Quantity(probe),
        "positions": Quantity(pixel * (raster + drawn + 20 + [0.5, 0]), "angstrom"),
        "crop_positions": Quantity(crop, "pixel"),
        "scan_indices": Quantity(np.array([0, 3, 4, 29], np.int32), ""),
        "slice_thickness": Quantity(np.float32(8.0), "angstrom"),
    }
    facts = {"pixel_size": pixel, "length_unit": "angstrom", "wavelength": 0.04, "scan_step_size": 1.3}
    facts |= {"scan_positions_slow": 6, "scan_positions_fast": 5}
    facts |= {"scan_scale": 1.05, "scan_asymmetry": 0.0, "scan_rotation": 0.0, "scan_shear": 0.0}
    y, x = pixel * np.arange(4, 44), pixel * np.arange(6, 46)
    image = Image(object_phase[0, :, 4:44, 6:46].sum(0), y, x, "rad", "angstrom", "")
    config = '{"init_params": {"pos_scan_rand_std": 0.15, "pos_scan_flipT": null}}'
    store = Store.open(folder / "demo.h5", meta("demo", config_json=config))
    for number in (0, 1):
        put(store, record(number, seed=0), output(arrays=arrays, attributes=facts, image=image))
    put(store, record(2), output(arrays={}, image=None, attributes={}))
    return ptydask.open(store.finish())


def test_a_trial_s_spectrum(study: Any) -> None:
    """Of phase and of transmission, whose slices multiply, the lattice is at 0.5 per angstrom."""
    for of in ("phase", "object"):
        spectrum = study.trial(0).power_spectrum(of)
        row, column = np.unravel_index(int(spectrum.data.argmax()), spectrum.data.shape)
        assert (spectrum.y[row], abs(spectrum.x[column])) == pytest.approx((0, 0.5))


def test_a_trial_s_slices(study: Any) -> None:
    """In the region of its image, at their depths."""
    slices = study.trial(0).phase_slices()
    assert slices.data.shape == (3, 40, 40)
    assert slices.z == pytest.approx([0, 8, 16])
    assert slices.y[0] == pytest.approx(1.0)
    assert slices.data[2] == pytest.approx(0.4)
    np.testing.assert_allclose(slices.data.sum(0), study.trial(0).image.data, atol=1e-5)


def test_a_trial_s_probe(study: Any) -> None:
    trial = study.trial(0)
    assert trial.probe_shares() == pytest.approx([0.9, 0.1])
    seen = trial.reciprocal_probe()
    assert seen.wavelength == 0.04
    assert seen.angles[0] == pytest.approx(40 * seen.ky)
    assert seen.ky[0] == pytest.approx(-2)  # half the inverse of a pixel


def test_a_trial_s_positions(study: Any) -> None:
    """Of those that were reconstructed; where they began is known beyond the pixel that the file holds."""
    moved = study.trial(0).position_shifts()
    assert moved.exact
    assert moved.nominal.shape == (4, 2)
    assert moved.mean == pytest.approx([0.125, 0])
    assert moved.largest == pytest.approx(0, abs=1e-9)


def test_two_alike_trials_have_no_difference(study: Any) -> None:
    found = study.trial(0).difference(study.trial(1))
    assert found.rms == pytest.approx(0, abs=1e-6)
    assert found.shift == (0, 0)


@pytest.mark.parametrize(
    "name", ["power_spectrum", "phase_slices", "probe_shares", "reciprocal_probe", "position_shifts"]
)
def test_a_trial_without_arrays_says_so(study: Any, name: str) -> None:
    with pytest.raises(StoreError, match=r"trial 2 has no|no object_phase was kept|not kept"):
        getattr(study.trial(2), name)()
    with pytest.raises(StoreError, match="was kept"):
        study.trial(0).difference(study.trial(2))


def test_x_ray_lengths_are_angstrom(tmp_path: Path) -> None:
    """A pixel of 10 nm is 100 angstrom on every axis."""
    store = Store.open(tmp_path / "a.h5", meta())
    shown = Image(texture((16, 16)), 1e-8 * np.arange(16), 1e-8 * np.arange(16), "rad", "m", "")
    facts = {"pixel_size": 1e-8, "length_unit": "m", "wavelength": 2e-10}
    put(store, record(0), output(image=shown, attributes=facts))
    trial = ptydask.open(store.finish()).trial(0)
    assert trial.power_spectrum().y[0] == pytest.approx(-1 / 200)
    assert trial.reciprocal_probe().wavelength == pytest.approx(2.0)


def kept(path: Path, image: Image | None = None, facts: dict[str, Any] | None = None, **arrays: Quantity) -> Any:
    """A trial with these arrays alone."""
    store = Store.open(path / "a.h5", meta())
    given = {"pixel_size": 0.25, "length_unit": "angstrom"} if facts is None else facts
    put(store, record(0), output(arrays=arrays, image=image, attributes=given, snapshots={}))
    return ptydask.open(store.finish()).trial(0)


@pytest.mark.parametrize("shape", [(20, 24), (1, 20, 24), (3, 20, 24), (2, 3, 20, 24)])
def test_objects_of_any_number_of_axes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Without slices or modes, as other engines have them: the lattice is found in phase and transmission."""
    phase = np.broadcast_to(0.1 * lattice((20, 24), 0.25, (0.0, 0.5)), shape).astype(np.float32)
    trial = kept(tmp_path, object_phase=Quantity(phase, "rad"), object_amplitude=Quantity(np.ones(shape)))
    for of in ("phase", "object"):
        spectrum = trial.power_spectrum(of)
        row, column = np.unravel_index(int(spectrum.data.argmax()), spectrum.data.shape)
        assert (spectrum.y[row], abs(spectrum.x[column])) == pytest.approx((0, 0.5))
    assert trial.phase_slices().data.shape == ((3, 20, 24) if 3 in shape else (1, 20, 24))
    assert trial.phase_slices().thickness is None


@pytest.mark.parametrize(
    ("facts", "positions", "word"),
    [
        ({}, Quantity(np.ones((4, 2)), "angstrom"), "pixel size is not known"),
        ({"pixel_size": 0.2, "length_unit": "cubit"}, Quantity(np.ones((4, 2)), "angstrom"), "'cubit' is no unit"),
        (None, Quantity(np.ones((4, 2)), "pixel"), "'pixel' is no unit"),
        (None, Quantity(np.full((4, 2), np.nan), "angstrom"), "no numbers"),
        (None, Quantity(np.ones((5, 2)), "angstrom"), "differ in number"),
    ],
)
def test_positions_that_say_nothing_are_refused(
    tmp_path: Path, facts: dict[str, Any] | None, positions: Quantity, word: str
) -> None:
    trial = kept(
        tmp_path, None, facts, positions=positions, crop_positions=Quantity(np.ones((4, 2), np.int32), "pixel")
    )
    with pytest.raises(StoreError, match=word):
        trial.position_shifts()
