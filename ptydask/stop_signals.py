"""Ctrl-C and SIGTERM: heard at any moment, heeded once, and where that does no harm.

What a handler raises comes out wherever Python happens to be: within a callback of HDF5 or of Dask it becomes another
error, or is lost. So a run that has something open asks at its own safe places whether it is to stop.
"""

from __future__ import annotations

import _thread
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any

BOTH = (signal.SIGINT, signal.SIGTERM)
_TWICE = 1.0
"""Seconds within which the same signal again is the same wish: a key held down, a terminal and a batch system."""
_RESEND = 0.02
"""Seconds after which a signal is sent again whose exception was lost in a destructor."""


class Terminated(BaseException):
    """SIGTERM: the cluster wants this process to end."""


class StopSignals:
    """Hears signals while it is entered, and raises KeyboardInterrupt or :class:`Terminated`.

    It raises where the process is; another one within a second is the same wish, a later one raises again. Within
    :meth:`deferred` it raises where :meth:`raise_if_asked` is called, or at the second wish, and once only: what is
    under way is closed undisturbed. An error that an interrupted callback makes of the exception becomes that again.
    Only the main thread of a process can hear; SIGINT stays with whoever ignores it, or has a handler of their own.
    """

    def __init__(self, *numbers: signal.Signals) -> None:
        self._numbers = numbers or BOTH
        self.came: signal.Signals | None = None
        """The first signal."""
        self._at = 0.0
        """When it was, or when it last raised."""
        self._raised = self._deferred = self._over = False
        self._answer: Callable[[], None] | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._hook_before = sys.unraisablehook

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in self._numbers:
            before = signal.getsignal(number)
            ours = isinstance(getattr(before, "__self__", None), StopSignals)
            if number is signal.SIGTERM or ours or before is signal.default_int_handler:
                self._before[number] = before
                signal.signal(number, self._hear)
        if self._before:
            self._hook_before, sys.unraisablehook = sys.unraisablehook, self._note_unraisable
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        came, self._over = self.came, True
        if self._before:
            sys.unraisablehook = self._hook_before
        if came is None:
            self._put_back()
        elif isinstance(error, Exception):  # as of an interrupted callback, or import
            raise _exception_of(came) from None

    def _put_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        now, first = time.monotonic(), self.came is None
        if self._over or (not first and now - self._at < _TWICE) or (self._deferred and self._raised):
            return
        self.came, self._at = self.came or signal.Signals(number), now
        if self._deferred and first:
            if self._answer is not None:
                with suppress(Exception):  # the wish to stop matters more than the words
                    self._answer()
            return
        self._raised = True
        raise _exception_of(self.came)

    def _note_unraisable(self, unraisable: Any) -> None:
        if self.came is None or unraisable.exc_type not in (KeyboardInterrupt, Terminated):
            self._hook_before(unraisable)
            return
        self._raised, self._at = False, self._at - _TWICE
        if not self._deferred:  # threading's own way to start one has locks, which may be held here
            _thread.start_new_thread(self._send_again, (self.came,))

    def _send_again(self, number: signal.Signals) -> None:
        time.sleep(_RESEND)
        if not self._raised and not self._over:
            signal.pthread_kill(threading.main_thread().ident or 0, number)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """A signal waits in here for :meth:`raise_if_asked`; a second one, a second later, does not wait."""
        self._raise_if_came()
        self._deferred = True
        try:
            with self._as_itself():
                yield
        finally:
            self._deferred = False

    @contextmanager
    def answered_by(self, answer: Callable[[], None]) -> Iterator[None]:
        """Within :meth:`deferred` a wait: ``answer`` is called as soon as a signal comes, which is raised at its end.

        What came before is raised at its beginning. Nothing else in here may write where ``answer`` does.
        """
        self.raise_if_asked()
        self._answer = answer
        try:
            yield
        finally:
            self._answer = None
        self.raise_if_asked()

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within :meth:`deferred` a stretch of work that may be stopped anywhere."""
        self._deferred = False
        try:
            self._raise_if_came()
            with self._as_itself():
                yield
        finally:
            self._deferred = True

    @contextmanager
    def _as_itself(self) -> Iterator[None]:
        """Whatever error an interrupted callback has made of a signal is that signal's exception again."""
        try:
            yield
        except Exception:
            if self.came is None or not self._raised:
                raise
            raise _exception_of(self.came) from None

    def _raise_if_came(self) -> None:
        """At the beginning of something new: what was raised before has been swallowed by somebody."""
        self._raised = False
        self.raise_if_asked()

    def raise_if_asked(self) -> None:
        """Raises KeyboardInterrupt or :class:`Terminated` where a signal has come that has not raised yet."""
        if self.came is not None and not self._raised:
            self._raised = True
            raise _exception_of(self.came)

    def pass_on(self) -> None:
        """Where a signal has come, give it to the handler that was there before: by default, the process ends."""
        if self.came is not None:
            self._put_back()
            signal.raise_signal(self.came)


def _exception_of(number: signal.Signals) -> BaseException:
    return KeyboardInterrupt() if number is signal.SIGINT else Terminated()


@contextmanager
def held_back() -> Iterator[None]:
    """Deliver Ctrl-C and SIGTERM at the end: a Dask client that is half made, or half closed, hangs for ever."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    handlers = {number: signal.signal(number, lambda n, _frame: received.append(n)) for number in BOTH}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if received:
            signal.raise_signal(signal.Signals(received[0]))


def close_undisturbed(resource: Any) -> None:
    """Close it; Ctrl-C and SIGTERM wait until that is done."""
    with held_back():
        resource.close()


@contextmanager
def for_this_process_only() -> Iterator[None]:
    """Threads and processes that start in here never hear Ctrl-C.

    It reaches every process of a terminal, and only the driver decides what it means.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
