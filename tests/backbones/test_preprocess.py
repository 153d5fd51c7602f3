"""How RGB becomes input: known values, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import rgb2lab

from pretint.backbones import Preprocess, create_backbone
from pretint.runtime.errors import ArgumentError, UnknownNameError


def _flat(*rgb: int) -> torch.Tensor:
    return torch.tensor(rgb, dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 2, 2)


def _noise(n: int = 2) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, 5, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("grey", "wanted"), [("rec601", 0.299), ("rec709", 0.2126), ("mean", 1 / 3), ("lstar", 0.5324)]
)
def test_pure_red_has_the_published_luma_of_each_formula(grey, wanted):
    x = Preprocess(1, grey)(_flat(255, 0, 0))
    assert x.shape == (1, 1, 2, 2)
    assert x.dtype == torch.float32
    torch.testing.assert_close(x, torch.full_like(x, (wanted - 0.5) / 0.25), atol=4e-4, rtol=0)


@pytest.mark.parametrize("in_chans", [1, 3])
def test_black_and_white_lie_two_deviations_around_the_mean(in_chans):
    preprocess = Preprocess(in_chans)
    torch.testing.assert_close(preprocess(_flat(0, 0, 0)), torch.full((1, in_chans, 2, 2), -2.0))
    torch.testing.assert_close(preprocess(_flat(255, 255, 255)), torch.full((1, in_chans, 2, 2), 2.0))


def test_rgb_input_is_each_channel_normalised():
    rgb = _noise()
    wanted = (rgb.numpy() / 255 - 0.1) / 0.7
    np.testing.assert_allclose(Preprocess(3, mean=0.1, std=0.7)(rgb).numpy(), wanted, atol=1e-6)


def test_lstar_input_matches_scikit_image():
    rgb = _noise()
    wanted = rgb2lab(rgb.permute(0, 2, 3, 1).numpy())[..., 0] / 100
    np.testing.assert_allclose(Preprocess(1, "lstar", 0.0, 1.0)(rgb)[:, 0].numpy(), wanted, atol=1e-4)


@pytest.mark.parametrize("in_chans", [1, 3])
@pytest.mark.parametrize("grey", ["rec601", "lstar"])
def test_uint8_and_float_pictures_give_the_same_input(in_chans, grey):
    preprocess, rgb = Preprocess(in_chans, grey), _noise()
    torch.testing.assert_close(preprocess(rgb), preprocess(rgb.float() / 255), atol=2e-6, rtol=0)


def test_a_dict_of_it_makes_it_again():
    preprocess = Preprocess(3, "mean", 0.25, 0.125)
    assert Preprocess(**preprocess.to_dict()) == preprocess


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 1, 8, 8), (2, 8, 8, 3), (2, 3, 8)])
@pytest.mark.parametrize("in_chans", [1, 3])
def test_shapes_other_than_rgb_batches_are_refused(shape, in_chans):
    with pytest.raises(ArgumentError, match=r"images: shape \(.*\) is not \(n, 3, h, w\)"):
        Preprocess(in_chans)(torch.zeros(shape, dtype=torch.uint8))


@pytest.mark.parametrize("in_chans", [1, 3])
def test_whole_numbers_that_are_not_uint8_are_refused(in_chans):
    with pytest.raises(ArgumentError, match="uint8"):
        Preprocess(in_chans)(torch.zeros(1, 3, 8, 8, dtype=torch.int64))


@pytest.mark.parametrize("grey", ["rec601", "lstar"])
@pytest.mark.parametrize("in_chans", [2, 3])
def test_ab_chroma_is_scikit_images(grey, in_chans):
    rgb = _noise()
    lab = rgb2lab(rgb.permute(0, 2, 3, 1).numpy())
    x = Preprocess(in_chans, grey, 0.0, 1.0, chroma="ab")(rgb).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(x[..., -2:], lab[..., 1:] / 128, atol=1e-4)
    if in_chans == 3 and grey == "lstar":
        np.testing.assert_allclose(x[..., 0], lab[..., 0] / 100, atol=1e-4)


def test_cbcr_chroma_is_pils_and_grey_goes_in_front():
    rgb = _noise(1)
    pil = Image.fromarray(rgb[0].permute(1, 2, 0).numpy()).convert("YCbCr")
    wanted = np.asarray(pil, np.float32) / 255 - np.array([0, 128 / 255, 128 / 255])
    x = Preprocess(3, mean=0.0, std=1.0, chroma="cbcr")(rgb)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(x, wanted, atol=1.01 / 255)


def test_each_channel_has_its_own_normalisation():
    rgb = _noise()
    mean, std = np.array([0.1, 0.2, 0.3]), np.array([0.5, 0.6, 0.7])
    wanted = (rgb.numpy() / 255 - mean[:, None, None]) / std[:, None, None]
    x = Preprocess(3, mean=(0.1, 0.2, 0.3), std=[0.5, 0.6, 0.7])(rgb)
    np.testing.assert_allclose(x.numpy(), wanted, atol=1e-6)


def test_pil_images_are_stacked_and_resized_on_demand():
    rgb = _noise(2)
    pictures = [Image.fromarray(one.permute(1, 2, 0).numpy()) for one in rgb]
    preprocess = Preprocess()
    assert torch.equal(preprocess(pictures), preprocess(rgb))
    assert torch.equal(preprocess(pictures[1]), preprocess(rgb[1:]))
    assert torch.equal(preprocess(pictures[0].convert("L")), preprocess(preprocess_grey(pictures[0])))
    wide = Image.new("RGB", (64, 16), "red")
    with pytest.raises(ArgumentError, match=r"different sizes.*size="):
        preprocess([pictures[0], wide])
    assert preprocess([pictures[0], wide], size=12).shape == (2, 1, 12, 12)
    torch.testing.assert_close(preprocess(wide, 8), preprocess(_flat(255, 0, 0)).mean().expand(1, 1, 8, 8))


def preprocess_grey(picture: Image.Image) -> torch.Tensor:
    """A PIL image's own grey (rec601), three times: (1, 3, h, w)."""
    return torch.from_numpy(np.asarray(picture.convert("L"))).expand(1, 3, -1, -1)


