"""What runs change in the process that starts them, put back when the last of those under way has ended."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class SharedState(Generic[T]):
    """State of the process as it was before the first of several runs, which may be on in threads of their own.

    Each run for itself would put back what another had already changed.
    """

    def __init__(self, save: Callable[[], T], restore: Callable[[T], None]) -> None:
        self._save, self._restore = save, restore
        self._lock, self._saved = threading.Lock(), list[T]()

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Save it where no other run has; put it back where no other run is left."""
        with self._lock:
            self._saved.append(self._saved[0] if self._saved else self._save())
        try:
            yield
        finally:
            with self._lock:
                saved = self._saved.pop()
                if not self._saved:
                    self._restore(saved)
