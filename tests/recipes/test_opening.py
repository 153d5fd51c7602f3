"""Which network do a run's settings make?"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pretint.colour import Palette
from pretint.recipes import PretrainConfig, preset_config
from pretint.recipes.opening import make_model
from pretint.runtime.errors import ArgumentError


def _palette(k: int = 24) -> Palette:
    shares, counts = torch.full((k,), 1 / k, dtype=torch.float64), torch.ones(256, k, dtype=torch.float64)
    return Palette("rgb", torch.linspace(0, 1, k)[:, None].expand(-1, 3).contiguous(), shares, counts)


def _channels(config: PretrainConfig) -> list[int]:
    """Of all convolutions, in the order of the layers."""
    model, _ = make_model(config, _palette() if config.task == "palette" else None)
    return [m.out_channels for m in model.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]


def test_a_narrower_published_system_is_narrower_in_all_its_layers():
    assert _channels(preset_config("toronto-unet")) == [32, 64, 64, 32, 24, 24]
    assert _channels(preset_config("toronto-unet", width=8)) == [8, 16, 16, 8, 6, 24]


def test_the_best_recipes_decoder_keeps_its_width_beside_any_encoder():
    for width in (8, 32):
        assert _channels(preset_config("pretint", width=width))[-3:] == [128, 128, 24]


def test_the_regression_of_the_course_differs_in_the_last_layer_alone():
    assert _channels(preset_config("toronto-regression")) == [32, 64, 64, 32, 24, 3]


@pytest.mark.parametrize("task", ["superres", "palette", "rotation", "palette+autoencoder", "random"])
def test_two_encoders_are_for_tasks_that_see_luma_and_chroma(task):
    config = PretrainConfig(task=task, backbone="pair/pretint_cnn", width=4)
    palette = _palette() if "palette" in task or task == "superres" else None
    with pytest.raises(ArgumentError, match=r"--backbone: pair/ .* does not see both; leave pair/ out"):
        make_model(config, palette)
