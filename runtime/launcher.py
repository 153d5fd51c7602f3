"""How does `--processes N` start as many processes? By torch's own launcher, the one behind torchrun, on this machine."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, ProcessFailure, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from .runlog import note

# From a signal to the kill: long enough to finish a step and write a checkpoint.
_GRACE_SECONDS = 60
_STOPS = (signal.SIGINT, signal.SIGTERM)


def launch(words: Sequence[str], processes: int) -> int:
    """Runs `python -m pretint` with these words in so many processes; they share out the processor's threads.

    A first SIGINT or SIGTERM is handed on to all of them, later ones change nothing.

    Returns:
        The exit code: 0; 128 + the signal's number where a signal stopped or killed a process; else that of one that failed.
    """
    with (
        tempfile.TemporaryDirectory(prefix="pretint-") as logs,
        _quiet(),
        _environment(processes),
        _first_signal_only(),
    ):
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            logs_specs=DefaultLogsSpecs(log_dir=logs),  # which torch would leave behind
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            signals_to_handle="SIGHUP",
            shutdown_timeout=_GRACE_SECONDS,
        )
        try:
            elastic_launch(config, sys.executable)("-m", "pretint", *words)
        except SignalException as stop:
            return 128 + stop.sigval
        except ChildFailedError as error:
            return _exit_code(error.failures)
    return 0


def _exit_code(failures: Mapping[int, ProcessFailure]) -> int:
    """What a process that was killed tells goes before what the others made of it."""
    codes = {rank: failure.exitcode for rank, failure in failures.items()}
    for rank, code in codes.items():
        if code < 0 and -code not in _STOPS:
            note(
                f"pretint: process {rank} of this run was killed by {signal.Signals(-code).name}, and the others were stopped; "
                "--resume goes on from the last checkpoint."
            )
            return 128 - code
    stopped = [abs(code) if code > 0 else 128 - code for code in codes.values() if code < 0 or code > 128]
    return stopped[0] if stopped else next(iter(codes.values()))


@contextmanager
def _environment(processes: int) -> Iterator[None]:
    """Each process gets its part of the threads that one alone would have, and keeps torch's advice on its speed to itself."""
    threads = str(max(1, torch.get_num_threads() // processes))
    wanted = {"OMP_NUM_THREADS": threads, "TORCH_CPP_LOG_LEVEL": os.environ.get("TORCH_CPP_LOG_LEVEL", "ERROR")}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


@contextmanager
def _quiet() -> Iterator[None]:
    """The launcher's log says less than the processes themselves, at greater length."""
    log = logging.getLogger("torch.distributed.elastic")
    handler, propagates = logging.NullHandler(), log.propagate
    log.addHandler(handler)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = propagates


@contextmanager
def _first_signal_only() -> Iterator[None]:
    """Torch's launcher hands a signal on to the processes when this exception meets it; a second one would end its waiting."""

    def stop(number: int, _: FrameType | None) -> None:
        for each in _STOPS:
            signal.signal(each, signal.SIG_IGN)
        raise SignalException(f"got signal {number}", signal.Signals(number))

    before = {number: signal.signal(number, stop) for number in _STOPS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
