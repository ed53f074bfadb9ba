"""Decisions about trials that nobody works on."""

from __future__ import annotations

import gc
import itertools
import weakref
from datetime import datetime
from types import SimpleNamespace
from typing import Any, cast

import optuna
import pytest

from ptydask.driver.optuna_study import OptunaStudy
from ptydask.model import Reason
from ptydask.trial.reconcile import (
    BegunTrial,
    ReconcileAction,
    ReconcileStep,
    begun_from_attrs,
    lease,
    look_owed,
    steps,
    time_for_another,
    time_left,
    to_adopt,
    to_submit,
)

STORE = "s"


def trial(number: int = 0, state: str = "RUNNING", **more: object) -> BegunTrial:
    return BegunTrial(number, state, {"x": 1.0}, **{"store": STORE, "task": f"t{number}", **more})  # type: ignore[arg-type]


def actions(*trials: BegunTrial, **given: object) -> list[tuple[ReconcileAction, int]]:
    options = {"store": STORE, "recorded": (), "retries": 3, **given}
    return [(s.action, s.trial.number) for s in steps(trials, **options)]  # type: ignore[arg-type]


def test_lost_trial_is_closed_and_tried_again() -> None:
    """RUNNING, no record, nobody at work: close it, then try its parameters again."""
    assert actions(trial()) == [(ReconcileAction.CLOSE, 0), (ReconcileAction.RETRY, 0)]


def test_trial_in_flight_is_left_alone() -> None:
    """A task in flight may still finish its trial."""
    assert actions(trial(), in_flight=["t0"]) == []


def test_unsigned_trial_is_left_alone_while_anything_is_in_flight() -> None:
    """Between asking for a trial and signing its lease, a worker is at work on a trial without a task."""
    assert actions(trial(task=""), in_flight=["t9"]) == []
    assert actions(trial(task="")) == [(ReconcileAction.CLOSE, 0), (ReconcileAction.RETRY, 0)]


def test_unsigned_trial_is_retried_once_every_task_in_flight_has_signed() -> None:
    """Its worker died before it could: a task more would find no point lined up. Others' workers may be at it."""
    lost, working = trial(task=""), trial(1, task="t9")
    retried = [(ReconcileAction.CLOSE, 0), (ReconcileAction.RETRY, 0)]
    assert actions(lost, working, in_flight=["t9"], exclusive=True) == retried
    assert actions(lost, working, in_flight=["t9", "t10"], exclusive=True) == []
    assert actions(lost, working, in_flight=["t9"]) == []


@pytest.mark.parametrize(
    ("trials", "in_flight", "exclusive", "owed"),
    [
        ((trial(task=""),), (), True, False),
        ((trial(task=""), trial(1, task="t9")), ("t9",), True, False),
        ((trial(task=""), trial(1, task="t9")), ("t9", "t10"), True, True),
        ((trial(task="", store=""),), ("t9",), True, True),
        ((trial(task="", store=""),), ("t9",), False, False),
        ((trial(task=""), trial(1, task="t9")), ("t9",), False, True),
        ((trial(task="", state="WAITING"),), ("t9",), True, False),
        ((trial(0, task="t9"),), ("t9", "t10"), True, False),
    ],
)
def test_what_was_left_alone_is_looked_at_again(
    trials: tuple[BegunTrial, ...], in_flight: tuple[str, ...], exclusive: bool, owed: bool
) -> None:
    """A look is owed for an unsigned trial, while some task may yet sign it; never for one that steps decided."""
    assert look_owed(trials, store=STORE, in_flight=in_flight, exclusive=exclusive) is owed
    if owed:
        assert actions(*trials, in_flight=in_flight, exclusive=exclusive) == []


def test_recorded_trial_is_told_to_optuna() -> None:
    """The worker died between writing the file and telling Optuna."""
    assert actions(trial(), recorded=[0]) == [(ReconcileAction.ADOPT, 0)]


def test_late_result_is_refused() -> None:
    """A result whose parameters are being tried again must not count twice."""
    late, again = trial(0, "FAIL", reason="lost"), trial(1, "WAITING", retry_of=0)
    assert actions(late, again, recorded=[0]) == [(ReconcileAction.REFUSE, 0)]


def test_record_that_vanished_is_recovered() -> None:
    """Optuna was told and the file is gone: the numbers are recorded again."""
    assert actions(trial(state="COMPLETE")) == [(ReconcileAction.RECOVER, 0)]
    assert actions(trial(state="FAIL", reason="failed")) == [(ReconcileAction.RECOVER, 0)]


