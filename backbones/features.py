"""Pictures in, features out: what is the quickest way to use an encoder?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from ..runtime.errors import ArgumentError
from .preprocess import as_rgb


@torch.inference_mode()
def features(
    encoder: nn.Module,
    images: Tensor | Image.Image | Sequence[Image.Image],
    size: int | None = None,
    *,
    batch_size: int = 256,
) -> Tensor:
    """Pooled features of pictures, in evaluation mode, on the device that the encoder is on.

    A function and no method, since some of timm's models (VGG) have an attribute of that name.

    Args:
        encoder: from :func:`load_backbone` or :func:`create_backbone`.
        images: as `encoder.preprocess` takes them: (n, 3, h, w) uint8 or float in 0…1, a PIL image, or a list of these.
        size: side in pixels that PIL images are resized to.
        batch_size: pictures at a time.

    Returns:
        float32 (n, channels of the deepest level): the deepest feature map's global average, which is what pretraining shaped.
        Ours give just that when called; some of timm's models (EfficientNet, VGG) have further layers behind it, which no pretext
        has trained.

    Raises:
        ArgumentError: pictures that `preprocess` does not take, or too small ones.

    >>> from pretint.backbones import create_backbone
    >>> features(create_backbone("pretint_cnn", width=8), torch.zeros(5, 3, 32, 32, dtype=torch.uint8)).shape
    torch.Size([5, 64])
    """
    model: Any = encoder
    device = next(model.parameters()).device
    if batch_size < 1:
        raise ArgumentError(f"batch_size: {batch_size} must be at least 1.")
    rgb = as_rgb(images, size)
    if min(rgb.shape[-2:]) < model.smallest_size:
        raise ArgumentError(
            f"images: {rgb.shape[-2]} × {rgb.shape[-1]} pixels are too small; this encoder takes {model.smallest_size} and more."
        )
    training = model.training
    model.eval()
    try:
        parts = [pooled(model, model.preprocess(chunk.to(device))).float() for chunk in rgb.split(batch_size)]
    finally:
        model.train(training)
    return torch.cat(parts)


def pooled(encoder: Any, inputs: Tensor) -> Tensor:
    """The deepest feature map's global average: network input (n, in_chans, h, w) -> (n, channels)."""
    maps = encoder.forward_intermediates(inputs, indices=[len(encoder.feature_info) - 1], intermediates_only=True)
    return maps[0].mean((2, 3))
