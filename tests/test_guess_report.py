"""What counts of several methods' guesses, where they agree, disagree, or tell half."""

from dataclasses import replace

import numpy as np
import pytest

from ptydask.guess import table
from ptydask.guess.mass import wrap
from ptydask.guess.report import Report, reconcile
from ptydask.guess.table import FLIPS

STRAIGHT, TURNED, MIRRORED = (0, 0, 0), (0, 1, 1), (0, 0, 1)
"""Flips: none, those of a quarter turn (y, x) -> (-x, y), those of a mirrored detector."""


def turn(method, rotation, flips=STRAIGHT, trust="good", twin=False, deviation=0.5, **aberrations):
    """What one method has: rotation, flips, and aberrations of the same trust."""
    of = {"rotation": rotation, "meas_flipT": flips, **aberrations}
    opposite = {
        name: wrap(value + 180) if name == "rotation" else -value for name, value in of.items() if name != FLIPS
    }
    return [
        table.Guess(name, value, deviation, method, trust, "", None, opposite=opposite.get(name) if twin else None)
        for name, value in of.items()
    ]


def refused(method):
    return [table.Guess(name, None, None, method, "none", "", None) for name in ("rotation", FLIPS)]


def values(guesses, method):
    return {guess.parameter: guess.value for guess in guesses if guess.method == method}


def test_quarter_turn_of_the_tests():
    assert table.combine(STRAIGHT, STRAIGHT, 1) == TURNED


@pytest.mark.parametrize(
    ("other", "agrees"),
    [
        ((11.0, STRAIGHT), True),
        ((10.0 - 359.5, STRAIGHT), True),
        ((30.0, STRAIGHT), False),
        ((-170.0, STRAIGHT), False),
        ((100.5, TURNED), True),
        ((10.0, TURNED), False),
        ((10.0, MIRRORED), False),
    ],
)
def test_of_two_that_disagree_neither_counts(other, agrees):
    guesses, warnings = reconcile([*turn("a", 10.0), *turn("b", *other, C10=200.0)])
    assert bool(warnings) is not agrees
    turns = [guess for guess in guesses if guess.parameter in ("rotation", "C10")]
    assert all((guess.trust == "good") is guess.counts is agrees for guess in turns)
    assert all(bool(guess.why) is not agrees for guess in turns)
    assert bool(Report(guesses, ()).chosen()) is agrees


def test_flips_of_which_nobody_doubts_stay_good():
    guesses, _ = reconcile([*turn("a", 10.0), *turn("b", 30.0)])
    assert {guess.trust for guess in guesses if guess.parameter == "meas_flipT"} == {"good"}
    guesses, _ = reconcile([*turn("a", 10.0), *turn("b", 10.0, MIRRORED)])
    assert {guess.trust for guess in guesses if guess.parameter == "meas_flipT"} == {"none"}


@pytest.mark.parametrize("first", [True, False])
def test_who_cannot_tell_the_opposite_turn_follows_who_can(first):
    sure, unsure = turn("a", 10.0), turn("b", -169.8, trust="fair", twin=True, C10=-200.0, C12a=10.0)
    guesses, warnings = reconcile([*sure, *unsure] if first else [*unsure, *sure])
    assert not warnings
    assert values(guesses, "a") == {"rotation": 10.0, "meas_flipT": STRAIGHT}
    followed = values(guesses, "b")
    assert followed["rotation"] == pytest.approx(10.2)
    assert (followed["C10"], followed["C12a"]) == (200.0, -10.0)
    assert all("a" in guess.why for guess in guesses if guess.method == "b" and guess.parameter != "meas_flipT")
    assert not any(guess.opposite for guess in guesses)


def test_two_that_cannot_tell_the_opposite_turn_and_agree_are_used():
    guesses, warnings = reconcile([*turn("a", 10.0, twin=True), *turn("b", 10.2, twin=True, C10=200.0)])
    assert not warnings
    assert Report(guesses, ()).chosen()["rotation"].opposite


