"""Work that a process shares with forks of itself: figures, which keep one core busy for half a second each.

And what takes part of a millisecond for each of thousands of trials.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, TypeVar

from ptydask.machine import usable_cores

T = TypeVar("T")
R = TypeVar("R")

_PROCESSES = 4
"""At most, this one among them: each has memory of its own for what it draws."""
_MOST_TASKS = 255
_PARTS, _LEAST_PART = 16, 500
"""A list is worked on in so many parts, of so many items at least: fewer are done before a fork has begun."""


@contextmanager
def shared_with_forks(work: Callable[[int], T], count: int) -> Iterator[Callable[[], Iterator[T]]]:
    """Begin ``work(0)`` to ``work(count - 1)``, of at most 255, in forks of this process, which goes on meanwhile.

    What is yielded is called for the results: then this process takes its part of what is left, and gives all in their
    order. A fork gives what pickle can, and ends with the ``with`` statement. What one could not do, this process does
    itself in the end, so that an error of ``work`` is raised here. Without a second core, or where a fork could hang,
    it does everything.
    """
    if count > _MOST_TASKS:
        raise ValueError(f"{count} tasks: at most {_MOST_TASKS} are shared")
    tasks, filled = os.pipe()
    with ExitStack() as stack:
        stack.callback(os.close, tasks)
        os.write(filled, bytes(range(count)))  # each read takes one byte, a task that nobody else gets
        os.close(filled)
        forks = []
        with suppress(OSError):  # no more processes may be had
            for _ in range(count_forks(count)):
                forks.append(stack.enter_context(_fork_worker(tasks, work)))

        def give_results() -> Iterator[T]:
            done = _do_tasks(tasks, work)
            for results in forks:
                with suppress(EOFError, OSError):  # it was killed
                    done |= results.recv()
            return (done[task] if task in done else work(task) for task in range(count))

        yield give_results


def map_in_forks(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """``[work(item) for item in items]``, part of it in forks; an error of ``work`` is raised here."""
    size = max(_LEAST_PART, -(-len(items) // _PARTS))
    parts = [items[first : first + size] for first in range(0, len(items), size)]
    with shared_with_forks(lambda part: list(map(work, parts[part])), len(parts)) as results:
        return [result for part in results() for result in part]


def count_forks(tasks: int) -> int:
    """How many forks this process may have for so many tasks, of which it does some itself.

    None beside other threads, whose locks a fork would find locked for ever, nor where the system's own libraries do
    not stand a fork (macOS), nor in a daemon of multiprocessing, which may have no children.
    """
    safe = sys.platform == "linux" and threading.active_count() == 1 and not multiprocessing.current_process().daemon
    return max(0, min(_PROCESSES, usable_cores(), tasks) - 1) if safe else 0


@contextmanager
def _fork_worker(tasks: int, work: Callable[[int], Any]) -> Iterator[Any]:
    """A fork that takes part; the connection on which its results come, as ``{task: result}``."""
    context = multiprocessing.get_context("fork")
    results, sender = context.Pipe(duplex=False)
    with results:
        with sender, warnings.catch_warnings():
            # From 3.12 on Python warns of any thread; those of BLAS, which are left, a fork does not use.
            warnings.simplefilter("ignore", DeprecationWarning)
            fork = context.Process(target=_serve, args=(tasks, work, results, sender, os.getpid()), daemon=True)
            fork.start()
        try:
            yield results
        finally:
            fork.kill()
            fork.join()
            fork.close()


def _serve(tasks: int, work: Callable[[int], Any], results: Any, sender: Any, parent: int) -> None:
    """In the fork: what the other process has open is not collected, and Ctrl-C is heard there.

    One thread: those that GNU's OpenMP has started in the other process a fork would wait for, for ever.
    """
    from threadpoolctl import threadpool_limits  # which sets a variable of the process as it is imported

    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    results.close()
    with threadpool_limits(1), suppress(OSError):  # nobody reads them any more
        sender.send(_do_tasks(tasks, work, parent))


def _do_tasks(tasks: int, work: Callable[[int], T], parent: int | None = None) -> dict[int, T]:
    """Take one task after the other, as long as there are any, and the ``parent`` of a fork is; those that succeed."""
    done = {}
    while (parent is None or os.getppid() == parent) and (task := os.read(tasks, 1)):
        with suppress(Exception):  # it is done once more, where its error is raised
            done[task[0]] = work(task[0])
    return done
