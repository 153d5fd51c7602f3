"""Encoders by name: ours, timm's with the small stem, and through timm's own factory."""

from __future__ import annotations

import doctest
import importlib

import pytest
import timm
import torch
from torch import nn

from pretint.backbones import SEED_ENCODERS, Preprocess, create_backbone, list_backbones, shrink_stem
from pretint.backbones.contract import PyramidEncoder
from pretint.runtime.errors import ArgumentError, UnknownNameError

OURS = ("pretint_cnn", "pretint_unet")
our_encoders = pytest.mark.parametrize("name", OURS)


def _count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_docstring_examples():
    result = doctest.testmod(importlib.import_module("pretint.backbones.registry"))
    assert result.attempted > 0
    assert result.failed == 0


def test_our_encoders_are_listed_first_and_timm_on_demand():
    sized = [
        f"pretint_{kind}{size}" for kind in ("cnn", "resunet", "unet") for size in ("", "_base", "_small", "_tiny")
    ]
    ours = sorted([*sized, *SEED_ENCODERS])
    assert list_backbones() == ours
    names = list_backbones(timm_models=True)
    assert names[: len(ours)] == ours
    assert "timm/resnet18" in names
    assert len(names) == len(set(names))
    assert not {"timm/pretint_unet", "timm/pretint_small_stem", "timm/pretint_pair"} & set(names)


@pytest.mark.parametrize("family", ["pretint_unet", "pretint_cnn", "pretint_resunet"])
def test_a_family_grows_from_tiny_to_base_and_its_small_one_is_the_default(family):
    sizes = [
        sum(p.numel() for p in create_backbone(f"{family}_{size}").parameters()) for size in ("tiny", "small", "base")
    ]
    assert 1.5 * sizes[0] < sizes[1] < sizes[2] / 1.5
    assert sum(p.numel() for p in create_backbone(family).parameters()) == sizes[1]


def test_a_size_by_name_is_the_size_by_options():
    torch.manual_seed(0)
    named = create_backbone("pretint_resunet_base").state_dict()
    torch.manual_seed(0)
    given = create_backbone("pretint_resunet", width=48, blocks=2).state_dict()
    assert all(torch.equal(named[k], given[k]) for k in named | given)


@pytest.mark.parametrize(
    "name",
    [
        "pair/pretint_unat",
        "pair/timm/resnet18",
        "pretint_pair",
        "pretint_small_stem",
        "timm/pretint_small_stem",
        "timm/pretint_unet_tiny",
    ],
)
def test_pairs_are_of_our_own_encoders(name):
    with pytest.raises(UnknownNameError):
        create_backbone(name)


# Through timm's factory


@our_encoders
def test_timms_factory_defaults_to_timms_defaults(name):
    model = timm.create_model(name).eval()
    assert model.num_classes == 1000
    assert model.in_chans == 3
    with torch.no_grad():
        assert model(_noise(2, 3, 32, 32)).shape == (2, 1000)


@our_encoders
def test_timms_configuration_names_real_layers(name):
    model = timm.create_model(name, width=4)
    state = model.state_dict()
    assert model.pretrained_cfg["classifier"] + ".weight" in state
    assert state[model.pretrained_cfg["first_conv"] + ".weight"].shape[1] == 3
    assert model.get_classifier() is model.get_submodule(model.pretrained_cfg["classifier"])
    _, height, width = model.pretrained_cfg["min_input_size"]
    with torch.no_grad():
        assert model.eval()(torch.zeros(1, 3, height, width)).isfinite().all()


