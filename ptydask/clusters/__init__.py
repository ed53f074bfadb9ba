"""Places to run. A cluster is one module and one entry point in ``ptydask.clusters``."""

from __future__ import annotations

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

    def stop_workers(self) -> None:
        """End all workers now, in the middle of whatever they do; the scheduler goes on answering."""


class Place(Protocol):
    """A kind of place to run."""

    def default_workers(self) -> int:
        """How many workers there are where nobody says."""

    def describe(self, request: ClusterRequest) -> str:
        """One line for the plan that is printed before the start: what runs where. Starts nothing."""

    def open(self, request: ClusterRequest) -> AbstractContextManager[Cluster]:
        """Start the workers. Raises ClusterError where they do not come up."""


def get(name: str) -> Place:
    """The place registered as ``name``; ``auto`` is this machine. Raises UsageError where there is none."""
    return cast(Place, registry.load("clusters", "local" if name == "auto" else name)())
