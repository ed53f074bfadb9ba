"""optuna-dashboard on a results file; of a running study, new trials appear as they end."""

from __future__ import annotations

import socket
import threading
import warnings
from contextlib import suppress
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from ptydask.analysis.data import Curve, StudyData
from ptydask.analysis.rehydrate import create_empty_study, frozen_trials
from ptydask.analysis.stages import open_tuned
from ptydask.errors import PtydaskError, StoreError, UsageError, require
from ptydask.store.reader import Results

EVERY = 3.0
"""Seconds between two looks at a running study."""


class ResultsFollower:
    """An Optuna storage that keeps up with a results file. Nothing ever goes back into the file.

    :meth:`update` is for one thread; others may read ``storage`` meanwhile.
    """

    def __init__(self, path: Path, stage: str = "") -> None:
        """Of a study with stages: of the ``stage``, or of the last that tuned something. Raises StoreError."""
        self.path, self.stage = path, stage
        self.storage: BaseStorage = InMemoryStorage()
        self._curves: dict[int, Curve] = {}
        self._study, self._id = -1, ""
        self.live = True
        """Whether more may come."""
        self.update()

    def update(self) -> int:
        """Take in what is new; returns how many trials are recorded by now. Raises StoreError."""
        with open_tuned(self.path, self.stage) as results:
            live = results.live  # asked first: what is recorded when no driver has it is all there is
            self._forget_other(results.id)
            data = self._read_study(results)
        if self._study < 0:
            create_empty_study(data.meta, self.storage)
            self._study = self.storage.get_study_id_from_name(data.meta.name)
        self._update_trials(frozen_trials(data, gaps=TrialState.RUNNING if live else TrialState.FAIL))
        self.live = live
        return len(data.records)

    def _forget_other(self, study_id: str) -> None:
        """Another study may lie under the name by now: its trials must not be taken for those of the first."""
        if self._study >= 0 and study_id != self._id:
            self.storage.delete_study(self._study)
            self._study = -1
            self._curves.clear()
        self._id = study_id

    def _read_study(self, results: Results) -> StudyData:
        records = tuple(results.records())
        if self._study < 0:
            self._curves.update(results.curves())
        for record in records:
            if record.number not in self._curves:
                with suppress(StoreError):
                    self._curves[record.number] = results.curve(record.number)
        return StudyData(results.meta, records, self._curves)

    def _update_trials(self, trials: list[FrozenTrial]) -> None:
        held = self.storage.get_all_trials(self._study, deepcopy=False)
        for trial in trials[len(held) :]:
            self.storage.create_new_trial(self._study, template_trial=trial)
        for old, new in zip(held, trials, strict=False):
            if old.state.is_finished():
                if old.distributions != new.distributions:
                    old.distributions = new.distributions
            elif new.state.is_finished():
                self._finish_trial(old._trial_id, new)

    def _finish_trial(self, trial_id: int, ended: FrozenTrial) -> None:
        """A trial that was under way has ended. The storage gives out its own objects, not copies."""
        held = self.storage.get_trial(trial_id)
        held.params, held.distributions = ended.params, ended.distributions
        held.user_attrs, held.intermediate_values = ended.user_attrs, ended.intermediate_values
        held.datetime_start = ended.datetime_start
        self.storage.set_trial_state_values(trial_id, ended.state, ended.values)
        self.storage.get_trial(trial_id).datetime_complete = ended.datetime_complete


class DashboardServer:
    """A web server for one results file. :meth:`run` serves until it is interrupted."""

    def __init__(self, path: Path, host: str, port: int | None, stage: str = "") -> None:
        """Bind to ``port``, 0 for a free one; None is 8080, or a free one where that is taken.

        Raises StoreError, MissingDependency, and UsageError for a host or port that cannot be had.
        """
        wsgi = _import_wsgi()
        self.follower = ResultsFollower(path, stage)
        app = wsgi(self.follower.storage)
        try:
            self._server = _bind_server(host, 8080 if port is None else port, app)
        except OSError as error:
            if port is not None:
                raise UsageError(f"{host} port {port}: {error.strerror or error}; --port 0 takes a free one") from None
            self._server = _bind_free_port(host, app)
        address = f"[{host}]" if ":" in host else host
        self.port: int = self._server.server_port
        self.url = f"http://{address}:{self.port}/dashboard/"
        self._stop = threading.Event()

    def run(self, every: float = EVERY) -> None:
        """Serve, and follow the file, until KeyboardInterrupt or :meth:`stop`."""
        following = threading.Thread(target=self._follow_results, args=(every,), daemon=True)
        following.start()
        try:
            self._server.serve_forever(poll_interval=0.2)
        finally:
            self._stop.set()
            self._server.server_close()
            following.join(timeout=10)

    def stop(self) -> None:
        """From another thread: :meth:`run` returns."""
        self._server.shutdown()

    def _follow_results(self, every: float) -> None:
        seen = ""
        while not self._stop.wait(every):  # also after the end: a finished study may be given more trials
            if (state := _describe_progress(self.follower.path, self.follower.stage)) == seen:
                continue
            # A study that the page's own button deleted (KeyError) is gone; a file that is being moved comes back.
            with suppress(PtydaskError, OSError, KeyError):
                self.follower.update()
                seen = state


def _describe_progress(path: Path, stage: str) -> str:
    """Differs when something was recorded, or a run has begun or ended."""
    try:
        with open_tuned(path, stage) as results:
            if results.packed and not results.live:
                stat = path.stat()
                return f"{stat.st_mtime_ns} {stat.st_size} {stat.st_ino}"
            return f"{results.id} {results.live} {hash(tuple(results.columns()['number'].tolist()))}"
    except (PtydaskError, OSError):
        return ""


def _import_wsgi() -> Any:
    require("optuna_dashboard", "this needs", "dashboard", "optuna-dashboard")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from optuna_dashboard import wsgi
    return wsgi


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Nothing: the terminal belongs to the person."""


class _IPv4Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Nothing: a browser that closes a page in the middle of an answer is no error."""


class _IPv6Server(_IPv4Server):
    address_family = socket.AF_INET6


def _bind_server(host: str, port: int, app: Any) -> WSGIServer:
    kind: type[WSGIServer] = _IPv6Server if ":" in host else _IPv4Server
    try:
        return make_server(host, port, app, server_class=kind, handler_class=_QuietHandler)
    except OverflowError as error:
        raise UsageError(f"--port {port}: {error}") from None


def _bind_free_port(host: str, app: Any) -> WSGIServer:
    try:
        return _bind_server(host, 0, app)
    except OSError as error:
        raise UsageError(f"--host {host}: {error.strerror or error}") from None
