"""What a process writes of its own trial without waiting: each replay is that of the journal, whatever the order."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import StudyDirection
from optuna.trial import TrialState

from ptydask.errors import StorageError
from ptydask.storage import transport
from ptydask.storage.ahead import NOTHING, AheadBackend, need_not_wait
from ptydask.storage.study_journal import StudyJournal


class Owner:
    """The journal's owner, without a connection."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.snapshot: bytes | None = None
        self.calls = 0
        self.fails = False
        self.loses_answer = False

    def answer(
        self,
        lines: list[bytes] | None = None,
        known: int = 0,
        durable: bool = False,
        snapshot: bytes | None = None,
        want_snapshot: bool = False,
    ) -> list[bytes] | bytes | None:
        self.calls += 1
        if snapshot is not None:
            self.snapshot = snapshot
            return None
        if want_snapshot:
            return self.snapshot
        if self.fails:
            raise StorageError("no room")
        self.lines += lines or []
        if self.loses_answer:
            raise OSError("connection lost")
        return self.lines[known:]


class Backend(AheadBackend):
    def __init__(self, owner: Owner, *, waits: bool = False) -> None:
        super().__init__(waits=waits)
        self.owner, self.fresh = owner, False

    def _call_journal(self, **message: Any) -> Any:
        return self.owner.answer(**message)

    def _is_fresh(self) -> bool:
        return self.fresh

    def _note_answer(self) -> None:
        pass

    def _send_soon(self) -> None:
        pass

    def send_unsent(self) -> None:
        """What the worker's loop does now and then: others see it, and nothing comes back."""
        sent = self._unsent[:]
        self.owner.answer(lines=sent, known=NOTHING)
        del self._unsent[: len(sent)]


class Process:
    """A worker's storage, or the driver's."""

    def __init__(self, owner: Owner, *, waits: bool = False) -> None:
        self.backend = Backend(owner, waits=waits)
        self.storage = StudyJournal(self.backend)
        self.trial: int | None = None
        self.steps = 0

    def state(self) -> dict[str, Any]:
        """All that was replayed."""
        self.storage.get_all_studies()
        return replayed(self.storage)


def replayed(storage: StudyJournal) -> dict[str, Any]:
    result = storage._replay_result
    trials = {number: vars(trial) for number, trial in result._trials.items()}
    return {"read": result.log_number_read, "trials": trials, "of": result._study_id_to_trial_ids}


def from_the_beginning(owner: Owner) -> dict[str, Any]:
    """What the journal says, as a process that was not there replays it: without a snapshot."""
    bare = Owner()
    bare.lines = owner.lines[:]
    return replayed(StudyJournal(Backend(bare)))


@pytest.fixture
def owner() -> Owner:
    owner = Owner()
    StudyJournal(Backend(owner, waits=True)).create_new_study([StudyDirection.MINIMIZE], "s")
    return owner


def step(process: Process, chance: random.Random) -> None:
    """Something that a worker may do next."""
    storage = process.storage
    if process.trial is None:
        waiting = storage.get_all_trials(0, states=(TrialState.WAITING,))
        if not waiting:
            process.trial = storage.create_new_trial(0)
        else:
            with suppress(UpdateFinishedTrialError):  # another has taken it, and ended it
                if storage.set_trial_state_values(waiting[0]._trial_id, TrialState.RUNNING):
                    process.trial = waiting[0]._trial_id
        return
    number = process.trial
    match chance.randrange(9):
        case 0 | 1:
            name = chance.choice("xyz")
            storage.set_trial_param(number, name, chance.random(), FloatDistribution(0, 1))
        case 2 | 3:
            process.steps += 1
            storage.set_trial_intermediate_value(number, process.steps, chance.random())
        case 4:
            storage.set_trial_user_attr(number, chance.choice("ab"), {"list": [1, None], "text": "ü"})
        case 5:
            storage.set_trial_system_attr(number, "completed_rung_0", chance.random())
        case 6:
            storage.get_all_trials(0, deepcopy=False)
        case 7:
            process.backend.flush()
        case 8:
            state = chance.choice([TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL])
            storage.set_trial_state_values(number, state, None if state is TrialState.FAIL else [chance.random()])
            process.trial = None