@pytest.mark.parametrize("images", [[], ["a.png"], "a.png", np.zeros((2, 8, 8, 3), np.uint8), None])
def test_what_is_no_picture_is_refused(images):
    with pytest.raises(ArgumentError, match="neither a tensor nor a PIL image"):
        Preprocess()(images)


def test_a_float_picture_in_0_to_255_is_refused():
    with pytest.raises(ArgumentError, match=r"lie in 0…1.*divide them by 255"):
        Preprocess()(_noise().float())


@pytest.mark.parametrize("settings", [{"mean": (0.1, 0.2)}, {"in_chans": 3, "std": [1.0]}, {"std": "wide"}])
def test_a_normalisation_that_fits_no_channel_is_refused(settings):
    with pytest.raises(ArgumentError, match=r"mean|std"):
        Preprocess(**settings)


@pytest.mark.parametrize("in_chans", [1, 4])
def test_chroma_of_other_channels_is_refused(in_chans):
    with pytest.raises(ArgumentError, match=f"in_chans: {in_chans} .*use 2 .*or 3"):
        Preprocess(in_chans, chroma="cbcr")


def test_a_mistyped_chroma_gives_the_closest():
    with pytest.raises(UnknownNameError, match="did you mean 'cbcr'"):
        Preprocess(2, chroma="cbrc")


@pytest.mark.parametrize("in_chans", [0, 2, 4])
def test_channels_that_no_rgb_picture_gives_are_refused(in_chans):
    with pytest.raises(ArgumentError, match=f"in_chans: {in_chans} .*use 1 .*or 3"):
        Preprocess(in_chans)


@pytest.mark.parametrize("settings", [{"std": 0.0}, {"std": -1.0}, {"std": float("nan")}, {"std": float("inf")},
                                      {"mean": float("nan")}, {"mean": float("-inf")}])  # fmt: skip
def test_a_normalisation_that_can_not_be_is_refused(settings):
    (name,) = settings
    with pytest.raises(ArgumentError, match=f"{name}: .* finite number"):
        Preprocess(**settings)


def test_a_mistyped_formula_gives_the_closest():
    with pytest.raises(UnknownNameError, match="did you mean 'rec601'"):
        Preprocess(grey="rec602")


def test_the_encoder_gets_the_input_its_preprocessing_makes():
    preprocess = Preprocess(1, "mean", 0.3, 0.5)
    encoder = create_backbone("pretint_cnn", width=2, depth=2, preprocess=preprocess)
    assert encoder.preprocess is preprocess
    with pytest.raises(ArgumentError, match="in_chans: 3 does not fit"):
        create_backbone("pretint_cnn", 3, preprocess=preprocess)


@pytest.mark.parametrize("value", [float("nan"), -2.0, 2.6])
def test_a_float_picture_that_is_normalised_already_is_refused(value):
    rgb = torch.rand(1, 3, 8, 8)
    rgb[0, 1, 2, 3] = value
    with pytest.raises(ArgumentError, match=r"lie in 0…1.*fold_rgb"):
        Preprocess()(rgb)


def test_pil_images_of_other_modes_are_read_as_in_training():
    ramp = (np.arange(64).reshape(8, 8) * 1040).astype(np.uint16)
    x = Preprocess(1, "mean", 0.0, 1.0)(Image.fromarray(ramp))
    np.testing.assert_allclose(x[0, 0].numpy(), ramp / 65535, atol=1 / 255)
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert float(Preprocess(3, mean=0.0, std=1.0)(clear).min()) == 1.0  # transparent lies on white
    with pytest.raises(ArgumentError, match="mode F"):
        Preprocess()(Image.new("F", (8, 8)))
