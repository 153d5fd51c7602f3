"""Constant features, one class only, more palette colours than there are, all-grey data, and too few pictures: a defined result or
one clear sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pretint.cli import main
from pretint.colour import build_palette, fit_palette, rgb_histogram
from pretint.data import TensorSource, is_grey
from pretint.downstream import feature_health, few_shot, knn, linear_probe, ridge_probe
from pretint.runtime.errors import ArgumentError, PretintError

LABELS = torch.arange(60) % 3
PROBES = {
    "linear": lambda x, y: linear_probe(x, y, x, y, epochs=2).top1,
    "linear by L-BFGS": lambda x, y: linear_probe(x, y, x, y, solver="lbfgs").top1,
    "ridge": lambda x, y: ridge_probe(x, y, x, y).top1,
    "kNN": lambda x, y: knn(x, y, x, y, ks=(1, 5)).top1,
    "few-shot": lambda x, y: few_shot(x, y, x, y, per_class=(5,), seeds=range(2))[5].top1,
}


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("value", [0.0, 1.0, -1e-30, 1e30])
def test_constant_features_give_a_defined_result(probe: str, value: float):
    """Features that say nothing find one class of three, neither NaN nor an exception."""
    assert PROBES[probe](torch.full((60, 5), value), LABELS) == pytest.approx(1 / 3)


@pytest.mark.parametrize("probe", PROBES)
def test_one_class_only_is_a_typed_error_or_a_defined_result(probe: str):
    x = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    try:
        top1 = PROBES[probe](x, torch.zeros(60, dtype=torch.int64))
    except PretintError as error:
        assert "class" in str(error)  # noqa: PT017 - or a result
    else:
        assert top1 == 1.0


def test_the_health_of_constant_features_is_defined():
    health = feature_health(torch.ones(20, 4))
    assert health.effective_rank == pytest.approx(1.0)
    assert health.dead_channels == 1.0
    assert health.uniformity == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("space", ["rgb", "lab", "ab", "cbcr"])
def test_more_palette_colours_than_distinct_colours_is_one_sentence(space: str):
    three = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=torch.uint8).view(3, 3, 1, 1).expand(3, 3, 8, 8)
    assert len(fit_palette(rgb_histogram([three]), 3, space)) == 3
    with pytest.raises(ArgumentError, match="only 3 distinct"):
        build_palette(lambda: [three], 4, space)


def _save(folder: Path, count: int, colour: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for number in range(count):
        pixels = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels if colour else pixels[..., :1].repeat(3, 2)).save(folder / f"{number}.png")


def _refusal(capsys: pytest.CaptureFixture[str], data: Path, *words: str) -> str:
    options = [
        "--task",
        "palette",
        "--backbone",
        "pretint_cnn_tiny",
        "--image-size",
        "16",
        "--epochs",
        "1",
        "--device",
        "cpu",
    ]
    assert main(["pretrain", "--data", str(data), "--out", str(data.parent / "run"), *options, *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    sentence = printed.err.strip().splitlines()[-1]
    assert sentence.startswith("pretint: ")
    assert not (data.parent / "run").exists()
    return sentence


def test_an_all_grey_data_set_is_refused_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """All-grey data has no colour to learn; pretraining says so, and so does `pretint data check`."""
    _save(tmp_path / "grey", 8, colour=False)
    assert "all images are grey" in _refusal(capsys, tmp_path / "grey", "--batch-size", "4")
    assert main(["data", "check", str(tmp_path / "grey")]) == 1
    assert "grey" in capsys.readouterr().out
    assert is_grey(TensorSource(torch.full((1, 3, 4, 4), 9, dtype=torch.uint8)))


def test_an_empty_folder_one_image_and_fewer_images_than_the_batch_are_clear_messages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Never "0 batches" in silence."""
    (tmp_path / "none").mkdir()
    assert "holds no picture" in _refusal(capsys, tmp_path / "none")
    _save(tmp_path / "one", 1)
    assert "fewer than a batch of 4" in _refusal(capsys, tmp_path / "one", "--batch-size", "4")
    assert "batch normalisation needs two" in _refusal(
        capsys, tmp_path / "one", "--batch-size", "1", "--holdout", "0", "--colours", "2"
    )
    assert "at least 2 are needed" in _refusal(capsys, tmp_path / "one", "--batch-size", "1")
    _save(tmp_path / "few", 6)
    assert "use a smaller --batch-size" in _refusal(capsys, tmp_path / "few", "--batch-size", "8")
    assert "smaller --batch-size" in _refusal(capsys, tmp_path / "few", "--batch-size", "6", "--holdout", "0.3")
    for folder in ("none", "one"):
        code = main(["data", "check", str(tmp_path / folder)])
        assert code == (2 if folder == "none" else 0)
    assert "fewer than the usual batch" in capsys.readouterr().out
