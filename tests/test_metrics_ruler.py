"""The ruler of benchmarks/metrics.py: what it calls an error, a choice and a regret."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ptydask.model import Image

FOLDER = Path(__file__).parents[1] / "benchmarks"
pytest.importorskip("scipy")


@pytest.fixture
def ruler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """The modules of the benchmark, with an empty cache."""
    monkeypatch.syspath_prepend(FOLDER)
    modules = {name: importlib.import_module(name) for name in ("metrics", "metric_problems")}
    for module in modules.values():
        monkeypatch.setattr(module, "CACHE", tmp_path)
    return SimpleNamespace(**modules)


@pytest.fixture
def data(ruler: SimpleNamespace) -> Any:
    """Two twisted layers."""
    experiment = replace(ruler.metric_problems.PROBLEMS["layers"].data.truth, slices=2)
    return ruler.metric_problems.DataSet("two", experiment)


def specimen(ruler: SimpleNamespace, data: Any, shift: tuple[float, float] = (0.0, 0.0)) -> Image:
    """The truth as a perfect reconstruction would have it, its content moved by ``shift`` (angstrom)."""
    step, count = data.truth.pixel_size, 32
    axis = (np.arange(count) - (count - 1) / 2) * step
    layers = data.layers(seed=3)
    phase = sum(ruler.metric_problems.phase_of(layer, -np.array(shift), axis) for layer in layers)
    return Image(np.asarray(phase), axis + 40.0, axis + 41.0, "rad", "angstrom", "reconstruction")


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.3, -0.25), (-0.9, 0.5)])
def test_shift_constant_and_ramp_are_no_error(ruler: SimpleNamespace, data: Any, shift: tuple[float, float]) -> None:
    """They cannot be known from diffraction patterns."""
    image = specimen(ruler, data, shift)
    y, x = np.indices(image.data.shape)
    moved = replace(image, data=image.data + 0.7 + 0.02 * y - 0.03 * x)
    assert data.object_error(moved, seed=3) < 0.02


def test_noise_strength_and_another_specimen_are_errors(ruler: SimpleNamespace, data: Any) -> None:
    """In units of the truth's standard deviation."""
    image = specimen(ruler, data)
    spread = float(image.data.std())
    noise = np.random.default_rng(1).normal(size=image.data.shape) * 0.2 * spread
    assert data.object_error(replace(image, data=image.data + noise), seed=3) == pytest.approx(0.2, rel=0.1)
    assert data.object_error(replace(image, data=image.data * 0.7), seed=3) == pytest.approx(0.3, rel=0.15)
    assert data.object_error(image, seed=4) > 0.1


@pytest.fixture
def problem(ruler: SimpleNamespace, data: Any) -> Any:
    return ruler.metric_problems.Problem("toy", "toy", data, "Nlayer", (1, 2, 3))


def fill(ruler: SimpleNamespace, problem: Any, seed: int, errors: list[float], **metrics: list[float]) -> None:
    """Outcomes of one seed: of each value its error and metrics."""
    for index, value in enumerate(problem.values):
        given = {name: numbers[index] for name, numbers in metrics.items()}
        for kind in ruler.metrics.KINDS:
            ruler.metrics._note(problem, seed, value, kind, ruler.metrics.Outcome(errors[index], given))


def test_regret_is_the_error_at_the_choice_over_the_least(ruler: SimpleNamespace, problem: Any) -> None:
    """Whichever way the metric is better; a value that diverged is not chosen."""
    fill(
        ruler, problem, 1, [0.4, 0.1, 0.2], loss=[3, 2, 1], contrast=[1, 2, 3], heldout=[2, 1, 3],
        counts=[float("nan"), 5, 4],
    )  # fmt: skip
    choices = ruler.metrics.choices(problem, 1)
    regrets = {name: round(choice.regret, 6) for name, choice in choices.items()}
    assert regrets == {"loss": 2.0, "contrast": 2.0, "heldout": 1.0, "counts": 2.0}
    assert choices["heldout"].value == 2


def test_the_table_has_medians_over_whole_seeds(ruler: SimpleNamespace, problem: Any) -> None:
    """A seed of which a value is missing does not count."""
    for seed, loss in ((1, [1, 2, 3]), (2, [2, 1, 3]), (3, [3, 2, 1])):
        fill(ruler, problem, seed, [0.3, 0.1, 0.2], loss=loss, heldout=[2, 1, 3])
    fill(ruler, replace(problem, values=(1, 2)), 4, [0.1, 0.5], loss=[2, 1], heldout=[2, 1])
    row, mean, largest = list(ruler.metrics.regret_table([problem], 5))[2:]
    assert "| 2.00 |" in mean
    assert "| 2.00 |" in largest
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    names = ["problem", "seeds", "best", *ruler.metrics.METRICS]
    assert dict(zip(names, cells, strict=True)) | {"loss": "2.00", "heldout": "**1.00**", "seeds": "3"} == dict(
        zip(names, cells, strict=True)
    )


def test_what_is_in_the_cache_is_not_computed_again(ruler: SimpleNamespace, problem: Any) -> None:
    """A run goes on where another was stopped; other settings are another problem."""
    fill(ruler, problem, 1, [0.3, 0.1, 0.2], loss=[1, 2, 3])
    assert len(ruler.metrics.read_cache(problem)) == 6
    assert not ruler.metrics.read_cache(replace(problem, iterations=99))
    assert len(ruler.metrics.read_cache(replace(problem, values=(1, 2, 3, 4)))) == 6
    lines = ruler.metrics._cache_file(problem).read_text().splitlines()
    assert json.loads(lines[0])["kind"] in ruler.metrics.KINDS


def test_a_plan_leaves_its_problem_as_it_was(ruler: SimpleNamespace) -> None:
    """Settings are mappings, in which a value is put; the next value's plan must not begin with it."""
    pytest.importorskip("ptyrad")
    problem = ruler.metric_problems.PROBLEMS["sparse-1e+03"]
    small = replace(problem, data=replace(problem.data, truth=replace(problem.data.truth, scan=8)))
    before = small.identity(1)
    plans = [small.plan(value, 1, "heldout") for value in (0.1, 0.0)]
    assert [plan.config["loss_params"]["loss_sparse"]["weight"] for plan in plans] == [0.1, 0.0]
    assert small.identity(1) == before
    assert plans[0].held_out is not None
