"""What is made of a fit of parallax, and a fit of planted data."""

from dataclasses import replace

import numpy as np
import pytest

from ptydask.demo.microscope import Experiment, simulate_patterns
from ptydask.guess import disk, parallax, parallax_guesses, patterns
from ptydask.guess.measuring import has_parallax

GEOMETRY = patterns.Geometry((32, 32), 48, 0.0418, 0.9, 0.42, 24.9, False, (1, 0, 0, 0), (0, 0, 0), (0, 0, 0))
FIT = parallax.ParallaxFit(
    rotation=150.0,
    rotation_deviation=0.5,
    mirrored=False,
    C10=250.0,
    C10_deviation=10.0,
    C12a=20.0,
    C12b=-5.0,
    C12_deviation=8.0,
    elsewhere=0.1,
    mirrored_otherwise=0.4,
    twin=10.0,
    contrast=0.1,
    image=np.zeros((32, 32), np.float32),
)


def judge(fit, own=None, geometry=GEOMETRY):
    aberrations = {} if own is None else {"C10": own}
    guesses = parallax_guesses.judge_parallax(fit, geometry, aberrations, 24.9)
    return {guess.parameter: guess for guess in guesses}


def test_a_clear_fit_is_good():
    chosen = judge(FIT, own=-200)
    assert {name: chosen[name].value for name in ("rotation", "meas_flipT", "C10", "C12a")} == {
        "rotation": 150.0,
        "meas_flipT": (0, 0, 0),
        "C10": 250.0,
        "C12a": 20.0,
    }
    assert (chosen["rotation"].trust, chosen["C10"].trust) == ("good", "good")
    assert chosen["C10"].file_value == -200


@pytest.mark.parametrize(
    "worse",
    [
        {"C10": 20.0},
        {"C10": -30.0},
        {"elsewhere": 0.76},
        {"elsewhere": 1.0},
        {"mirrored_otherwise": 0.95},
        {"rotation_deviation": 12.0},
        None,
    ],
)
def test_nothing_is_told_in_focus_or_where_parts_disagree(worse):
    chosen = judge(None if worse is None else replace(FIT, **worse))
    assert not any(guess.counts for guess in chosen.values())
    assert all(guess.why for guess in chosen.values())


@pytest.mark.parametrize(
    ("own", "turn", "c10"), [(300, 150, 250), (-300, -30, -250), (None, -30, -250), (0, -30, -250)]
)
def test_where_the_dark_field_does_not_tell_the_file_chooses_the_twin(own, turn, c10):
    """Its C10 by the sign, or else its rotation; no more than fair."""
    chosen = judge(replace(FIT, twin=1.0), own)
    assert (chosen["rotation"].value, chosen["C10"].value) == (turn, c10)
    assert chosen["C12a"].value == (20 if c10 > 0 else -20)
    assert {chosen[name].trust for name in ("rotation", "C10")} == {"fair"}
    assert "180 degree" in chosen["rotation"].why


@pytest.mark.parametrize(("turn", "quarters"), [(10, 0), (100, 1), (-80, 1), (170, 2)])
def test_astigmatism_turns_with_the_flips_that_undo_a_mirror(turn, quarters):
    """The guess is of the patterns as the new flips leave them: a quarter turn reverses C12."""
    chosen = judge(replace(FIT, mirrored=True, rotation=float(turn)))
    assert abs(chosen["rotation"].value) <= 45
    assert (chosen["C12a"].value, chosen["C12b"].value) == ((-20, 5) if quarters % 2 else (20, -5))


@pytest.mark.slow
@pytest.mark.skipif(not has_parallax(), reason="needs the package fast-acbf")
def test_a_defocused_scan_is_turned_back():
    """Within two degrees, with the sign of C10 and its size; of the demo's microscope."""
    experiment = replace(Experiment(), scan_rotation=52.0, scan_scale=1.0)
    stack = simulate_patterns(experiment).astype(np.float32).reshape(24, 24, 48, 48)
    seen = disk.measure_disk(stack.mean((0, 1), dtype=np.float64))
    y, x = np.indices((48, 48))
    outside = np.hypot(y - seen.centre[0], x - seen.centre[1]) > 1.1 * seen.radius + 1
    angle = 1e3 * experiment.wavelength / (48 * experiment.pixel_size)
    scan = parallax.ParallaxScan(
        stack, stack[..., outside].sum(-1), seen.centre, angle, seen.radius * angle, experiment.wavelength, 0.9
    )
    fit = parallax.measure_parallax(scan)
    assert abs(fit.rotation - 52) < 2
    assert not fit.mirrored
    assert abs(fit.C10 - 240) < 40
    assert fit.twin > parallax_guesses.TOLD
