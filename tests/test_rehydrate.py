"""The Optuna study back from a results file: the same trials, and all of Optuna works on it."""

from __future__ import annotations

import json
import math
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import store_cases as cases
import test_sampling as specs
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from ptydask import sampling
from ptydask.analysis.data import StudyData, load_study
from ptydask.analysis.rehydrate import frozen_trials, to_optuna_study, widen_distribution
from ptydask.distributions import Choice, Distribution, FloatRange, IntRange
from ptydask.model import ComponentSpec, Direction, Reason, TrialOutput, TrialRecord
from ptydask.model import TrialState as Ended
from ptydask.store import Store, reader

pytestmark = pytest.mark.slow

SPACE: dict[str, Distribution] = {
    "scale": FloatRange(0.8, 1.2, 0.02),
    "oplr": FloatRange(1e-4, 1e-2, log=True),
    "Nlayer": IntRange(1, 8),
    "optimizer": Choice(("Adam", "SGD", None)),
}
GRID: dict[str, Distribution] = {**SPACE, "scale": FloatRange(0.9, 1.1, 0.1), "oplr": FloatRange(1e-3, 1e-3)}
STEPS = 8
TRIALS = 16


# --- a study as the workers leave it ----------------------------------------------------------------


def objective(trial: optuna.Trial, where: dict[str, Distribution]) -> float:
    dists = {name: sampling.to_optuna(dist) for name, dist in where.items()}
    values = {name: trial._suggest(name, dist) for name, dist in dists.items()}
    error = abs(values["scale"] - 0.98) + 0.1 * abs(math.log10(values["oplr"]) + 3) + 0.01 * values["Nlayer"]
    for step in range(1, STEPS + 1):
        trial.report(error + 1 / step, step)
        if trial.number == 3:
            raise RuntimeError("out of memory")
        if trial.number == 5 or (step < STEPS and trial.should_prune()):
            raise optuna.TrialPruned
    return error + 1 / STEPS


def run(sampler: ComponentSpec, pruner: ComponentSpec | None, direction: Direction = "minimize") -> optuna.Study:
    """A short study, each trial with a sampler of its own, as a worker makes it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        where = GRID if sampler.name in ("GridSampler", "BruteForceSampler") else SPACE
        study = optuna.create_study(study_name="s", direction=direction)
        for point in sampling.grid_points(specs.plan(sampler, where=where)) or ():
            study.enqueue_trial(dict(point.params))
        for index in range(TRIALS):
            study.sampler = sampling.build_sampler(sampler, seed=index, space=where)
            study.pruner = sampling.build_pruner(pruner, iterations=STEPS)
            study.optimize(lambda trial: objective(trial, where), n_trials=1, catch=(RuntimeError,))
    return study


def ended(trial: optuna.trial.FrozenTrial) -> TrialRecord:
    """What a worker records of a trial."""
    assert trial.datetime_start is not None
    assert trial.duration is not None
    return cases.record(
        trial.number,
        state=Ended(trial.state.name),
        error=trial.value,
        params=dict(trial.params),
        metrics={} if trial.value is None else {"loss": trial.value},
        reason={"PRUNED": Reason.PRUNED, "FAIL": Reason.FAILED}.get(trial.state.name, Reason.NONE),
        message="RuntimeError: out of memory" if trial.state is TrialState.FAIL else "",
        started=trial.datetime_start.astimezone(UTC).isoformat(),
        seconds=trial.duration.total_seconds(),
    )


def stored(path: Path, study: optuna.Study) -> StudyData:
    """The study written as a run writes it, and read again."""
    finished = [t for t in study.trials if t.state.is_finished()]
    space: dict[str, Distribution] = GRID if finished[0].distributions["scale"].low == 0.9 else SPACE
    meta = cases.meta("s", direction=study.direction.name.lower(), search_space_json=sampling.search_space_json(space))
    store = Store.open(path, meta)
    for trial in finished:
        curve = {"step": list(trial.intermediate_values), "loss": list(trial.intermediate_values.values())}
        cases.put(store, ended(trial), TrialOutput(metrics={}, curve=curve))
    with reader.open(store.finish()) as results:
        return load_study(results)


RUNS = [
    *((spec, None) for spec in [*specs.SAMPLERS, ComponentSpec("GridSampler"), ComponentSpec("BruteForceSampler")]),
    *((ComponentSpec("RandomSampler"), spec) for spec in specs.PRUNERS),
]


SLOW = [pytest.param(one, marks=pytest.mark.slow) if one[0].name == "GPSampler" else one for one in RUNS]


@pytest.fixture(scope="module", params=SLOW, ids=lambda r: "-".join(s.name + str(len(s.configs)) for s in r if s))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A study, and the same from its results file."""
    first = run(*request.param)
    return first, to_optuna_study(stored(tmp_path_factory.mktemp("study") / "s.h5", first))


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> optuna.Study:
    """A maximised study from its results file."""
    first = run(ComponentSpec("TPESampler"), ComponentSpec("MedianPruner"), "maximize")
    return to_optuna_study(stored(tmp_path_factory.mktemp("study") / "s.h5", first))


