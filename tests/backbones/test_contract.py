"""Every encoder keeps timm's contract: ours and timm's own with the small stem, on the same tests."""

from __future__ import annotations

import copy
from functools import cache
from itertools import pairwise

import pytest
import timm
import torch
from timm.models import group_parameters
from timm.optim import param_groups_layer_decay
from torch import nn

from pretint.backbones import SEED_ENCODERS, SMALLEST_SIZE, Preprocess, architecture, create_backbone, smallest_size
from pretint.backbones import features as pooled_features
from pretint.runtime.errors import ArgumentError

CHAINS = {name: {"width": 4} for name in ("pretint_unet", "pretint_cnn", "pretint_resunet")}
FIVE_LEVELS = CHAINS | {"pair/pretint_unet": {"width": 4}, "pair/pretint_resunet": {"width": 4}}
OURS = FIVE_LEVELS | {name: {"width": 4} for name in [*SEED_ENCODERS, "pair/pretint_toronto_cnn"]}
TIMM = ("timm/resnet18", "timm/convnext_atto", "timm/efficientnet_b0", "timm/vgg11_bn", "timm/regnety_002")
every_encoder = pytest.mark.parametrize("name", [*OURS, *TIMM])
our_encoders = pytest.mark.parametrize("name", OURS)
five_levels = pytest.mark.parametrize("name", FIVE_LEVELS)
our_chains = pytest.mark.parametrize("name", CHAINS)


@cache
def _shared(name: str, in_chans: int) -> nn.Module:
    torch.manual_seed(0)
    preprocess = None if in_chans != 2 else Preprocess(2, chroma="cbcr")
    return create_backbone(name, in_chans, preprocess=preprocess, **OURS.get(name, {})).eval()


def _make(name: str, in_chans: int | None = None) -> nn.Module:
    """A fresh copy, in evaluation mode, the same for each call."""
    return copy.deepcopy(_shared(name, in_chans or _chans(name)))


def _chans(name: str) -> int:
    return 3 if name.startswith("pair/") else 1


def _images(name: str, n: int, height: int = 32, width: int = 32) -> torch.Tensor:
    """Normal noise of the encoder's channels; larger for a VGG, which halves five times."""
    more = 16 if "vgg" in name else 0
    height, width = height + more, width + more
    return _noise(n, _chans(name), height, width)


def _noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _relative_error(x: torch.Tensor, y: torch.Tensor) -> float:
    return float(((x.double() - y.double()).norm() / y.double().norm()).detach())


@every_encoder
@pytest.mark.parametrize("in_chans", [1, 2, 3])
def test_feature_info_is_what_the_maps_are(name, in_chans):
    if name.startswith("pair/"):
        in_chans = 3
    encoder = _make(name, in_chans)
    with torch.no_grad():
        maps = encoder.forward_intermediates(_noise(2, in_chans, 32, 32), intermediates_only=True)
    assert len(maps) == len(encoder.feature_info)
    for level, features in zip(encoder.feature_info, maps, strict=True):
        side = 32 // level["reduction"]
        assert features.shape == (2, level["num_chs"], side, side)


@pytest.mark.parametrize(
    ("name", "channels", "reductions"),
    [
        ("pretint_unet", [4, 8, 16, 32, 32], [1, 2, 4, 8, 16]),
        ("pretint_cnn", [4, 8, 16, 32, 32], [1, 2, 4, 8, 16]),
        ("timm/resnet18", [64, 64, 128, 256, 512], [1, 1, 2, 4, 8]),
        ("timm/convnext_atto", [40, 80, 160, 320], [1, 2, 4, 8]),
        ("timm/efficientnet_b0", [16, 24, 40, 112, 320], [1, 2, 4, 8, 16]),
        ("timm/regnety_002", [32, 24, 56, 152, 368], [1, 2, 4, 8, 16]),
    ],
)
def test_levels_are_those_of_the_papers(name, channels, reductions):
    info = _make(name).feature_info
    assert [level["num_chs"] for level in info] == channels
    assert [level["reduction"] for level in info] == reductions


