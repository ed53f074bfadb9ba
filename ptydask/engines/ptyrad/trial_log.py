"""PtyRAD's log and warnings, kept per trial instead of printed."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


@contextmanager
def capture_log(level: int = logging.INFO) -> Iterator[io.StringIO]:
    """A buffer that receives PtyRAD's log and all warnings inside the ``with``; afterwards they go their old way."""
    buffer = io.StringIO()
    handler = logging.StreamHandler(buffer)
    logger = logging.getLogger("ptyrad")
    handlers, old_level, propagate = logger.handlers[:], logger.level, logger.propagate
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False

    def show(message: Warning | str, category: type[Warning], *_where: Any, **_more: Any) -> None:
        buffer.write(f"{category.__name__}: {message}\n")

    try:
        with warnings.catch_warnings(action="default"):
            warnings.showwarning = show
            yield buffer
    finally:
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(old_level)


def level_of(config: Mapping[str, Any]) -> int:
    """What is kept of a trial: INFO, or DEBUG where the params say so (``hypertune_params.verbosity`` of 1.x).

    PtyRAD's default there, WARNING, is about a terminal; a log that is stored may say how the trial began.
    """
    verbosity = (config.get("hypertune_params") or {}).get("verbosity")
    return logging.DEBUG if verbosity == "DEBUG" else logging.INFO


def tail(text: str, lines: int = 12) -> str:
    """The last lines that say something."""
    return "\n".join([line for line in text.splitlines() if line.strip()][-lines:])
