"""What Dask is told for trials: how often workers give a sign of life, how promptly the driver answers them."""

from __future__ import annotations

import resource
from types import SimpleNamespace
from typing import Any, cast

import dask
import pytest
from distributed.batched import BatchedSend

from ptydask.clusters.settings import (
    HEARTBEATS,
    LEAST_INTERVAL,
    SETTINGS,
    check_open_files,
    heartbeat_interval,
    many_open_files,
    space_heartbeats,
)
from ptydask.errors import ClusterError


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


def test_dask_keeps_few_messages_of_each_worker() -> None:
    """They hold whole tasks: with Dask's own thousand of each worker the driver would grow with every trial."""
    with dask.config.set(SETTINGS):
        assert BatchedSend(interval="1ms").recent_message_log.maxlen == 10


def test_the_driver_may_open_more_files_than_a_shell_allows() -> None:
    """While workers are with it; then the limit is what it was, also where two runs overlap."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = min(512, before[0])
    resource.setrlimit(resource.RLIMIT_NOFILE, (low, before[1]))
    try:
        with many_open_files(), many_open_files():
            assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= min(before[1], 1 << 16)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (low, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("limit", [256, 1024, 4096])
def test_workers_beyond_the_limit_of_open_files_are_refused(limit: int) -> None:
    """With the limit, and how many there may be; those may be. Without a limit all may."""
    with pytest.raises(ClusterError, match=rf"may have {limit} \(ulimit -n\)") as refused:
        check_open_files(5000, limit)
    fitting = int(str(refused.value).split("enough for ")[1].split(";")[0])
    check_open_files(fitting, limit)
    with pytest.raises(ClusterError):
        check_open_files(fitting + 1, limit)
    check_open_files(5000, resource.RLIM_INFINITY)