@every_encoder
def test_feature_info_names_modules_that_give_the_maps(name):
    encoder = _make(name)
    seen = {}
    for level in encoder.feature_info:
        module = encoder.get_submodule(level["module"])
        module.register_forward_hook(lambda m, args, out, key=level["module"]: seen.__setitem__(key, tuple(out.shape)))
    with torch.no_grad():
        maps = encoder.forward_intermediates(_images(name, 1, 32, 32), intermediates_only=True)
    assert [seen[level["module"]] for level in encoder.feature_info] == [tuple(m.shape) for m in maps]


@every_encoder
def test_odd_sizes_are_taken(name):
    encoder, x = _make(name), _images(name, 1, 17, 31)
    height, width = x.shape[-2:]
    with torch.no_grad():
        final, maps = encoder.forward_intermediates(x)
        assert encoder(x).shape == (1, encoder.head_hidden_size)
    for level, features in zip(encoder.feature_info, maps, strict=True):
        r = level["reduction"]
        if name in OURS:
            assert features.shape[-2:] == (-(-height // r), -(-width // r))
        assert abs(features.shape[-2] - height / r) < 1
        assert abs(features.shape[-1] - width / r) < 1
    assert final.shape[-2:] == maps[-1].shape[-2:]


@five_levels
def test_the_smallest_size_works_with_a_batch_of_one(name):
    encoder = _make(name)
    x = _images(name, 1, SMALLEST_SIZE, SMALLEST_SIZE)
    assert SMALLEST_SIZE == 8
    with torch.no_grad():
        maps = encoder.forward_intermediates(x, intermediates_only=True)
        assert encoder(x).isfinite().all()
    assert [m.shape[-1] for m in maps] == [8, 4, 2, 1, 1]
    assert encoder.train()(_images(name, 2, 8, 8)).requires_grad


@every_encoder
def test_calling_is_features_then_head(name):
    encoder = _make(name)
    x = _images(name, 2, 16, 16)
    with torch.no_grad():
        pooled, features = encoder(x), encoder.forward_features(x)
        assert torch.equal(pooled, encoder.forward_head(features))
        assert pooled.shape == (2, encoder.head_hidden_size)
        if name in OURS:
            torch.testing.assert_close(pooled, features.mean((2, 3)))
            assert features.shape[1] == encoder.num_features


@every_encoder
def test_a_picture_does_not_see_its_neighbours_in_evaluation_mode(name):
    encoder = _make(name)
    x = _images(name, 3, 16, 16)
    with torch.no_grad():
        together, alone = encoder(x), torch.cat([encoder(one[None]) for one in x])
    assert _relative_error(together, alone) < 1e-5


@every_encoder
def test_reset_classifier_gives_logits_over_unchanged_features(name):
    encoder = _make(name)
    x = _images(name, 2, 16, 16)
    with torch.no_grad():
        before = encoder(x)
        encoder.reset_classifier(7)
        classifier = encoder.get_classifier()
        features = encoder.forward_features(x)
        pre_logits = encoder.forward_head(features, pre_logits=True)
        logits = encoder(x)
        assert encoder.num_classes == 7
        assert classifier.weight.shape == (7, encoder.head_hidden_size)
        assert logits.shape == (2, 7)
        torch.testing.assert_close(pre_logits, before)
        torch.testing.assert_close(logits, pre_logits @ classifier.weight.T + classifier.bias)
        encoder.reset_classifier(0)
        torch.testing.assert_close(encoder(x), before)
    assert isinstance(encoder.get_classifier(), nn.Identity)


@our_encoders
@pytest.mark.parametrize("pool", ["avg", "max", "catavgmax"])
def test_the_pooling_is_the_one_asked_for(name, pool):
    encoder = _make(name)
    encoder.reset_classifier(0, global_pool=pool)
    x = _images(name, 2, 32, 32)
    with torch.no_grad():
        features = encoder.forward_features(x)
        pooled = encoder(x)
    mean, largest = features.mean((2, 3)), features.amax((2, 3))
    wanted = {"avg": mean, "max": largest, "catavgmax": torch.cat([mean, largest], dim=1)}[pool]
    torch.testing.assert_close(pooled, wanted)
    assert encoder.head_hidden_size == wanted.shape[1]


@every_encoder
@pytest.mark.parametrize("stop_early", [False, True])
def test_wanted_indices_choose_among_all_maps(name, stop_early):
    encoder = _make(name)
    x = _images(name, 1, 16, 16)
    levels = len(encoder.feature_info)
    with torch.no_grad():
        final, everything = encoder.forward_intermediates(x)
        for indices, wanted in (([0, 2], [0, 2]), ([-1], [levels - 1]), (2, [levels - 2, levels - 1])):
            maps = encoder.forward_intermediates(x, indices, stop_early=stop_early, intermediates_only=True)
            assert len(maps) == len(wanted)
            assert all(torch.equal(got, everything[i]) for got, i in zip(maps, wanted, strict=True))
        features = encoder.forward_features(x)
    if name in OURS:
        assert torch.equal(final, features)
        assert torch.equal(final, everything[-1])


@five_levels
def test_stop_early_runs_no_stage_behind_the_last_wanted(name):
    encoder = _make(name)
    ran = []
    for i, stage in enumerate(encoder.stages):
        stage.register_forward_hook(lambda *_, i=i: ran.append(i))
    with torch.no_grad():
        final, maps = encoder.forward_intermediates(_images(name, 1, 16, 16), [0, 2], stop_early=True)
    assert ran == [0, 1, 2]
    assert torch.equal(final, maps[-1])
    ran.clear()
    with torch.no_grad():
        final, maps = encoder.forward_intermediates(_images(name, 1, 16, 16), [0, 2])
    assert ran == [0, 1, 2, 3, 4]
    assert final.shape != maps[-1].shape


@five_levels
@pytest.mark.parametrize("indices", [[5], [-6], 0, 6, []])
def test_indices_that_do_not_fit_are_refused(name, indices):
    with pytest.raises(AssertionError, match="5 feature levels"):
        _make(name).forward_intermediates(_images(name, 1, 16, 16), indices)


@our_chains
def test_pruning_keeps_the_wanted_maps(name):
    encoder = _make(name)
    encoder.reset_classifier(3)
    x = _images(name, 1, 32, 32)
    with torch.no_grad():
        wanted = encoder.forward_intermediates(x, [1, 2], intermediates_only=True)
        assert encoder.prune_intermediate_layers([1, 2]) == [1, 2]
        got = encoder.forward_intermediates(x, [1, 2], intermediates_only=True)
        assert len(encoder.stages) == 3
        assert encoder.num_features == 16
        assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))
        assert torch.equal(encoder(x), wanted[-1])


