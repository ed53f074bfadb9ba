"""What the process that workers are forks of imports first.

Like its driver it is not to import what lies in the folder that the command was started in, as ``python -c`` does. It
is killed by its driver, which removes the socket; a driver that was killed itself has not. Nor does it look for garbage
until it has imported what its forks need: it would look a hundred times at all that comes in and stays.
"""

from __future__ import annotations

import atexit
import gc
import sys
from contextlib import suppress
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

gc.disable()
sys.path[:] = [folder for folder in sys.path if folder]


@atexit.register
def _remove_socket() -> None:
    """The socket of this server, and the folder that multiprocessing made for it, once no process needs it any more."""
    server: Any = forkserver._forkserver
    if server._forkserver_address is not None:
        socket = Path(server._forkserver_address)
        with suppress(OSError):
            socket.unlink()
            socket.parent.rmdir()
