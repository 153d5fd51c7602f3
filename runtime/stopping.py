"""How does a process stop when it is asked to? At a point where nothing is torn apart, with one line and the usual exit code."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType


class Interrupted(KeyboardInterrupt):
    """The process was asked to stop and did so; `signal_number` says by which signal."""

    def __init__(self, signal_number: int):
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")
        self.signal_number = signal_number


class StopRequests:
    """Turns SIGINT and SIGTERM into a number to look at, or, where stopping half-way does no harm, into :class:`Interrupted`.

    A context manager. The first signal counts and later ones change nothing, so that whoever repeats one tears nothing apart. One
    that nobody has acted on at the end is handed to the StopRequests around this one, if there is one.
    Outside the main thread it does nothing: whoever owns that handles signals.

    Args:
        at_once: raise Interrupted as soon as a signal comes, wherever the program is; what is left behind is tidied up on the way
            out, as after any other error.

    Attributes:
        received: the first signal's number, or None.
    """

    def __init__(self, *, at_once: bool = False):
        self.received: int | None = None
        self._raises = at_once

    def __enter__(self) -> StopRequests:
        self._previous = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._previous[number] = signal.signal(number, self._note)
            except ValueError:  # not the main thread
                break
        return self

    def _note(self, number: int, _frame: object) -> None:
        if self.received is not None:
            return
        self.received = number
        if self._raises:
            self._raises = False
            raise Interrupted(number)

    @contextmanager
    def stopping_at_once(self, allowed: bool = True) -> Iterator[None]:
        """A part of the program that may be left in its middle, even for a signal that came before.

        Raises:
            Interrupted: a signal came, and it is `allowed`.
        """
        self._raises = allowed
        try:
            if allowed and self.received is not None:
                raise Interrupted(self.received)
            yield
        finally:
            self._raises = False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        around = None
        for number, handler in self._previous.items():
            if handler is not None:  # one that was not set from Python can't be put back from there
                signal.signal(number, handler)
                around = getattr(handler, "__self__", None)
        if self.received is None or not isinstance(around, StopRequests):
            return
        if kind is None:
            around._note(self.received, None)
        elif around.received is None:  # a repeated signal must not tear up what happens on the way out
            around.received = self.received