# --- the same trials ---------------------------------------------------------------------------------


def test_trials_are_the_same(pair: tuple[optuna.Study, optuna.Study]) -> None:
    """Numbers, states, values, parameters, distributions, curves and times, for every sampler and pruner."""
    first, again = pair
    had = [trial for trial in first.trials if trial.state.is_finished()]
    assert {t.state for t in had} == {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}
    assert [t.number for t in again.trials] == [t.number for t in had]
    for old, new in zip(had, again.trials, strict=True):
        assert (new.state, new.values, new.params) == (old.state, old.values, old.params)
        assert new.distributions == old.distributions
        assert [type(v) for v in new.params.values()] == [type(v) for v in old.params.values()]
        assert new.intermediate_values == old.intermediate_values
        assert new.intermediate_values
        assert new.datetime_start == old.datetime_start
        assert new.datetime_complete == old.datetime_complete
    assert again.best_trial.number == first.best_trial.number
    assert again.direction == first.direction
    assert again.study_name == "s"
    assert again.metric_names == ["loss"]


DRAWN = [
    (ComponentSpec("TPESampler"), None),
    (ComponentSpec("GridSampler"), None),
    (ComponentSpec("RandomSampler"), ComponentSpec("MedianPruner")),
]
"""Importances and plots see nothing but trials, which are the same for every sampler and pruner: three tell all."""


@pytest.mark.parametrize("pair", DRAWN, ids=lambda r: r[0].name, indirect=True)
def test_importances_are_the_same(pair: tuple[optuna.Study, optuna.Study]) -> None:
    """Optuna finds in the rehydrated study what it finds in the first."""
    for evaluator in (
        optuna.importance.PedAnovaImportanceEvaluator,
        lambda: optuna.importance.FanovaImportanceEvaluator(n_trees=8, seed=0),
    ):
        old, new = (optuna.importance.get_param_importances(study, evaluator=evaluator()) for study in pair)
        assert old == pytest.approx(new)
        assert set(new) <= set(SPACE)
        assert new


_TWO_GOALS = {"plot_hypervolume_history", "plot_pareto_front"}
"""Plots of studies with several errors at once: ours have one."""
_MINUTES = {"plot_terminator_improvement"}
"""It fits a Gaussian process for every trial."""


def plots(module: Any) -> list[str]:
    names = [name for name in module.__all__ if name.startswith("plot_")]
    assert len(names) > 10
    return names


def draw(module: Any, name: str, study: optuna.Study) -> Any:
    if name == "plot_edf":
        return getattr(module, name)([study])
    if name == "plot_hypervolume_history":
        return getattr(module, name)(study, [1.0])
    return getattr(module, name)(study)


