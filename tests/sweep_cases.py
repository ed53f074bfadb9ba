"""Studies of sweeps for the tests of what comes after a run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import store_cases

from ptydask.cli import main
from ptydask.model import Reason, StudyMeta, TrialOutput, TrialRecord, TrialState
from ptydask.store import Store

RUN = "wandb/offline-run-20250101_000000-abcd1234/files"
WEIGHTS = bytes(range(256)) * 400
METRIC = "val/SSIM (mean)"
CONFIG: dict[str, Any] = {
    "program": "ldctbench-train",
    "command": ["${program}", "${args_no_boolean_flags}"],
    "parameters": [
        {"name": "trainer", "path": ["trainer"], "value": "cnn10"},
        {"name": "lr", "path": ["lr"]},
        {"name": "net.layers", "path": ["net", "layers"], "labels": {"[64, 128]": [64, 128], "[32]": [32]}},
        {"name": "net.depth", "path": ["net", "depth"], "value": 3},
        {"name": "norm", "path": ["norm"]},
        {"name": "flip", "path": ["flip"]},
        {"name": "note", "path": ["note"], "value": "1e-5"},
    ],
    "directory": "/somewhere",
    "engine": {"objective": "last", "outputs": ["wandb/offline-run-*/files/**"]},
}
SPACE = {
    "lr": {"name": "FloatDistribution", "attributes": {"step": None, "low": 1e-05, "high": 0.01, "log": True}},
    "net.layers": {"name": "CategoricalDistribution", "attributes": {"choices": ["[64, 128]", "[32]"]}},
    "norm": {"name": "CategoricalDistribution", "attributes": {"choices": [None, "batch"]}},
    "flip": {"name": "CategoricalDistribution", "attributes": {"choices": [True, False]}},
}
COMMAND = "ldctbench-train --trainer=cnn10 --lr=0.001 --note='two words'"


def meta(name: str = "cnn10/hpopt", **changes: Any) -> StudyMeta:
    """A sweep that maximises a metric whose name is no simple word."""
    said: dict[str, Any] = {
        "direction": "maximize",
        "metric": METRIC,
        "engine": "command",
        "config_text": "program: ldctbench-train\n",
        "config_format": "sweep",
        "config_json": json.dumps(CONFIG),
        "search_space_json": json.dumps(SPACE),
    }
    return store_cases.meta(name, **(said | changes))


def record(number: int, **changes: Any) -> TrialRecord:
    """A completed trial; the higher its number, the better it is."""
    error = 0.5 + 0.05 * number
    said: dict[str, Any] = {
        "params": {
            "lr": 1.584e-4 * (number + 1),
            "net.layers": "[64, 128]" if number % 2 else "[32]",
            "norm": None if number % 2 else "batch",
            "flip": bool(number % 2),
        },
        "metrics": {METRIC: error, f"{METRIC} (best)": error, "PSNR": 25.0 + number, "loss (train)": 0.1},
        "seed": number,
    }
    return store_cases.record(number, **({"error": error} | said | changes))


def failed(number: int) -> TrialRecord:
    """A trial whose program exited 1."""
    return replace(
        record(number),
        state=TrialState.FAIL,
        reason=Reason.FAILED,
        error=None,
        metrics={},
        message="ldctbench-train exited 1 after 12 s: ZeroDivisionError: float division by zero",
        traceback="the end of its log\n",
    )


def artifacts() -> dict[str, bytes]:
    """What ldctbench-train leaves, and the history."""
    return {
        f"{RUN}/args.yaml": b"trainer: cnn10\n",
        f"{RUN}/best_SSIM.pt": WEIGHTS,
        f"{RUN}/media/images/a b.png": b"\x89PNG",
        f"{RUN}/empty.csv": b"",
        "history.jsonl": b'{"step": 1}\n',
    }


def output(number: int, **changes: Any) -> TrialOutput:
    """What the engine gives back of such a trial."""
    said: dict[str, Any] = {
        "metrics": record(number).metrics,
        "curve": {"step": [0, 1000, 2000], METRIC: [0.3, 0.4, 0.5 + 0.05 * number], "PSNR": [20.0, 22.0, 25.0]},
        "log": "".join(f"line {i}\n" for i in range(30)),
        "command": COMMAND,
        "artifacts": artifacts(),
        "left_out": ("core.dump: larger than what is left of engine.outputs_limit",),
    }
    return TrialOutput(**(said | changes))


def packed(path: Path, trials: int = 4, **changes: Any) -> Path:
    """A finished sweep: complete trials, and a failed one last."""
    store = Store.open(path, meta(**changes))
    for number in range(trials):
        store_cases.put(store, record(number), output(number), store.meta.keep)
    store_cases.put(store, failed(trials), output(trials, metrics={}, curve={}, artifacts={}), store.meta.keep)
    return store.finish()


def said(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    code = main([str(arg) for arg in args])
    out, err = capsys.readouterr()
    return code, out, err
