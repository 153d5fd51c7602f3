"""How far is a piece of work? A bar on a terminal, a line now and then elsewhere; on standard error, by the main process alone."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from .processes import is_main

_PLAIN_LINE_SECONDS = 30.0


class WorkProgress:
    """Shows work whose steps are counted; a context manager.

    Args:
        title: what the bar is called, and what stands before lines of :meth:`show`.
        total: steps in all; None if that is not known yet.
        quiet: show nothing.
    """

    def __init__(self, title: str, total: int | None = None, quiet: bool = False):
        self._title, self._total = title, total
        self._console = Console(stderr=True, quiet=quiet or not is_main())
        self._bar: Progress | None = None
        self._last_line = time.monotonic()

    def __enter__(self) -> WorkProgress:
        if self._console.is_terminal and not self._console.quiet:
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"),
                TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=self._console,
            )  # fmt: skip
            self._task = self._bar.add_task(self._title, total=self._total, note="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Shows that `done` of `total` are done of what is being done; a total of 0 is one that is not known."""
        line = f"{what} {done:,} of {total:,}" if total else what
        self.show(done, line, what=what, total=total or None)

    def show(self, done: int, line: str, *, note: str = "", what: str | None = None, total: int | None = None) -> None:
        """Moves the bar to `done`, with `note` beside it, or says `line`, if none was said for a while.

        Args:
            done: steps.
            line: for where there is no bar; the title comes before it.
            note: words behind the bar's numbers.
            what, total: what the bar is called, and steps in all, from now on; None: as before.
        """
        if self._bar is not None:
            self._bar.update(self._task, completed=done, note=note, description=what, total=total)
        elif time.monotonic() - self._last_line > _PLAIN_LINE_SECONDS:
            self.say(f"{self._title}: {line}")

    def say(self, line: str) -> None:
        """Prints one line beside the bar."""
        self._last_line = time.monotonic()
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
