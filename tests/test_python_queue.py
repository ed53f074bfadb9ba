"""``ptydask.run`` with several files."""

from __future__ import annotations

import inspect
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ptydask
from ptydask.errors import ConfigError, DataError, StudiesFailed, UsageError
from ptydask.python_arguments import RunArguments
from ptydask.store import reader

Params = Callable[..., Path]
HERE: dict[str, Any] = {"engine": "toy", "workers": 1, "cluster": "local", "progress": False}


def test_what_type_checkers_know_are_all_arguments() -> None:
    """The overloads have the arguments of the function itself."""
    names = set(inspect.signature(ptydask.run).parameters)
    assert names == {*RunArguments.__annotations__, "config", "independent"}


@pytest.mark.slow
def test_their_results_in_order(toy_params: Params) -> None:
    """A list, also of one file; called again it only opens them."""
    files = [toy_params(name=name) for name in ("b", "a")]
    for trials in (2, 2):
        studies = ptydask.run(files, trials=trials, **HERE)
        assert [(study.path.stem, len(study)) for study in studies] == [("b", 2), ("a", 2)]
    with reader.open(studies[1].path) as results:
        assert results.records()[0].origin.startswith("from b.h5")
    assert len(ptydask.run([str(files[0])], trials=2, **HERE)) == 1


@pytest.mark.slow
def test_what_failed_is_raised_once_all_are_over(toy_params: Params, tmp_path: Path) -> None:
    """The others are complete; each error is there by its file."""
    bad, alike = toy_params(name="bad", bad_data=True), toy_params(name="alike", fail=9)
    with pytest.raises(StudiesFailed, match="2 of 3 studies failed") as raised:
        ptydask.run([bad, alike, toy_params(name="good")], trials=4, independent=True, **HERE)
    errors = raised.value.errors
    assert list(errors) == [bad, alike]
    assert isinstance(errors[bad], DataError)
    assert "failed alike" in str(errors[alike])
    with reader.open(tmp_path / "out" / "good.h5") as results:
        assert len(results.records()) == 4


@pytest.mark.slow
def test_an_interrupt_is_raised_as_of_one_study(toy_params: Params, tmp_path: Path) -> None:
    """The same call goes on."""
    files = [toy_params(name="first", sleep=0.3), toy_params(name="second", sleep=0.1)]

    def interrupt() -> None:
        while not list((tmp_path / "out").glob("first.trials/0*.h5")):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        ptydask.run(files, trials=4, **HERE)
    assert [len(study) for study in ptydask.run(files, trials=4, **HERE)] == [4, 4]


@pytest.mark.parametrize(
    ("files", "more", "error"),
    [
        ([], {}, ConfigError),
        (["a.yaml", 3], {}, ConfigError),
        (["a.yaml", "a.yaml"], {"results": "x.h5"}, UsageError),
        (["toy.yaml", "gone.yaml"], {}, ConfigError),
        (["toy.yaml", "toy.yaml"], {}, ConfigError),
        (["toy.yaml"], {"guess": "all"}, ConfigError),
    ],
)
def test_what_is_refused_starts_nothing(
    files: list[Any],
    more: dict[str, Any],
    error: type[Exception],
    toy_params: Params,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    toy_params()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error):
        ptydask.run(files, **HERE, **more)
    assert not (tmp_path / "out").exists()
