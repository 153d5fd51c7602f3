"""Are pooled features the averages of the encoder's stages, and is their cache never wrong?"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn

from pretint.data import TensorSource
from pretint.downstream import extract_features
from pretint.runtime import ArgumentError, DataError, NotFiniteError, UnknownNameError


def grey(rgb: torch.Tensor) -> torch.Tensor:
    return rgb.float().mean(1, keepdim=True) / 255 - 0.5


def make_encoder(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    encoder = timm.create_model("resnet10t", in_chans=1, num_classes=0)
    encoder.preprocess = grey
    return encoder


def make_source(n: int = 13, seed: int = 0, labelled: bool = True) -> TensorSource:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return TensorSource(images, torch.arange(n) % 3 if labelled else None, name="noise")


class CountingEncoder(nn.Module):
    """Two 'stages' whose averages are known by hand, and a count of the forward passes."""

    def __init__(self, factor: float = 2.0):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))
        self.passes = 0

    def preprocess(self, rgb: torch.Tensor) -> torch.Tensor:
        return rgb.float()

    def forward_intermediates(self, x: torch.Tensor, intermediates_only: bool) -> list[torch.Tensor]:
        assert intermediates_only
        self.passes += 1
        return [x, x[:, :1, ::4, ::4] * self.factor]


def test_features_are_the_mean_of_every_stage_computed_image_by_image():
    encoder, source = make_encoder().eval(), make_source()
    features = extract_features(encoder, source, batch_size=4)
    assert features.labels is not None
    assert features.labels.tolist() == [i % 3 for i in range(13)]
    with torch.no_grad():
        for i in range(len(source)):
            maps = encoder.forward_intermediates(grey(source.images[i : i + 1]), intermediates_only=True)
            assert list(features.arrays) == [f"stage{depth}" for depth in range(len(maps))]
            for array, stage in zip(features.arrays.values(), maps, strict=True):
                mean = stage[0].double().numpy().reshape(stage.shape[1], -1).mean(1)
                np.testing.assert_allclose(array[i].numpy(), mean, rtol=1e-4, atol=1e-5)


def test_known_means_come_out_exactly():
    images = torch.full((3, 3, 8, 8), 7, dtype=torch.uint8)
    images[1, 0] = 200
    arrays = extract_features(CountingEncoder(0.5), TensorSource(images), batch_size=2).arrays
    assert arrays["stage0"].tolist() == [[7, 7, 7], [200, 7, 7], [7, 7, 7]]
    assert arrays["stage1"].tolist() == [[3.5], [100], [3.5]]


def test_grids_are_the_means_of_their_cells():
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    arrays = extract_features(CountingEncoder(1.0), TensorSource(images), grids=(1, 2, 4)).arrays
    assert list(arrays) == ["stage0", "stage1", "stage0/2x2", "stage1/2x2", "stage0/4x4", "stage1/4x4"]
    cells = images.double().numpy().reshape(2, 3, 2, 4, 2, 4).mean((3, 5))
    np.testing.assert_allclose(arrays["stage0/2x2"].numpy(), cells.reshape(2, -1), rtol=1e-6)
    # a map of 2 × 2 pixels is taken as it is
    assert torch.equal(arrays["stage1/4x4"], images[:, 0, ::4, ::4].flatten(1).float())


def test_a_grid_has_at_most_nine_thousand_numbers():
    images = torch.zeros(1, 3, 96, 96, dtype=torch.uint8)
    arrays = extract_features(CountingEncoder(1.0), TensorSource(images), grids=(96,)).arrays
    assert arrays["stage0/96x96"].shape == (1, 3 * 54 * 54)  # 55 · 55 · 3 would be 9075
    assert arrays["stage1/96x96"].shape == (1, 24 * 24)


def test_the_cache_keeps_grids_apart_and_layers_in_order(tmp_path):
    encoder, source = make_encoder(), make_source()
    means = extract_features(encoder, source, cache=tmp_path).arrays
    both = extract_features(encoder, source, grids=(1, 2), cache=tmp_path).arrays
    again = extract_features(encoder, source, grids=(1, 2), cache=tmp_path).arrays
    assert list(means) == list(both)[: len(means)]
    assert list(again) == list(both)
    assert len(list(tmp_path.iterdir())) == 2


def test_features_do_not_depend_on_the_batch_size():
    encoder, source = make_encoder(), make_source()
    whole, parts = (extract_features(encoder, source, batch_size=size).arrays for size in (512, 3))
    for name, array in whole.items():
        torch.testing.assert_close(array, parts[name], rtol=1e-4, atol=1e-5)


def test_every_module_gets_its_own_training_flag_back():
    encoder = make_encoder().train()
    encoder.layer1.eval()
    before = [module.training for module in encoder.modules()]
    statistics = {name: value.clone() for name, value in encoder.state_dict().items()}
    extract_features(encoder, make_source())
    assert [module.training for module in encoder.modules()] == before
    assert all(torch.equal(value, statistics[name]) for name, value in encoder.state_dict().items())


def test_features_can_be_trained_on_and_unlabelled_sources_have_no_labels():
    features = extract_features(make_encoder(), make_source(labelled=False))
    assert features.labels is None
    x = features.arrays["stage4"]
    weight = torch.zeros(x.shape[1], requires_grad=True)
    (x @ weight).sum().backward()
    assert weight.grad is not None


def test_bf16_features_are_float32_close_to_the_exact_ones():
    encoder, source = make_encoder(), make_source()
    exact, rounded = (extract_features(encoder, source, autocast=autocast).arrays for autocast in (False, True))
    for name, array in exact.items():
        assert rounded[name].dtype == torch.float32
        assert not torch.equal(rounded[name], array)
        assert float((rounded[name] - array).norm() / array.norm()) < 0.02


def test_only_the_layers_asked_for_are_kept():
    encoder, source = make_encoder(), make_source()
    some = extract_features(encoder, source, layers=["stage3", "stage1"]).arrays
    assert list(some) == ["stage1", "stage3"]
    torch.testing.assert_close(some["stage3"], extract_features(encoder, source).arrays["stage3"])
    with pytest.raises(UnknownNameError, match="stage9"):
        extract_features(encoder, source, layers=["stage9"])


def test_the_cache_answers_instead_of_the_encoder(tmp_path):
    encoder, source = CountingEncoder(), make_source()
    first = extract_features(encoder, source, cache=tmp_path).arrays
    passes = encoder.passes
    second = extract_features(encoder, source, cache=tmp_path)
    assert encoder.passes == passes > 0
    assert list(second.arrays) == list(first)
    assert all(torch.equal(second.arrays[name], first[name]) for name in first)
    assert second.labels is not None
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]


@pytest.mark.parametrize("where", [0.02, 0.3, 0.6, 0.99])
def test_a_flipped_bit_in_the_cache_is_noticed_and_mended(tmp_path, where):
    encoder, source = CountingEncoder(), make_source()
    right = extract_features(encoder, source, cache=tmp_path).arrays
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 4
    path.write_bytes(bytes(content))
    with pytest.warns(UserWarning, match="damaged"):
        again = extract_features(encoder, source, cache=tmp_path).arrays
    assert all(torch.equal(again[name], right[name]) for name in right)
    passes = encoder.passes
    extract_features(encoder, source, cache=tmp_path)
    assert encoder.passes == passes


def test_a_cache_file_under_another_name_is_not_believed(tmp_path):
    source = make_source()
    extract_features(CountingEncoder(2.0), source, cache=tmp_path)
    (other,) = tmp_path.iterdir()
    content = other.read_bytes()
    other.unlink()
    right = extract_features(CountingEncoder(3.0), source, cache=tmp_path).arrays
    (path,) = tmp_path.iterdir()
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="damaged"):
        again = extract_features(CountingEncoder(3.0), source, cache=tmp_path).arrays
    assert torch.equal(again["stage1"], right["stage1"])


@pytest.mark.parametrize(
    "change", ["weights", "preprocessing", "data", "labels", "architecture", "precision", "layers"]
)
def test_nothing_stale_comes_out_of_the_cache(tmp_path, change):
    encoder, source = make_encoder(), make_source()
    settings = {"cache": tmp_path}
    extract_features(encoder, source, **settings)
    if change == "weights":
        with torch.no_grad():
            next(encoder.parameters()).view(-1)[0] += 1e-3
    elif change == "preprocessing":
        encoder.preprocess = lambda rgb: grey(rgb) * 1.01
    elif change == "data":
        images = source.images.clone()
        images[0, 0, 0, 0] ^= 1
        source = TensorSource(images, source.labels)
    elif change == "labels":
        source = TensorSource(source.images, source.labels.flip(0))
    elif change == "architecture":
        encoder.layer2[0].conv1.stride = (1, 1)
        encoder.layer2[0].downsample = nn.Sequential(nn.Identity(), *encoder.layer2[0].downsample[1:])
    elif change == "precision":
        settings["autocast"] = True
    elif change == "layers":
        settings["layers"] = ["stage0"]
    cached = extract_features(encoder, source, **settings)
    fresh = extract_features(encoder, source, **{**settings, "cache": None})
    assert len(list(tmp_path.iterdir())) == 2
    assert list(cached.arrays) == list(fresh.arrays)
    assert all(torch.equal(cached.arrays[name], fresh.arrays[name]) for name in fresh.arrays)
    assert torch.equal(cached.labels, fresh.labels)


def test_the_same_preprocessing_in_a_new_object_finds_the_cache(tmp_path):
    source = make_source()
    for _ in range(2):
        encoder = make_encoder()
        encoder.preprocess = lambda rgb: grey(rgb)
        extract_features(encoder, source, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_cannot_be_written_costs_a_warning_only(tmp_path):
    (tmp_path / "file").write_text(json.dumps({}))
    with pytest.warns(UserWarning, match="could not write"):
        features = extract_features(CountingEncoder(), make_source(), cache=tmp_path / "file")
    assert len(features.arrays["stage0"]) == 13


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_features_that_are_not_finite_name_their_layer(tmp_path, value):
    with pytest.raises(NotFiniteError, match="'stage1'"):
        extract_features(CountingEncoder(value), make_source(), cache=tmp_path)
    assert not list(tmp_path.iterdir())


def test_bad_arguments_are_told():
    with pytest.raises(ArgumentError, match="preprocess"):
        extract_features(timm.create_model("resnet10t", in_chans=1, num_classes=0), make_source())
    with pytest.raises(ArgumentError, match="batch_size: got 0"):
        extract_features(CountingEncoder(), make_source(), batch_size=0)
    with pytest.raises(ArgumentError, match="grids"):
        extract_features(CountingEncoder(), make_source(), grids=(1, 0))
    with pytest.raises(DataError, match="no image"):
        extract_features(CountingEncoder(), make_source(0))


def peak_above_the_features(n: int) -> float:
    """MiB that extraction holds at most, without the features themselves; the pictures are one, seen n times."""

    def held(name: str) -> float:
        return int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0]) / 1024

    encoder, source = (
        CountingEncoder(),
        TensorSource(torch.full((1, 3, 32, 32), 7, dtype=torch.uint8).expand(n, -1, -1, -1)),
    )
    Path("/proc/self/clear_refs").write_text("5")
    before = held("VmRSS")
    arrays = extract_features(encoder, source, batch_size=256).arrays
    assert arrays["stage0"][-1, 0] == 7
    return held("VmHWM") - before - sum(array.nbytes for array in arrays.values()) / 2**20


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is read as Linux tells it")
def test_memory_does_not_grow_with_the_number_of_images():
    """150,000 pictures of 32 × 32 are 439 MiB, and 1758 MiB as floats; what is held of them is a batch."""
    peak_above_the_features(1000)  # what is imported and set up once
    assert peak_above_the_features(150_000) < 100
