"""The pretext: colour tasks, the heads that are thrown away afterwards, and painting."""

from .classification import ABBins, PaletteTask
from .combined import CombinedTask, check_weights
from .contract import PaintingTask, Task
from .controls import Autoencoder, Rotation, Supervised, Untrained
from .decoder import PyramidDecoder
from .decoding import ANNEALED, DECODES, Decoding
from .fusion import OWN_AVERAGE, FrozenClassifier, full_fusion_name, leaked_labels
from .model import HeadSettings, PretextModel, build_model, check_takes_pair, pixel_head
from .painting import Painter
from .pairs import Contrast, SplitBrain
from .regression import LOSSES, LabRegression, RGBRegression
from .resolution import PREDICT_AT
from .seed_decoders import DECODERS, SeedDecoder, check_decoder_name, check_fuses, decoder_width, make_decoder
from .superres import SuperResolution
from .tasks import TASKS, create_task, list_tasks, register_task, task_names, task_options, wants_pair

__all__ = [
    "ANNEALED",
    "DECODERS",
    "DECODES",
    "LOSSES",
    "OWN_AVERAGE",
    "PREDICT_AT",
    "TASKS",
    "ABBins",
    "Autoencoder",
    "CombinedTask",
    "Contrast",
    "Decoding",
    "FrozenClassifier",
    "HeadSettings",
    "LabRegression",
    "Painter",
    "PaintingTask",
    "PaletteTask",
    "PretextModel",
    "PyramidDecoder",
    "RGBRegression",
    "Rotation",
    "SeedDecoder",
    "SplitBrain",
    "SuperResolution",
    "Supervised",
    "Task",
    "Untrained",
    "build_model",
    "check_decoder_name",
    "check_fuses",
    "check_takes_pair",
    "check_weights",
    "create_task",
    "decoder_width",
    "full_fusion_name",
    "leaked_labels",
    "list_tasks",
    "make_decoder",
    "pixel_head",
    "register_task",
    "task_names",
    "task_options",
    "wants_pair",
]
