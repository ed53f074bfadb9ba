"""A reconstruction carried into another geometry: where everything comes to lie. Arrays alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from ptydask.engines.ptyrad import carried_start
from ptydask.engines.ptyrad.carried_start import FreshTrial, carry, propagate, redistribution, resample_probe
from ptydask.lineage import TrialStart
from ptydask.space.scan_affine import affine_matrix

WINDOW, CANVAS, ROWS = 16, 72, 7
IDENTITY = (1.0, 0.0, 0.0, 0.0)
GEOMETRY = ("scale", "asymmetry", "rotation", "shear")
AFFINES = [
    (1.05, 0.0, 0.0, 0.0),
    (1.0, 0.0, 3.0, 0.0),
    (1.0, 0.03, 0.0, 0.0),
    (1.0, 0.0, 0.0, 2.0),
    (0.97, -0.02, -2.0, 1.0),
]
NOMINAL = 5.0 * np.stack(np.meshgrid(np.arange(ROWS), np.arange(ROWS), indexing="ij"), -1).reshape(-1, 2)
"""Centred at (15, 15), in pixels."""


def positions_of(affine: tuple[float, ...], dx: float = 1.0, centre: float = 28.0) -> np.ndarray[Any, Any]:
    return (NOMINAL - NOMINAL.mean(0)) @ np.array(affine_matrix(*affine)) / dx + centre


def blobs(canvas: int, dx: float, places: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """(canvas, canvas): smooth spots of 3 angstrom at ``places``, in pixels."""
    y, x = np.mgrid[:canvas, :canvas]
    return sum(np.exp(-((y - py) ** 2 + (x - px) ** 2) * dx**2 / 18) for py, px in places)


def wave(window: int, dx: float) -> np.ndarray[Any, Any]:
    """Two modes, (2, window, window), of a defocused probe that is about 4 pixels of 1 angstrom wide."""
    k = np.fft.fftfreq(window, dx)
    k2 = k[:, None] ** 2 + k**2
    waves = [np.exp(-k2 / 0.02 - 1j * np.pi * 0.04 * 30 * k2) * (k + 0.3) ** n for n in (0, 1)]
    return np.fft.fftshift(np.fft.ifft2(waves), axes=(-2, -1))


def a_probe(window: int = WINDOW, dx: float = 1.0) -> np.ndarray[Any, Any]:
    """The same complex64, of intensity 1."""
    probe = wave(window, dx)
    return (probe / np.sqrt(np.sum(np.abs(probe) ** 2))).astype(np.complex64)


def fresh(affine: tuple[float, float, float, float] = IDENTITY, **fields: Any) -> FreshTrial:
    centre = fields.get("object_shape", (CANVAS,))[-1] // 2 - WINDOW // 2
    positions = positions_of(affine, fields.get("pixel_size", 1.0), centre)
    settings: dict[str, Any] = {
        "crop": np.rint(positions).astype(np.int16),
        "nominal": positions,
        "object_shape": (1, 2, CANVAS, CANVAS),
        "probe": a_probe(),
        "pixel_size": 1.0,
        "slice_thickness": 5.0,
        "tilts": np.zeros((1, 2), np.float32),
        "affine": affine,
        "params": {
            "dx": 1.0,
            "dz": 5.0,
            **dict(zip(GEOMETRY, affine, strict=True)),
            "C10": -30.0,
            "tilt_y": 0.0,
            "tilt_x": 0.0,
        },
        "tuned": frozenset(GEOMETRY),
    }
    return FreshTrial(**(settings | fields))


def start(trial: FreshTrial, refined: float = 0.3, **arrays: Any) -> TrialStart:
    """What ``trial`` came to: positions refined by about ``refined`` pixels, an object with a spot at every third."""
    shifts = refined * np.random.default_rng(1).standard_normal(trial.nominal.shape)
    positions = trial.nominal + shifts
    phase = blobs(CANVAS, trial.pixel_size, positions[::3] + WINDOW // 2)
    kept: Mapping[str, Any] = {
        "object_phase": np.stack([0.1 * phase, 0.3 * phase]).astype(np.float32)[None],
        "object_amplitude": (1 - np.stack([0.05 * phase, 0.02 * phase])).astype(np.float32)[None],
        "probe": trial.probe * np.complex64(1j),
        "positions": positions * trial.pixel_size,
        "crop_positions": trial.crop.astype(np.int32),
        "slice_thickness": np.float32(trial.slice_thickness),
        "object_tilts": trial.tilts,
    }
    facts = {f"scan_{name}": value for name, value in zip(GEOMETRY, trial.affine, strict=True)}
    facts |= {
        "pixel_size": trial.pixel_size,
        "initial_probe_intensity": 1.0,
        "initial_slice_thickness": 5.0,
        "wavelength": 0.04,
    }
    return TrialStart("scan", 4, {**kept, **arrays}, {**facts, "length_unit": "angstrom"}, "", trial.params)


def started(
    affine: tuple[float, float, float, float], carried: carried_start.CarriedStart, **fields: Any
) -> TrialStart:
    """A start from what was carried into a trial with this affine."""
    trial = fresh(affine, **fields)
    arrays = {
        "object_phase": carried.phase,
        "object_amplitude": carried.amplitude,
        "probe": carried.probe,
        "positions": (carried.crop + carried.shifts.astype(np.float64)) * trial.pixel_size,
        "crop_positions": carried.crop,
        "slice_thickness": np.float32(carried.slice_thickness),
    }
    return start(trial, **arrays)


def test_where_nothing_changes_everything_is_as_it_was() -> None:
    """To the last bit, with positions that have moved by more than a pixel since they were cut out."""
    before = start(fresh(), refined=1.5)
    carried = carry(before, fresh())
    np.testing.assert_array_equal(carried.phase, before.arrays["object_phase"])
    np.testing.assert_array_equal(carried.amplitude, before.arrays["object_amplitude"])
    np.testing.assert_array_equal(carried.probe, before.arrays["probe"])
    np.testing.assert_array_equal(carried.crop, before.arrays["crop_positions"])
    assert carried.crop.dtype == np.int16
    np.testing.assert_allclose(carried.crop + carried.shifts, before.arrays["positions"], atol=1e-6)


@pytest.mark.parametrize("old", [IDENTITY, AFFINES[-1]])
@pytest.mark.parametrize("new", AFFINES)
def test_positions_go_the_way_of_the_affine(old: Any, new: Any) -> None:
    """What they were refined by goes with them."""
    before = start(fresh(old))
    carried = carry(before, fresh(new))
    positions = before.arrays["positions"]
    moved = (positions - positions.mean(0)) @ np.linalg.inv(affine_matrix(*old)) @ np.array(affine_matrix(*new))
    result = carried.crop + carried.shifts.astype(np.float64)
    np.testing.assert_allclose(result - result.mean(0), moved, atol=1e-5)
    if old != new:
        assert np.abs(carried.shifts).max() <= 0.5


@pytest.mark.parametrize("new", AFFINES)
def test_the_object_goes_with_the_positions(new: Any) -> None:
    """A spot under a probe's centre is under it still."""
    before = start(fresh())
    carried = carry(before, fresh(new))
    centres = carried.crop + carried.shifts + WINDOW // 2
    old_centres = before.arrays["positions"] + WINDOW // 2
    for stack, old_stack in [
        (carried.phase, before.arrays["object_phase"]),
        (carried.amplitude, before.arrays["object_amplitude"]),
    ]:
        for image, old_image in zip(stack[0], old_stack[0], strict=True):
            values = ndimage.map_coordinates(image, centres.T, order=3)
            old_values = ndimage.map_coordinates(old_image, old_centres.T, order=3)
            np.testing.assert_allclose(values, old_values, atol=0.01 * np.ptp(old_image))
    area = abs(np.linalg.det(affine_matrix(*new)))
    assert carried.phase.sum() == pytest.approx(area * before.arrays["object_phase"].sum(), rel=1e-3)