def test_closed_trial_without_retry_gets_one() -> None:
    """The driver died between closing and enqueueing; also Optuna's own heartbeat closes trials."""
    assert actions(trial(state="FAIL", reason="lost")) == [(ReconcileAction.RETRY, 0)]
    assert actions(trial(state="FAIL")) == [(ReconcileAction.RETRY, 0)]


def test_retry_that_is_there_is_not_made_twice() -> None:
    """A retry in any state is enough."""
    for state in ("WAITING", "RUNNING", "COMPLETE"):
        again = trial(1, state, retry_of=0, task="t1")
        found = actions(trial(state="FAIL", reason="lost"), again, in_flight=["t1"], recorded=[1])
        assert found == []


def test_attempts_are_limited() -> None:
    """After --retries losses the trial is recorded as failed."""
    assert actions(trial(losses=3)) == [(ReconcileAction.CLOSE, 0), (ReconcileAction.GIVE_UP, 0)]
    assert actions(trial(losses=2)) == [(ReconcileAction.CLOSE, 0), (ReconcileAction.RETRY, 0)]
    assert actions(trial(), retries=0) == [(ReconcileAction.CLOSE, 0), (ReconcileAction.GIVE_UP, 0)]


def test_interruptions_do_not_count_as_losses() -> None:
    """A user may press Ctrl-C as often as they like."""
    assert actions(trial(losses=3), reason=Reason.INTERRUPTED) == [
        (ReconcileAction.CLOSE, 0),
        (ReconcileAction.RETRY, 0),
    ]
    assert actions(trial(state="FAIL", reason="interrupted", losses=3)) == [(ReconcileAction.RETRY, 0)]


def test_trials_of_others_are_never_touched() -> None:
    """Another store's trial on a shared server is somebody else's business."""
    assert actions(trial(store="other")) == []
    assert actions(trial(store="", task=""), exclusive=False) == []


def test_what_others_left_is_closed_where_the_storage_is_ours_alone() -> None:
    """Left RUNNING it would steer the sampler for ever, left WAITING it would be run as one of ours."""
    assert actions(trial(store="", task=""), exclusive=True) == [(ReconcileAction.CLOSE, 0)]
    assert actions(trial(store="deleted"), exclusive=True) == [(ReconcileAction.CLOSE, 0)]
    assert actions(trial(store="deleted", state="WAITING", task=""), exclusive=True) == [(ReconcileAction.CLOSE, 0)]
    assert actions(trial(store="deleted", state="COMPLETE"), exclusive=True) == []


def test_files_that_nobody_told_of_are_looked_for() -> None:
    """Whatever Optuna says of it: begun by this store, not recorded, nobody at work, not being tried again."""
    trials = [
        trial(0, "COMPLETE"),
        trial(1, "RUNNING"),
        trial(2, "FAIL", reason="failed"),
        trial(3, "WAITING", task=""),
        trial(4, "RUNNING", task="busy"),
        trial(5, "FAIL", reason="lost"),
        trial(6, "WAITING", retry_of=5, task=""),
        trial(7, "COMPLETE"),
        trial(8, "COMPLETE", store="other"),
    ]
    assert to_adopt(trials, store=STORE, recorded=[7], in_flight=["busy"]) == [0, 1, 2]


def test_putting_right_twice_changes_nothing() -> None:
    """Whatever state a kill leaves, one pass settles it: a second pass finds nothing to do."""
    for state, recorded, reason, retried in itertools.product(
        ("RUNNING", "COMPLETE", "PRUNED", "FAIL"),
        (True, False),
        ("", "lost", "interrupted", "failed"),
        (True, False),
    ):
        if retried and (state != "FAIL" or reason == "failed"):
            continue  # only a closed trial is ever tried again
        trials = {0: trial(0, state, reason=reason)}
        if retried:
            trials[1] = trial(1, "WAITING", retry_of=0)
        records = {0} if recorded else set()
        for _ in range(2):
            todo = steps(trials.values(), store=STORE, recorded=records, retries=3)
            for step in todo:
                _apply(step, trials, records)
        assert steps(trials.values(), store=STORE, recorded=records, retries=3) == []
        waiting = sum(t.state == "WAITING" for t in trials.values())
        assert len(records) + waiting == 1, "exactly one result for one wanted trial"


def _apply(step: ReconcileStep, trials: dict[int, BegunTrial], records: set[int]) -> None:
    number = step.trial.number
    match step.action:
        case ReconcileAction.ADOPT:
            trials[number] = trial(number, "COMPLETE")
        case ReconcileAction.CLOSE:
            trials[number] = trial(number, "FAIL", reason="lost")
        case ReconcileAction.RETRY:
            new = len(trials)
            trials[new] = trial(new, "WAITING", retry_of=number)
        case ReconcileAction.REFUSE:
            records.discard(number)
        case ReconcileAction.GIVE_UP | ReconcileAction.RECOVER:
            records.add(number)


