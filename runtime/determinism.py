"""How does a run give the same bits each time, on a GPU too? By torch's deterministic algorithms, while the verb runs."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch

# cuBLAS adds in a fixed order only with workspaces of fixed size; it looks here when the first matrices are multiplied.
_CUBLAS, _CUBLAS_SIZES = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"


@contextmanager
def determinism(wanted: bool = True) -> Iterator[None]:
    """Under it, an operation that could give other bits the next time raises an error instead of computing.

    Deterministic algorithms, cuDNN without its search for the quickest algorithm, cuBLAS with workspaces of fixed size. What was
    set before is put back. Equal bits are promised for the same machine, versions, thread count and number of processes.

    Args:
        wanted: False leaves everything as it is.
    """
    if not wanted:
        yield
        return
    was_on, only_warned = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    cudnn: Any = torch.backends.cudnn
    workspaces = os.environ.get(_CUBLAS)
    searched, fixed = cudnn.benchmark, cudnn.deterministic
    os.environ.setdefault(_CUBLAS, _CUBLAS_SIZES)
    cudnn.benchmark, cudnn.deterministic = False, True
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was_on, warn_only=only_warned)
        cudnn.benchmark, cudnn.deterministic = searched, fixed
        if workspaces is None:
            os.environ.pop(_CUBLAS, None)


@runtime_checkable
class _Asks(Protocol):
    @property
    def deterministic(self) -> bool: ...


ConfigT = TypeVar("ConfigT", bound=_Asks)
OutcomeT = TypeVar("OutcomeT")


def repeatable(verb: Callable[[ConfigT], OutcomeT]) -> Callable[[ConfigT], OutcomeT]:
    """A verb that runs under :func:`determinism` where its settings ask for it."""

    @functools.wraps(verb)
    def run(config: ConfigT) -> OutcomeT:
        with determinism(config.deterministic):
            return verb(config)

    return run
