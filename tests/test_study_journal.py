"""What is asked of a study in a journal is answered as stock Optuna answers it, without reading all of it again."""

from __future__ import annotations

import pickle
import random
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, distribution_to_json
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.study import StudyDirection
from optuna.trial import TrialState as State

from ptydask.storage import study_journal
from ptydask.storage.journal import FileBackend, JournalFile, decode, encode
from ptydask.storage.study_journal import StudyJournal, snapshot_due
from ptydask.trial.reconcile import lease


class Lines(BaseJournalBackend):
    """A journal in memory."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self.lines += encode(logs)

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        return decode(self.lines[log_number_from:])


QUESTIONS = [None, *[(state,) for state in State], (State.COMPLETE, State.PRUNED), (State.RUNNING, State.COMPLETE), ()]


@pytest.mark.parametrize("seed", range(10))
def test_every_question_is_answered_as_by_optuna(seed: int) -> None:
    """Trials of two studies that wait, run, end out of order: of any states, in the order of their numbers."""
    chance, lines = random.Random(seed), Lines()
    ours, stock = StudyJournal(lines), JournalStorage(lines)
    studies = [ours.create_new_study([StudyDirection.MINIMIZE], name) for name in "ab"]
    under_way: list[int] = []
    for _ in range(200):
        match chance.randrange(4):
            case 0:
                under_way.append(ours.create_new_trial(chance.choice(studies)))
            case 1 if under_way:
                trial = chance.choice(under_way)
                ours.set_trial_param(trial, chance.choice("xy"), chance.random(), FloatDistribution(0, 1))
            case 2 if under_way:
                trial = under_way.pop(chance.randrange(len(under_way)))
                state = chance.choice([State.COMPLETE, State.PRUNED, State.FAIL])
                ours.set_trial_state_values(trial, state, None if state is State.FAIL else [1.0])
            case 3:
                state = chance.choice(list(State))
                value = 1.0 if state in (State.COMPLETE, State.PRUNED) else None
                ours.create_new_trial(studies[0], optuna.trial.create_trial(state=state, value=value))
        if chance.random() < 0.2:
            study, states = chance.choice(studies), chance.choice(QUESTIONS)
            assert ours.get_all_trials(study, states=states) == stock.get_all_trials(study, states=states)


def test_a_study_that_is_gone_has_no_trials() -> None:
    storage = StudyJournal(Lines())
    study = storage.create_new_study([StudyDirection.MINIMIZE], "a")
    storage.create_new_trial(study)
    assert len(storage.get_all_trials(study)) == 1
    storage.delete_study(study)
    with pytest.raises(KeyError):
        storage.get_all_trials(study)


def test_the_callers_list_is_its_own() -> None:
    storage = StudyJournal(Lines())
    study = storage.create_new_study([StudyDirection.MINIMIZE], "a")
    storage.set_trial_state_values(storage.create_new_trial(study), State.COMPLETE, [1.0])
    for states in (None, (State.COMPLETE,)):
        storage.get_all_trials(study, deepcopy=False, states=states).clear()
        assert len(storage.get_all_trials(study, states=states)) == 1


def test_distributions_are_shared_by_trials_that_have_the_same() -> None:
    """What others have, or has them in another order, keeps its own."""
    storage = StudyJournal(Lines())
    study = storage.create_new_study([StudyDirection.MINIMIZE], "a")
    x, y = FloatDistribution(0, 1), CategoricalDistribution(["a", "b"])
    for names in ("xy", "xy", "yx", "x"):
        trial = storage.create_new_trial(study)
        for name in names:
            storage.set_trial_param(trial, name, 1.0, x if name == "x" else y)
        storage.set_trial_state_values(trial, State.COMPLETE, [1.0])
    first, second, swapped, less = storage.get_all_trials(study, deepcopy=False)
    assert first.distributions is second.distributions
    assert [[*trial.distributions] for trial in (first, swapped, less)] == [["x", "y"], ["y", "x"], ["x"]]


def read_texts(value: Any) -> Iterator[str]:
    """Every text in what Optuna has of a trial, keys included."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from (key, *read_texts(part))
    elif isinstance(value, str):
        yield value


@pytest.mark.parametrize("late", [False, True])
def test_trials_share_their_texts(late: bool) -> None:
    """Of 200 trials each has one text for itself, the key of its task; also where they come from a snapshot."""
    lines, space = Lines(), {"scale": FloatDistribution(0, 1), "optimizer": CategoricalDistribution(["adam", "sgd"])}
    storage = StudyJournal(lines)
    study = storage.create_new_study([StudyDirection.MINIMIZE], "a")
    for number in range(200):
        trial = storage.create_new_trial(study)
        storage.set_trial_user_attr(trial, "lease", lease("store", f"trial-{number}", "worker-1", "node1", "17"))
        for name, distribution in space.items():
            storage.set_trial_param(trial, name, number % 2, distribution)
        storage.set_trial_user_attr(trial, "gradient", {"slopes": {"scale": 0.1}})
        storage.set_trial_state_values(trial, State.COMPLETE, [1.0])
    if late:
        storage.get_all_trials(study)
        snapshot = pickle.dumps(storage._replay_result)
        storage = StudyJournal(lines)
        storage.restore_replay_result(snapshot)
    trials = storage.get_all_trials(study, deepcopy=False)
    assert trials == JournalStorage(lines).get_all_trials(study)
    texts = [text for trial in trials for part in (trial.params, trial.user_attrs) for text in read_texts(part)]
    assert len({id(text) for text in texts}) == len(set(texts)) == 200 + 15


def test_a_study_that_goes_on_is_not_there_twice(tmp_path: Path) -> None:
    """A process that replays 500 trials never has much more than them: not all entries, nor distributions of each."""
    file = JournalFile(tmp_path / "a.journal")
    storage = StudyJournal(FileBackend(file))
    study = storage.create_new_study([StudyDirection.MINIMIZE], "a")
    state, time = State.COMPLETE, "2025-01-01T00:00:00.000000+00:00"
    space = dict.fromkeys(["scale", "rotation", "shear"], distribution_to_json(FloatDistribution(0, 1)))
    begin = {"op_code": 4, "study_id": study, "datetime_start": time}
    reports = [{"op_code": 7, "step": step, "intermediate_value": 1.0} for step in range(9)]
    end = {"op_code": 6, "state": state, "values": [1.0], "datetime_complete": time}
    entries = [{**begin, "distributions": space, "params": dict.fromkeys(space, 0.5)}, *reports, end]
    for trial in range(500):
        file.append(encode({"worker_id": "", "trial_id": trial, **entry} for entry in entries))
    tracemalloc.start()
    try:
        again = StudyJournal(FileBackend(file))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    file.close()
    assert len(again.get_all_trials(study, states=(State.COMPLETE,))) == 500
    assert peak < 500 * 5000  # bytes


def test_snapshots_become_rare() -> None:
    """A late comer replays an eighth of a large study at the most; all snapshots together grow with the study alone."""
    due = [number for number in range(100_001) if snapshot_due(number)]
    assert due[:3] == [100, 200, 300]
    gaps = [later - earlier for earlier, later in pairwise(due)]
    assert all(gap <= max(study_journal.SNAPSHOT_EVERY, before / 8) for gap, before in zip(gaps, due, strict=False))
    assert sum(due) < 20 * 100_000
