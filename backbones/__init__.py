"""Encoders: our own and timm's, made by name, saved and loaded so that other projects can use them."""

from .cnn import CNNEncoder
from .contract import SMALLEST_SIZE, PyramidEncoder
from .folder import load_backbone, save_backbone
from .preprocess import Preprocess
from .registry import OUR_BACKBONES, STEMS, BackboneSpec, check_backbone_name, create_backbone, list_backbones
from .timm_stem import measure_features, shrink_stem
from .unet import UNetEncoder

__all__ = [
    "OUR_BACKBONES",
    "SMALLEST_SIZE",
    "STEMS",
    "BackboneSpec",
    "CNNEncoder",
    "Preprocess",
    "PyramidEncoder",
    "UNetEncoder",
    "check_backbone_name",
    "create_backbone",
    "list_backbones",
    "load_backbone",
    "measure_features",
    "save_backbone",
    "shrink_stem",
]
