"""Ctrl-C and SIGTERM while Dask is being started or closed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def held_back() -> Iterator[None]:
    """Deliver Ctrl-C and SIGTERM at the end: a Dask client that is half made, or half closed, hangs for ever."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    handlers = {
        number: signal.signal(number, lambda n, _frame: received.append(n))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
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
