"""What the documents print runs as printed; docstring examples too."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest

import pretint

ROOT = Path(pretint.__file__).parent
MODULES = [m.name for m in pkgutil.walk_packages(pretint.__path__, "pretint.") if m.name.split(".")[1] in (
    "backbones", "colour", "data", "downstream", "evaluation", "pretext", "recipes", "runtime", "cli"
)]  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name: str):
    module = importlib.import_module(name)
    assert doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0


def blocks(path: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def run_blocks(path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Runs a document's blocks as one module, which is what registering an encoder with timm needs."""
    module = types.ModuleType("document")
    monkeypatch.setitem(sys.modules, "document", module)
    exec(compile("\n".join(blocks(path)), str(path), "exec"), vars(module))
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
