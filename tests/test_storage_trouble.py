"""A storage that is gone is told apart from one that was asked for nonsense, however Optuna puts it."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages import InMemoryStorage

from ptydask.storage import urls


class _Gone(InMemoryStorage):
    """Answers until a trial is to be closed."""

    def set_trial_state_values(self, *_args: Any, **_kwargs: Any) -> bool:
        raise StorageInternalError("the server closed the connection")


def test_trouble_is_seen_behind_what_optuna_raises_over_it() -> None:
    study = optuna.create_study(storage=_Gone())
    with pytest.raises(Exception) as caught:  # noqa: PT011 - of whatever kind: Optuna 5.0 raises UnboundLocalError
        study.optimize(lambda _trial: 1.0, n_trials=1)
    assert urls.is_trouble(caught.value)


@pytest.mark.parametrize("error", [OSError("disk"), TimeoutError("slow"), StorageInternalError("down")])
def test_trouble(error: Exception) -> None:
    assert urls.is_trouble(error)


@pytest.mark.parametrize("error", [ValueError("nonsense"), UnboundLocalError("x"), None])
def test_no_trouble(error: Exception | None) -> None:
    assert not urls.is_trouble(error)
