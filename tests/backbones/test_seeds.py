"""The encoders of published systems: the layers of their tables, their first weights, and the way into other projects."""

from __future__ import annotations

import math

import pytest
import timm
import torch
from torch import nn

from pretint.backbones import (
    OUR_BACKBONES,
    SEED_ENCODERS,
    SeedEncoder,
    create_backbone,
    draw_weights,
    features,
    fold_rgb,
    list_backbones,
    load_backbone,
    save_backbone,
)
from pretint.runtime.errors import ArgumentError, UnknownNameError

every_seed = pytest.mark.parametrize("name", SEED_ENCODERS)

# The published tables: (input channels, output channels, kernel, stride) of each convolution, and how many poolings there are.
TABLES = {
    "pretint_toronto_cnn": ([(1, 32, 3, 1), (32, 64, 3, 1), (64, 64, 3, 1)], 2),
    "pretint_toronto_strided": ([(1, 32, 3, 2), (32, 64, 3, 2), (64, 64, 3, 1)], 0),
    "pretint_wallner_alpha": (
        [(1, 8, 3, 2), (8, 8, 3, 1), (8, 16, 3, 1), (16, 16, 3, 2), (16, 32, 3, 1), (32, 32, 3, 2)],
        0,
    ),
    "pretint_wallner_beta": (
        [(1, 64, 3, 1), (64, 64, 3, 2), (64, 128, 3, 1), (128, 128, 3, 2), (128, 256, 3, 1), (256, 256, 3, 2),
         (256, 512, 3, 1), (512, 256, 3, 1)],
        0,
    ),
    "pretint_wallner_full": (
        [(1, 64, 3, 2), (64, 128, 3, 1), (128, 128, 3, 2), (128, 256, 3, 1), (256, 256, 3, 2), (256, 512, 3, 1),
         (512, 512, 3, 1), (512, 256, 3, 1)],
        0,
    ),
    "pretint_cs520": ([(1, 32, 5, 1), (32, 64, 5, 1), (64, 128, 5, 1)], 3),
}  # fmt: skip
LEVELS = {
    "pretint_toronto_cnn": ([32, 64, 64], [2, 4, 4]),
    "pretint_toronto_strided": ([32, 64, 64], [2, 4, 4]),
    "pretint_wallner_alpha": ([16, 32, 32], [2, 4, 8]),
    "pretint_wallner_beta": ([64, 128, 256, 256], [1, 2, 4, 8]),
    "pretint_wallner_full": ([128, 256, 256], [2, 4, 8]),
    "pretint_cs520": ([32, 64, 128], [2, 4, 8]),
}


