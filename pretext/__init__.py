"""The pretext: colour tasks, the decoder that is thrown away afterwards, and painting."""

from .decoder import PyramidDecoder
from .model import PretextModel
from .painting import Painter
from .tasks import (
    DECODES,
    LOSSES,
    PREDICT_AT,
    TASKS,
    LabRegression,
    PaletteTask,
    RGBRegression,
    Task,
    check_task_name,
    create_task,
    list_tasks,
    register_task,
)

__all__ = [
    "DECODES",
    "LOSSES",
    "PREDICT_AT",
    "TASKS",
    "LabRegression",
    "Painter",
    "PaletteTask",
    "PretextModel",
    "PyramidDecoder",
    "RGBRegression",
    "Task",
    "check_task_name",
    "create_task",
    "list_tasks",
    "register_task",
]