@pytest.mark.parametrize("seed", range(40))
def test_every_replay_is_that_of_the_journal(owner: Owner, seed: int) -> None:
    """Two workers and a driver that lines up trials: at any time their state, once they look, is the journal's."""
    chance = random.Random(seed)
    workers = [Process(owner), Process(owner)]
    driver = Process(owner, waits=True)
    for _ in range(150):
        worker = chance.choice(workers)
        worker.backend.fresh = chance.random() < 0.5
        match chance.randrange(20):
            case 0:
                waiting = optuna.trial.create_trial(state=TrialState.WAITING, system_attrs={"fixed_params": {"x": 0.5}})
                driver.storage.create_new_trial(0, waiting)
            case 1 | 2:
                worker.backend.send_unsent()
            case 3:
                worker.backend.fresh = False
                worker.backend.flush()
                assert worker.state() == from_the_beginning(owner)
            case _:
                step(worker, chance)
    for process in workers:
        process.backend.fresh = False
        process.backend.flush()
    expected = from_the_beginning(owner)
    assert [process.state() for process in (*workers, driver)] == [expected] * 3
    assert expected["read"] == len(owner.lines)


def test_a_trial_takes_few_calls(owner: Owner) -> None:
    """Its number, what it is to compute, a judgement, its end: the other entries travel with these."""
    worker = Process(owner)
    worker.backend.fresh = True
    before, storage = owner.calls, worker.storage
    number = storage.create_new_trial(0)
    storage.set_trial_user_attr(number, "lease", {})
    for name in "abcdef":
        storage.set_trial_param(number, name, 0.5, FloatDistribution(0, 1))
    worker.backend.flush()
    for count in range(3):
        storage.set_trial_intermediate_value(number, count, 1.0)
    storage.set_trial_state_values(number, TrialState.COMPLETE, [1.0])
    assert owner.calls - before == 3
    assert worker.state() == from_the_beginning(owner)


def test_own_entries_are_seen_at_once_and_by_others_when_they_look_after_a_call(owner: Owner) -> None:
    worker, driver = Process(owner), Process(owner, waits=True)
    number = worker.storage.create_new_trial(0)
    worker.storage.set_trial_intermediate_value(number, 1, 0.25)
    worker.backend.fresh = True
    assert worker.storage.get_trial(number).intermediate_values == {1: 0.25}
    assert driver.storage.get_trial(number).intermediate_values == {}
    worker.backend.send_unsent()
    assert driver.storage.get_trial(number).intermediate_values == {1: 0.25}


def test_a_look_brings_what_others_did_also_after_a_flush(owner: Owner) -> None:
    """What a flush brought is not taken for all that there is by the time of the next look."""
    worker, driver = Process(owner), Process(owner, waits=True)
    number = worker.storage.create_new_trial(0)
    driver.storage.create_new_trial(0)
    worker.storage.set_trial_user_attr(number, "a", 1)
    worker.backend.flush()
    driver.storage.create_new_trial(0)
    assert len(worker.storage.get_all_trials(0)) == 3


def test_who_knows_as_much_as_the_driver_need_not_ask(owner: Owner) -> None:
    """Until the next call that waits: a trial that the driver has put there since is seen."""
    worker, driver = Process(owner), Process(owner, waits=True)
    number = worker.storage.create_new_trial(0)
    worker.storage.set_trial_state_values(number, TrialState.COMPLETE, [1.0])
    driver.storage.get_all_trials(0)
    before = owner.calls
    transport.be_content(worker.storage, transport.position(driver.storage))
    assert len(worker.storage.get_all_trials(0)) == 1
    assert owner.calls == before
    waiting = optuna.trial.create_trial(state=TrialState.WAITING)
    driver.storage.create_new_trial(0, waiting)
    transport.be_content(worker.storage, transport.position(driver.storage))
    assert len(worker.storage.get_all_trials(0)) == 2
    driver.storage.create_new_trial(0, waiting)
    transport.be_content(worker.storage)
    assert len(worker.storage.get_all_trials(0)) == 2
    worker.storage.create_new_trial(0)
    driver.storage.create_new_trial(0, waiting)
    assert len(worker.storage.get_all_trials(0)) == 5, "content until the next call that waits"


@pytest.mark.parametrize("position", [0, 7, None])
def test_a_server_knows_no_positions(position: int | None) -> None:
    """Nor is anything kept back there."""
    storage = optuna.storages.InMemoryStorage()
    transport.be_content(storage, position)
    transport.flush(storage)
    assert transport.position(storage) is None


