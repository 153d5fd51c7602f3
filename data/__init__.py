"""Where images come from, and how they become batches on the device."""

from .batches import AUGMENTATIONS, Batch, Batches, augment
from .downloads import cache_root
from .folders import list_files
from .images import EXTRA_FORMATS, BrokenImageError, decode_image
from .inspection import PictureFacts, SplitFacts, inspect_data
from .sources import SOURCES, available_splits, open_source, register_source, source_names
from .subsets import class_balanced_subset, few_shot_subset, hold_out, only_classes
from .tensors import ImageSource, TensorSource, concatenate, is_grey
from .toy import TOY_CLASSES, ToyColour, ToyScenes, draw_toy, make_toy, toy_colours

__all__ = [
    "AUGMENTATIONS",
    "EXTRA_FORMATS",
    "SOURCES",
    "TOY_CLASSES",
    "Batch",
    "Batches",
    "BrokenImageError",
    "ImageSource",
    "PictureFacts",
    "SplitFacts",
    "TensorSource",
    "ToyColour",
    "ToyScenes",
    "augment",
    "available_splits",
    "cache_root",
    "class_balanced_subset",
    "concatenate",
    "decode_image",
    "draw_toy",
    "few_shot_subset",
    "hold_out",
    "inspect_data",
    "is_grey",
    "list_files",
    "make_toy",
    "only_classes",
    "open_source",
    "register_source",
    "source_names",
    "toy_colours",
]