@pytest.mark.slow
@pytest.mark.parametrize("pair", DRAWN, ids=lambda r: r[0].name, indirect=True)
def test_every_plot(pair: tuple[optuna.Study, optuna.Study]) -> None:
    """Every plot draws, and what has a line or point for each trial has as many as of the first study."""
    _all_of_plotly(pair[1])
    for name in ("plot_optimization_history", "plot_intermediate_values", "plot_slice"):
        first, again = (draw(optuna.visualization, name, study).data for study in pair)
        assert len(again) == len(first), name
    _all_of_matplotlib(pair[1])


def test_plots_of_a_maximised_study(one: optuna.Study) -> None:
    """Both kinds, and the one plot that takes long."""
    _all_of_plotly(one)
    _all_of_matplotlib(one)
    assert optuna.visualization.plot_terminator_improvement(one).data
    assert one.best_value == max(t.value for t in one.trials if t.state is TrialState.COMPLETE)


def _all_of_plotly(study: optuna.Study) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in plots(optuna.visualization):
            if name in _TWO_GOALS:
                with pytest.raises(ValueError, match="objective"):
                    draw(optuna.visualization, name, study)
            elif name not in _MINUTES:
                assert draw(optuna.visualization, name, study).data, name


def _all_of_matplotlib(study: optuna.Study) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    module = optuna.visualization.matplotlib
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in sorted({*plots(module)} - _TWO_GOALS - _MINUTES):
            axes = np.ravel(draw(module, name, study))
            assert any(a.has_data() for a in axes), name
            pyplot.close("all")


# --- what a study may hold besides --------------------------------------------------------------------


def rebuilt(*records: TrialRecord, space: Any = None, **meta: Any) -> optuna.Study:
    text = json.dumps({}) if space is None else sampling.search_space_json(space)
    return to_optuna_study(StudyData(cases.meta(search_space_json=text, **meta), records))


def test_numbers_that_are_not_recorded() -> None:
    """A lost attempt has the parameters of the trial that took its place; every trial keeps its number."""
    study = rebuilt(cases.record(1), cases.record(4, attempt=2, retry_of=2))
    assert [t.number for t in study.trials] == [0, 1, 2, 3, 4]
    assert [t.state.name for t in study.trials] == ["FAIL", "COMPLETE", "FAIL", "FAIL", "COMPLETE"]
    assert study.trials[2].params == study.trials[4].params
    assert study.trials[2].user_attrs == {"reason": "lost", "retried_as": 4}
    assert study.trials[3].user_attrs == {"reason": "not recorded"}
    assert study.trials[4].user_attrs["attempt"] == 2


def test_a_running_study_has_running_trials() -> None:
    """Numbers without a record are under way where the caller says that a run is on."""
    made = frozen_trials(StudyData(cases.meta(), (cases.record(1),)), gaps=TrialState.RUNNING)
    assert [t.state.name for t in made] == ["RUNNING", "COMPLETE"]
    assert made[0].datetime_complete is None


def test_values_outside_the_range() -> None:
    """A person's own guess and an import lie in a wider range, which all trials share, so that plots stay whole."""
    space: dict[str, Distribution] = {"scale": FloatRange(0.9, 1.1, 0.02), "rotation": FloatRange(-1.0, 1.0)}
    records = [
        cases.record(n, params={"scale": v, "rotation": r})
        for n, (v, r) in enumerate([(0.9, 0.0), (1.0134, 0.5), (1.0, 7.0), (0.98, -1.0)])
    ]
    study = rebuilt(*records, space=space)
    assert [t.params for t in study.trials] == [dict(r.params) for r in records]
    assert study.trials[0].distributions["scale"] == FloatDistribution(0.9, 1.1)
    assert study.trials[0].distributions["rotation"] == FloatDistribution(-1.0, 7.0)
    assert set(optuna.importance.get_param_importances(study)) == {"scale", "rotation"}


