"""What do all verbs ask alike? Where to compute, where data lies, and what they hand back."""

from __future__ import annotations

import math
import shlex
from collections.abc import Collection
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runtime.errors import ArgumentError

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True, kw_only=True)
class MachineOptions:
    """Where to compute.

    Attributes:
        device: auto, cuda, mps or cpu.
        precision: auto, bf16 or fp32; auto is bf16 where the device has the instructions for it.
        deterministic: the same bits each time, on a GPU too, at some cost in speed.
        json: print results as JSON for programs.
    """

    device: str = "auto"
    precision: str = "auto"
    deterministic: bool = False
    json: bool = False


@dataclass(frozen=True, kw_only=True)
class ProcessOptions(MachineOptions):
    """How many processes share the work.

    Attributes:
        processes: that many on this machine, one a GPU; on the CPU they share its threads. Under torchrun its number counts.
    """

    processes: int = 1


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Where data lies.

    Attributes:
        root: cache folder of downloaded data sets; PRETINT_DATA or the user's cache folder by default.
        max_broken: largest share of unreadable images before the run stops, in 0…1.
        extra_formats: gif or tiff: read such pictures too, which else count as unreadable.
    """

    root: Path | None = None
    max_broken: float = 0.01
    extra_formats: tuple[str, ...] = ()


@dataclass
class Outcome:
    """What a verb hands back.

    Attributes:
        results: JSON-able.
        tables: for people.
        lines: further sentences for people, printed behind the tables.
        code: what the command exits with.
    """

    results: dict[str, Any]
    tables: list[Table] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    code: int = 0


def positive(config: Any, *names: str) -> None:
    """Raises ArgumentError unless the named fields, where set, are finite and above zero."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not 0 < value < math.inf:
            raise ArgumentError(f"--{name.replace('_', '-')}: {value} must be above 0.")


def not_negative(config: Any, *names: str) -> None:
    """Raises ArgumentError unless the named fields, where set, are finite and zero or more."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not 0 <= value < math.inf:
            raise ArgumentError(f"--{name.replace('_', '-')}: {value} must be 0 or more.")


def check_seed(seed: int) -> None:
    """Raises ArgumentError unless every generator takes the seed."""
    if not 0 <= seed < 2**32:
        raise ArgumentError(f"--seed: {seed} must be from 0 to {2**32 - 1}.")


def command_line(verb: str, config: Any, usual: Any, always: Collection[str] = ()) -> str:
    """The command that does what a config says.

    Args:
        verb: of `pretint`.
        config: what is to come out.
        usual: what comes out where nothing is typed; only what differs from it is.
        always: names of settings that are typed all the same.

    >>> command_line("pretrain", MachineOptions(device="cpu", json=True), MachineOptions())
    'pretint pretrain --device cpu --json'
    """
    words = ["pretint", verb]
    for setting in sorted(
        fields(config), key=lambda setting: not _is_positional(setting)
    ):  # options may take several words
        value = getattr(config, setting.name)
        if value != getattr(usual, setting.name) or setting.name in always:
            words += _typed(setting, value)
    return shlex.join(words)


def _typed(setting: Field[Any], value: Any) -> list[str]:
    """A setting as the command's parser reads it: switches alone, several values one after another, all else with its value."""
    option = setting.name.replace("_", "-")
    if _is_positional(setting):
        return list(map(str, value if isinstance(value, tuple) else (value,)))
    if isinstance(setting.default, bool):  # one whose default is None is no switch: it has three values
        return [f"--{option}" if value else f"--no-{option}"]
    return [f"--{option}", *map(str, value if isinstance(value, tuple) else (value,))]


def _is_positional(setting: Field[Any]) -> bool:
    return str(setting.type).startswith("Positional")


def plain(config: Any) -> dict[str, Any]:
    """A config as JSON-able values: paths as strings."""
    values = {f.name: getattr(config, f.name) for f in fields(config)}
    return {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}
