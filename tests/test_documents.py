"""What the documents print runs as printed; docstring examples too."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import shlex
import subprocess
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file

import pretint

ROOT = Path(pretint.__file__).parent
MODULES = [m.name for m in pkgutil.walk_packages(pretint.__path__, "pretint.") if m.name.split(".")[1] in (
    "backbones", "colour", "data", "downstream", "evaluation", "pretext", "recipes", "runtime", "cli"
)]  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name: str):
    module = importlib.import_module(name)
    assert doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0


def blocks(path: Path, heading: str | None = None, language: str = "python") -> list[str]:
    """A document's code blocks of one language, all of them or those under one heading of second rank."""
    text = path.read_text(encoding="utf-8")
    if heading is not None:
        text = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def run_blocks(path: Path, monkeypatch: pytest.MonkeyPatch, heading: str | None = None) -> dict[str, Any]:
    """Runs a document's blocks, or those under one heading, as one module, which is what registering an encoder with timm needs."""
    module = types.ModuleType("document")
    monkeypatch.setitem(sys.modules, "document", module)
    exec(compile("\n".join(blocks(path, heading)), str(path), "exec"), vars(module))
    return vars(module)


@pytest.mark.usefixtures("forget_registrations")
def test_the_guide_to_extending_runs_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    run_blocks(ROOT / "docs" / "extending.md", monkeypatch)
    assert (tmp_path / "runs" / "own" / "results.json").is_file()


def test_the_python_in_the_readme_runs_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from pretint.backbones import create_backbone, save_backbone
    from pretint.data import make_toy, sources

    monkeypatch.chdir(tmp_path)
    save_backbone(create_backbone("pretint_unet"), tmp_path / "runs" / "a" / "encoder")
    toy = {split: make_toy(split, n=600) for split in ("train", "test")}
    monkeypatch.setattr(sources, "make_toy", lambda split, *_args, **_options: toy[split])
    names = run_blocks(ROOT / "README.md", monkeypatch)
    assert names["features"].shape == (8, 256)
    assert names["model"].get_classifier().out_features == 10
    assert (tmp_path / "runs" / "b" / "encoder" / "model.safetensors").is_file()


GUIDE = ROOT / "docs" / "import.md"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the encoders that the guide to importing names, their statistics not those of fresh ones."""
    from pretint.backbones import create_backbone, save_backbone

    folder = tmp_path_factory.mktemp("project")
    for run, name, options in (("a", "pretint_unet", {}), ("stock", "timm/resnet18", {"stem": "stock"})):
        torch.manual_seed(0)
        encoder = create_backbone(name, **options).train()
        encoder(torch.randn(8, 1, 64, 64))
        save_backbone(encoder, folder / "runs" / run / "encoder")
    return folder


def run_elsewhere(code: str, folder: Path, without: tuple[str, ...]) -> dict[str, np.ndarray]:
    """What a script calls images and features, run by a fresh interpreter that can't import some packages."""
    script = "\n".join([
        f"import sys; sys.modules.update(dict.fromkeys({without!r}))",
        code,
        "import numpy; numpy.savez('outcome.npz', images=numpy.asarray(images), features=numpy.asarray(features))",
    ])  # fmt: skip
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "outcome.npz") as outcome:
        return dict(outcome)


@pytest.mark.parametrize(
    ("heading", "run", "without"),
    [
        ("With timm alone", "stock", ("pretint",)),
        ("With plain torch", "a", ("pretint", "timm")),
        ("With ONNX Runtime", "a", ("pretint", "timm", "torch")),
    ],
)
def test_recipes_without_pretint_give_its_features(
    heading: str, run: str, without: tuple[str, ...], project: Path, monkeypatch: pytest.MonkeyPatch
):
    from pretint import cli
    from pretint.backbones import features, load_backbone

    monkeypatch.chdir(project)
    for command in re.findall(r"^pretint (.*)$", "\n".join(blocks(GUIDE, heading, "bash")), re.MULTILINE):
        assert cli.main(shlex.split(command)) == 0
    outcome = run_elsewhere("\n".join(blocks(GUIDE, heading)), project, without)
    expected = features(load_backbone(project / "runs" / run / "encoder"), torch.from_numpy(outcome["images"]))
    np.testing.assert_allclose(outcome["features"], expected.numpy(), rtol=1e-4, atol=1e-5)