def _noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _pictures(n: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def _trained(name: str, **options: int) -> nn.Module:
    """An encoder whose weights and running statistics are not those of a fresh one."""
    torch.manual_seed(0)
    encoder = create_backbone(name, **options).train()
    with torch.no_grad():
        for p in encoder.parameters():
            p.add_(0.02 * torch.randn_like(p))
        encoder(_noise(4, 1, 32, 32))
    return encoder.eval()


def test_all_seeds_are_listed_with_a_sentence():
    assert set(SEED_ENCODERS) <= set(list_backbones())
    for name, plan in SEED_ENCODERS.items():
        assert plan.about in OUR_BACKBONES[name]
        assert plan.about[1:] in timm.model_entrypoint(name).__doc__


@every_seed
def test_convolutions_and_poolings_are_those_of_the_table(name):
    encoder = create_backbone(name)
    table, poolings = TABLES[name]
    convs = [m for m in encoder.modules() if isinstance(m, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size[0], c.stride[0]) for c in convs] == table
    assert all(c.bias is not None for c in convs)
    assert sum(isinstance(m, nn.MaxPool2d) for m in encoder.modules()) == poolings
    norms = len(convs) if "toronto" in name else 0
    assert sum(isinstance(m, nn.BatchNorm2d) for m in encoder.modules()) == norms
    assert sum(isinstance(m, nn.ReLU) for m in encoder.modules()) == len(convs)
    count = sum(i * o * k * k + o for i, o, k, _ in table) + 2 * sum(o for _, o, _, _ in table[:norms])
    assert sum(p.numel() for p in encoder.parameters()) == count


def test_the_layers_of_a_block_stand_in_the_tables_order():
    def kinds(name: str) -> list[list[str]]:
        blocks = [block for stage in create_backbone(name).stages for block in stage.convs]
        return [[type(layer).__name__ for layer in block if not isinstance(layer, nn.Identity)] for block in blocks]

    pooled, norm, plain = (
        ["Conv2d", "MaxPool2d", "BatchNorm2d", "ReLU"],
        ["Conv2d", "BatchNorm2d", "ReLU"],
        ["Conv2d", "ReLU"],
    )
    assert kinds("pretint_toronto_cnn") == [pooled, pooled, norm]
    assert kinds("pretint_toronto_strided") == [norm] * 3
    assert kinds("pretint_wallner_alpha") == [plain] * 6


@every_seed
def test_levels_are_where_the_table_halves(name):
    info = create_backbone(name).feature_info
    assert ([level["num_chs"] for level in info], [level["reduction"] for level in info]) == LEVELS[name]


@every_seed
@pytest.mark.parametrize("size", [(8, 8), (9, 13), (33, 47)])
def test_small_and_odd_pictures_are_rounded_up(name, size):
    encoder = create_backbone(name, width=4).eval()
    with torch.no_grad():
        maps = encoder.forward_intermediates(_noise(1, 1, *size), intermediates_only=True)
    for m, level in zip(maps, encoder.feature_info, strict=True):
        assert m.shape[1:] == (level["num_chs"], *(math.ceil(side / level["reduction"]) for side in size))


@every_seed
def test_the_width_scales_every_layer(name):
    plain, narrow = create_backbone(name), create_backbone(name, width=SEED_ENCODERS[name].width // 4)
    assert [4 * level["num_chs"] for level in narrow.feature_info] == [level["num_chs"] for level in plain.feature_info]


@every_seed
@pytest.mark.parametrize("output_stride", [1, 2, 4])
def test_dilated_instead_of_strided_weights_are_the_same_and_maps_larger(name, output_stride):
    encoder = timm.create_model(name, width=4, output_stride=output_stride, num_classes=0).eval()
    _, reductions = LEVELS[name]
    wanted = [min(r, output_stride) for r in reductions]
    assert [level["reduction"] for level in encoder.feature_info] == wanted
    with torch.no_grad():
        maps = encoder.forward_intermediates(_noise(1, 3, 33, 31), intermediates_only=True)
    assert [tuple(m.shape[2:]) for m in maps] == [(-(-33 // r), -(-31 // r)) for r in wanted]
    plain = timm.create_model(name, width=4, num_classes=0)
    assert {k: v.shape for k, v in encoder.state_dict().items()} == {k: v.shape for k, v in plain.state_dict().items()}


@pytest.mark.parametrize("name", ["pretint_toronto_strided", "pretint_wallner_alpha"])
def test_a_dilated_map_holds_the_strided_one(name):
    """À trous: at the places that the strided net keeps, the dilated one computes the same."""
    torch.manual_seed(0)
    strided = timm.create_model(name, in_chans=1, num_classes=0).eval()
    dilated = timm.create_model(name, in_chans=1, num_classes=0, output_stride=1).eval()
    dilated.load_state_dict(strided.state_dict())
    reduction = strided.feature_info[-1]["reduction"]
    with torch.no_grad():
        coarse, fine = (e.forward_features(_noise(1, 1, 64, 64)) for e in (strided, dilated))
    inner = slice(2, -2)  # away from the border, where the two pad differently
    torch.testing.assert_close(fine[..., ::reduction, ::reduction][..., inner, inner], coarse[..., inner, inner])


# First weights


@pytest.mark.parametrize("name", ["pretint_toronto_cnn", "pretint_toronto_strided"])
def test_the_toronto_nets_start_uniformly_within_one_over_the_root_of_their_inputs(name):
    torch.manual_seed(0)
    for conv in (m for m in create_backbone(name, width=64).modules() if isinstance(m, nn.Conv2d)):
        bound = 1 / math.sqrt(conv.in_channels * 9)
        for values in (conv.weight.detach(), conv.bias.detach()):
            assert 0.9 * bound < values.abs().max() <= bound
        if conv.weight.numel() > 10_000:
            weights = conv.weight.detach().double()
            assert abs(weights.mean()) < 0.02 * bound
            assert weights.std() == pytest.approx(bound / math.sqrt(3), rel=0.02)


def test_that_is_what_torch_itself_does_for_convolutions_and_dense_layers_but_not_for_transposed_ones():
    for layer in (nn.Conv2d(24, 64, 3), nn.Linear(216, 64)):
        assert 0.98 / math.sqrt(216) < layer.weight.abs().max() <= 1 / math.sqrt(216)
    transposed = nn.ConvTranspose2d(24, 64, 3)
    assert transposed.weight.abs().max() <= 1 / math.sqrt(64 * 9)
    draw_weights(transposed, "uniform")
    for values in (transposed.weight, transposed.bias):
        assert 0.9 / math.sqrt(216) < values.abs().max() <= 1 / math.sqrt(216)


@pytest.mark.parametrize("name", ["pretint_wallner_full", "pretint_cs520"])
def test_the_others_start_as_keras_does(name):
    torch.manual_seed(0)
    for conv in (m for m in create_backbone(name).modules() if isinstance(m, nn.Conv2d)):
        bound = math.sqrt(6 / ((conv.in_channels + conv.out_channels) * conv.kernel_size[0] ** 2))
        assert 0.95 * bound < conv.weight.abs().max() <= bound
        assert not conv.bias.any()


# Into other projects


@every_seed
def test_a_seed_travels_to_the_bit_for_us_and_for_timm(tmp_path, name):
    encoder = _trained(name, width=8)
    save_backbone(encoder, tmp_path, {"task": "palette"})
    loaded = load_backbone(tmp_path)
    x = encoder.preprocess(_pictures())
    theirs = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    with torch.no_grad():
        assert torch.equal(loaded(x), encoder(x))
        assert torch.equal(theirs(x), encoder(x))
    assert all(torch.equal(v, encoder.state_dict()[k]) for k, v in loaded.state_dict().items())
    assert loaded.spec == encoder.spec


@every_seed
def test_a_grey_seed_folds_into_rgb(name):
    encoder = _trained(name, width=8)
    folded = fold_rgb(encoder)
    torch.testing.assert_close(features(folded, _pictures()), features(encoder, _pictures()), rtol=1e-4, atol=1e-5)


@every_seed
def test_features_only_gives_all_levels_by_default(name):
    model = timm.create_model(name, features_only=True, width=4, in_chans=1).eval()
    with torch.no_grad():
        maps = model(_noise(2, 1, 32, 32))
    assert model.feature_info.reduction() == LEVELS[name][1]
    assert [32 // m.shape[-1] for m in maps] == LEVELS[name][1]


def test_seeds_can_be_paired():
    pair = create_backbone("pair/pretint_wallner_beta", width=4).eval()
    assert pair.pretrained_cfg["pool_size"] == (4, 4)
    assert features(pair, _pictures()).shape == (3, 2 * 16)


@every_seed
def test_the_gradient_reaches_every_parameter(name):
    encoder = _trained(name, width=4)  # evaluating: in training a normalisation cancels the bias in front of it
    encoder(_noise(4, 1, 32, 32)).square().sum().backward()
    assert [key for key, p in encoder.named_parameters() if p.grad is None or not p.grad.any()] == []


# Bad input


def test_an_unknown_seed_gives_the_closest():
    with pytest.raises(UnknownNameError, match=r"seed: 'pretint_toronto_cn' .*did you mean 'pretint_toronto_cnn'"):
        SeedEncoder("pretint_toronto_cn")


@pytest.mark.parametrize("option", ["depth", "blocks", "seed"])
def test_options_that_a_seed_does_not_take_are_refused(option):
    with pytest.raises(ArgumentError, match="pretint_cs520 does not take these options"):
        create_backbone("pretint_cs520", **{option: 2})
