"""What guesses do to a study: first points, ranges, stages, and what is gone on with."""

import pytest

from ptydask import demo
from ptydask.distributions import FloatRange, IntRange
from ptydask.guess import points, table


def one(parameter, value, deviation=1.0, trust="good", own=None):
    return table.Guess(parameter, value, deviation, "a", trust, "", own)


@pytest.mark.parametrize(
    ("dist", "value", "deviation", "narrowed"),
    [
        (FloatRange(-4, 4, 0.5), 1.1, 0.3, FloatRange(0, 2.5, 0.5)),
        (FloatRange(-4, 4, 0.5), 3.9, 0.01, FloatRange(3, 4, 0.5)),
        (FloatRange(-4, 4), 1.0, 0.25, FloatRange(0, 2)),
        (FloatRange(-4, 4), 0.0, 9.0, FloatRange(-4, 4)),
        (IntRange(0, 100, 10), 42.0, 1.0, IntRange(20, 60, 10)),
    ],
)
def test_ranges_are_narrowed_on_their_grid(dist, value, deviation, narrowed):
    assert points.narrow_range(dist, value, deviation) == narrowed


def test_guesses_are_tried_and_what_is_not_tuned_is_said():
    space = {"rotation": FloatRange(-4, 4, 0.5), "scale": FloatRange(0.9, 1.1, 0.02)}
    chosen = {"rotation": one("rotation", -2.4, 0.2), "conv_angle": one("conv_angle", 20.0, 0.1)}
    start = {"rotation": 0.0, "scale": 1.0}
    used = points.use_guesses(chosen, space, start)
    assert used.point.params == {"rotation": -2.5, "scale": 1.0}
    assert used.point.origin == "guess"
    assert used.space == space
    assert any("conv_angle" in notice and "not tune" in notice for notice in used.notices)
    assert points.use_guesses(chosen, space, start, narrow=space).space["rotation"] == FloatRange(-3.5, -1.5, 0.5)
    beyond = points.use_guesses({"rotation": one("rotation", 90.0)}, space, start, narrow=space)
    assert beyond.point is None
    assert beyond.space == space
    assert any("beyond" in notice for notice in beyond.notices)


@pytest.mark.ptyrad
@pytest.mark.parametrize("option", [["--guess"], ["--guess", "ranges"]])
def test_a_run_tries_the_guess(tmp_path, option):
    from ptydask.cli import build_parser, run
    from ptydask.driver.prepare import complete_plan

    args = build_parser().parse_args(["run", str(demo.write(tmp_path)), *option])
    plan = complete_plan(args.configs[0], run._make_overrides(args))
    guessed = next(point for point in plan.points if point.origin == "guess")
    assert guessed.params["rotation"] == pytest.approx(-1.5, abs=3)
    assert set(guessed.params) == set(plan.space)
    assert any(notice.startswith("guess: rotation") for notice in plan.notices)
