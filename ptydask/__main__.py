"""``python -m ptydask``, and the command ``ptydask``."""

import os
import signal
import sys


def program() -> int:
    """The command line as a process; see :func:`ptydask.cli.program`. Ctrl-C ends it at once while it is imported."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's & makes it deaf
        signal.signal(signal.SIGINT, _leave)
    from ptydask import cli

    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return cli.program()


def _leave(*_: object) -> None:
    os._exit(130)  # nothing is open yet


if __name__ == "__main__":
    sys.exit(program())