def test_what_timm_gives_without_pretrained_is_not_what_was_saved(project: Path, monkeypatch: pytest.MonkeyPatch):
    """The guide's warning holds: if timm ever mends this, the guide is to be mended too."""
    monkeypatch.chdir(project)
    code = "\n".join(blocks(GUIDE, "With timm alone"))
    names: dict[str, Any] = {}
    with warnings.catch_warnings(action="error"):
        exec(code.replace(", pretrained=True", ""), names)
    saved = load_file(project / "runs" / "stock" / "encoder" / "model.safetensors")
    given = names["model"].state_dict()
    assert given.keys() == saved.keys()
    assert not torch.equal(given["conv1.weight"], saved["conv1.weight"])


def test_recipes_with_pretint_run_as_printed(project: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(project)
    names = run_blocks(GUIDE, monkeypatch, "With Pretint")
    assert names["pooled"].shape == (8, 256)
    assert [tuple(m.shape) for m in names["maps"]][::4] == [(8, 32, 32, 32), (8, 256, 2, 2)]
    for rgb in (names["pooled_rgb"], names["pooled_imagenet"]):
        torch.testing.assert_close(rgb, names["pooled"], rtol=1e-3, atol=1e-4)
    rgb_model = timm.create_model("local-dir:rgb-encoder", pretrained=True).eval()
    torch.testing.assert_close(rgb_model((names["images"] / 255 - 0.5) / 0.25), names["pooled_rgb"])
    names = run_blocks(GUIDE, monkeypatch, "In scikit-learn")
    assert names["predictions"].shape == (5,)


def test_the_segmentation_network_learns_from_the_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from pretint.backbones import create_backbone, save_backbone

    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save_backbone(create_backbone("pretint_unet", width=8), tmp_path / "runs" / "a" / "encoder")
    saved = load_file(tmp_path / "runs" / "a" / "encoder" / "model.safetensors")
    names = run_blocks(GUIDE, monkeypatch, "As the encoder of a segmentation network")
    fresh = names["SegmentationNet"]("runs/a/encoder", classes=2).encoder.state_dict()
    assert {key.removeprefix("model.") for key in fresh} == saved.keys()
    assert all(torch.equal(fresh[f"model.{key}"], weight) for key, weight in saved.items())
    losses = torch.tensor(names["losses"])
    assert losses[-10:].mean() < 0.5 * losses[:10].mean()

    images, masks = names["discs"](200)
    grey, net = names["preprocess"](images), names["net"].eval()
    with torch.no_grad():
        predicted = net(grey).argmax(1)
    # everything, or the best of all thresholds of brightness: what can be had without looking at texture
    trivial = max(
        overlap(masks, (sign * grey[:, 0] > level)) for sign in (1, -1) for level in torch.linspace(-2, 2, 41)
    )
    assert overlap(masks, torch.ones_like(masks)) - 1e-3 <= trivial < 0.25
    assert overlap(masks, predicted) > trivial + 0.4


def overlap(masks: torch.Tensor, predicted: torch.Tensor) -> float:
    """Intersection over union of all pixels of all images."""
    return float((masks.bool() & predicted.bool()).sum() / (masks.bool() | predicted.bool()).sum())


@pytest.mark.parametrize(
    "document", sorted(["README.md", "CHANGELOG.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))])
)
def test_links_lead_to_files_and_nothing_was_left_to_fill_in(document: str):
    text = (ROOT / document).read_text(encoding="utf-8")
    targets = [t for t in re.findall(r"\]\(([^)#]+)", text) if "://" not in t]
    assert all(((ROOT / document).parent / target).exists() for target in targets)
    assert not re.findall(
        r"\b[A-Z]{3,}_[A-Z_]{3,}\b", re.sub(r"`[^`]*`|```.*?```|PRETINT_[A-Z_]+", "", text, flags=re.DOTALL)
    )


def test_every_promise_of_the_page_on_reliability_names_tests_that_exist():
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", text)
    assert len(named) > 50
    missing = [
        f"{file}::{name}"
        for file, name in named
        if f"def {name}(" not in (ROOT / "tests" / file).read_text(encoding="utf-8")
    ]
    assert not missing
    scripts = re.findall(r"`(benchmarks/\w+\.py)", text)
    assert all((ROOT / script).is_file() for script in scripts)


def test_every_script_that_the_page_on_benchmarks_names_exists():
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(?:python )?(?:benchmarks/)?(\w+\.py)", text))
    assert len(named) >= 10
    assert all((ROOT / "benchmarks" / script).is_file() for script in named)


def test_every_benchmark_is_named_in_a_document():
    documents = "".join(
        path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    )
    scripts = [
        p for p in (ROOT / "benchmarks").glob("*.py") if '\nif __name__ == "__main__":' in p.read_text(encoding="utf-8")
    ]
    assert len(scripts) >= 20
    assert [p.name for p in scripts if not re.search(rf"\b{p.name}\b", documents)] == []
