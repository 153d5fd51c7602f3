"""How does a loop run in a process of its own, where what another one is told of memory makes no difference?"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

Loops = Mapping[str, Callable[[], float]]


class Apart:
    """A process that makes loops and runs them when asked; a context manager.

    Its memory is managed as that of any other program, while Pretint's verbs tell the C library to keep freed memory, which is
    for a whole process (`pretint.runtime.allocation`).
    """

    def __enter__(self) -> Apart:
        context, usual = multiprocessing.get_context("spawn"), multiprocessing.get_start_method()
        self._requests, served = context.Pipe()
        self._process = context.Process(target=_serve, args=(served, usual))
        self._process.start()
        served.close()  # so that the other process's end ends the waiting for its answer
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(BrokenPipeError):  # it has died
            self._requests.send(None)
        self._process.join()

    def make(self, factory: Callable[..., Loops], *arguments: Any) -> Loops:
        """Calls a function of a module in that process; each of the loops that it gives runs there when it is called here.

        Loops that were made before are dropped.
        """
        names = self._ask(partial(_make, factory, arguments))
        return {name: partial(self._ask, partial(_run, name)) for name in names}

    def _ask(self, work: Callable[[dict[str, Any]], Any]) -> Any:
        try:
            self._requests.send(work)
            answer = self._requests.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            raise SystemExit(
                f"The process that was timed apart has died (exit code {self._process.exitcode})."
            ) from None
        if isinstance(answer, BaseException):
            raise answer
        return answer


def _make(factory: Callable[..., Loops], arguments: tuple[Any, ...], loops: dict[str, Any]) -> list[str]:
    loops.clear()
    loops.update(factory(*arguments))
    return list(loops)


def _run(name: str, loops: dict[str, Any]) -> float:
    return loops[name]()


def _serve(requests: Connection, start_method: str) -> None:
    multiprocessing.set_start_method(start_method, force=True)  # of its own processes, such as a loader's workers
    loops: dict[str, Any] = {}
    while (work := requests.recv()) is not None:
        try:
            requests.send(work(loops))
        except Exception as error:
            requests.send(error)
