"""How does a verb run in several processes? It joins those that torchrun or `--processes` started, and only one of them writes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Concatenate, ParamSpec, TypeVar

from ..data import ImageSource
from ..data.batches import check_even_shares
from ..runtime import processes
from ..runtime.device import resolve_device
from ..runtime.errors import ArgumentError, DataError
from .options import Outcome, ProcessOptions
from .settings import PretrainConfig

ConfigT = TypeVar("ConfigT", bound=ProcessOptions)
MoreP = ParamSpec("MoreP")


def in_all_processes(
    verb: Callable[Concatenate[ConfigT, MoreP], Outcome],
) -> Callable[Concatenate[ConfigT, MoreP], Outcome]:
    """A verb that every process runs, each on its share of the images; its config says how many there really are.

    The outcome is complete in the main process alone.
    """

    @functools.wraps(verb)
    def joined(config: ConfigT, *args: MoreP.args, **kwargs: MoreP.kwargs) -> Outcome:
        started = check_processes(config)
        with processes.joined(resolve_device(config.device).type):
            return verb(replace(config, processes=started), *args, **kwargs)

    return joined


def check_processes(config: ProcessOptions) -> int:
    """How many processes were started.

    Raises:
        ArgumentError: other than the config wants.
    """
    started = processes.launched()
    if config.processes in (1, started):
        return started
    if started > 1:
        raise ArgumentError(
            f"--processes: {config.processes} are asked for, and torchrun started {started}; leave it out."
        )
    raise ArgumentError(
        f"processes: {config.processes} are asked for, and one is running; start them by the command pretint --processes, or run "
        "your script under torchrun --nproc-per-node."
    )


def check_same_data(source: ImageSource) -> None:
    """Raises DataError, on all processes, unless all have read the same images: each machine may have a disk of its own."""
    if processes.world_size() == 1:
        return
    fingerprint = processes.from_main(lambda: source.fingerprint)
    differs = processes.gather_numbers([int(source.fingerprint != fingerprint)])
    if any(differs):
        raise DataError(
            f"--data: process {differs.index(1)} has read other images than process 0; give all machines the same files."
        )


def start_processes(config: ProcessOptions, words: Sequence[str]) -> int:
    """Runs the command of these words in as many processes as its config says; returns the exit code.

    Raises:
        ArgumentError: the device does not take so many, or training batches cannot be shared by them.
    """
    from ..runtime.launcher import launch

    # before each of them has imported torch to say the same
    if isinstance(config, PretrainConfig) and not config.resume:
        check_even_shares(config.batch_size, config.processes)
    processes.check_devices(resolve_device(config.device).type, config.processes)
    return launch(words, config.processes)