@pytest.mark.parametrize("new", AFFINES)
def test_there_and_back_again(new: Any) -> None:
    """Positions are what they were, and the object nearly: it was interpolated twice."""
    before = start(fresh())
    back = carry(started(new, carry(before, fresh(new))), fresh())
    positions = back.crop + back.shifts.astype(np.float64)
    offset = positions - before.arrays["positions"]
    np.testing.assert_allclose(offset, np.broadcast_to(np.rint(offset.mean(0)), offset.shape), atol=1e-5)
    # Object and positions may have moved by whole pixels, together.
    phase = np.roll(back.phase, tuple(-np.rint(offset.mean(0)).astype(int)), axis=(-2, -1))
    inside = (..., slice(12, -12), slice(12, -12))
    peak = before.arrays["object_phase"].max()
    np.testing.assert_allclose(phase[inside], before.arrays["object_phase"][inside], atol=0.01 * peak)


@pytest.mark.parametrize("dx", [0.9, 1.1, 0.5])
def test_another_pixel_size_keeps_lengths(dx: float) -> None:
    """Positions in angstrom, and the area under the object's phase; the probe keeps its pixels on the detector."""
    before = start(fresh())
    trial = fresh(pixel_size=dx, object_shape=(1, 2, round(CANVAS / dx), round(CANVAS / dx)))
    trial = replace(trial, params={**trial.params, "dx": dx}, tuned={"dx"})
    carried = carry(before, trial)
    result, positions = (carried.crop + carried.shifts.astype(np.float64)) * dx, before.arrays["positions"]
    np.testing.assert_allclose(result - result.mean(0), positions - positions.mean(0), atol=1e-5)
    assert carried.phase.sum() * dx**2 == pytest.approx(before.arrays["object_phase"].sum(), rel=1e-3)
    np.testing.assert_array_equal(carried.probe, before.arrays["probe"])


