"""What is made of a fit of parallax, and a fit of planted data."""

import math
from dataclasses import replace

import numpy as np
import pytest

from ptydask import demo
from ptydask.analysis import guess_figure
from ptydask.cli import main
from ptydask.demo.microscope import Experiment, simulate_patterns
from ptydask.guess import disk, parallax, parallax_guesses, patterns
from ptydask.guess.geometry import Geometry
from ptydask.guess.measuring import Measured, has_parallax
from ptydask.guess.report import Report

GEOMETRY = Geometry((32, 32), 48, 0.0418, 0.9, 0.42, 24.9, False, (1, 0, 0, 0), (0, 0, 0), (0, 0, 0))
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


STRONG = replace(FIT, contrast=0.6)


def judge(fit, own=None, geometry=GEOMETRY, thickness=0.0):
    aberrations = {} if own is None else {"C10": own}
    guesses = parallax_guesses.judge_parallax(fit, geometry, aberrations, 24.9, thickness)
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


@pytest.mark.parametrize(("worse", "word"), [({"C10": 20.0}, "scan step"), ({"elsewhere": 0.8}, "80%")])
def test_why_nothing_is_told(worse, word):
    assert word in judge(replace(FIT, **worse))["C10"].why


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


@pytest.mark.parametrize("own", [300, -300])
def test_the_dark_field_tells_no_sign_of_what_scatters_strongly(own):
    """However clear it is: the phase of such a specimen may be reversed."""
    chosen = judge(STRONG, own)
    assert chosen["C10"].value * own > 0
    assert {chosen[name].trust for name in ("rotation", "C10")} == {"fair"}
    assert "60%" in chosen["C10"].why


def test_c10_of_what_scatters_strongly_is_no_better_than_the_depth_of_field():
    assert judge(STRONG)["C10"].deviation > GEOMETRY.wavelength / 0.0249**2


@pytest.mark.parametrize(("fit", "own", "at_entrance"), [(FIT, -300, 190), (STRONG, 300, 190), (STRONG, -300, -310)])
def test_c10_is_that_at_the_entrance_of_the_files_thickness(fit, own, at_entrance):
    """PtyRAD's probe is at the first slice; parallax sees the middle."""
    guess = judge(fit, own, thickness=120.0)["C10"]
    assert guess.value == at_entrance
    assert guess.deviation == pytest.approx(math.hypot(10, 30))
    assert "120 angstrom" in guess.why


def test_near_focus_the_sign_is_that_of_the_middle():
    """The file's C10 is -20 at the entrance of 120 angstrom, 40 in the middle."""
    assert judge(replace(FIT, twin=1.0), -20, thickness=120.0)["C10"].value == 190


@pytest.mark.parametrize(
    ("init", "thickness"),
    [
        ({}, 0),
        ({"obj_Nlayer": 1, "obj_slice_thickness": 12}, 0),
        ({"obj_Nlayer": 6, "obj_slice_thickness": 20.0}, 120),
        ({"obj_Nlayer": 6}, 0),
        ({"obj_Nlayer": 6, "obj_slice_thickness": None}, 0),
    ],
)
def test_thickness_is_that_of_several_slices(init, thickness):
    assert parallax_guesses.read_thickness(init) == thickness


@pytest.mark.parametrize(
    "worse",
    [
        {"rotation_deviation": 4.0},
        {"elsewhere": 0.55},
        {"C10_deviation": 40.0},
        {"twin": 1.0},
        {"contrast": 0.4},
    ],
)
def test_what_is_no_more_than_fair_says_why(worse):
    chosen = judge(replace(FIT, **worse))
    fair = [chosen[name] for name in ("rotation", "C10") if chosen[name].trust == "fair"]
    assert fair
    assert all(guess.why for guess in fair)
    assert chosen["rotation"].trust == "fair" or not chosen["rotation"].why


@pytest.mark.parametrize(("amplitude", "electrons"), [(0.0, 20), (0.1, 1000), (0.6, 1000), (0.6, 5)])
def test_contrast_is_that_of_the_images_without_their_noise(amplitude, electrons):
    """Images that all vary as a sine, whose standard deviation is its amplitude over the square root of 2."""
    wave = 1 + amplitude * np.sin(2 * np.pi * np.arange(48) / 8)
    stack = np.broadcast_to(electrons * wave[None, :, None, None], (48, 48, 16, 16))
    counted = np.random.default_rng(5).poisson(stack).astype(np.float32)
    scan = parallax.ParallaxScan(counted, np.zeros((48, 48)), (8, 8), 4.0, 24.0, 0.0418, 0.9)
    assert parallax._contrast(scan) == pytest.approx(amplitude / math.sqrt(2), abs=0.03)


@pytest.mark.parametrize(
    ("fit", "panels", "title"),
    [(None, 0, ""), (FIT, 1, "C10 250 +- 10 angstrom (good)"), (replace(FIT, C10=1.0), 1, "not determined")],
)
def test_the_phase_is_drawn_where_there_is_one(fit, panels, title):
    rng = np.random.default_rng(3)
    sample = patterns.PatternSample(
        mean=rng.random((48, 48)),
        mass=rng.random((2, 40, 40)),
        total=np.ones((40, 40)),
        dark=np.ones((40, 40)),
        patterns=np.zeros((1, 1, 48, 48), np.float32),
        kept=(slice(0, 1), slice(0, 1)),
        rows=(0, 40),
        counted=False,
    )
    guesses = () if fit is None else tuple(judge(fit).values())
    measured = Measured(GEOMETRY, sample, disk.measure_disk(sample.mean), Report(guesses, ()), fit)
    titles = [axes.get_title(loc="left") for axes in guess_figure.draw(measured).axes]
    phases = [text for text in titles if "Parallax" in text]
    assert len(phases) == panels
    assert all(title in text for text in phases)


@pytest.mark.usefixtures("without_parallax")
def test_without_fast_acbf_the_rest_is_guessed(tmp_path, capsys):
    assert main(["guess", str(demo.write(tmp_path))]) == 0
    captured = capsys.readouterr()
    assert "conv_angle" in captured.out
    assert captured.err.count("\n") == 1
    assert "ptydask[guess]" in captured.err


@pytest.mark.slow
@pytest.mark.skipif(not has_parallax(), reason="needs the package fast-acbf")
def test_a_defocused_scan_is_turned_back():
    """Within two degrees, with the sign of C10 and its size; of the demo's microscope."""
    torch = pytest.importorskip("torch")
    experiment = replace(Experiment(), scan_rotation=52.0, scan_scale=1.0)
    stack = simulate_patterns(experiment).astype(np.float32).reshape(24, 24, 48, 48)
    seen = disk.measure_disk(stack.mean((0, 1), dtype=np.float64))
    y, x = np.indices((48, 48))
    outside = np.hypot(y - seen.centre[0], x - seen.centre[1]) > 1.1 * seen.radius + 1
    angle = 1e3 * experiment.wavelength / (48 * experiment.pixel_size)
    scan = parallax.ParallaxScan(
        stack, stack[..., outside].sum(-1), seen.centre, angle, seen.radius * angle, experiment.wavelength, 0.9
    )
    threads = torch.get_num_threads()
    fit = parallax.measure_parallax(scan)
    assert torch.get_num_threads() == threads
    assert fit.contrast < parallax_guesses.STRONG
    assert abs(fit.rotation - 52) < 2
    assert not fit.mirrored
    assert abs(fit.C10 - 240) < 40
    assert fit.twin > parallax_guesses.TOLD