def test_killed_before_entries_were_sent(owner: Owner) -> None:
    """The journal has the trial without them, as if the process had died before it wrote them."""
    worker = Process(owner)
    number = worker.storage.create_new_trial(0)
    worker.storage.set_trial_user_attr(number, "lease", {})
    del worker
    trial = Process(owner).storage.get_trial(number)
    assert (trial.state, trial.user_attrs) == (TrialState.RUNNING, {})


@pytest.mark.parametrize("look", [True, False])
def test_a_trial_that_was_closed_meanwhile_refuses_more(owner: Owner, look: bool) -> None:
    """Who is taken for lost hears of it at the next call; the journal ignores what came too late; counts stay right."""
    worker, driver = Process(owner), Process(owner, waits=True)
    number = worker.storage.create_new_trial(0)
    worker.storage.set_trial_intermediate_value(number, 1, 0.5)
    driver.storage.set_trial_state_values(number, TrialState.FAIL)
    if look:
        worker.storage.get_all_trials(0)
    with pytest.raises(UpdateFinishedTrialError):
        worker.storage.set_trial_state_values(number, TrialState.COMPLETE, [0.5])
    assert driver.storage.get_trial(number).intermediate_values == {}
    another = worker.storage.create_new_trial(0)
    assert worker.storage.get_trial(another).number == 1
    assert worker.state()["read"] == len(owner.lines)
    worker.storage.save_snapshot()
    assert owner.snapshot is None, "its state is not the journal's in what it wrote of the closed trial"


@pytest.mark.parametrize("failure", ["fails", "loses_answer"])
def test_what_was_not_sent_is_sent_again(owner: Owner, failure: str) -> None:
    """After a full disk, or an answer that was lost, which may leave entries in the journal twice."""
    worker = Process(owner)
    number = worker.storage.create_new_trial(0)
    worker.storage.set_trial_intermediate_value(number, 1, 0.5)
    setattr(owner, failure, True)
    with pytest.raises((StorageError, OSError)):
        worker.backend.flush()
    setattr(owner, failure, False)
    worker.storage.set_trial_state_values(number, TrialState.COMPLETE, [0.5])
    assert worker.state() == from_the_beginning(owner)
    assert worker.storage.get_trial(number).intermediate_values == {1: 0.5}


def test_late_comers_begin_at_a_snapshot(owner: Owner) -> None:
    """Its number of entries is the journal's, also where others wrote between."""
    one, other = Process(owner), Process(owner)
    for count in range(101):
        process = (one, other)[count % 2]
        number = process.storage.create_new_trial(0)
        process.storage.set_trial_param(number, "x", 0.5, FloatDistribution(0, 1))
        if count != 99:
            process.storage.set_trial_state_values(number, TrialState.COMPLETE, [1.0])
    assert owner.snapshot is not None
    late = Process(owner)
    late.storage.create_new_trial(0)
    other.backend.flush()
    assert late.state() == other.state() == from_the_beginning(owner)


def test_a_study_that_goes_on_has_a_snapshot_at_once(owner: Owner) -> None:
    """Of its driver, which has replayed all of it; the distributions that trials share are in it once."""
    worker = Process(owner)
    for _ in range(50):
        number = worker.storage.create_new_trial(0)
        worker.storage.set_trial_param(number, "x", 0.5, FloatDistribution(0, 1))
        worker.storage.set_trial_state_values(number, TrialState.COMPLETE, [1.0])
    assert owner.snapshot is None
    Process(owner, waits=True).storage.save_snapshot()
    assert owner.snapshot is not None
    assert owner.snapshot.count(b"FloatDistribution") == owner.snapshot.count(b"step") == 1
    assert Process(owner).state() == from_the_beginning(owner)


@pytest.mark.parametrize(
    ("logs", "expected"),
    [
        ([{"op_code": 5}, {"op_code": 7}, {"op_code": 8}, {"op_code": 9}], True),
        ([{"op_code": 4}], False),
        ([{"op_code": 6}], False),
        ([{"op_code": 5}, {"op_code": 6}], False),
        ([{"op_code": 2}], False),
        ([{"op_code": 0}], False),
    ],
)
def test_what_need_not_wait(logs: list[dict[str, Any]], expected: bool) -> None:
    """Parameters, reports and attributes of a trial; not a number, a state, or anything of the study."""
    assert need_not_wait(logs) is expected
