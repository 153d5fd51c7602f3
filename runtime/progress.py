"""How far is a piece of work? A bar on a terminal, a line now and then elsewhere; on standard error, by the main process alone."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from .processes import is_main

_PLAIN_LINE_SECONDS = 30.0


class WorkProgress:
    """Shows work whose steps are counted; a context manager, called with what is being done, how many steps are, and of how many.

    Args:
        verb: what lines are headed with.
    """

    def __init__(self, verb: str):
        self._verb = verb
        self._console = Console(stderr=True, quiet=not is_main())
        self._bar: Progress | None = None
        self._last_line = time.monotonic()

    def __enter__(self) -> WorkProgress:
        if self._console.is_terminal and not self._console.quiet:
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"),
                TimeRemainingColumn(), console=self._console,
            )  # fmt: skip
            self._task = self._bar.add_task(self._verb, total=None)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Shows that `done` of `total` are done; a total of 0 is one that is not known."""
        if self._bar is not None:
            self._bar.update(self._task, description=what, completed=done, total=total or None)
        elif time.monotonic() - self._last_line > _PLAIN_LINE_SECONDS:
            self._last_line = time.monotonic()
            line = f"{self._verb}: {what}" + (f" {done:,} of {total:,}" if total else "")
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
