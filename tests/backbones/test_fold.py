"""A grey encoder folded to RGB input computes the same, borders included; what can't be folded says why."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn
from torchvision.transforms.functional import normalize

from pretint.backbones import Preprocess, create_backbone, features, fold_rgb, load_backbone, save_backbone
from pretint.runtime.errors import ArgumentError

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
ENCODERS = [
    "pretint_unet",
    "pretint_cnn",
    "pretint_resunet",
    "timm/resnet18",
    "timm/convnext_atto",
    "timm/efficientnet_b0",
]


def _trained(name: str, **options) -> nn.Module:
    """An encoder whose normalisations have seen something, so that no border is hidden by zeros."""
    torch.manual_seed(0)
    sizes = {"width": 4} if name.startswith("pretint") else {}
    encoder = create_backbone(name, **sizes, **options)
    encoder(torch.randn(4, 1, 32, 32) + 1)
    return encoder.eval()


def _rgb(n: int = 2, height: int = 33, width: int = 32) -> torch.Tensor:
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(1))


def _relative(x: torch.Tensor, y: torch.Tensor) -> float:
    return float((x - y).norm() / y.norm())


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("grey", ["rec601", "rec709", "mean"])
@pytest.mark.parametrize(("mean", "std"), [IMAGENET, ((0.5,) * 3, (0.25,) * 3), ((0.0,) * 3, (1.0,) * 3)])
def test_the_first_convolution_gives_the_same_borders_included(name, grey, mean, std):
    encoder = _trained(name, preprocess=Preprocess(1, grey))
    folded = fold_rgb(encoder, mean, std)
    rgb = _rgb()
    outputs = []
    for model, x in ((encoder, encoder.preprocess(rgb)), (folded, normalize(rgb, list(mean), list(std)))):
        first = model.get_submodule(model.pretrained_cfg["first_conv"].removesuffix(".conv"))
        first.register_forward_hook(lambda m, args, out: outputs.append(out))
        with torch.no_grad():
            model.forward_intermediates(x, intermediates_only=True)
    assert float((outputs[0] - outputs[1]).abs().max()) < 1e-5 * max(1.0, float(outputs[0].abs().max()))


@pytest.mark.parametrize("name", ENCODERS)
def test_features_of_the_folded_encoder_are_those_of_the_grey_one(name):
    encoder = _trained(name)
    folded = fold_rgb(encoder, *IMAGENET)
    rgb = (255 * _rgb(3)).to(torch.uint8)
    assert _relative(features(folded, rgb), features(encoder, rgb)) < 1e-4
    with torch.no_grad():
        mapped = folded.forward_intermediates(normalize(rgb / 255, *map(list, IMAGENET)), intermediates_only=True)
        wanted = encoder.forward_intermediates(encoder.preprocess(rgb), intermediates_only=True)
    for one, other in zip(mapped, wanted, strict=True):
        assert _relative(one, other) < 1e-4


def test_the_given_encoder_stays_as_it_was():
    encoder = _trained("pretint_cnn")
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    fold_rgb(encoder, *IMAGENET)
    assert all(torch.equal(before[k], v) for k, v in encoder.state_dict().items())
    assert encoder.preprocess == Preprocess()
    assert encoder.in_chans == 1


def test_at_our_own_mean_the_convolution_stays_a_plain_one_and_the_encoder_travels(tmp_path):
    encoder = _trained("pretint_unet")
    folded = fold_rgb(encoder, std=(0.2, 0.3, 0.4))
    assert type(folded.get_submodule("stages.0.convs.0.0")) is nn.Conv2d
    save_backbone(folded, tmp_path)
    loaded = load_backbone(tmp_path)
    assert loaded.preprocess == Preprocess(3, mean=0.5, std=(0.2, 0.3, 0.4))
    rgb = _rgb()
    assert torch.equal(features(loaded, rgb), features(folded, rgb))
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=0).eval()
    with torch.no_grad():
        assert (
            _relative(model((rgb - 0.5) / torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)), features(encoder, rgb)) < 1e-4
        )


def test_folded_to_another_mean_it_is_not_saved(tmp_path):
    with pytest.raises(ArgumentError, match=r"layers are not those it was made with.*save it before"):
        save_backbone(fold_rgb(_trained("pretint_unet"), *IMAGENET), tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_three_channels_fold_on_loading(tmp_path):
    encoder = _trained("pretint_cnn")
    save_backbone(encoder, tmp_path)
    loaded = load_backbone(tmp_path, in_chans=3)
    assert loaded.preprocess.in_chans == loaded.in_chans == 3
    rgb = _rgb()
    with torch.no_grad():
        assert _relative(loaded((rgb - 0.5) / 0.25), encoder(encoder.preprocess(rgb))) < 1e-5
    assert load_backbone(tmp_path, in_chans=1).preprocess == encoder.preprocess


@pytest.mark.parametrize(("saved", "wanted"), [(3, 1), (1, 2), (3, 4)])
def test_other_channels_are_refused_on_loading(tmp_path, saved, wanted):
    save_backbone(create_backbone("pretint_cnn", saved, width=2), tmp_path)
    with pytest.raises(ArgumentError, match=f"in_chans: {wanted} .*input has {saved}"):
        load_backbone(tmp_path, in_chans=wanted)


def test_lstar_can_not_be_folded():
    with pytest.raises(ArgumentError, match="not linear in RGB"):
        fold_rgb(_trained("pretint_cnn", preprocess=Preprocess(1, "lstar")))


@pytest.mark.parametrize("name", ["pretint_cnn", "pair/pretint_cnn"])
def test_only_grey_encoders_can_be_folded(name):
    with pytest.raises(ArgumentError, match="3 input channels"):
        fold_rgb(create_backbone(name, 3, width=2))


def test_a_convolution_that_standardises_its_weights_can_not_be_folded():
    with pytest.raises(ArgumentError, match="not linear in its weights"):
        fold_rgb(create_backbone("timm/nf_resnet26", stem="stock").eval())


@pytest.mark.parametrize("wrong", [{"mean": (0.5, 0.5)}, {"std": (0.25, 0.0, 0.25)}, {"std": (1.0,) * 4}])
def test_a_normalisation_that_does_not_fit_is_refused(wrong):
    with pytest.raises(ArgumentError, match=next(iter(wrong))):
        fold_rgb(_trained("pretint_cnn"), **wrong)


def test_one_number_serves_all_channels_and_units_of_255_are_refused():
    encoder = _trained("pretint_cnn")
    assert fold_rgb(encoder, 0.4, 0.2).preprocess == Preprocess(3, mean=0.4, std=0.2)
    with pytest.raises(ArgumentError, match="divide mean and std by 255"):
        fold_rgb(encoder, (123.7, 116.3, 103.5), (58.4, 57.1, 57.4))