@every_encoder
@pytest.mark.parametrize("coarse", [False, True])
def test_group_matcher_orders_every_parameter_by_depth(name, coarse):
    encoder = _make(name)
    encoder.reset_classifier(5)
    groups = group_parameters(encoder, encoder.group_matcher(coarse=coarse), reverse=True)
    parameters = [key for key, _ in encoder.named_parameters()]
    assert sorted(groups) == sorted(parameters)
    classifier = {id(p) for p in encoder.get_classifier().parameters()}
    heads = {groups[key] for key, p in encoder.named_parameters() if id(p) in classifier}
    assert heads == {max(groups.values())}
    assert groups[parameters[0]] == 0
    if name in OURS:
        depths = [groups[key] for key in parameters]
        assert depths == sorted(depths), "parameters are named from shallow to deep"
        stages = [{groups[k] for k in parameters if k.startswith(f"stages.{i}.")} for i in range(len(encoder.stages))]
        assert all(max(a) < min(b) for a, b in pairwise(stages))
        assert not coarse or all(len(stage) == 1 for stage in stages)


@every_encoder
def test_layer_decay_gives_the_stem_the_smallest_rate_and_the_classifier_the_whole(name):
    encoder = _make(name)
    encoder.reset_classifier(5)
    groups = param_groups_layer_decay(encoder, weight_decay=0.05, layer_decay=0.5)
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    assert len(scale) == sum(len(group["params"]) for group in groups) == len(list(encoder.parameters()))
    named = dict(encoder.named_parameters())
    assert scale[id(next(iter(named.values())))] == min(scale.values()) < 0.2
    assert scale[id(encoder.get_classifier().weight)] == 1.0


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
@our_encoders
def test_torchscript_computes_the_same(name):
    encoder = _make(name)
    scripted = torch.jit.script(encoder)
    traced = torch.jit.trace(encoder, _images(name, 1, 32, 32))
    for x in (_images(name, 2, 32, 32), _images(name, 1, 33, 47)):
        with torch.no_grad():
            wanted = encoder(x)
            torch.testing.assert_close(scripted(x), wanted)
            torch.testing.assert_close(traced(x), wanted)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
