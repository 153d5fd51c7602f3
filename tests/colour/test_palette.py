"""Palettes: labels, counts, decoding, and one result for all processes."""

import inspect
import json

import pytest
import torch

import pretint.colour.palette as palette_module
from pretint.colour import (
    PALETTE_SPACES,
    Palette,
    build_palette,
    grey_levels,
    lab_to_rgb,
    luma,
    rgb_to_lab,
    rgb_to_ycbcr,
    to_float,
    to_palette_space,
    to_uint8,
)
from pretint.runtime.errors import ArgumentError, UnknownNameError


def _noise(n: int, seed: int = 0, size: int = 16) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", params=PALETTE_SPACES)
def noise_palette(request) -> Palette:
    return build_palette(lambda: _noise(40).split(7), 16, request.param)


def _palette(space: str, centres: list[list[float]], grey: str = "rec601") -> Palette:
    k = len(centres)
    return Palette(
        space,
        torch.tensor(centres),
        torch.full((k,), 1 / k, dtype=torch.float64),
        torch.ones(256, k, dtype=torch.float64),
        grey,
    )


def test_labels_are_the_nearest_centres(noise_palette):
    pictures = _noise(5, seed=9)
    points = to_palette_space(pictures, noise_palette.space).permute(0, 2, 3, 1)
    expected = (points[..., None, :].double() - noise_palette.centres.double()).square().sum(-1).argmin(-1)
    labels = noise_palette.labels(pictures)
    assert labels.dtype == torch.int64
    assert torch.equal(labels, expected)
    assert torch.equal(noise_palette.labels(pictures.to(memory_format=torch.channels_last)), expected)


