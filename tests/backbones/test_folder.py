"""An encoder's folder: equal to the bit after a round trip, for us and for timm, and refused when anything in it is wrong."""

from __future__ import annotations

import copy
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from pretint.backbones import SEED_ENCODERS, Preprocess, create_backbone, load_backbone, save_backbone
from pretint.runtime.errors import ArgumentError, NotFiniteError, RunFolderError
from pretint.runtime.tensors import tensors_checksum

NAN, INFINITY = float("nan"), float("inf")
TRAVELLERS = [
    ("pretint_unet", {"width": 4}),
    ("pretint_unet", {"width": 3, "depth": 2, "in_chans": 3}),
    ("pretint_cnn", {"width": 4, "convs": 1}),
    ("pretint_cnn", {"width": 4, "in_chans": 2}),
    ("pretint_resunet_tiny", {}),
    *((name, {"width": 2}) for name in SEED_ENCODERS),
    ("pair/pretint_unet", {"width": 4, "in_chans": 3}),
    ("timm/resnet18", {}),
    ("timm/efficientnet_b0", {}),
    ("timm/convnext_atto", {"in_chans": 3}),
    ("timm/regnety_002", {"stem": "stock"}),
    ("timm/vit_tiny_patch16_224", {"patch_size": 4, "depth": 2, "embed_dim": 48}),
]
every_traveller = pytest.mark.parametrize(
    ("name", "options"), TRAVELLERS, ids=lambda x: x if isinstance(x, str) else ""
)


def _pictures(n: int = 3, size: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def _trained(name: str = "pretint_unet", **options: Any) -> nn.Module:
    """An encoder whose weights and running statistics are not those of a fresh one."""
    torch.manual_seed(0)
    encoder = create_backbone(name, **options).train()
    with torch.no_grad():
        for p in encoder.parameters():
            p.add_(0.02 * torch.randn_like(p))
        for seed in range(2):
            encoder(torch.randn(4, encoder.preprocess.in_chans, 32, 32, generator=torch.Generator().manual_seed(seed)))
    return encoder.eval()


def _features(encoder: nn.Module, rgb: torch.Tensor | None = None) -> torch.Tensor:
    with torch.no_grad():
        return encoder(encoder.preprocess(_pictures() if rgb is None else rgb))


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """The folder of a very small encoder."""
    save_backbone(_trained(width=2, depth=3), tmp_path / "encoder", {"task": "palette", "epochs": 3})
    return tmp_path / "encoder"


def _edit(folder: Path, change) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def _replace_weights(folder: Path, change, keep_checksum: bool = True) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    if not keep_checksum:
        _edit(folder, lambda config: config["pretint"].update(weights_sha256=tensors_checksum(weights)))


# Round trips


@every_traveller
def test_features_are_equal_to_the_bit_after_a_round_trip(tmp_path, name, options):
    encoder = _trained(name, **options)
    save_backbone(encoder, tmp_path / "a")
    loaded = load_backbone(tmp_path / "a")
    assert torch.equal(_features(loaded), _features(encoder))
    assert loaded.feature_info == encoder.feature_info
    assert loaded.spec == encoder.spec
    assert not loaded.training
    save_backbone(loaded, tmp_path / "b")
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@every_traveller
def test_timm_loads_the_same_from_the_folder(tmp_path, name, options):
    encoder = _trained(name, **options)
    save_backbone(encoder, tmp_path)
    theirs = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    x = encoder.preprocess(_pictures())
    with torch.no_grad():
        assert torch.equal(theirs(x), encoder(x))
    config = theirs.pretrained_cfg
    assert tuple(config["input_size"]) == (encoder.preprocess.in_chans, 32, 32)
    assert len(config["mean"]) == len(config["std"]) == encoder.preprocess.in_chans


@pytest.mark.parametrize("name", ["pretint_unet", "timm/resnet18"])
def test_timm_adds_a_classifier_to_the_loaded_encoder(tmp_path, name):
    encoder = _trained(name, **({"width": 4} if name == "pretint_unet" else {}))
    save_backbone(encoder, tmp_path)
    theirs = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=10).eval()
    x = encoder.preprocess(_pictures())
    with torch.no_grad():
        assert theirs(x).shape == (3, 10)
        assert torch.equal(theirs.forward_features(x), encoder.forward_features(x))


