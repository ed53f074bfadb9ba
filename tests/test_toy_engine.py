"""The engine of the tests itself: it goes on from a checkpoint, and shows where that went wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from engine_cases import NEVER, SLOT, Never, go_on, plan, trial

from ptydask import registry
from ptydask.model import TrialOutput
from ptydask.trial import eviction
from ptydask.trial.eviction import Evicted


class Leaves(Never):
    """Keeps what is saved and has the trial end there."""

    state: bytes | None = None

    def load(self) -> bytes | None:
        return self.state

    def due(self) -> bool:
        return True

    def save(self, step: int, state: bytes) -> None:
        self.state = state
        raise Evicted


def session(**toy: Any) -> Any:
    engine = registry.load("engines", "toy")()
    return engine.open(engine.validate(plan({"init_params": {"walk": True, "iterations": 4} | toy})), SLOT)


def walk(output: TrialOutput) -> Any:
    return output.arrays["walk"].data


def test_a_resumed_toy_goes_the_same_way() -> None:
    """Interrupted after every step, under another trial number, the walk is the same; with other values it is not."""
    expected = session().run(trial({"x": 2.0}), go_on, NEVER)
    shelf, attempts = Leaves(), 0
    while True:
        attempts += 1
        try:
            result = session().run(trial({"x": 2.0}, number=attempts), go_on, shelf)
            break
        except Evicted:
            continue
    assert attempts == 4
    assert walk(expected).shape == (4, 8)
    np.testing.assert_array_equal(walk(result), walk(expected))
    assert result.curve == expected.curve
    assert not np.array_equal(walk(session().run(trial({"x": 3.0}), go_on, NEVER)), walk(expected))


def test_a_toy_that_hears_nothing_saves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """``ignore_eviction``: told to go, the trial runs on to its end; before, it saves as any other does."""
    deaf = session(ignore_eviction=True)
    with pytest.raises(Evicted):
        deaf.run(trial(), go_on, Leaves())
    monkeypatch.setattr(eviction.asked, "is_set", lambda: True)
    assert len(walk(deaf.run(trial(), go_on, Leaves()))) == 4
    with pytest.raises(Evicted):
        session().run(trial(), go_on, Leaves())


def test_a_toy_writes_as_much_as_is_asked() -> None:
    """``array``: so many numbers, the same ones each time; without it and ``walk`` there is the object alone."""
    first, second = (session(array=1000).run(trial(), go_on, NEVER).arrays["noise"].data for _ in "ab")
    assert (first.shape, first.dtype) == ((1000,), np.float32)
    np.testing.assert_array_equal(first, second)
    assert list(session(walk=False).run(trial(), go_on, NEVER).arrays) == ["object_phase"]