@pytest.mark.parametrize(("old", "new"), [(2, 4), (4, 2), (3, 5), (5, 3), (1, 4), (4, 1), (6, 6)])
def test_slices_keep_the_total_phase(old: int, new: int) -> None:
    """And its mean depth; no slice gets what lay above or below it alone."""
    weights = redistribution(old, new)
    np.testing.assert_allclose(weights.sum(0), 1)
    np.testing.assert_allclose(weights.sum(1), old / new)
    phase = np.random.default_rng(2).random(old)
    spread = weights @ np.full(old, 1 / old)
    np.testing.assert_allclose(spread, 1 / new)
    assert (weights @ phase).sum() == pytest.approx(phase.sum())
    np.testing.assert_allclose((np.arange(new) + 0.5) / new @ weights @ np.ones(old) / old, 0.5)


@pytest.mark.parametrize(("slices", "dz"), [(4, 2.5), (1, 10.0), (3, 5.0), (2, 7.0), (5, 3.0)])
def test_other_slices(slices: int, dz: float) -> None:
    """The total phase and the transmission through all are kept; the probe meets the middle of them as before."""
    before = start(fresh())
    trial = fresh(object_shape=(1, slices, CANVAS, CANVAS), slice_thickness=dz, tuned=frozenset({"Nlayer", "dz"}))
    carried = carry(before, trial)
    arrays = before.arrays
    assert carried.slice_thickness == dz
    np.testing.assert_allclose(carried.phase.sum(1), arrays["object_phase"].sum(1), atol=1e-5)
    np.testing.assert_allclose(carried.amplitude.prod(1), arrays["object_amplitude"].prod(1), rtol=1e-5)
    middle, old_middle = (slices - 1) / 2 * dz, 2.5
    there, before_there = propagate(carried.probe, middle, 1.0, 0.04), propagate(arrays["probe"], old_middle, 1.0, 0.04)
    np.testing.assert_allclose(there, before_there, atol=1e-6)


def test_thickness_and_tilts_that_were_refined_stay_unless_they_are_tuned() -> None:
    """Or the trial begins with others."""
    before = start(fresh(), slice_thickness=np.float32(5.25), object_tilts=np.full((1, 2), 0.5, np.float32))
    kept = carry(before, fresh(AFFINES[0]))
    assert kept.slice_thickness == 5.25
    np.testing.assert_array_equal(kept.tilts, before.arrays["object_tilts"])
    tuned = carry(before, fresh(tuned={"dz", "tilt_x"}))
    assert tuned.slice_thickness == 5.0
    np.testing.assert_array_equal(tuned.tilts, np.zeros((1, 2)))
    trial = fresh(slice_thickness=6.0)
    assert carry(before, replace(trial, params={**trial.params, "dz": 6.0})).slice_thickness == 6.0


