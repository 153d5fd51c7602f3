"""What the documents print runs as printed; docstring examples too."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pretint
import pytest

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


def test_the_guide_to_extending_runs_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from pretint.data import sources
    from pretint.pretext import tasks

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tasks, "TASKS", dict(tasks.TASKS))
    monkeypatch.setattr(sources, "_registered", dict(sources._registered))
    exec(compile("\n".join(blocks(ROOT / "docs" / "extending.md")), "docs/extending.md", "exec"), {"__name__": "extending"})
    assert (tmp_path / "runs" / "own" / "results.json").is_file()
