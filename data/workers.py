"""How is work on files spread over processes, so that all of them stop at once when one fails or the user has enough?"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.synchronize import Event
from typing import TypeVar

from ..runtime.allocation import keep_freed_memory
from ..runtime.errors import DataError

# Archives, say, to list: fewer are listed before another process has started.
FEWEST_FILES = 16

_stop: Event | None = None  # of this process, if it is a worker

Task = TypeVar("Task")
Result = TypeVar("Result")


class StoppedError(Exception):
    """A worker was told to stop."""


def usable_cores() -> int:
    """The processor cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_processes(
    function: Callable[[Task], Result], tasks: Iterable[Task], workers: int
) -> Generator[Result, None, None]:
    """The results of a function for all tasks, each as soon as it is there, in any order.

    When the iterator is closed or an error leaves it, workers stop at their next :func:`check_stop`, and are waited for, so
    that nothing is written any more.

    Args:
        function: of a module, so that another process finds it.
        tasks: taken a few ahead of the workers.
        workers: how many processes; with 1 or fewer, all is done in this one.

    Raises:
        DataError: a worker was killed.
    """
    if workers <= 1:
        yield from map(function, tasks)
        return
    # Not by fork: a copy of a process with threads may wait for ever for a lock that one of them held.
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(workers, context, _begin, (stop,))
    waiting: set[Future[Result]] = set()
    try:
        for task in tasks:
            waiting.add(pool.submit(function, task))
            if len(waiting) >= 2 * workers:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    except BrokenProcessPool as error:
        raise DataError(
            "workers: a process was killed, perhaps because memory ran out; use fewer --workers. What was done stays."
        ) from error
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def check_stop() -> None:
    """Raises StoppedError in a worker that is to stop."""
    if _stop is not None and _stop.is_set():
        raise StoppedError


def _begin(stop: Event) -> None:
    """A worker's first step: Ctrl-C, which reaches all processes of a terminal, is the main one's to answer."""
    global _stop
    _stop = stop
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A main process that was killed can't say stop, and its next run must find nobody else writing."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
