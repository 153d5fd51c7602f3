"""The machinery under the rooms: devices, processes, randomness, the step loop, run folders, results."""

from .errors import ArgumentError, DataError, NotFiniteError, PretintError, RunFolderError, UnknownNameError

__all__ = ["ArgumentError", "DataError", "NotFiniteError", "PretintError", "RunFolderError", "UnknownNameError"]
