"""Studies of a queue, those before them, and the view of all."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from store_cases import packed, record

from ptydask import config
from ptydask.config import Overrides
from ptydask.driver.conduct import prepare
from ptydask.driver.prepare import RunRequest
from ptydask.driver.succession import QueuedStudy
from ptydask.progress.view import LogView
from ptydask.run_snapshot import RunSnapshot

SNAPSHOT = RunSnapshot(
    "gold", Path("gold.h5"), 6, {"complete": 2, "running": 1}, None, (), 2, 3.0, None, 3, "loss", "minimize"
)


class Told(LogView):
    """A log, and the snapshots that it was given."""

    def __init__(self) -> None:
        self.stream, self.shown = io.StringIO(), list[RunSnapshot]()
        super().__init__(self.stream, lambda: 0.0)

    def update(self, snapshot: RunSnapshot) -> None:
        self.shown.append(snapshot)


def queued(params: Path, **changes: Any) -> QueuedStudy:
    request = RunRequest(params, Overrides(engine="toy"), cluster="local", workers=1, **changes)
    file = config.read(params)
    return QueuedStudy(request, file, prepare(request, file))


def before(path: Path, *rotations: float, **toy: object) -> Path:
    """A study whose trials had these rotations, the best first."""
    path.parent.mkdir(exist_ok=True)
    points = [{"scale": 1.0, "rotation": rotation} for rotation in rotations]
    records = [record(number, 0.1 * (number + 1), params=point) for number, point in enumerate(points)]
    return packed(path, records, engine="toy", config_json=json.dumps({"init_params": toy}))
