"""How does a preset become settings, and how do settings become the command that gives them?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from ..runtime.errors import UnknownNameError
from .options import command_line
from .settings import PretrainConfig
from .systems import PRESETS

DEFAULT_PRESET = "pretint"


def preset_config(name: str, **changes: Any) -> PretrainConfig:
    """The settings of a preset, some of them changed.

    Raises:
        UnknownNameError: no such preset.
        ArgumentError: a change does not fit.

    >>> preset_config("toronto-unet", epochs=3).decoder
    'toronto-unet'
    """
    if name not in PRESETS:
        raise UnknownNameError("preset", name, PRESETS)
    return PretrainConfig(**{"preset": name, **PRESETS[name].settings, **changes})


def usual_config(preset: str | None) -> PretrainConfig:
    """What comes out where a preset is all that is typed, or not even that.

    Raises:
        UnknownNameError: no such preset.
    """
    return PretrainConfig() if preset is None else preset_config(preset)


def typed_command(config: PretrainConfig) -> str:
    """The `pretint pretrain` that gives a config; of a run in minutes without the epochs that came out.

    >>> typed_command(preset_config("toronto-unet", epochs=3, classes=("horse", "deer")))
    'pretint pretrain --preset toronto-unet --epochs 3 --classes horse deer'
    """
    usual = usual_config(config.preset)
    if config.minutes is not None:
        config = replace(config, epochs=usual.epochs)
    # with neither of both the command would take the best preset
    return command_line("pretrain", config, usual, always=("task" if config.preset is None else "preset",))


def typed_preset(words: Sequence[str]) -> PretrainConfig:
    """What `pretint pretrain` starts from: the preset that is typed; with neither that nor a task the best one.

    A run that is resumed in a folder that is named has settings of its own.
    """
    options = [word.split("=")[0] for word in words]
    for i, option in enumerate(options):
        if option == "--preset":
            _, equals, value = words[i].partition("=")
            return preset_config(value if equals else words[i + 1] if i + 1 < len(words) else "")
    known = {"--task", "--help", "-h"} & set(options) or {"--resume", "--out"} <= set(options)
    return usual_config(None if known else DEFAULT_PRESET)


def typed_options(words: Sequence[str]) -> list[str]:
    """The settings of `pretint pretrain` that are typed, also where they are as by default.

    >>> typed_options(["--no-bounded", "--save-minutes=5", "--epochs", "30"])
    ['epochs', 'bounded', 'save_minutes']
    """
    typed = {word.partition("=")[0].removeprefix("--").replace("-", "_") for word in words if word.startswith("--")}
    return [one.name for one in fields(PretrainConfig) if {one.name, f"no_{one.name}"} & typed]
