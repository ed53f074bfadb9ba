"""Sweep files for tests: a small one that is right, with whatever a test puts in its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ptydask import config, errors
from ptydask.config import Overrides
from ptydask.model import StudyPlan

LR = {"lr": {"min": 0.0, "max": 1.0}}
_NONE = Overrides()


def made(folder: Path, parameters: Any = LR, overrides: Overrides = _NONE, **top: Any) -> StudyPlan:
    """The plan of a random sweep of train.py with these keys; one that is ``...`` is left out."""
    given = {"method": "random", "metric": {"name": "loss"}, "program": "train.py", "run_cap": 4, **top}
    given["parameters"] = parameters
    path = folder / "study.json"
    path.write_text(json.dumps({key: value for key, value in given.items() if value is not ...}))
    return config.load(path, overrides)


def refusal(folder: Path, *args: Any, **top: Any) -> str:
    """The one line with which such a sweep is refused, without the file's name, which it starts with."""
    with pytest.raises(errors.ConfigError) as caught:
        made(folder, *args, **top)
    text = str(caught.value)
    assert "\n" not in text
    file, _, rest = text.partition("study.json: ")
    assert file == f"{folder}/"
    return rest
