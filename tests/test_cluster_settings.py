"""What Dask is told for trials: how often workers give a sign of life, how promptly the driver answers them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from ptydask.clusters.settings import HEARTBEATS, LEAST_INTERVAL, SETTINGS, heartbeat_interval, space_heartbeats


@pytest.mark.parametrize("workers", [0, 1, 10, 200, 201, 5000])
def test_heartbeats_do_not_grow_with_the_workers(workers: int) -> None:
    """Seldom from each, and few of all together; far more often than Dask takes a worker for dead."""
    interval = heartbeat_interval(workers)
    assert interval >= LEAST_INTERVAL
    assert workers / interval <= HEARTBEATS
    ttl, unit = str(SETTINGS["distributed.scheduler.worker-ttl"]).split()
    assert unit == "minutes"
    assert interval < float(ttl) * 60 / 3


@pytest.mark.parametrize("answer", [{"status": "OK", "heartbeat-interval": 0.5}, {"status": "missing"}])
def test_a_worker_is_told_when_its_next_heartbeat_is_due(answer: dict[str, Any]) -> None:
    """In place of Dask's own interval; whatever else the scheduler answers stays."""
    scheduler = SimpleNamespace(workers=range(400), handlers={"heartbeat_worker": lambda address: dict(answer)})
    space_heartbeats(cast(Any, scheduler))
    told = scheduler.handlers["heartbeat_worker"](address="tls://w")
    assert told["status"] == answer["status"]
    assert told.get("heartbeat-interval") == (heartbeat_interval(400) if "heartbeat-interval" in answer else None)
