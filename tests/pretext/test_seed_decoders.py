"""The networks of published systems against plain torch code written from their tables, and their decoders on other encoders."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretint.backbones import SEED_ENCODERS, create_backbone
from pretint.pretext import (
    DECODERS,
    PREDICT_AT,
    HeadSettings,
    LabRegression,
    PretextModel,
    PyramidDecoder,
    SeedDecoder,
    build_model,
    check_decoder_name,
    decoder_width,
    make_decoder,
    pixel_head,
)
from pretint.pretext.heads import Half
from pretint.runtime.errors import ArgumentError, UnknownNameError

# Each decoder with the encoder that it was published with.
NETWORKS = {
    "toronto-cnn": "pretint_toronto_cnn",
    "toronto-convtranspose": "pretint_toronto_strided",
    "toronto-unet": "pretint_toronto_strided",
    "toronto-unet-pool": "pretint_toronto_cnn",
    "wallner-alpha": "pretint_wallner_alpha",
    "wallner-beta": "pretint_wallner_beta",
    "wallner-full": "pretint_wallner_full",
    "cs520": "pretint_cs520",
}
TORONTO = [name for name in NETWORKS if name.startswith("toronto")]
every_decoder = pytest.mark.parametrize("name", NETWORKS)
LEVELS = [{"num_chs": c, "reduction": r, "module": ""} for c, r in ((5, 1), (6, 2), (7, 4), (8, 8))]


def _noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _network(name: str, out_chans: int = 24, in_chans: int = 1, narrow: bool = False) -> PretextModel:
    torch.manual_seed(0)
    width = SEED_ENCODERS[NETWORKS[name]].width // 8 if narrow else None
    encoder = create_backbone(NETWORKS[name], in_chans, **({} if width is None else {"width": width}))
    return PretextModel(encoder, pixel_head(encoder, out_chans, 1, HeadSettings(decoder=name, width=width)))


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# The published tables as plain torch code; nc classes from nic channels, 32 filters in the Toronto course's nets


def _toronto_cnn(nic: int, nc: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(nic, 32, 3, padding=1), nn.MaxPool2d(2), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1), nn.MaxPool2d(2), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Conv2d(64, 32, 3, padding=1), nn.Upsample(scale_factor=2), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, nc, 3, padding=1), nn.Upsample(scale_factor=2), nn.BatchNorm2d(nc), nn.ReLU(),
        nn.Conv2d(nc, nc, 3, padding=1),
    )  # fmt: skip


def _toronto_convtranspose(nic: int, nc: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(nic, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.ConvTranspose2d(64, 32, 3, stride=2, padding=1, output_padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.ConvTranspose2d(32, nc, 3, stride=2, padding=1, output_padding=1), nn.BatchNorm2d(nc), nn.ReLU(),
        nn.Conv2d(nc, nc, 3, padding=1),
    )  # fmt: skip


class _TorontoUNet(nn.Module):
    def __init__(self, nic: int, nc: int, pool: bool):
        super().__init__()
        if pool:
            self.down1 = nn.Sequential(nn.Conv2d(nic, 32, 3, padding=1), nn.MaxPool2d(2), nn.BatchNorm2d(32), nn.ReLU())
            self.down2 = nn.Sequential(nn.Conv2d(32, 64, 3, padding=1), nn.MaxPool2d(2), nn.BatchNorm2d(64), nn.ReLU())
        else:
            self.down1 = nn.Sequential(nn.Conv2d(nic, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU())
            self.down2 = nn.Sequential(nn.Conv2d(32, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU())
        self.middle = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU())
        if pool:
            self.up1 = nn.Sequential(
                nn.Conv2d(128, 32, 3, 1, 1), nn.Upsample(scale_factor=2), nn.BatchNorm2d(32), nn.ReLU()
            )
            self.up2 = nn.Sequential(
                nn.Conv2d(64, nc, 3, 1, 1), nn.Upsample(scale_factor=2), nn.BatchNorm2d(nc), nn.ReLU()
            )
        else:
            self.up1 = nn.Sequential(nn.ConvTranspose2d(128, 32, 3, 2, 1, 1), nn.BatchNorm2d(32), nn.ReLU())
            self.up2 = nn.Sequential(nn.ConvTranspose2d(64, nc, 3, 2, 1, 1), nn.BatchNorm2d(nc), nn.ReLU())
        self.last = nn.Conv2d(nc + nic, nc, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        down1 = self.down1(x)
        down2 = self.down2(down1)
        up1 = self.up1(torch.cat([self.middle(down2), down2], 1))
        up2 = self.up2(torch.cat([up1, down1], 1))
        return self.last(torch.cat([up2, x], 1))


def _convs(*layers: object) -> nn.Sequential:
    """Numbers are 3 × 3 convolutions with ReLU (a tuple: with that stride), "up" is a nearest upsampling."""
    made, current = [], 1
    for layer in layers:
        if layer == "up":
            made.append(nn.Upsample(scale_factor=2))
            continue
        out, stride = layer if isinstance(layer, tuple) else (layer, 1)
        made += [nn.Conv2d(current, out, 3, stride, 1), nn.ReLU()]
        current = out
    return nn.Sequential(*made)


def _wallner_alpha(nic: int, nc: int) -> nn.Module:
    layers = _convs((8, 2), 8, 16, (16, 2), 32, (32, 2), "up", 32, "up", 16, "up", nc)
    return layers[:-1]


def _wallner_beta(nic: int, nc: int) -> nn.Module:
    layers = _convs(64, (64, 2), 128, (128, 2), 256, (256, 2), 512, 256, 128, "up", 64, "up", 32, nc)
    return nn.Sequential(*layers[:-1], nn.Upsample(scale_factor=2))


class _WallnerFull(nn.Module):
    def __init__(self, nic: int, nc: int):
        super().__init__()
        self.encoder = _convs((64, 2), 128, (128, 2), 256, (256, 2), 512, 512, 256)
        self.fusion = nn.Conv2d(512, 256, 1)
        self.decoder = _convs(128, "up", 64, "up", 32, 16, nc)[:-1]
        self.decoder[0] = nn.Conv2d(256, 128, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.encoder(x)
        tiled = x.mean((2, 3), keepdim=True).repeat(1, 1, x.shape[2], x.shape[3])
        return F.interpolate(self.decoder(self.fusion(torch.cat([x, tiled], 1)).relu()), scale_factor=2)


def _cs520(nic: int, nc: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(nic, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(64, 128, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(2048, 256), nn.ReLU(), nn.Dropout(0.3), nn.Linear(256, 2048), nn.ReLU(),
        nn.Unflatten(1, (128, 4, 4)),
        nn.Upsample(scale_factor=2), nn.ConvTranspose2d(128, 64, 5, padding=2), nn.ReLU(),
        nn.Upsample(scale_factor=2), nn.ConvTranspose2d(64, 32, 5, padding=2), nn.ReLU(),
        nn.Upsample(scale_factor=2), nn.ConvTranspose2d(32, nc, 5, padding=2),
    )  # fmt: skip


PLAIN = {
    "toronto-cnn": _toronto_cnn,
    "toronto-convtranspose": _toronto_convtranspose,
    "toronto-unet": lambda nic, nc: _TorontoUNet(nic, nc, pool=False),
    "toronto-unet-pool": lambda nic, nc: _TorontoUNet(nic, nc, pool=True),
    "wallner-alpha": _wallner_alpha,
    "wallner-beta": _wallner_beta,
    "wallner-full": _WallnerFull,
    "cs520": _cs520,
}


def _copy_weights(source: nn.Module, target: nn.Module) -> None:
    """In order; both list their layers in the order in which they run."""
    ours, theirs = source.state_dict(), target.state_dict()
    assert [v.shape for v in ours.values()] == [v.shape for v in theirs.values()]
    target.load_state_dict(dict(zip(theirs, ours.values(), strict=True)))


@every_decoder
@pytest.mark.parametrize("training", [False, True])
def test_the_network_computes_what_plain_code_from_the_table_does(name, training):
    nic, nc = (3, 24) if name in TORONTO else (1, 2)
    network, plain = _network(name, nc, nic), PLAIN[name](nic, nc)
    with torch.no_grad():  # biases and running statistics that matter
        for i, v in enumerate(v for v in network.state_dict().values() if v.ndim == 1):
            v.copy_(0.5 + torch.rand(v.shape, generator=torch.Generator().manual_seed(i)))
    _copy_weights(network, plain)
    x = _noise(4, nic, 32, 32)
    with torch.no_grad():
        torch.manual_seed(0)  # of the dropout
        wanted = plain.train(training)(x)
        torch.manual_seed(0)
        got = network.train(training)(x)
    assert wanted.abs().mean() > 1e-3
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("toronto-cnn", 86_784),
        ("toronto-convtranspose", 86_784),
        ("toronto-unet", 112_344),
        ("toronto-unet-pool", 112_344),
    ],
)
def test_the_toronto_nets_have_the_published_number_of_parameters(name, count):
    assert _count(_network(name)) == count


@pytest.mark.parametrize("name", TORONTO)
def test_what_a_toronto_net_predicts_changes_its_last_convolution_alone(name):
    shapes = [[p.shape for p in _network(name, out_chans).parameters()] for out_chans in (24, 3)]
    assert shapes[0][:-2] == shapes[1][:-2]
    assert [shape[0] for shape in shapes[1][-2:]] == [3, 3]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_narrower_encoder_has_its_own_decoder_narrowed_by_the_same_factor(name):
    published = SEED_ENCODERS[NETWORKS[name]].width
    width = decoder_width(name, NETWORKS[name], published // 4)
    encoder = create_backbone(NETWORKS[name], width=published // 4)
    head = pixel_head(encoder, 24, 1, HeadSettings(decoder=name, width=width))
    pairs = zip(_network(name).head.parameters(), head.parameters(), strict=True)
    inner = [(len(full), len(narrow)) for full, narrow in pairs if len(full) != 24 or len(narrow) != 24]
    assert inner
    assert all(narrow * 4 == full for full, narrow in inner)


def test_other_decoders_and_decoders_on_other_encoders_keep_their_width():
    for decoder, backbone in (
        ("unet", "pretint_cs520"),
        ("hypercolumn", "pretint_cs520"),
        ("toronto-cnn", "pretint_unet"),
    ):
        assert decoder_width(decoder, backbone, 8) is None
    assert decoder_width("toronto-unet", "pretint_toronto_strided", None) is None
    assert decoder_width("toronto-convtranspose", "pair/pretint_toronto_strided", 8) == 8
    assert decoder_width("wallner-alpha", "pretint_wallner_beta", 16) == 2  # a quarter of 8, as 16 is of 64


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("wallner-alpha", [(32, 32), (32, 16), (16, 2)]),
        ("wallner-beta", [(256, 128), (128, 64), (64, 32), (32, 2)]),
        ("wallner-full", [(512, 256), (256, 128), (128, 64), (64, 32), (32, 16), (16, 2)]),
    ],
)
def test_the_wallner_decoders_have_the_tables_channels(name, layers):
    convs = [m for m in _network(name, 2).head.modules() if isinstance(m, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels) for c in convs] == layers


def test_the_bottleneck_of_cs520_is_dense_and_drops_three_in_ten():
    head = _network("cs520", 3).head
    assert [(m.in_features, m.out_features) for m in head.modules() if isinstance(m, nn.Linear)] == [
        (2048, 256),
        (256, 2048),
    ]
    assert [m.p for m in head.modules() if isinstance(m, nn.Dropout)] == [0.3]
    assert [m.kernel_size for m in head.modules() if isinstance(m, nn.ConvTranspose2d)] == [(5, 5)] * 3


@pytest.mark.parametrize("name", TORONTO)
def test_the_toronto_decoders_start_uniformly_within_one_over_the_root_of_their_inputs(name):
    layers = [m for m in _network(name).head.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    for layer in layers:
        bound = 1 / math.sqrt(layer.in_channels * 9)
        for values in (layer.weight, layer.bias):
            assert 0.8 * bound < values.abs().max() <= bound
    assert len(layers) == 3


@every_decoder
def test_odd_pictures_are_predicted_at_their_own_size(name):
    network = _network(name, 5, narrow=True).eval()
    for size in ((32, 32), (8, 8), (33, 47)):
        x = _noise(1, 1, *size)
        if name == "cs520" and size != (32, 32):
            with pytest.raises(ArgumentError, match=f"image_size: .*32 × 32 pixels, not {size[0]} × {size[1]}"):
                network(x)
            continue
        with torch.no_grad():
            assert network(x).shape == (1, 5, *size)


def test_cutting_an_odd_side_is_what_a_smaller_output_padding_does():
    network = _network("toronto-convtranspose", 5, narrow=True).eval()
    x = _noise(1, 1, 33, 33)
    maps = network.encoder.forward_intermediates(x, intermediates_only=True)
    up1, norm1, up2, norm2, last = (m for m in network.head.layers if list(m.parameters()))
    y = norm1(up1(maps[-1], output_size=(17, 17))).relu()
    y = last(norm2(up2(y, output_size=(33, 33))).relu())
    torch.testing.assert_close(network(x), y)


def test_maps_of_an_encoder_that_rounds_odd_sides_down_are_stretched():
    levels = [{"num_chs": 4, "reduction": r} for r in (2, 4, 4)]
    maps = [_noise(1, 4, 33 // r, 33 // r) for r in (2, 4, 4)]
    for name in ("toronto-unet", "hypercolumn"):
        decoder = make_decoder(name, levels, 1, 3)
        assert decoder(maps, _noise(1, 1, 33, 33)).shape == (1, 3, 33, 33)


@pytest.mark.parametrize("size", [(16, 16), (40, 40), (30, 30)])
def test_cs520_is_made_for_the_size_of_the_pictures(size):
    encoder = create_backbone("pretint_cs520", width=4)
    head = pixel_head(encoder, 3, 1, HeadSettings(decoder="cs520", image_size=size[0]))
    with torch.no_grad():
        assert PretextModel(encoder, head)(_noise(2, 1, *size)).shape == (2, 3, *size)


@every_decoder
def test_the_gradient_reaches_every_parameter(name):
    network = _network(name, 3, narrow=True).eval()  # in training a normalisation cancels the bias in front of it
    network(_noise(4, 1, 32, 32)).square().sum().backward()
    assert [key for key, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("name", [*NETWORKS, "hypercolumn"])
def test_deterministic_algorithms_suffice_and_repeat_to_the_bit(name, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    encoder = NETWORKS.get(name, "pretint_unet")
    predict_at = 2 if name == "hypercolumn" else 1  # finer levels are averaged
    gradients = []
    torch.use_deterministic_algorithms(True)
    try:
        for _ in range(2):
            torch.manual_seed(0)
            body = create_backbone(encoder, width=4)
            head = pixel_head(body, 3, predict_at, HeadSettings(decoder=name, width=4, image_size=33))
            network = PretextModel(body, head).train().to(device)
            network(_noise(2, 1, 33, 33).to(device)).square().sum().backward()
            gradients.append([p.grad for p in network.parameters()])
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@every_decoder
def test_bf16_and_channels_last_stay_near_float32(name):
    network = _network(name, 3).eval()
    x = _noise(4, 1, 32, 32)
    with torch.no_grad():
        wanted = network(x)
        network = network.to(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = network(x.contiguous(memory_format=torch.channels_last))
    assert float((got.float() - wanted).norm() / wanted.norm()) < 0.05


@pytest.mark.parametrize("name", ["toronto-unet", "wallner-full", "hypercolumn"])
def test_a_picture_does_not_see_its_neighbours(name):
    encoder = create_backbone(NETWORKS.get(name, "pretint_unet"), width=4)
    network = PretextModel(encoder, pixel_head(encoder, 3, 1, HeadSettings(decoder=name, width=4))).eval()
    x = _noise(3, 1, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(network(x), torch.cat([network(one[None]) for one in x]), rtol=1e-4, atol=1e-5)


# Skips


def _levels_looked_at(decoder: nn.Module, levels: list[dict], in_chans: int = 1) -> set[int | str]:
    """Which maps a prediction depends on."""
    maps = [_noise(2, lv["num_chs"], 32 // lv["reduction"], 32 // lv["reduction"]).requires_grad_() for lv in levels]
    x = _noise(2, in_chans, 32, 32).requires_grad_()
    decoder.eval()(maps, x).square().sum().backward()
    seen: set[int | str] = {i for i, m in enumerate(maps) if m.grad is not None and m.grad.any()}
    return seen | ({"input"} if x.grad is not None and x.grad.any() else set())


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("toronto-cnn", {2}),
        ("toronto-convtranspose", {2}),
        ("toronto-unet", {0, 1, 2, "input"}),
        ("toronto-unet-pool", {0, 1, 2, "input"}),
        ("wallner-alpha", {2}),
        ("wallner-full", {2}),
        ("cs520", {2}),
    ],
)
def test_only_the_joined_levels_are_looked_at(name, wanted):
    levels = create_backbone(NETWORKS[name], width=4).feature_info
    assert _levels_looked_at(make_decoder(name, levels, 1, 3), levels) == wanted


# Fusion


def test_fusion_without_a_vector_tells_every_pixel_of_the_whole_picture():
    decoder = make_decoder("wallner-full", LEVELS, 1, 3, width=16).eval()
    maps = [_noise(1, lv["num_chs"], 256 // lv["reduction"], 256 // lv["reduction"]) for lv in LEVELS]
    x = torch.zeros(1, 1, 256, 256)
    before = decoder(maps, x)
    maps[-1][..., 0, 0] += 20.0
    # the farthest corner is beyond the reach of the convolutions, but not of the average
    assert not torch.equal(decoder(maps, x)[..., -1, -1], before[..., -1, -1])


def test_a_vector_from_outside_takes_the_averages_place():
    decoder = make_decoder("wallner-full", LEVELS, 1, 3, fusion_features=10).eval()
    maps = [_noise(2, lv["num_chs"], 16 // lv["reduction"], 16 // lv["reduction"]) for lv in LEVELS]
    x, vector = torch.zeros(2, 1, 16, 16), _noise(2, 10)
    conv = next(m for m in decoder.modules() if isinstance(m, nn.Conv2d))
    assert conv.in_channels == 8 + 10
    with torch.no_grad():
        one = decoder(maps, x, vector)
        assert one.shape == (2, 3, 16, 16)
        other = decoder(maps, x, torch.stack([vector[0], -vector[1]]))
    assert torch.equal(one[0], other[0])
    assert not torch.equal(one[1], other[1])
    for wrong in (None, _noise(2, 9)):
        with pytest.raises(ArgumentError, match=r"vector: this decoder fuses one of shape \(b, 10\)"):
            decoder(maps, x, wrong)


# The hypercolumn


@pytest.mark.parametrize("predict_at", PREDICT_AT)
@pytest.mark.parametrize("size", [(32, 32), (33, 47)])
def test_a_hypercolumn_is_a_1_by_1_convolution_of_all_levels_concatenated(size, predict_at):
    torch.manual_seed(0)
    decoder = make_decoder("hypercolumn", LEVELS, 1, 3, predict_at, width=4).eval()
    maps = [_noise(2, lv["num_chs"], *(-(-side // lv["reduction"]) for side in size)) for lv in LEVELS]
    height, width = (-(-side // predict_at) for side in size)
    columns = []
    for m, level in zip(maps, LEVELS, strict=True):
        r = level["reduction"]
        if r >= predict_at:  # pixel (i, j) lies in the coarse pixel (i·p // r, j·p // r)
            rows, cols = (torch.arange(n) * predict_at // r for n in (height, width))
            columns.append(m[:, :, rows][..., cols])
        else:
            n = predict_at // r
            patches = [
                [m[..., i * n : i * n + n, j * n : j * n + n].mean((2, 3)) for j in range(width)] for i in range(height)
            ]
            columns.append(torch.stack([torch.stack(row, -1) for row in patches], -2))
    *first, last = (m for m in decoder.modules() if isinstance(m, nn.Conv2d))
    (norm,) = (m for m in decoder.modules() if isinstance(m, nn.BatchNorm2d))
    nn.init.normal_(norm.running_mean)
    with torch.no_grad():
        mixed = F.conv2d(torch.cat(columns, 1), torch.cat([conv.weight for conv in first], 1))
        wanted = last(norm(mixed).relu())
        got = decoder(maps, torch.zeros(2, 1, *size))
    assert got.shape == (2, 3, height, width)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_a_hypercolumn_sees_no_level_above_its_skips():
    decoder = make_decoder("hypercolumn", LEVELS, 1, 3, 2, skips=1).eval()
    maps = [_noise(2, lv["num_chs"], 32 // lv["reduction"], 32 // lv["reduction"]) for lv in LEVELS]
    with torch.no_grad():
        before = decoder(maps, torch.zeros(2, 1, 32, 32))
        unseen = decoder([*(m + 1 for m in maps[:-2]), *maps[-2:]], torch.zeros(2, 1, 32, 32))
        seen = decoder([*maps[:-2], maps[-2] + 1, maps[-1]], torch.zeros(2, 1, 32, 32))
    assert torch.equal(before, unseen)
    assert not torch.equal(before, seen)


@pytest.mark.parametrize("predict_at", PREDICT_AT)
@pytest.mark.parametrize("name", ["pretint_unet", "pretint_cs520", "timm/resnet18", "timm/convnext_atto"])
def test_a_hypercolumn_fits_every_encoder_at_any_size(name, predict_at):
    encoder = create_backbone(name, **({"width": 4} if name.startswith("pretint") else {}))
    model = PretextModel(encoder, pixel_head(encoder, 3, predict_at, HeadSettings(decoder="hypercolumn"))).eval()
    with torch.no_grad():
        assert model(_noise(1, 1, 17, 23)).shape == (1, 3, -(-17 // predict_at), -(-23 // predict_at))
    assert _levels_looked_at(model.head, encoder.feature_info) == set(range(len(encoder.feature_info)))


# Other encoders


@pytest.mark.parametrize(
    ("name", "predict_at", "backbone"),
    [
        ("toronto-cnn", 1, "pretint_toronto_strided"),
        ("toronto-unet", 1, "pretint_toronto_cnn"),
        ("toronto-cnn", 4, "pretint_unet"),
        ("wallner-alpha", 1, "timm/resnet18"),
        ("wallner-full", 2, "pretint_unet"),
        ("cs520", 1, "timm/convnext_atto"),
    ],
)
def test_a_decoder_takes_any_encoder_whose_levels_fit(name, predict_at, backbone):
    encoder = create_backbone(backbone).eval()
    settings = HeadSettings(decoder=name, width=8, image_size=33)
    model = PretextModel(encoder, pixel_head(encoder, 3, predict_at, settings)).eval()
    with torch.no_grad():
        assert model(_noise(1, 1, 33, 33)).shape == (1, 3, -(-33 // predict_at), -(-33 // predict_at))


@pytest.mark.parametrize(
    ("name", "backbone", "predict_at", "message"),
    [
        ("toronto-cnn", "pretint_unet", 1, "reduction 4, this one has 16; use --backbone pretint_toronto_cnn"),
        ("toronto-unet", "pretint_toronto_cnn", 2, "reduction 8, this one has 4; .* --predict-at 1"),
        ("wallner-beta", "pretint_toronto_cnn", 1, "reduction 8, this one has 4; use --backbone pretint_wallner_beta"),
        (
            "toronto-unet",
            "timm/convnext_atto",
            2,
            "joins level 1 at reduction 8, but with this encoder it has reduction 2",
        ),
        ("toronto-unet-pool", "timm/regnety_002", 4, "joins level 1 at reduction 16, but .* pretint_toronto_cnn"),
    ],
)
def test_a_decoder_that_does_not_fit_names_an_encoder_that_does(name, backbone, predict_at, message):
    with pytest.raises(ArgumentError, match=f"decoder: {name} .*{message}"):
        pixel_head(create_backbone(backbone), 3, predict_at, HeadSettings(decoder=name))


def test_a_level_that_is_not_there_is_no_level_to_join():
    with pytest.raises(ArgumentError, match="joins level 1 at reduction 4, but with this encoder it is not there"):
        make_decoder("toronto-unet", [{"num_chs": 8, "reduction": 4}], 1, 3)


def test_the_input_is_joined_at_full_resolution_only():
    levels = [{"num_chs": 8, "reduction": r} for r in (4, 8, 8)]
    with pytest.raises(ArgumentError, match="joins the input at reduction 2, but with this encoder it has reduction 1"):
        make_decoder("toronto-unet", levels, 1, 3, 2)


def test_half_of_a_pair_does_not_get_to_see_the_other_halfs_input():
    half = Half(create_backbone("pair/pretint_toronto_strided", width=4), "luma")
    with pytest.raises(ArgumentError, match="decoder: toronto-unet joins the input, which the half of a pair"):
        pixel_head(half, 3, 1, HeadSettings(decoder="toronto-unet"))
    assert isinstance(pixel_head(half, 3, 1, HeadSettings(decoder="toronto-convtranspose")), SeedDecoder)


# By name


def test_every_decoder_is_described():
    assert list(DECODERS) == ["unet", *NETWORKS, "hypercolumn"]
    assert all(20 < len(about) < 100 for about in DECODERS.values())


def test_the_u_net_decoder_stays_the_default_and_takes_its_settings():
    encoder = create_backbone("pretint_unet", width=16)
    default = pixel_head(encoder, 3, 2, HeadSettings())
    assert isinstance(default, PyramidDecoder)
    levels = encoder.feature_info
    torch.manual_seed(0)
    one = make_decoder("unet", levels, 1, 3, 2, skips=1, width=8)
    torch.manual_seed(0)
    channels, reductions = [lv["num_chs"] for lv in levels], [lv["reduction"] for lv in levels]
    other = PyramidDecoder(channels, reductions, 3, 2, 1, 8)
    assert str(one) == str(other) != str(default)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_task_is_given_the_decoder_of_the_settings():
    encoder = create_backbone("pretint_wallner_alpha")
    model = build_model(LabRegression(encoder.preprocess), encoder, HeadSettings(decoder="wallner-alpha"))
    assert _count(model) == _count(_wallner_alpha(1, 2))


@pytest.mark.parametrize(("got", "meant"), [("toronto-unett", "toronto-unet"), ("hypercolumns", "hypercolumn")])
def test_a_mistyped_decoder_gives_the_closest_names(got, meant):
    for attempt in (
        check_decoder_name,
        lambda name: make_decoder(name, LEVELS, 1, 3),
        lambda name: SeedDecoder(name, LEVELS, 1, 3),
    ):
        with pytest.raises(UnknownNameError, match=f"decoder: '{got}' is not known; did you mean '{meant}'"):
            attempt(got)


@pytest.mark.parametrize("sizes", [{"width": 0}, {"image_size": 0}, {"fusion_features": -1}])
def test_sizes_out_of_range_are_refused(sizes):
    with pytest.raises(ArgumentError, match=f"{next(iter(sizes))} .*or more"):
        make_decoder("wallner-full", LEVELS, 1, 3, **sizes)
