"""What all tests share: shapes checked while they run, a cache folder of their own, the real images where there are any."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from jaxtyping import install_import_hook

# backbones are left out: TorchScript and torch.fx can't digest the checks
_CHECKED = ("colour", "data", "downstream", "evaluation", "pretext", "recipes", "runtime")
_hook = install_import_hook([f"pretint.{room}" for room in _CHECKED], "beartype.beartype")

import torch  # noqa: E402

if "OMP_NUM_THREADS" not in os.environ:
    torch.set_num_threads(max(1, min(2, os.cpu_count() or 1)))


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory):
    """Nothing is read from or written to the user's own cache."""
    folder = tmp_path_factory.mktemp("cache")
    previous = os.environ.get("PRETINT_DATA")
    os.environ["PRETINT_DATA"] = str(folder)
    yield folder
    if previous is None:
        del os.environ["PRETINT_DATA"]
    else:
        os.environ["PRETINT_DATA"] = previous


@pytest.fixture(scope="session")
def child() -> Callable[..., BaseProcess]:
    """Starts code in a process of its own, with some names set; torch and Pretint are imported once for all of them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pretint.cli", "pretint.recipes.pretraining", "pretint.recipes.probing"])

    def start(code: str, **names: Any) -> BaseProcess:
        # what runs in several threads does not survive being forked, so these have one
        process = context.Process(target=exec, args=(f"import torch; torch.set_num_threads(1)\n{code}", names))
        process.start()
        return process

    return start


@pytest.fixture
def forget_registrations():
    """Tasks and sources that a test registers are gone after it."""
    from pretint.data import sources
    from pretint.pretext import tasks

    tables: list[dict[str, Any]] = [tasks.TASKS, tasks._DESCRIPTIONS, sources._registered]
    before = [dict(table) for table in tables]
    yield
    for table, known in zip(tables, before, strict=True):
        table.clear()
        table.update(known)


@pytest.fixture(scope="session")
def cifar10_archive() -> Path:
    """CIFAR-10 as JPEG files in a .tar.xz; tests that want it are skipped where PRETINT_TEST_DATA does not name its folder."""
    folder = os.environ.get("PRETINT_TEST_DATA")
    if not folder:
        pytest.skip("PRETINT_TEST_DATA is not set: it names the folder that holds cifar10-jpeg.tar.xz")
    path = Path(folder) / "cifar10-jpeg.tar.xz"
    if not path.is_file():
        pytest.skip(f"{path} is missing")
    return path