def test_positions_that_were_not_reconstructed_go_with_the_others() -> None:
    """From where the scan has them, by the mean of the others."""
    seen = np.arange(0, ROWS**2, 2)
    nominal = positions_of(IDENTITY)
    moved = nominal + np.array([0.4, -0.7])
    moved[1::2] += 5  # nobody refined these
    for affine in (IDENTITY, *AFFINES[:2]):
        before = start(fresh(), positions=moved, scan_indices=seen)
        carried = carry(before, fresh(affine))
        offset = carried.crop + carried.shifts - positions_of(affine)
        rest = np.setdiff1d(np.arange(ROWS**2), seen)
        np.testing.assert_allclose(offset[rest], np.broadcast_to(offset[seen].mean(0), (len(rest), 2)), atol=1e-5)


def test_the_canvas_grows_where_positions_left_it() -> None:
    """In every direction in which they did; the object goes along."""
    far = positions_of(IDENTITY)
    far[0] -= 40
    far[-1] += 60
    carried = carry(start(fresh(), positions=far, crop_positions=np.rint(far).astype(int)), fresh())
    assert carried.crop.min() >= 0
    assert (carried.crop.max(0) + WINDOW <= carried.phase.shape[-2:]).all()
    assert carried.phase.sum() == pytest.approx(start(fresh()).arrays["object_phase"].sum(), rel=1e-4)
    assert (carried.amplitude[..., 0, 0] == 1).all()


@pytest.mark.parametrize(("window", "ratio"), [(24, 1.0), (32, 0.5), (24, 0.5), (12, 1.25), (20, 0.8), (15, 16 / 15)])
def test_a_resampled_probe_is_the_same_wave(window: int, ratio: float) -> None:
    """At its new pixels it has the values that a probe has which was made there, as far as the old window goes."""
    resampled, made = resample_probe(wave(16, 1.0), window, ratio), wave(window, ratio) / ratio**2
    y = (np.arange(window) - window // 2) * ratio
    known = (y >= -7) & (y <= 7)
    inside = np.ix_([0, 1], known, known)
    np.testing.assert_allclose(resampled[inside], made[inside], atol=0.02 * np.abs(made).max())
    assert not resampled[:, (y < -8.5) | (y >= 7.5)].any()


def test_a_probe_of_another_window_has_the_intensity_of_the_patterns() -> None:
    """As much as the fresh one, times what refinement changed of it."""
    before = start(fresh())
    finer = fresh(probe=2 * a_probe(32, 0.5), pixel_size=0.5, object_shape=(1, 2, 2 * CANVAS, 2 * CANVAS))
    carried = carry(before, finer)
    assert carried.probe.shape == (2, 32, 32)
    assert np.sum(np.abs(carried.probe) ** 2) == pytest.approx(4, rel=1e-4)
    assert np.abs(carried.probe[0, 16, 16]) == np.abs(carried.probe[0]).max()


def test_a_probe_is_cut_but_not_filled_up() -> None:
    """Nobody knows what was beyond a window; where a narrower one is wanted nothing has to be known."""
    before = start(fresh())
    wider, narrower = fresh(probe=a_probe(24)), fresh(probe=a_probe(12))
    assert carry(before, wider).probe is wider.probe
    cut = carry(before, narrower).probe
    inside = before.arrays["probe"][:, 2:14, 2:14]
    np.testing.assert_allclose(cut, inside * (cut[0, 6, 6] / inside[0, 6, 6]), atol=1e-4)
    assert np.sum(np.abs(cut) ** 2) == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("name", ["C10", "conv_angle", "pmode_max", "z_shift"])
def test_a_probe_that_is_tuned_is_made_anew(name: str) -> None:
    """Or one whose value another stage has changed since."""
    before, trial = start(fresh()), fresh()
    assert carry(before, replace(trial, tuned={name})).probe is trial.probe
    other = replace(before, params={**before.params, name: 1.25})
    assert carry(other, trial).probe is trial.probe
    assert carry(before, trial).probe is not trial.probe


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"crop": np.zeros((3, 2), np.int16), "nominal": np.zeros((3, 2))}, "scan positions"),
        ({"object_shape": (3, 2, CANVAS, CANVAS)}, "modes"),
    ],
)
def test_what_does_not_fit_is_refused(fields: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        carry(start(fresh()), fresh(**fields))
