"""Where images come from, and how they become batches on the device."""

from .batches import AUGMENTATIONS, Batch, Batches, augment
from .downloads import cache_root
from .folders import list_files
from .images import EXTRA_FORMATS, BrokenImageError, decode_image
from .inspection import PictureFacts, SplitFacts, inspect_data
from .pack_index import PackIndex, damaged_files, is_pack, read_index
from .packing import make_pack
from .selections import Ids, LazyIds, all_ids, spread_hold_out
from .sources import SOURCES, available_splits, open_source, register_source, source_names
from .streams import StreamedSource
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
    "Ids",
    "ImageSource",
    "LazyIds",
    "PackIndex",
    "PictureFacts",
    "SplitFacts",
    "StreamedSource",
    "TensorSource",
    "ToyColour",
    "ToyScenes",
    "all_ids",
    "augment",
    "available_splits",
    "cache_root",
    "class_balanced_subset",
    "concatenate",
    "damaged_files",
    "decode_image",
    "draw_toy",
    "few_shot_subset",
    "hold_out",
    "inspect_data",
    "is_grey",
    "is_pack",
    "list_files",
    "make_pack",
    "make_toy",
    "only_classes",
    "open_source",
    "read_index",
    "register_source",
    "source_names",
    "spread_hold_out",
    "toy_colours",
]
