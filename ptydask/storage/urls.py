"""What a storage URL asks for, and connections to it.

==============================  ===============================================================
absent, ``journal:///PATH``     the journal file, served over the Dask connection
``sqlite:///PATH``              the same, and the driver keeps the SQLite study in step (mirror)
``postgresql://``, ``mysql://`` workers talk to the server, with Optuna's heartbeat
``redis://``                    workers talk to the server through Optuna's JournalRedisBackend
==============================  ===============================================================
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ptydask.errors import (
    ConfigError,
    StorageError,
    hide_password,
    mask_userinfo,
    nearest_hint,
    one_line,
    redact,
    require,
)
from ptydask.model import path_beside

if TYPE_CHECKING:
    from distributed import Client
    from optuna.storages import BaseStorage

Kind = Literal["journal", "server", "redis"]
_SERVERS = {
    "postgresql": ("psycopg", "postgres"),
    "mysql": ("pymysql", "mysql"),
    "redis": ("redis", "redis"),
    "rediss": ("redis", "redis"),
}
_DRIVERS = ("sqlalchemy", "psycopg", "pymysql", "redis")
_KNOWN = ("journal", "sqlite", *_SERVERS)
HEARTBEAT = 60
"""Seconds between signs of life that RUNNING trials leave in a database server."""


@dataclass(frozen=True, slots=True)
class StorageSpec:
    """Where the trials of a study are agreed on. Its repr, and so any log of it, shows no password."""

    kind: Kind
    journal: Path | None = None
    mirror: str | None = None
    """The SQLite URL that the driver keeps in step."""
    url: str = field(default="", repr=False)

    @property
    def shown(self) -> str:
        """For messages: the place, no password."""
        return redact(self.mirror or self.url) or f"journal://{self.journal}"


def parse(url: str | None, results: Path) -> StorageSpec:
    """What ``url`` asks for; the journal lies beside ``results`` unless the URL says where.

    Raises ConfigError for a URL that no storage understands, MissingDependency for an absent driver package.
    """
    journal = path_beside(results, ".journal")
    if url is None:
        return StorageSpec("journal", journal)
    hide_password(url)
    scheme, _, rest = url.partition("://")
    base = scheme.partition("+")[0]
    if not rest or base not in _KNOWN:
        hint = f"use one of {', '.join(f'{name}://' for name in _KNOWN)}"
        if base and base not in _KNOWN:
            hint = nearest_hint(base, _KNOWN) or hint
        raise ConfigError(
            "not a storage URL of the form scheme://...",
            key="hypertune_params.storage_path",
            value=mask_userinfo(url),
            hint=hint,
        )
    if base == "journal":
        return StorageSpec("journal", Path(rest.removeprefix("/")) if rest.startswith("/") else Path(rest))
    if base == "sqlite":
        return StorageSpec("journal", journal, mirror=url)
    module, extra = _SERVERS[base]
    require(module, f"{base}:// needs", extra)
    if base.startswith("redis"):
        return StorageSpec("redis", url=url)
    # SQLAlchemy reads ``postgresql://`` as psycopg2: the driver that the extra installs is named.
    driver_url = url if "+" in scheme else url.replace(scheme, f"{scheme}+{module}", 1)
    return StorageSpec("server", url=driver_url)


def connect(spec: StorageSpec, client: Client | None = None) -> BaseStorage:
    """The storage as a worker's task sees it, or (``client`` given) as the driver beside a running cluster.

    Raises StorageError, without the password, where a server does not answer.
    """
    hide_password(spec.url)
    from optuna.storages import JournalStorage, RDBStorage

    if spec.kind == "journal":
        from ptydask.storage.study_journal import StudyJournal
        from ptydask.storage.transport import DaskBackend

        assert spec.journal is not None
        storage = StudyJournal(DaskBackend(spec.journal, client))
        if client is not None:
            storage.save_snapshot()  # of a study that goes on: its workers need not replay all of it, too
        return storage
    try:
        if spec.kind == "redis":
            from optuna.storages.journal import JournalRedisBackend

            return JournalStorage(JournalRedisBackend(spec.url))
        return RDBStorage(spec.url, heartbeat_interval=HEARTBEAT, engine_kwargs={"pool_pre_ping": True})
    except Exception as error:  # every database driver raises its own kind
        raise StorageError(f"{spec.shown}: {one_line(redact(str(error)))[:300]}") from None


def is_trouble(error: BaseException | None) -> bool:
    """Whether an exception says that a storage cannot be reached, rather than that it was asked for nonsense.

    So does one that was raised while such an exception was handled: Optuna may trip over its own clearing up.
    """
    from optuna.exceptions import StorageInternalError

    kinds = (OSError, StorageError, StorageInternalError)
    while error is not None:
        if isinstance(error, kinds) or type(error).__module__.partition(".")[0] in _DRIVERS:
            return True
        error = error.__cause__ or error.__context__
    return False


def disconnect(storage: BaseStorage) -> None:
    """Let go of a server's connections; a journal's are the Dask client's."""
    engine = getattr(storage, "engine", None)
    if engine is not None:
        storage.remove_session()
        engine.dispose()