@pytest.mark.parametrize(
    ("total", "recorded", "flight", "idle", "wanted"),
    [
        (10, 0, 0, 4, 4),
        (10, 8, 0, 4, 2),
        (10, 8, 1, 3, 1),
        (10, 8, 2, 2, 0),
        (10, 10, 0, 4, 0),
        (10, 0, 4, 0, 0),
        (10, 12, 0, 4, 0),
    ],
)
def test_never_more_than_idle_workers_or_budget(total: int, recorded: int, flight: int, idle: int, wanted: int) -> None:
    """Recorded plus in flight stays within the budget."""
    assert to_submit(total, recorded, flight, idle) == wanted


def test_no_trial_that_cannot_end_in_time() -> None:
    """By the longest trial seen; but a fresh worker always gets one, and no end known is no end."""
    assert time_for_another(61.0, 60.0, trials=3)
    assert not time_for_another(59.0, 60.0, trials=3)
    assert time_for_another(59.0, 60.0, trials=0)
    assert time_for_another(None, 1e9, trials=3)
    assert time_for_another(0.1, 0.0, trials=3), "nothing seen yet"


def test_an_attempt_that_got_further_does_not_count() -> None:
    """A trial longer than the walltime goes on from job to job; one that makes no progress is given up."""
    third = trial(8, losses=3, resumed=20, first=2)
    assert actions(third, progress=lambda first: {2: 25}[first]) == [
        (ReconcileAction.CLOSE, 8),
        (ReconcileAction.RETRY, 8),
    ]
    assert actions(third, progress=lambda first: 20) == [(ReconcileAction.CLOSE, 8), (ReconcileAction.GIVE_UP, 8)]


def test_spent_losses_are_passed_on() -> None:
    """The retry knows how many losses count."""
    (_, retry) = steps([trial(1, losses=1)], store=STORE, recorded=(), retries=3)
    assert retry.trial.spent == 2
    (_, retry) = steps([trial(1, losses=1)], store=STORE, recorded=(), retries=3, progress=lambda first: 5)
    assert retry.trial.spent == 1


def test_time_left_counts_running_shares() -> None:
    """Two of ten in 20 s, two more half done: 3 trials' work in 20 s, 7 to go."""
    assert time_left(20.0, 2, 10, [0.5, 0.5]) == pytest.approx(7 * 20 / 3)
    assert time_left(20.0, 0, 10, [0.5]) is None


def test_lease_round_trip() -> None:
    """What a worker signs is what the driver reads."""
    attrs = {
        "lease": lease("s", "t", "w", "h", "j"),
        "attempt": 2,
        "losses": 1,
        "retry_of": 5,
        "reason": "lost",
    }
    read = begun_from_attrs(7, "FAIL", {"x": 1}, attrs)
    assert (read.store, read.task, read.attempt, read.losses, read.retry_of, read.reason) == (
        "s",
        "t",
        2,
        1,
        5,
        "lost",
    )


def test_a_checkpoint_that_is_of_no_use_is_no_progress() -> None:
    """A worker that dies before it can say where it went on: what lay there before its attempt is not its doing."""
    study = optuna.create_study()
    book = OptunaStudy(study, STORE, cast(Any, None))
    study.enqueue_trial({"x": 0.5}, user_attrs={"store": STORE})
    for losses in range(3):
        study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
        (todo,) = (
            step
            for step in steps(book.begun(), store=STORE, recorded=[], retries=1, progress=lambda first: 7)
            if step.action is not ReconcileAction.CLOSE
        )
        book.close(todo.trial, Reason.LOST)
        assert todo.trial.spent == losses
        if todo.action is ReconcileAction.GIVE_UP:
            break
        book.retry(todo.trial)
    assert losses == 2, "the first attempt may have left it, the others did not"


def test_what_a_trial_was_while_it_ran_is_not_kept() -> None:
    """The driver looks at running trials every second; of one that ended it has what the storage has, no more."""
    study = optuna.create_study()
    book = OptunaStudy(study, STORE, cast(Any, SimpleNamespace(space={})))
    trial = study.ask(fixed_distributions={"x": optuna.distributions.FloatDistribution(0, 1)})
    trial.set_user_attr("store", STORE)
    assert [running.number for running in book.running(datetime.now())] == [0]  # noqa: DTZ005 - as Optuna's are
    as_it_ran = weakref.ref(study.get_trials(deepcopy=False)[0])
    study.tell(trial, 1.0)
    gc.collect()
    assert as_it_ran() is None
