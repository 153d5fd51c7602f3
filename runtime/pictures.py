"""What is an opened picture in 8-bit RGB? 16-bit grey, palettes and transparency are made so in one way everywhere."""

from __future__ import annotations

import numpy as np
from PIL import Image


def to_rgb_image(image: Image.Image) -> Image.Image:
    """A PIL image as 8-bit RGB: 16-bit grey is scaled, what is transparent lies on white."""
    if image.mode == "RGB" and "transparency" not in image.info:
        image.load()
        return image
    if image.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion would clip at 255
        levels = np.asarray(image).astype(np.int64) >> 8
        return Image.fromarray(levels.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")
