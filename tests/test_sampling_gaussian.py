"""The Gaussian process for many workers, and for trials that are pruned or fail."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState as State
from optuna.trial import create_trial

from ptydask import sampling
from ptydask.distributions import Choice, Distribution, FloatRange, QuantileDistribution
from ptydask.model import ComponentSpec, Reason, Scalar
from ptydask.sampling import gaussian

SPACE: dict[str, Distribution] = {
    "lr": FloatRange(1e-5, 1e-2, log=True),
    "width": QuantileDistribution("uniform", 0.0, 128.0, 4),
    "optimizer": Choice(("adam", "sgd")),
}
DISTRIBUTIONS = {name: sampling.to_optuna(dist) for name, dist in SPACE.items()}
SPEC = ComponentSpec("GPSampler", {"n_startup_trials": 5})


def sampler(seed: int, space: dict[str, Distribution] = SPACE) -> optuna.samplers.BaseSampler:
    return sampling.build_sampler(SPEC, seed=seed, space=space)


@pytest.fixture
def study() -> optuna.Study:
    """A study with eight trials that are done."""
    made = optuna.create_study(study_name="s", storage=InMemoryStorage(), sampler=sampler(1))
    for number in range(8):
        u = (number + 0.5) / 8
        params = {"lr": 10 ** (-5 + 3 * u), "width": (5 * u) % 1, "optimizer": "adam"}
        made.add_trial(create_trial(value=(u - 0.3) ** 2, params=params, distributions=DISTRIBUTIONS))
    return made


def asked(storage: optuna.storages.BaseStorage, seed: int) -> dict[str, Scalar]:
    """The values of one more trial, which is left running."""
    mine = optuna.load_study(study_name="s", storage=storage, sampler=sampler(seed))
    return sampling.suggest(mine.ask(), SPACE, SPEC)


def test_workers_that_ask_at_once(study: optuna.Study) -> None:
    """Each gets a point of its own; by itself the Gaussian process gives all of them the same."""
    with ThreadPoolExecutor(4) as workers:
        points = list(workers.map(lambda seed: asked(study._storage, seed), range(4)))
    rounded = {(float(f"{point['lr']:.2g}"), point["width"], point["optimizer"]) for point in points}
    assert len(rounded) == 4


@pytest.mark.parametrize(("seconds", "waits"), [(0, True), (120, False)])
def test_a_worker_that_died_is_not_waited_for_long(
    study: optuna.Study, monkeypatch: pytest.MonkeyPatch, seconds: float, waits: bool
) -> None:
    """A trial that never gets its values holds up the next one for a while; for no time if it began long ago."""
    monkeypatch.setattr(gaussian, "PATIENCE", 0.3)
    dead = create_trial(state=State.RUNNING)
    dead.datetime_start = datetime.now() - timedelta(seconds=seconds)  # noqa: DTZ005 - Optuna's are naive local times
    study.add_trial(dead)
    next_one = study.ask()
    began = time.monotonic()
    asks = study.get_trials(deepcopy=False)[next_one.number]
    gaussian.after_those_before(study, asks, lambda trial: gaussian._has_values(trial, DISTRIBUTIONS))
    assert (time.monotonic() - began > 0.3) == waits


@pytest.mark.parametrize("ends", ["failed", "pruned"])
def test_a_bad_end_is_learnt_from(study: optuna.Study, ends: str) -> None:
    """A point whose trial failed, or was pruned with a bad value, is not suggested once more."""
    points = []
    for seed in range(3):
        study.sampler = sampler(seed)
        trial = study.ask()
        points.append(sampling.suggest(trial, SPACE, SPEC))
        if ends == "pruned":
            trial.report(1.0, 1)
            study.tell(trial, state=State.PRUNED)
        else:
            trial.set_user_attr("reason", Reason.FAILED.value)
            study.tell(trial, state=State.FAIL)
    rounded = {(float(f"{point['lr']:.2g}"), point["width"], point["optimizer"]) for point in points}
    assert len(rounded) == 3


@pytest.mark.parametrize(("direction", "worst"), [(StudyDirection.MINIMIZE, 3.0), (StudyDirection.MAXIMIZE, 1.0)])
def test_what_a_trial_counts(direction: StudyDirection, worst: float) -> None:
    """Complete and pruned ones their value, failed ones the worst; lost ones and those out of range nothing."""

    def trial(lr: float, state: State, value: float | None = None, reason: str = "") -> optuna.trial.FrozenTrial:
        distribution = optuna.distributions.FloatDistribution(0.0, 9.0)
        attrs = {"reason": reason} if reason else {}
        return create_trial(
            state=state, value=value, params={"lr": lr}, distributions={"lr": distribution}, user_attrs=attrs
        )

    trials = [
        trial(0.1, State.COMPLETE, 1.0),
        trial(0.2, State.PRUNED, 3.0),
        trial(0.3, State.FAIL, reason="failed"),
        trial(0.4, State.FAIL, reason="lost"),
        trial(0.5, State.FAIL),
        trial(0.6, State.COMPLETE, 2.0),
        trial(5.0, State.COMPLETE, 9.0),
        trial(0.7, State.PRUNED),
    ]
    space = {"lr": optuna.distributions.FloatDistribution(0.0, 1.0)}
    counted = gaussian.trials_with_values(trials, space, direction)
    assert {t.params["lr"]: t.value for t in counted} == {0.1: 1.0, 0.2: 3.0, 0.6: 2.0, 0.3: worst}
    assert all(t.state is State.COMPLETE for t in counted)


def test_a_range_that_was_moved(study: optuna.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parameter stays part of the search: it is not drawn at random for the rest of the study."""
    calls: list[str] = []
    independent: Callable[..., object] = optuna.samplers.GPSampler.sample_independent

    def counted(self: object, study: object, trial: object, name: str, among: object) -> object:
        calls.append(name)
        return independent(self, study, trial, name, among)

    monkeypatch.setattr(optuna.samplers.GPSampler, "sample_independent", counted)
    wider: dict[str, Distribution] = {**SPACE, "lr": FloatRange(1e-5, 1e-1, log=True)}
    study.sampler = sampler(1, wider)
    now = {name: sampling.to_optuna(dist) for name, dist in wider.items()}
    study.add_trial(create_trial(value=0.5, params={"lr": 0.05, "width": 0.5, "optimizer": "sgd"}, distributions=now))
    values = sampling.suggest(study.ask(), wider, SPEC)
    assert calls == []
    assert 1e-5 <= float(values["lr"] or 0) <= 1e-1