@pytest.mark.parametrize("name", TIMM[:1])
def test_a_small_stem_survives_torchscript(name):
    encoder = _make(name)
    scripted = torch.jit.script(encoder)
    with torch.no_grad():
        torch.testing.assert_close(scripted(_images(name, 1, 32, 32)), encoder(_images(name, 1, 32, 32)))


@our_encoders
def test_torch_fx_reads_the_graph_and_takes_features_out_of_it(name):
    from torchvision.models.feature_extraction import create_feature_extractor

    encoder = _make(name)
    x = _images(name, 2, 32, 32)
    traced = torch.fx.symbolic_trace(encoder)
    with torch.no_grad():
        torch.testing.assert_close(traced(x), encoder(x))
        maps = encoder.forward_intermediates(x, intermediates_only=True)
        extracted = create_feature_extractor(encoder, {f"stages.{i}": str(i) for i in range(len(maps))})(x)
    for i, features in enumerate(maps):
        torch.testing.assert_close(extracted[str(i)], features)


@our_encoders
def test_bf16_and_channels_last_stay_near_float32(name):
    encoder = _make(name).train()
    x = _images(name, 8, 32, 32)
    plain = encoder(x)
    other = _make(name).train().to(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = other.forward_intermediates(x.contiguous(memory_format=torch.channels_last), intermediates_only=True)
    assert all(m.dtype == torch.bfloat16 for m in maps)
    assert all(m.is_contiguous(memory_format=torch.channels_last) for m in maps)
    pooled = maps[-1].float().mean((2, 3))
    assert 0 < _relative_error(pooled, plain) < 0.03
    pooled.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.dtype == torch.float32 for p in other.parameters())


@every_encoder
def test_the_gradient_reaches_every_parameter(name):
    encoder = _make(name).train()
    with torch.no_grad():
        # residual branches may start closed (zero or tiny scales): open them
        for i, p in enumerate(p for p in encoder.parameters() if p.ndim == 1 or min(p.shape) == p.numel()):
            p.copy_(0.5 + torch.rand(p.shape, generator=torch.Generator().manual_seed(i)))
    encoder(_images(name, 4, 16, 16)).square().sum().backward()
    without = [key for key, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@our_encoders
def test_checkpointing_changes_no_gradient(name):
    x = _images(name, 4, 32, 32)
    gradients = []
    for enable in (False, True):
        encoder = _make(name).train()
        encoder.set_grad_checkpointing(enable)
        final, maps = encoder.forward_intermediates(x)
        (final.square().sum() + maps[0].square().sum()).backward()
        gradients.append([p.grad for p in encoder.parameters()])
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in zip(*gradients, strict=True))