def test_the_preprocessing_and_the_card_travel_along(tmp_path):
    preprocess = Preprocess(1, "lstar", 0.4, 0.3)
    card = {"task": "palette", "top1": {"cifar10": 0.5}, "note": "<b>ü</b>"}
    save_backbone(
        create_backbone("pretint_cnn", width=2, depth=2, preprocess=preprocess), tmp_path, card, image_size=48
    )
    loaded = load_backbone(tmp_path)
    assert loaded.preprocess == preprocess
    assert loaded.card == card
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["pretint"]["image_size"] == 48
    assert config["pretrained_cfg"]["input_size"] == [1, 48, 48]
    assert config["pretrained_cfg"]["mean"] == [0.4]


def test_a_classifier_is_left_out(tmp_path):
    encoder = _trained(width=2)
    wanted = _features(encoder)
    encoder.reset_classifier(10)
    save_backbone(encoder, tmp_path)
    assert not [key for key in load_file(tmp_path / "model.safetensors") if key.startswith("head")]
    assert torch.equal(_features(load_backbone(tmp_path)), wanted)


def _compiled(encoder: nn.Module) -> Any:
    return torch.compile(encoder, backend="eager")


@pytest.mark.parametrize("wrap", [_compiled, nn.DataParallel, lambda e: _compiled(nn.DataParallel(e))])
def test_no_wrappers_prefix_gets_into_the_keys(tmp_path, wrap):
    encoder = _trained("pretint_cnn", width=4)
    save_backbone(wrap(encoder), tmp_path)
    assert load_file(tmp_path / "model.safetensors").keys() == encoder.state_dict().keys()
    assert torch.equal(_features(load_backbone(tmp_path)), _features(encoder))


def test_saving_leaves_the_encoder_as_it_was(tmp_path):
    encoder = _trained(width=2).train().to(memory_format=torch.channels_last)
    before = copy.deepcopy(encoder.state_dict())
    save_backbone(encoder, tmp_path)
    assert encoder.training
    assert all(torch.equal(before[k], v) for k, v in encoder.state_dict().items())
    assert torch.equal(
        _features(load_backbone(tmp_path)), _features(encoder.eval().to(memory_format=torch.contiguous_format))
    )


def test_a_run_folder_stands_for_the_encoder_in_it(tiny):
    assert torch.equal(_features(load_backbone(tiny.parent)), _features(load_backbone(str(tiny))))


def test_saving_again_replaces_the_earlier_encoder(tiny):
    encoder = _trained("pretint_cnn", width=3, depth=2)
    save_backbone(encoder, tiny)
    assert torch.equal(_features(load_backbone(tiny)), _features(encoder))
    assert sorted(p.name for p in tiny.iterdir()) == ["README.md", "config.json", "model.safetensors"]


# What can't be saved


