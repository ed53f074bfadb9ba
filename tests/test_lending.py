"""Which study of a queue has which worker: pure decisions."""

from __future__ import annotations

import pytest

from ptydask.driver.lending import allot_workers, workers_to_give_up
from ptydask.driver.queue import combine_exit_codes


@pytest.mark.parametrize(
    ("connected", "owners", "unfinished", "expected"),
    [
        ("ab", {}, {0: 5}, {"a": 0, "b": 0}),
        ("abc", {}, {0: 2}, {"a": 0, "b": 0}),
        ("abc", {}, {0: 2, 1: 5}, {"a": 0, "b": 0, "c": 1}),
        ("abc", {"c": 1}, {0: 1, 1: 5}, {"a": 0, "b": 1, "c": 1}),
        ("b", {"a": 0, "b": 1}, {0: 1, 1: 1}, {"b": 1}),
        ("a", {"a": 0}, {1: 1}, {"a": 1}),
        ("a", {}, {}, {}),
        ("a", {}, {0: 0}, {}),
    ],
)
def test_a_free_worker_goes_to_the_first_study_with_a_trial_for_it(
    connected: str, owners: dict[str, int], unfinished: dict[int, int], expected: dict[str, int]
) -> None:
    """Workers that have a study stay with it; those that are gone, or whose study is over, do not."""
    assert allot_workers(connected, owners, unfinished) == expected


@pytest.mark.parametrize(
    ("study", "busy", "owners", "unfinished", "expected"),
    [
        (0, "ab", {"a": 0, "b": 0}, {0: 5}, ""),
        (0, "a", {"a": 0, "b": 0}, {0: 1}, "b"),
        (0, "", {"a": 0, "b": 0}, {0: 1}, "a"),
        (0, "ab", {"a": 0, "b": 0}, {0: 1}, ""),  # it ends early, and its trials under way end by themselves
        (0, "", {"a": 0, "b": 0}, {0: 0}, "ab"),
        (1, "b", {"a": 0, "b": 1}, {0: 2, 1: 9}, "b"),  # the earlier study has lost a trial
        (1, "b", {"b": 1, "c": 1}, {0: 1, 1: 9}, "c"),
        (0, "a", {"a": 0, "b": 1}, {0: 1, 1: 9}, ""),  # a later one lacks workers, which is no reason
    ],
)
def test_what_a_study_gives_up(
    study: int, busy: str, owners: dict[str, int], unfinished: dict[int, int], expected: str
) -> None:
    """Idle workers without a trial, and as many as earlier studies lack, idle ones first."""
    assert workers_to_give_up(study, busy, owners, unfinished) == list(expected)


@pytest.mark.parametrize(
    ("connected", "owners", "unfinished", "expected"),
    [
        ("ab", {}, {0: 5, 1: 5}, {"a": 1, "b": 0}),
        ("ab", {"a": 1}, {0: 5, 1: 5}, {"a": 1, "b": 0}),
        ("a", {}, {0: 5}, {}),  # it is spare: the next study is opened for it
    ],
)
def test_a_worker_that_could_not_get_ready_goes_to_another_study(
    connected: str, owners: dict[str, int], unfinished: dict[int, int], expected: dict[str, int]
) -> None:
    """That study does not give it up again for the one which has refused it."""
    refused = {0: "a"}
    assert allot_workers(connected, owners, unfinished, refused) == expected
    assert "a" not in workers_to_give_up(1, "", expected, unfinished, refused)


@pytest.mark.parametrize(
    ("codes", "code"), [([0, 0], 0), ([0, 3], 3), ([3, 75, 0], 75), ([75, 1, 2], 1), ([3, 2, 75], 2), ([], 0)]
)
def test_one_exit_code(codes: list[int], code: int) -> None:
    """A study that failed, then one that is not complete, then trials that failed."""
    assert combine_exit_codes(codes) == code