@pytest.mark.parametrize("twin", [True, False])
@pytest.mark.parametrize("focus", [{}, {"C10": 179.0}, {"C10": -179.0, "C12a": 4.0}])
def test_opposite_turns_that_nobody_tells_apart_are_not_determined(twin, focus):
    guesses, (warning,) = reconcile([*turn("a", 0.35, twin=twin), *turn("b", -177.6, twin=twin, **focus)])
    assert {guess.trust for guess in guesses if guess.parameter != FLIPS} == {"none"}
    assert not Report(guesses, ()).chosen()
    assert all(word in warning for word in ("0.35", "by a", "-177.6", "by b", "opposite turn", "C10 of the other sign"))
    assert ("C10 +179" in warning and "C10 -179" in warning) is bool(focus)
    reason = next(guess.why for guess in guesses if (guess.parameter, guess.method) == ("rotation", "a"))
    assert "-177.6" in reason
    assert "by b" in reason


def test_the_sign_of_the_files_C10_is_doubted():
    guesses = [*turn("a", 0.35), *turn("b", -177.6, C10=-179.0)]
    of_file = [replace(guess, file_value=-230.0) if guess.parameter == "C10" else guess for guess in guesses]
    assert "-230" in reconcile(of_file)[1][0]
    assert "file" not in reconcile(guesses)[1][0]


@pytest.mark.parametrize("alone", [[], turn("a", 10.0), [*turn("a", 10.0), *refused("b")]])
def test_a_lone_method_is_as_it_is(alone):
    assert reconcile(alone) == (tuple(alone), ())


def test_the_most_trusted_turn_counts_with_the_aberrations_that_go_with_it():
    better = [*turn("a", 10.0, deviation=0.2), *turn("b", 10.5, trust="fair", C10=200.0)]
    chosen = Report(tuple(better), ()).chosen()
    assert (chosen["rotation"].value, chosen["C10"].value) == (10.0, 200.0)
    apart = [*turn("a", 10.0, deviation=0.2), *turn("b", 40.0, trust="fair", C10=200.0)]
    chosen = Report(tuple(apart), ()).chosen()
    assert chosen["rotation"].value == 10.0
    assert "C10" not in chosen
    chosen = Report((*turn("a", 10.0, trust="fair"), *turn("b", 40.0, MIRRORED, C10=200.0)), ()).chosen()
    assert (chosen["rotation"].value, chosen["meas_flipT"].value, chosen["C10"].value) == (40.0, MIRRORED, 200.0)


def test_astigmatism_follows_the_axes_of_the_flips_that_count():
    guesses = [*turn("a", 10.0, deviation=0.2), *turn("b", 100.0, TURNED, C10=200.0, C12a=10.0, C12b=-4.0)]
    chosen = Report(tuple(guesses), ()).chosen()
    assert (chosen["rotation"].value, chosen["meas_flipT"].value) == (10.0, STRAIGHT)
    assert [chosen[name].value for name in table.ABERRATIONS] == [200.0, -10.0, 4.0]


def test_what_stands_alone_is_chosen_beside():
    angle = table.Guess("conv_angle", 24.9, 0.1, "disk", "good", "", None)
    size = table.Guess("dx", None, None, "disk", "none", "", None)
    assert Report((angle, size), ()).chosen() == {"conv_angle": angle}


@pytest.mark.parametrize(
    ("share", "contrast", "tells"), [(0.005, 0.05, True), (0.05, 0.05, False), (0.05, 0.5, True), (0.0, 0.0, False)]
)
def test_a_dark_field_that_is_much_and_even_tells_nothing(share, contrast, tells):
    wave = 1 + contrast * np.sqrt(2) * np.sin(np.linspace(0, 8 * np.pi, 256, endpoint=False)).reshape(16, 16)
    assert table.tells_twin(1000 * share * wave, np.full((16, 16), 1000.0)) is tells
