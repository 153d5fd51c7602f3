"""Which tasks are there, and how is one made by name?"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..backbones import Preprocess
from ..runtime.errors import ArgumentError, UnknownNameError
from .classification import ABBins, PaletteTask
from .combined import CombinedTask, check_combination, check_weights
from .contract import Task
from .controls import Autoencoder, Rotation, Supervised, Untrained
from .pairs import Contrast, SplitBrain
from .regression import LabRegression, RGBRegression
from .superres import SuperResolution

TASKS: dict[str, type] = {
    "rgb-regression": RGBRegression,
    "lab-regression": LabRegression,
    "palette": PaletteTask,
    "bins": ABBins,
    "split-brain": SplitBrain,
    "contrast": Contrast,
    "superres": SuperResolution,
    "autoencoder": Autoencoder,
    "rotation": Rotation,
    "supervised": Supervised,
    "random": Untrained,
}
_DESCRIPTIONS = {
    "rgb-regression": "predict red, green and blue by regression (mse, l1, huber)",
    "lab-regression": "predict the chroma a*, b* by regression, tanh-bounded or free",
    "palette": "classify each pixel into K palette colours (rgb, lab, ab or cbcr)",
    "bins": "classify each pixel into the 313 ab bins of Zhang et al., with soft targets",
    "split-brain": "two encoders: chroma from luma and luma from chroma, by classification",
    "contrast": "two encoders: which luma view and which chroma view are of one picture (no painting)",
    "superres": "classify each pixel of a picture from its quarter-size version in colour",
    "autoencoder": "control: predict the grey input itself",
    "rotation": "control: tell by how much the grey picture was turned (no painting)",
    "supervised": "control: predict the class from the grey picture, with labels (no painting)",
    "random": "control: no training at all (no painting)",
}
# What a task may see, and the preprocessing that gives it.
_INPUTS = {"grey": "Preprocess(1)", "RGB": "Preprocess(3)", "luma and chroma": "Preprocess(3, chroma='cbcr')"}


def register_task(name: str, factory: type | Callable[..., Task], description: str = "") -> None:
    """Makes a task of one's own known by name.

    Args:
        name: as on the command line.
        factory: called as `factory(preprocess, **options)`; what it returns follows :class:`Task`. If it takes an argument named
            `palette`, one is fitted to the training images first.
        description: one line for `pretint tasks`.

    Raises:
        ArgumentError: the name is taken.
    """
    if name in TASKS or "+" in name:
        raise ArgumentError(f"task: the name {name!r} is taken, or has a +; choose another.")
    TASKS[name] = factory  # type: ignore[assignment]
    _DESCRIPTIONS[name] = description


def list_tasks() -> dict[str, str]:
    """Task names and what each asks of an encoder."""
    return dict(_DESCRIPTIONS)


def task_names(name: str) -> list[str]:
    """The tasks of a combination such as "palette+contrast".

    Raises:
        UnknownNameError: one of them is unknown.
        ArgumentError: they do not go together.
    """
    names = name.split("+")
    for one in names:
        if one not in TASKS:
            raise UnknownNameError("task", one, TASKS)
    check_combination(names, _pairs(names), [one for one in names if "palette" in _parameters(one)])
    return names


def _parameters(name: str) -> Mapping[str, inspect.Parameter]:
    """What the task of a single name is made with."""
    return inspect.signature(TASKS[name]).parameters


def _pairs(names: Sequence[str]) -> list[str]:
    """Those that want one encoder for luma and one for chroma."""
    return [one for one in names if getattr(TASKS[one], "pair", False)]


def task_options(name: str) -> set[str]:
    """The options, by name, that a task or a combination of tasks takes."""
    return {option for one in task_names(name) for option in _parameters(one)} - {"preprocess"}


def wants_pair(name: str) -> bool:
    """Whether a task, or one of a combination, wants one encoder for luma and one for chroma."""
    return bool(_pairs(task_names(name)))


def create_task(name: str, preprocess: Preprocess, weights: Sequence[float] | None = None, **options: Any) -> Task:
    """A task, or several added up, by name.

    Args:
        name: one of :func:`list_tasks`, or several joined by +.
        preprocess: how pictures become input.
        weights: of the losses of several.
        **options: for those of the tasks that take them.

    Raises:
        UnknownNameError: no such task.
        ArgumentError: an option or the preprocessing does not fit the task, or the tasks do not fit each other.
    """
    names = task_names(name)
    unknown = options.keys() - task_options(name)
    if unknown:
        raise ArgumentError(f"task: {name} does not take {', '.join(sorted(unknown))}; leave that out.")
    weights, pairs = check_weights(names, weights), _pairs(names)
    tasks = []
    for one in names:
        # beside a pair's task a grey one is given the luma half
        wanted = _luma_alone(preprocess) if pairs and one not in pairs else preprocess
        _check_input(one, wanted)
        taken = _parameters(one)
        try:
            tasks.append(TASKS[one](wanted, **{k: v for k, v in options.items() if k in taken}))
        except TypeError as error:
            raise ArgumentError(f"task: {one} does not take these options ({error}).") from error
    return tasks[0] if len(tasks) == 1 else CombinedTask(tasks, weights)


def _luma_alone(preprocess: Preprocess) -> Preprocess:
    mean, std = preprocess.normalisation[0]
    return replace(preprocess, in_chans=1, chroma=None, mean=mean, std=std)


def _check_input(name: str, preprocess: Preprocess) -> None:
    """Raises ArgumentError where a task says what it sees and the preprocessing gives something else, such as the answer."""
    if preprocess.chroma is None:
        given = "grey" if preprocess.in_chans == 1 else "RGB"
    else:
        given = "chroma" if preprocess.in_chans == 2 else "luma and chroma"
    wanted = "luma and chroma" if _pairs([name]) else getattr(TASKS[name], "sees", None)
    if wanted in _INPUTS and given != wanted:
        raise ArgumentError(f"preprocess: {name} sees {wanted} and nothing else, got {given}; give {_INPUTS[wanted]}.")