@pytest.mark.parametrize(
    ("dist", "values", "expected"),
    [
        (IntDistribution(1, 8), [2, 12], IntDistribution(1, 12)),
        (IntDistribution(2, 8, step=2), [2, 10], IntDistribution(2, 10, step=2)),
        (IntDistribution(2, 8, step=2), [3], IntDistribution(2, 8)),
        (IntDistribution(1, 8), [2.5], FloatDistribution(1, 8)),
        (IntDistribution(16, 512, log=True), [0], IntDistribution(0, 512)),
        (FloatDistribution(1e-4, 1e-2, log=True), [1e-5], FloatDistribution(1e-5, 1e-2, log=True)),
        (FloatDistribution(1e-4, 1e-2, log=True), [0.0], FloatDistribution(0, 1e-2)),
        (FloatDistribution(0, 1, step=0.5), [1.5], FloatDistribution(0, 1.5, step=0.5)),
        (FloatDistribution(0, 1), [3], FloatDistribution(0, 3)),
        (CategoricalDistribution(("a", "b")), ["c", "a"], CategoricalDistribution(("a", "b", "c"))),
        (FloatDistribution(0, 1), [0.5, "auto"], CategoricalDistribution((0.5, "auto"))),
        (None, [3, 1], IntDistribution(1, 3)),
        (None, [3, 1.5], FloatDistribution(1.5, 3)),
        (None, [2.0], FloatDistribution(2, 2)),
        (None, [True, False], CategoricalDistribution((True, False))),
        (FloatDistribution(1e-4, 1e-2, log=True), [-1], FloatDistribution(-1, 1e-2)),
        (IntDistribution(1, 8, log=True), [-3], IntDistribution(-3, 8)),
        (None, ["x", None], CategoricalDistribution(("x", None))),
    ],
)
def test_the_nearest_range(dist: BaseDistribution | None, values: list[Any], expected: BaseDistribution) -> None:
    """What holds all values and otherwise is as it was."""
    assert widen_distribution(dist, values) == expected


@pytest.mark.parametrize(
    "change",
    [
        {"error": math.nan},
        {"error": math.inf},
        {"started": ""},
        {"started": "yesterday"},
        {"seconds": math.nan},
        {"params": {"scale": math.inf, "rotation": 1.0}},
        {"params": {}},
        {"params": {"other": "x"}},
        {"params": {"scale": 10**400, "rotation": 1.0}},
        {"params": {"scale": -1, "rotation": 2**60 + 1}},
    ],
    ids=str,
)
def test_what_optuna_does_not_know(change: dict[str, Any]) -> None:
    """An error that is NaN, a start that nobody wrote down, an infinite value: the trial is there all the same."""
    study = rebuilt(cases.record(0), cases.record(1, **change))
    assert [t.number for t in study.trials] == [0, 1]
    said = study.trials[1].user_attrs
    values = change.get("params", {})
    odd = {name for name, value in values.items() if study.trials[1].params.get(name) != value}
    assert {name for name in values if f"params.{name}" in said} == odd
    lost = change.get("error", 0.0) != change.get("error", 0.0)
    assert study.trials[1].state is (TrialState.FAIL if lost else TrialState.COMPLETE)


def test_times_are_local() -> None:
    """Optuna's times have no zone: a trial's start is the same moment here."""
    (trial,) = rebuilt(cases.record(0, started="2025-06-01T12:00:00+02:00", seconds=1.5)).trials
    moment = datetime(2025, 6, 1, 10, tzinfo=UTC)
    assert trial.datetime_start is not None
    assert trial.datetime_start.astimezone(UTC) == moment
    assert trial.duration == timedelta(seconds=1.5)


def test_nothing_recorded(capsys: pytest.CaptureFixture[str]) -> None:
    """A study of no trials, and not a word on the terminal."""
    assert rebuilt().trials == []
    assert capsys.readouterr() == ("", "")
