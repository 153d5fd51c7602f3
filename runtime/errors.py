"""Which errors can a user meet? Each is one sentence: what was given, what was needed, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LONGEST_NAME = 100


class PretintError(Exception):
    """Base of every error that a user can cause and mend; the command prints it as a sentence and exits with 2.

    None of them is a ValueError: argument parsers catch those while a config is made, and would hide the sentence in a usage text.
    """


class ArgumentError(PretintError):
    """An argument is out of range, of the wrong kind, or does not fit another one."""


class UnknownNameError(PretintError):
    """A name that is in no list, with the closest names that are.

    >>> print(UnknownNameError("task", "pallete", ["palette", "rgb-regression"]))
    task: 'pallete' is not known; did you mean 'palette'? Known: palette, rgb-regression.
    """

    def __init__(self, argument: str, got: str, known: Iterable[str]):
        names = sorted(known)
        if len(got) > _LONGEST_NAME:  # nobody's slip of the finger
            got = f"{got[:_LONGEST_NAME]}…"
        close = difflib.get_close_matches(got, names, n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(repr(name) for name in close)}?" if close else "."
        shown = names if len(names) <= 30 else [*names[:30], f"and {len(names) - 30} more"]
        super().__init__(f"{argument}: {got!r} is not known{hint} Known: {', '.join(shown)}.")


class DataError(PretintError):
    """A data set is missing, empty, broken, or does not hold what was asked of it."""


class RunFolderError(PretintError):
    """A run or encoder folder is missing, is none, is damaged, or holds another run."""


class NotFiniteError(PretintError):
    """A loss, a gradient or a feature became NaN or infinite."""


class ProcessError(PretintError):
    """Another of the processes that work together has ended or can't be reached."""


class ExportError(PretintError):
    """An encoder can't be exported to a format, or what was exported computes something else."""


class HubError(PretintError):
    """A model hub can't be reached, or refuses what was asked."""
