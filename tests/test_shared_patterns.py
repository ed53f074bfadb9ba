"""Sessions of one machine that need the same patterns have one copy of them, and results as from their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_cases import NEVER, SLOT, VARIANTS, assert_same, go_on, params, plan, trial, write_patterns
from test_shared_copy import memory_of, own_copies

from ptydask.engines.ptyrad import loading_place, measurements, release
from ptydask.engines.ptyrad.session import PtyradSession
from ptydask.errors import DataError
from ptydask.model import HeldOut, StudyPlan, TrialInput

pytestmark = [pytest.mark.ptyrad, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    release.installed()
    return write_patterns(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def share_all(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """However small; and none is left."""
    monkeypatch.setattr(loading_place, "SHARED_FROM", 0)
    yield
    assert own_copies() == []


class Sessions:
    """Sessions of this process, as several workers have them; counts how often the data are read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read, self.opened = 0, list[PtyradSession]()
        read_patterns = measurements._read_patterns

        def counting(*arguments: Any) -> Any:
            self.read += 1
            return read_patterns(*arguments)

        monkeypatch.setattr(measurements, "_read_patterns", counting)

    def open(self, study: StudyPlan) -> Any:
        self.opened.append(PtyradSession(study, SLOT))
        return self.opened[-1]


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sessions]:
    sessions = Sessions(monkeypatch)
    yield sessions
    for session in sessions.opened:
        session.close()


PROCESSED: dict[str, tuple[Mapping[str, Any], HeldOut | None]] = {
    **{
        name: (VARIANTS[name], None)
        for name in (
            "as PtyRAD's defaults",
            "cropped patterns",
            "padded on the fly",
            "Poisson noise",
            "patterns stay on the host",
        )
    },
    "turned": ({"init_params.meas_flipT": [1, 0, 1]}, None),
    "resampled": ({"init_params.meas_resample": {"mode": "precompute", "scale_factors": [0.5, 0.5]}}, None),
    "electrons held out": ({}, HeldOut("counts", 0.1)),
    "electrons held out, on the host": ({"model_params.preload_data": False}, HeldOut("counts", 0.1)),
}


@pytest.mark.parametrize("processed", PROCESSED.values(), ids=PROCESSED)
def test_results_are_those_of_an_own_copy(
    data: Path, processed: Any, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the session that made the copy, and of one that found it; and no trial has written into it."""
    changes, held_out = processed
    study = plan(params(data, changes), held_out=held_out)
    with monkeypatch.context() as patch:
        patch.setattr(loading_place, "SHARED_FROM", 2**62)
        expected = sessions.open(study).run(trial(), go_on, NEVER)
    assert own_copies() == []
    for _ in range(2):
        session = sessions.open(study)
        assert_same(session.run(trial(), go_on, NEVER), expected)
        assert memory_of(session._measurements.variables["measurements"])["Anonymous"] == 0
    assert sessions.read == 2


def test_it_goes_with_the_last_session(data: Path, sessions: Sessions) -> None:
    """Closed, or taken over by the next study in its process."""
    study = plan(params(data))
    first, second = sessions.open(study), sessions.open(study)
    first.close()
    assert own_copies()
    other = plan(params(data), name="other")
    second.close_for(other)
    third = sessions.open(other)
    assert sessions.read == 1
    third.close()
    assert own_copies() == []


OTHERS: dict[str, Mapping[str, Any]] = {
    "cropped": {"init_params.meas_crop": [None, None, [4, 28], [4, 28]]},
    "in other units": {"init_params.meas_normalization": {"mode": "mean_at_one"}},
    "turned": {"init_params.meas_flipT": [1, 0, 0]},
    "noisy": VARIANTS["Poisson noise"],
}


@pytest.mark.parametrize("changes", OTHERS.values(), ids=OTHERS)
def test_patterns_processed_otherwise_are_others(data: Path, changes: Any, sessions: Sessions) -> None:
    sessions.open(plan(params(data)))
    sessions.open(plan(params(data, changes)))
    assert sessions.read == 2


def test_data_that_were_replaced_are_others(tmp_path: Path, sessions: Sessions) -> None:
    """Under the same name, and of the same size."""
    path = write_patterns(tmp_path)
    first = sessions.open(plan(params(path)))
    patterns = np.load(path)
    np.save(path, patterns[::-1])
    second = sessions.open(plan(params(path)))
    assert sessions.read == 2
    a, b = (session._measurements.variables["measurements"] for session in (first, second))
    np.testing.assert_array_equal(a, b[::-1])


def test_patterns_of_one_trial_alone_are_not_shared(data: Path, sessions: Sessions) -> None:
    """Noise that each seed draws anew; the study's own are found again afterwards, where another session has them."""
    study = plan(params(data, VARIANTS["Poisson noise"]))
    first, second = sessions.open(study), sessions.open(study)
    names = {file.name for file in own_copies()}
    second.run(TrialInput(1, {}, 8), go_on, NEVER)
    assert {file.name for file in own_copies()} < names
    assert sessions.read == 2
    second.run(trial(), go_on, NEVER)
    assert sessions.read == 2
    assert second._measurements.key == first._measurements.key


def test_small_patterns_and_those_that_a_gpu_has_are_not_shared(
    data: Path, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions.open(plan(params(data)))
    assert own_copies()
    sessions.opened[0].close()
    copied = list[str]()
    monkeypatch.setattr(measurements, "_copy_to_device", lambda patterns, device: copied.append(device) or _meta())
    measurements.load(params(data), 7, "cuda", None, contents="these")
    assert copied == ["cuda"]
    assert own_copies() == []
    monkeypatch.undo()
    sessions.open(plan(params(data)))
    assert own_copies() == []


def _meta() -> Any:
    import torch

    return torch.empty(64, 32, 32, device="meta")


def test_data_that_cannot_be_used_are_refused_alike(tmp_path: Path, sessions: Sessions) -> None:
    path = write_patterns(tmp_path)
    patterns = np.load(path)
    patterns[3, 4, 5] = np.nan
    np.save(path, patterns)
    study = plan(params(path))
    for _ in range(2):
        with pytest.raises(DataError, match="finite") as caught:
            sessions.open(study)
        assert caught.value.key == "init_params.meas_params.path"
    path.unlink()
    with pytest.raises(DataError):
        sessions.open(study)