@pytest.mark.parametrize("grey", ["rec601", "mean", "lstar"])
def test_prior_and_grey_lookup_of_24_known_colours_are_exact(grey):
    generator = torch.Generator().manual_seed(0)
    cubes = torch.randperm(64, generator=generator)[:24]
    colours = (torch.stack((cubes // 16, cubes // 4 % 4, cubes % 4), 1) * 64 + 13).to(torch.uint8)
    counts = torch.arange(1, 25)  # 300 pixels
    pixels = colours.repeat_interleave(counts, 0)[torch.randperm(300, generator=generator)]
    pictures = pixels.view(3, 10, 10, 3).permute(0, 3, 1, 2)
    palette = build_palette(lambda: pictures.split(2), 24, grey=grey)

    # Which centre is which colour: all 24 must be there.
    where = {tuple(row): index for index, row in enumerate((palette.centres * 255).round().to(torch.uint8).tolist())}
    order = [where[tuple(colour)] for colour in colours.tolist()]
    assert palette.prior[order].tolist() == [count / 300 for count in counts.tolist()]
    expected = torch.zeros(256, 24, dtype=torch.float64)
    levels = grey_levels(colours.t()[None, :, None], grey).flatten().tolist()
    for level, label, count in zip(levels, order, counts.tolist(), strict=True):
        expected[level, label] += count
    assert torch.equal(palette.grey_lookup, expected)
    assert palette.labels(pictures).flatten().tolist() == [where[tuple(pixel)] for pixel in pixels.tolist()]
    assert {tuple(c) for c in palette.colours().tolist()} == {tuple(c) for c in colours.tolist()}


def test_prior_and_grey_lookup_agree(noise_palette):
    assert noise_palette.prior.sum().item() == pytest.approx(1, abs=1e-12)
    assert noise_palette.grey_lookup.sum() == 40 * 16 * 16
    levels = grey_levels(_noise(40)).flatten().bincount(minlength=256)
    assert torch.equal(noise_palette.grey_lookup.sum(1), levels.double())


def test_the_batching_changes_nothing():
    one = build_palette(lambda: [_noise(40)], 8, "lab")
    many = build_palette(lambda: _noise(40).split(3), 8, "lab")
    assert one.to_dict() == many.to_dict()


def test_the_table_is_made_once(monkeypatch):
    made = []
    table = palette_module.label_table
    monkeypatch.setattr(palette_module, "label_table", lambda *args: made.append(args) or table(*args))
    palette = build_palette(lambda: _noise(4).split(2), 4)
    palette.labels(_noise(1))
    assert len(made) == 1


def test_json_gives_the_same_palette_to_the_bit(noise_palette):
    again = Palette.from_dict(json.loads(json.dumps(noise_palette.to_dict())))
    for name in ("centres", "prior", "grey_lookup"):
        assert torch.equal(getattr(again, name), getattr(noise_palette, name))
    assert (again.space, again.grey, again.size) == (noise_palette.space, noise_palette.grey, 16)
    pictures = _noise(3, seed=5)
    assert torch.equal(again.labels(pictures), noise_palette.labels(pictures))


@pytest.mark.parametrize("space", PALETTE_SPACES)
@pytest.mark.parametrize("grey", ["rec601", "lstar"])
def test_decoding_a_pictures_own_coordinates_gives_the_picture(space, grey):
    # "ab" needs the true L*, and "cbcr" the true Y, so each is tried with the grey picture that has it.
    pictures = _noise(2)
    centres = [[0.1] * (3 if space in ("rgb", "lab") else 2), [0.2] * (3 if space in ("rgb", "lab") else 2)]
    decoded = _palette(space, centres, grey).decode(to_palette_space(pictures, space), luma(pictures, grey))
    if (space, grey) == ("ab", "rec601"):
        # The lightness is the grey picture's, the chroma the picture's own where that fits into the gamut.
        neutral = rgb_to_lab(luma(pictures).expand(-1, 3, -1, -1))[:, :1]
        expected = lab_to_rgb(torch.cat((neutral, rgb_to_lab(pictures)[:, 1:]), 1))
        assert (decoded - expected).abs().max() < 1e-6
    elif (space, grey) == ("cbcr", "lstar"):
        dull = (pictures // 8 + 112).to(torch.uint8)
        decoded = _palette(space, centres, grey).decode(to_palette_space(dull, space), luma(dull, grey))
        shown = lab_to_rgb(torch.cat((luma(dull, "lstar") * 100, torch.zeros(2, 2, 16, 16)), 1))[:, :1]
        assert (rgb_to_ycbcr(decoded)[:, :1] - shown).abs().max() < 1e-5
        assert (rgb_to_ycbcr(decoded) - rgb_to_ycbcr(dull))[:, 1:].abs().max() < 1e-6
    else:
        assert torch.equal(to_uint8(decoded), pictures)


@pytest.mark.parametrize("space", ["ab", "cbcr"])
@pytest.mark.parametrize("grey", ["rec601", "rec709", "mean", "lstar"])
def test_a_chroma_of_zero_paints_the_grey_picture(space, grey):
    levels = torch.linspace(0, 1, 64).view(1, 1, 8, 8)
    painted = _palette(space, [[0.0, 0.0], [0.1, 0.1]], grey).decode(torch.zeros(1, 2, 8, 8), levels)
    assert (luma(painted, grey) - levels).abs().max() < 1e-4
    assert (painted.amax(1) - painted.amin(1)).max() < 1e-4


def test_swatches_have_the_chroma_of_their_centres():
    palette = _palette("cbcr", [[0.0, 0.0], [0.1, -0.1]])
    swatches = palette.colours()
    assert swatches.shape == (2, 3)
    assert swatches.dtype == torch.uint8
    chroma = rgb_to_ycbcr(swatches.t()[None, :, None])[0, 1:, 0].t()
    assert (chroma - palette.centres).abs().max() < 1 / 255
    lab = rgb_to_lab(_palette("ab", [[20.0, -10.0], [-15.0, 30.0]]).colours().t()[None, :, None])[0, :, 0].t()
    assert (lab - torch.tensor([[60.0, 20, -10], [60, -15, 30]])).abs().max() < 0.5


def test_other_processes_receive_the_main_ones_palette(monkeypatch):
    sent = []
    monkeypatch.setattr(palette_module, "broadcast_from_main", lambda tensor: sent.append(tensor) or tensor)
    main = build_palette(lambda: _noise(10).split(4), 6, "cbcr")

    def receive(tensor: torch.Tensor) -> torch.Tensor:
        message = sent.pop(0)
        # What a real broadcast asks for: the same shape and type on both sides.
        assert (tensor.shape, tensor.dtype) == (message.shape, message.dtype)
        return message

    def never():
        raise AssertionError("only the main process looks at the pictures")

    monkeypatch.setattr(palette_module, "is_main", lambda: False)
    monkeypatch.setattr(palette_module, "broadcast_from_main", receive)
    assert build_palette(never, 6, "cbcr").to_dict() == main.to_dict()


def test_what_does_not_fit_is_refused_in_a_sentence():
    with pytest.raises(UnknownNameError, match="palette space"):
        _palette("hsv", [[0.0, 0, 0], [1, 1, 1]])
    with pytest.raises(UnknownNameError, match="grey formula"):
        _palette("rgb", [[0.0, 0, 0], [1, 1, 1]], grey="rec602")
    with pytest.raises(ArgumentError, match=r"'ab' needs a table of at least 2 × 2 numbers, got one of \(2, 3\)"):
        _palette("ab", [[0.0, 0, 0], [1, 1, 1]])
    with pytest.raises(ArgumentError, match="finite"):
        _palette("ab", [[0.0, float("nan")], [1, 1]])
    saved = _palette("ab", [[0.0, 0.0], [1.0, 1.0]]).to_dict()
    with pytest.raises(ArgumentError, match=r"2 centres need \(2,\) and \(256, 2\), got \(1,\)"):
        # Without the shape checks that the tests may put around it: users have none.
        inspect.unwrap(Palette.__init__)(
            object.__new__(Palette), "ab", torch.eye(2), torch.ones(1).double(), torch.ones(256, 2).double()
        )
    del saved["centres"]
    with pytest.raises(ArgumentError, match="lacks 'centres'"):
        Palette.from_dict(saved)


def test_labels_and_decode_refuse_other_shapes():
    palette = _palette("ab", [[0.0, 0.0], [1.0, 1.0]])
    with pytest.raises(ArgumentError, match="uint8 pictures"):
        inspect.unwrap(Palette.labels)(palette, to_float(_noise(1)))
    with pytest.raises(ArgumentError, match=r"needs \(batch, 2, height, width\), got \(1, 3, 4, 4\)"):
        palette.decode(torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 4, 4))


def test_a_second_pass_without_pictures_is_an_error():
    passes = iter([[_noise(2)], []])
    with pytest.raises(ArgumentError, match="second pass"):
        build_palette(lambda: next(passes), 2)