@our_encoders
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_deterministic_algorithms_suffice_and_repeat_to_the_bit(name, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    x = _images(name, 4, 33, 33).to(device)
    gradients = []
    torch.use_deterministic_algorithms(True)
    try:
        for _ in range(2):
            encoder = _make(name).train().to(device)
            encoder(x).square().sum().backward()
            gradients.append([p.grad for p in encoder.parameters()])
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@our_encoders
def test_the_same_seed_gives_the_same_weights(name):
    made = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        made.append(create_backbone(name, width=4).state_dict())
    assert all(torch.equal(made[0][k], made[1][k]) for k in made[0])
    first = next(iter(made[0]))
    assert not torch.equal(made[0][first], made[2][first])


@five_levels
def test_activations_neither_die_nor_explode_with_depth(name):
    torch.manual_seed(0)
    encoder = create_backbone(name, width=16).train()
    maps = encoder.forward_intermediates(_images(name, 8, 32, 32), intermediates_only=True)
    # a normalised map behind a ReLU: E[max(z, 0)²] = ½ for z ~ N(0, 1)
    assert all(0.4 < float(m.detach().square().mean()) < 0.6 for m in maps)


@pytest.mark.parametrize("in_chans", [2, 4])
def test_a_pair_of_other_channels_is_refused(in_chans):
    with pytest.raises(ArgumentError, match="3 channels"):
        timm.create_model("pretint_pair", in_chans=in_chans)


@every_encoder
def test_features_only_gives_the_maps_that_were_asked_for(name):
    entry, arguments = architecture(_make(name).spec)
    torch.manual_seed(0)
    whole = timm.create_model(entry, num_classes=0, in_chans=_chans(name), **arguments).eval()
    torch.manual_seed(0)
    net = timm.create_model(
        entry, features_only=True, out_indices=(0, 2), in_chans=_chans(name), feature_cls="getter", **arguments
    ).eval()
    x = _images(name, 1)
    with torch.no_grad():
        wanted = whole.forward_intermediates(x, [0, 2], intermediates_only=True)
        got = net(x)
    assert net.feature_info.channels() == [m.shape[1] for m in wanted]
    assert [m.shape for m in got] == [m.shape for m in wanted]
    assert name not in OURS or all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


@five_levels
@pytest.mark.parametrize("output_stride", [1, 2, 8, 32])
def test_output_stride_keeps_maps_large_and_changes_no_weight(name, output_stride):
    entry, arguments = architecture(_make(name).spec)
    encoder = timm.create_model(entry, in_chans=_chans(name), output_stride=output_stride, **arguments).eval()
    reductions = [min(r, output_stride) for r in (1, 2, 4, 8, 16)]
    assert [level["reduction"] for level in encoder.feature_info] == reductions
    with torch.no_grad():
        maps = encoder.forward_intermediates(_images(name, 1, 33, 31), intermediates_only=True)
    assert [tuple(m.shape[-2:]) for m in maps] == [(-(-33 // r), -(-31 // r)) for r in reductions]
    plain = {k: v.shape for k, v in _make(name).state_dict().items() if not k.startswith("head.")}
    assert {k: v.shape for k, v in encoder.state_dict().items() if not k.startswith("head.")} == plain


@our_chains
def test_dilated_stages_see_as_far_as_strided_ones(name):
    def reach(encoder: nn.Module) -> int:
        """Columns of the image that the middle of the deepest map depends on."""
        x = torch.zeros(1, 1, 8, 257, requires_grad=True)
        for module in encoder.modules():  # no gradient may cancel or be cut off
            if isinstance(module, nn.Conv2d):
                nn.init.constant_(module.weight, 0.01)
            if isinstance(module, nn.BatchNorm2d):
                nn.init.ones_(module.weight)
                nn.init.ones_(module.bias)
        deepest = encoder.eval().forward_features(x)
        deepest[..., deepest.shape[-1] // 2].sum().backward()
        return int((x.grad != 0).any(2).sum())

    strided = reach(create_backbone(name, width=2, depth=4))
    dilated = reach(timm.create_model(name, in_chans=1, width=2, depth=4, output_stride=1))
    # pooling of a window adds a few columns to the strided one
    assert 0.75 * strided <= dilated <= 1.1 * strided


@our_encoders
@pytest.mark.parametrize("output_stride", [0, 3, -2])
def test_an_output_stride_that_can_not_be_is_refused(name, output_stride):
    entry, arguments = architecture(_make(name).spec)
    with pytest.raises(ArgumentError, match=f"output_stride: {output_stride} .*power of two"):
        timm.create_model(entry, in_chans=_chans(name), output_stride=output_stride, **arguments)


@our_encoders
def test_timms_factory_arguments_are_honoured(name, tmp_path):
    entry, arguments = architecture(_make(name).spec)
    arguments |= {"in_chans": _chans(name)}
    model = timm.create_model(entry, num_classes=6, global_pool="max", drop_rate=0.5, **arguments)
    x = _images(name, 2)
    assert model(x).shape == (2, 6)
    assert model.head.drop.p == 0.5
    torch.testing.assert_close(model.eval().forward_head(x, pre_logits=True), x.amax((2, 3)))
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    other = timm.create_model(
        entry, num_classes=6, global_pool="max", checkpoint_path=tmp_path / "weights.pth", **arguments
    )
    with torch.no_grad():
        assert torch.equal(other.eval()(x), model(x))
    with pytest.raises(TypeError):
        timm.create_model(entry, no_such_argument=1, **arguments)
    half = timm.create_model(entry, device="meta", dtype=torch.bfloat16, **arguments)
    assert {(p.device.type, p.dtype) for p in half.parameters()} == {("meta", torch.bfloat16)}


@every_encoder
def test_the_cfg_names_first_convolution_classifier_and_sizes(name):
    encoder = _make(name)
    cfg, weights = encoder.pretrained_cfg, encoder.state_dict()
    names = cfg["first_conv"]
    for first in (names,) if isinstance(names, str) else names:
        assert weights[f"{first}.weight"].ndim == 4
    encoder.reset_classifier(3)
    assert encoder.state_dict()[f"{cfg['classifier']}.weight"].shape[0] == 3
    if name in OURS:
        channels, *sides = cfg["input_size"]
        assert cfg["min_input_size"][1:] == (SMALLEST_SIZE, SMALLEST_SIZE)
        with torch.no_grad():
            features = encoder.forward_features(_noise(1, channels if _chans(name) == 3 else 1, *sides))
        assert tuple(features.shape[-2:]) == cfg["pool_size"]


@pytest.mark.parametrize(("name", "wanted"), [("pretint_unet", 8), ("pair/pretint_unet", 8), ("timm/vgg11_bn", 32)])
def test_the_smallest_size_is_stated(name, wanted):
    encoder = _make(name)
    assert encoder.smallest_size == smallest_size(encoder, _chans(name)) == wanted
    with pytest.raises(ArgumentError, match=f"too small.*{wanted} and more"):
        create_backbone(name, image_size=wanted - 1)
    with pytest.raises(ArgumentError, match=f"too small.*{wanted} and more"):
        pooled_features(encoder, torch.zeros(1, 3, wanted - 1, wanted, dtype=torch.uint8))


@every_encoder
def test_features_are_the_average_of_the_deepest_map(name):
    encoder = _make(name).train()
    rgb = torch.randint(0, 256, (5, 3, 48, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    got = pooled_features(encoder, rgb, batch_size=2)
    assert encoder.training
    with torch.no_grad():
        maps = encoder.eval().forward_intermediates(encoder.preprocess(rgb), intermediates_only=True)
        torch.testing.assert_close(got, maps[-1].mean((2, 3)))
        if name in OURS:
            torch.testing.assert_close(got, encoder(encoder.preprocess(rgb)))


@every_encoder
def test_torch_export_takes_any_batch(name):
    encoder, x = _make(name), _images(name, 2)
    program = torch.export.export(encoder, (x,), dynamic_shapes=({0: torch.export.Dim("n")},))
    more = torch.cat([x, x.flip(0), x])
    with torch.no_grad():
        torch.testing.assert_close(program.module()(more), encoder(more), rtol=1e-4, atol=1e-5)


@our_encoders
def test_torch_compile_takes_the_whole_graph(name):
    encoder, x = _make(name), _images(name, 2, 16, 16)
    compiled = torch.compile(encoder, fullgraph=True, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), encoder(x))


def test_a_compiled_encoder_computes_the_same():
    encoder, x = _make("pretint_cnn"), _images("pretint_cnn", 2, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(encoder)(x), encoder(x), rtol=1e-4, atol=1e-5)


@our_encoders
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_other_channels_than_its_own_are_refused_with_the_way_out(name, channels):
    encoder, x = _make(name), _noise(1, channels, 16, 16)
    if channels == _chans(name):
        assert encoder(x).isfinite().all()
        return
    for call in (encoder, encoder.forward_intermediates):
        with pytest.raises(
            ArgumentError,
            match=r"preprocess\(rgb\).*fold_rgb.*in_chans=3" if _chans(name) == 1 else r"preprocess\(rgb\)",
        ):
            call(x)
