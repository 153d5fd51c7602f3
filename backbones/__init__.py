"""Encoders: our own and timm's, made by name, saved and loaded so that other projects can use them."""

from .batch_norm import fold_batch_norm
from .card import model_card
from .cnn import CNNEncoder
from .contract import SMALLEST_SIZE, PyramidEncoder
from .export import FORMATS, Export, export_backbone
from .families import OUR_BACKBONES
from .features import features
from .fold import fold_rgb
from .folder import load_backbone, save_backbone
from .halves import PARTS, join_pair, split_pair
from .pair import PairEncoder
from .preprocess import CHROMA_SPACES, Preprocess
from .registry import (
    STEMS,
    BackboneSpec,
    architecture,
    backbone_bytes,
    check_backbone_name,
    create_backbone,
    list_backbones,
    module_bytes,
)
from .resunet import ResUNetEncoder
from .seeds import SEED_ENCODERS, SeedEncoder, draw_weights
from .timm_stem import measure_features, shrink_stem, smallest_size
from .unet import UNetEncoder

__all__ = [
    "CHROMA_SPACES",
    "FORMATS",
    "OUR_BACKBONES",
    "PARTS",
    "SEED_ENCODERS",
    "SMALLEST_SIZE",
    "STEMS",
    "BackboneSpec",
    "CNNEncoder",
    "Export",
    "PairEncoder",
    "Preprocess",
    "PyramidEncoder",
    "ResUNetEncoder",
    "SeedEncoder",
    "UNetEncoder",
    "architecture",
    "backbone_bytes",
    "check_backbone_name",
    "create_backbone",
    "draw_weights",
    "export_backbone",
    "features",
    "fold_batch_norm",
    "fold_rgb",
    "join_pair",
    "list_backbones",
    "load_backbone",
    "measure_features",
    "model_card",
    "module_bytes",
    "save_backbone",
    "shrink_stem",
    "smallest_size",
    "split_pair",
]
