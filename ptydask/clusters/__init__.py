"""Places to run. A cluster is one module and one entry point in ``ptydask.clusters``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from ptydask import registry

if TYPE_CHECKING:
    from distributed import Client


@dataclass(frozen=True, slots=True)
class ClusterRequest:
    """What the command line asks of a cluster."""

    workers: int


class Cluster(Protocol):
    """Workers, one trial at a time each."""

    client: Client

    def describe(self) -> str:
        """One line for the plan that is printed before the start: what runs where."""

    def stop_workers(self) -> None:
        """End all workers now, in the middle of whatever they do; the scheduler goes on answering."""


OpenCluster = Callable[[ClusterRequest], AbstractContextManager[Cluster]]


def get(name: str) -> OpenCluster:
    """The cluster registered as ``name``. Raises UsageError where there is none."""
    return cast(OpenCluster, registry.load("clusters", name))