def test_an_encoder_made_elsewhere_is_not_saved(tmp_path):
    with pytest.raises(ArgumentError, match=r"encoder: .*create_backbone or load_backbone"):
        save_backbone(timm.create_model("pretint_unet", width=2), tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("card", [{"loss": NAN}, {"loss": [INFINITY]}, {"x": torch.zeros(1)}, {"x": {1, 2}}])
def test_a_card_that_is_no_json_is_refused_before_anything_is_written(tmp_path, card):
    with pytest.raises(ArgumentError, match="card"):
        save_backbone(create_backbone("pretint_unet", width=2), tmp_path / "x", card)
    assert not (tmp_path / "x").exists()


def test_an_encoder_that_diverged_is_refused_before_anything_is_written(tmp_path):
    encoder = create_backbone("pretint_unet", width=2)
    with torch.no_grad():
        encoder.stages[1].convs[0][0].weight[0, 0, 0, 0] = NAN
    with pytest.raises(NotFiniteError, match="encoder"):
        save_backbone(encoder, tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("size", [0, -1, 100_000])
def test_an_image_size_out_of_range_is_refused(tmp_path, size):
    with pytest.raises(ArgumentError, match=f"image_size: {size}"):
        save_backbone(create_backbone("pretint_unet", width=2), tmp_path, image_size=size)


# What can't be loaded


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(tiny, missing):
    (tiny / missing).unlink()
    with pytest.raises(RunFolderError, match=f"{missing} is missing|no {missing} in it"):
        load_backbone(tiny)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RunFolderError, match="nowhere"):
        load_backbone(tmp_path / "nowhere")


def test_a_flipped_byte_is_found_wherever_it_lies(tiny):
    path = tiny / "model.safetensors"
    whole, wanted = path.read_bytes(), _features(load_backbone(tiny))
    header = 8 + int.from_bytes(whole[:8], "little")
    harmless = 0
    for position in [*range(0, header, 37), *range(header, len(whole), (len(whole) - header) // 40), len(whole) - 1]:
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        path.write_bytes(damaged)
        try:
            loaded = load_backbone(tiny)
        except RunFolderError:
            continue
        # only a word of the header's comment may change without harm
        assert position < header
        assert torch.equal(_features(loaded), wanted)
        harmless += 1
    assert harmless <= 2


@pytest.mark.parametrize("keep", [0, 7, 8, 100, 0.5, -1])
def test_a_file_cut_short_is_refused(tiny, keep):
    path = tiny / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(RunFolderError, match="damaged"):
        load_backbone(tiny)


def _scale(weights):
    weights["stages.1.convs.0.0.weight"] *= 1.01


def test_changed_weights_fail_the_checksum(tiny):
    _replace_weights(tiny, _scale)
    with pytest.raises(RunFolderError, match="checksum"):
        load_backbone(tiny)


def test_changed_weights_with_a_new_checksum_fail_the_fixed_features(tiny):
    _replace_weights(tiny, _scale, keep_checksum=False)
    with pytest.raises(RunFolderError, match="features of the fixed picture differ"):
        load_backbone(tiny)


@pytest.mark.parametrize("value", [NAN, INFINITY])
def test_weights_that_are_not_finite_are_refused(tiny, value):
    def change(weights):
        weights["stages.0.convs.0.0.weight"][0] = value

    _replace_weights(tiny, change, keep_checksum=False)
    with pytest.raises(RunFolderError, match="features of the fixed picture"):
        load_backbone(tiny)


def test_missing_and_unexpected_keys_are_listed(tiny):
    def rename(weights):
        weights["stages.9.strange"] = weights.pop("stages.0.convs.0.1.bias")

    _replace_weights(tiny, rename, keep_checksum=False)
    with pytest.raises(
        RunFolderError, match=r"lack \['stages\.0\.convs\.0\.1\.bias'\] and have \['stages\.9\.strange'\]"
    ):
        load_backbone(tiny)


def test_only_a_missing_key_is_listed_too(tiny):
    _replace_weights(tiny, lambda weights: weights.pop("stages.2.convs.1.1.running_var"), keep_checksum=False)
    with pytest.raises(RunFolderError, match=r"lack \['stages\.2\.convs\.1\.1\.running_var'\] and have \[\]"):
        load_backbone(tiny)


def test_a_tensor_of_another_shape_is_named(tiny):
    def reshape(weights):
        weights["stages.0.convs.0.0.weight"] = torch.zeros(2, 1, 5, 5)

    _replace_weights(tiny, reshape, keep_checksum=False)
    with pytest.raises(RunFolderError, match=r"shapes of \['stages\.0\.convs\.0\.0\.weight'\]"):
        load_backbone(tiny)


def test_another_encoders_weights_are_refused(tiny, tmp_path):
    save_backbone(_trained(width=4, depth=3), tmp_path / "other")
    (tmp_path / "other" / "model.safetensors").replace(tiny / "model.safetensors")
    with pytest.raises(RunFolderError, match="shapes"):
        load_backbone(tiny)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '"pretint"', "{}", '{"pretint": 1}', '{"pretint": {}}',
                                  '{"pretint": []}', "[" * 100_000, "\ufeff{}"])  # fmt: skip
def test_a_config_that_is_none_is_refused(tiny, text):
    (tiny / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(RunFolderError, match=r"config\.json"):
        load_backbone(tiny)


def test_a_config_that_is_no_text_is_refused(tiny):
    (tiny / "config.json").write_bytes(bytes(range(256)))
    with pytest.raises(RunFolderError, match=r"config\.json"):
        load_backbone(tiny)


def test_a_later_format_asks_for_an_upgrade(tiny):
    _edit(tiny, lambda config: config["pretint"].update(folder_version=2))
    with pytest.raises(RunFolderError, match=r"format 2.*upgrade"):
        load_backbone(tiny)


@pytest.mark.parametrize("grey", ["rec709", "mean", "lstar"])
def test_another_grey_formula_than_the_saved_one_is_noticed(tiny, grey):
    _edit(tiny, lambda config: config["pretint"]["preprocess"].update(grey=grey))
    with pytest.raises(RunFolderError, match="features of the fixed picture differ"):
        load_backbone(tiny)


JUNK = [None, True, -1, 0, 1.5, 10**400, NAN, INFINITY, -INFINITY, "", "x", "../../x", [], [1], {}, {"a": 1}, [[[]]]]
WITHIN = [
    "folder_version", "backbone", "backbone.name", "backbone.stem", "backbone.options", "backbone.options.width",
    "backbone.options.depth", "preprocess", "preprocess.in_chans", "preprocess.grey", "preprocess.mean", "preprocess.std",
    "image_size", "card", "weights_sha256", "fixed_features", "fixed_features.0",
]  # fmt: skip


@pytest.mark.parametrize("where", WITHIN)
def test_junk_anywhere_in_the_config_is_refused_or_harmless(tiny, where):
    wanted = _features(load_backbone(tiny))
    original = json.loads((tiny / "config.json").read_text())
    *path, last = where.split(".")
    for junk in [*JUNK, "missing"]:
        config = copy.deepcopy(original)
        place = config["pretint"]
        for key in path:
            place = place[key]
        if junk == "missing" and isinstance(place, dict):
            del place[last]
        else:
            place[int(last) if isinstance(place, list) else last] = junk
        (tiny / "config.json").write_text(json.dumps(config))
        try:
            loaded = load_backbone(tiny)
        except RunFolderError:
            continue
        assert torch.equal(_features(loaded), wanted), (where, junk)


@pytest.mark.parametrize(
    "options",
    [{"width": 4096}, {"width": 4096, "depth": 64}, {"depth": 300}, {"width": 10**9}, {"width": 2, "dpeth": 3}],
)
def test_sizes_that_someone_made_up_are_refused_before_memory_is_taken(tiny, options):
    resource = pytest.importorskip("resource")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _edit(tiny, lambda config: config["pretint"]["backbone"].update(options=options))
    with pytest.raises(RunFolderError):
        load_backbone(tiny)
    # one convolution of width 8 · 4096 takes 36 GiB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 300_000


@pytest.mark.parametrize("name", ["os", "pretint_evil", "timm/../evil", "timm.models", "evil_module:encoder", "hf-hub:x/y",
                                  "local-dir:.", "timm/hf-hub:x/y"])  # fmt: skip
def test_an_unknown_encoder_is_refused_and_nothing_is_imported(tiny, tmp_path, monkeypatch, name):
    (tmp_path / "evil_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    load_backbone(tiny)
    before = set(sys.modules)

    def change(config):
        config["pretint"]["backbone"]["name"] = name
        config["architecture"] = "evil_module"
        config["model_args"] = {"module": "evil_module"}

    _edit(tiny, change)
    with pytest.raises(RunFolderError, match="unknown encoder"):
        load_backbone(tiny)
    assert set(sys.modules) == before


def test_only_our_own_part_of_the_config_is_believed(tiny):
    wanted = _features(load_backbone(tiny))

    def change(config):
        config.update(architecture="evil_module:encoder", model_args={"__class__": "os.system"}, num_classes=10**9)

    _edit(tiny, change)
    assert torch.equal(_features(load_backbone(tiny)), wanted)


@pytest.mark.parametrize("option", ["checkpoint_path", "pretrained", "pretrained_cfg", "features_only", "base"])
def test_what_the_factory_decides_can_not_come_from_a_folder(tiny, option):
    _edit(tiny, lambda config: config["pretint"]["backbone"]["options"].update({option: 1}))
    with pytest.raises(RunFolderError):
        load_backbone(tiny)


def test_a_pickle_beside_the_weights_is_never_read(tiny):
    class Bomb:
        def __reduce__(self):
            return (exec, ("raise SystemExit('executed')",))

    torch.save(Bomb(), tiny / "pytorch_model.bin")
    assert math.isfinite(float(_features(load_backbone(tiny)).sum()))
    (tiny / "model.safetensors").unlink()
    with pytest.raises(RunFolderError, match=r"model\.safetensors is missing"):
        load_backbone(tiny)


def test_card_and_image_size_come_along_unless_others_are_given(tmp_path):
    save_backbone(_trained("pretint_cnn", width=2), tmp_path / "a", {"task": "palette"}, 48)
    save_backbone(load_backbone(tmp_path / "a", in_chans=3), tmp_path / "b")
    again = load_backbone(tmp_path / "b")
    assert (again.card, again.image_size) == ({"task": "palette"}, 48)


def test_an_unknown_device_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(ArgumentError, match="device: 'gpu'"):
        load_backbone(tmp_path / "none", device="gpu")


def test_files_can_be_read_by_whom_the_umask_lets(tiny):
    modes = {path.stat().st_mode & 0o777 for path in tiny.iterdir()}
    assert len(modes) == 1