@our_encoders
@pytest.mark.parametrize("out_indices", [None, (0, 1), (1, 3), (2,), (-2, -1)])
def test_features_only_gives_the_chosen_maps(name, out_indices):
    torch.manual_seed(0)
    whole = timm.create_model(name, width=4, in_chans=1, num_classes=0).eval()
    chosen = {} if out_indices is None else {"out_indices": out_indices}
    features = timm.create_model(name, width=4, in_chans=1, features_only=True, **chosen).eval()
    missing = features.model.load_state_dict(whole.state_dict(), strict=False).missing_keys
    assert missing == []
    x = _noise(2, 1, 33, 47)
    with torch.no_grad():
        maps, everything = features(x), whole.forward_intermediates(x, intermediates_only=True)
    wanted = [everything[i] for i in (range(5) if out_indices is None else sorted(i % 5 for i in out_indices))]
    assert len(maps) == len(wanted)
    assert all(torch.equal(a, b) for a, b in zip(maps, wanted, strict=True))
    assert features.feature_info.channels() == [m.shape[1] for m in wanted]
    assert [-(-33 // r) for r in features.feature_info.reduction()] == [m.shape[2] for m in wanted]


@our_encoders
def test_features_only_works_for_another_depth(name):
    features = timm.create_model(name, width=2, depth=3, features_only=True)
    assert features.feature_info.reduction() == [1, 2, 4]


# Sizes


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize(("width", "depth"), [(1, 1), (3, 2), (8, 6)])
def test_width_and_depth_are_free(name, width, depth):
    encoder = create_backbone(name, width=width, depth=depth).eval()
    channels = [width * factor for factor in (1, 2, 4, 8, 8, 8)][:depth]
    assert [level["num_chs"] for level in encoder.feature_info] == channels
    with torch.no_grad():
        assert encoder(_noise(1, 1, 8, 8)).shape == (1, channels[-1])


def test_the_plain_net_has_as_many_convolutions_as_asked():
    for convs in (1, 3):
        encoder = create_backbone("pretint_cnn", width=2, depth=3, convs=convs)
        assert sum(isinstance(m, nn.Conv2d) for m in encoder.modules()) == 1 + 2 * convs
        assert not any(isinstance(m, nn.MaxPool2d) for m in encoder.modules())


def test_the_u_net_has_the_convolutions_of_figure_1():
    encoder = create_backbone("pretint_unet", width=64, in_chans=1)
    weights = [m.weight.shape[:2] for m in encoder.modules() if isinstance(m, nn.Conv2d)]
    wanted = [(64, 1), (64, 64), (128, 64), (128, 128), (256, 128), (256, 256), (512, 256), (512, 512)]
    assert [tuple(w) for w in weights[:8]] == wanted
    assert sum(isinstance(m, nn.MaxPool2d) for m in encoder.modules()) == 4


# The small stem


def test_resnet18_with_the_small_stem_is_the_known_cifar_network():
    # the well-known CIFAR ResNet-18 has 11,173,962 parameters, 5,130 of them in its classifier of ten
    assert _count(create_backbone("timm/resnet18", in_chans=3)) == 11_173_962 - 5_130


def test_the_stock_stem_leaves_a_timm_model_as_it_is():
    ours = create_backbone("timm/resnet18", in_chans=3, stem="stock")
    theirs = timm.create_model("resnet18", num_classes=0)
    # torchvision's ResNet-18 has 11,689,512, of them 513,000 in the classifier
    assert _count(ours) == _count(theirs) == 11_689_512 - 513_000
    assert ours.feature_info == theirs.feature_info


def test_the_image_size_decides_the_automatic_stem():
    assert create_backbone("timm/regnety_002", image_size=63).spec.stem == "small"
    assert create_backbone("timm/regnety_002", image_size=64).spec.stem == "stock"
    assert create_backbone("timm/regnety_002", image_size=32, stem="stock").spec.stem == "stock"


def test_the_small_stem_sees_every_pixel_shift():
    # stride 1 and no pooling: shifting the picture by one shifts the first map by one
    encoder = create_backbone("timm/resnet18").eval()
    x = _noise(1, 1, 32, 32)
    with torch.no_grad():
        first = encoder.forward_intermediates(x, [0], intermediates_only=True)[0]
        moved = encoder.forward_intermediates(x.roll(1, -1), [0], intermediates_only=True)[0]
    torch.testing.assert_close(moved[..., 2:-1], first.roll(1, -1)[..., 2:-1])


def test_a_timm_name_needs_no_prefix():
    assert create_backbone("regnety_002").spec == create_backbone("timm/regnety_002").spec


def test_a_model_of_fixed_size_is_made_at_the_image_size():
    encoder = create_backbone("timm/vit_tiny_patch16_224", patch_size=4, depth=2, embed_dim=48).eval()
    assert encoder.feature_info[-1]["reduction"] == 4
    with torch.no_grad():
        (features,) = encoder.forward_intermediates(_noise(1, 1, 32, 32), [-1], intermediates_only=True)
    assert features.shape == (1, 48, 8, 8)


def test_a_stem_that_can_not_shrink_is_refused():
    with pytest.raises(ArgumentError, match=r"stem: Linear has no single first convolution.*stock"):
        shrink_stem(nn.Linear(2, 2))
    with pytest.raises(ArgumentError, match=r"32|64"):
        create_backbone("timm/vit_tiny_patch16_224", stem="small")


# Bad input


@pytest.mark.parametrize(
    ("got", "meant"),
    [("pretint_unt", "pretint_unet"), ("timm/resnet_18", "timm/resnet18"), ("convnext_ato", "timm/convnext_atto")],
)
def test_a_mistyped_backbone_gives_the_closest_names(got, meant):
    with pytest.raises(UnknownNameError, match=f"backbone: '{got}' is not known; did you mean .*'{meant}'"):
        create_backbone(got)


@pytest.mark.parametrize("name", ["", "timm/", "timm/timm/resnet18", "hf-hub:timm/resnet18", "local-dir:folder", "os"])
def test_names_that_point_elsewhere_are_unknown(name):
    with pytest.raises(UnknownNameError, match="backbone"):
        create_backbone(name)


def test_a_mistyped_stem_gives_the_closest():
    with pytest.raises(UnknownNameError, match=r"stem: 'smal' .*did you mean 'small'"):
        create_backbone("timm/resnet18", stem="smal")


@pytest.mark.parametrize("value", [0, -3, 5000, 2.5, "8", True, None])
def test_sizes_out_of_range_are_refused(value):
    with pytest.raises(ArgumentError, match=r"width: .* must be a whole number from 1 to 4096"):
        create_backbone("pretint_unet", width=value)


@pytest.mark.parametrize(
    ("name", "options"),
    [("pretint_unet", {"widht": 8}), ("pretint_unet", {"convs": 2}), ("timm/resnet18", {"width": 8}),
     ("timm/convnext_atto", {"depths": 3})],
)  # fmt: skip
def test_options_that_an_encoder_does_not_take_are_refused(name, options):
    with pytest.raises(ArgumentError, match=f"backbone: {name} does not take these options"):
        create_backbone(name, **options)


@pytest.mark.parametrize("option", ["pretrained", "checkpoint_path", "features_only", "num_classes", "base"])
@pytest.mark.parametrize("name", ["pretint_unet", "timm/resnet18"])
def test_what_the_factory_decides_is_no_option(name, option):
    with pytest.raises(ArgumentError, match=f"{option}: not an option"):
        create_backbone(name, **{option: 1})


def test_two_channels_are_chroma():
    preprocess = create_backbone("pretint_unet", 2, width=2).preprocess
    assert (preprocess.chroma, preprocess.mean, preprocess.std) == ("cbcr", (0.0, 0.0), (0.125, 0.125))


def test_channels_that_no_picture_gives_are_refused():
    with pytest.raises(ArgumentError, match=r"in_chans: 4 .*use 1 .*or 3"):
        create_backbone("pretint_unet", 4)


# One's own encoder


def test_an_encoder_of_ones_own_is_made_by_its_name():
    def tests_own_encoder(pretrained: bool = False, width: int = 6, **kwargs):
        layer = nn.Conv2d(kwargs.get("in_chans", 3), width, 1)
        return PyramidEncoder([layer], [width], [1], kwargs.get("num_classes", 0), kwargs.get("in_chans", 3))

    tests_own_encoder.__module__ = __name__
    timm.models.register_model(tests_own_encoder)
    encoder = create_backbone("tests_own_encoder", preprocess=Preprocess(1, "mean"), width=5)
    assert encoder.spec.stem == "native"
    assert encoder(_noise(2, 1, 9, 9)).shape == (2, 5)
