"""What all tests share: shapes checked while they run, a cache folder of their own, the real images where there are any."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import socket
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from jaxtyping import install_import_hook

# backbones are left out: TorchScript and torch.fx can't digest the checks
_CHECKED = ("colour", "data", "downstream", "evaluation", "pretext", "recipes", "runtime")
# What the processes of `several` need: imported once, by the server that they are forked off.
_NEEDED = ["pretint.cli", *(f"pretint.recipes.{verb}" for verb in ("pretraining", "probing", "tuning", "evaluating"))]
_NEEDED += ["sklearn.cluster", "torch.utils.tensorboard", "pretint.runtime.processes"]
_hook = install_import_hook([f"pretint.{room}" for room in _CHECKED], "beartype.beartype")

# Workers of pytest-xdist share the processor, and programs that they start inherit the number; more threads than cores wait for
# each other and are twenty times slower. The controller sets nothing, since workers would inherit it.
_workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_threads = max(1, min(2, (os.cpu_count() or 1) // _workers))
if _workers > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(_threads))

import torch  # noqa: E402

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", _threads)))


# Of several workers, each takes the next file when it is done with one: those that take minutes go first, or the one that begins
# the last of them works on alone.
_LONGEST = (
    "recipes/test_processes.py",
    "recipes/test_transferring.py",
    "recipes/test_verbs.py",
    "recipes/test_compiling.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the longest files first; the others as they are."""
    items.sort(key=lambda item: not item.path.as_posix().endswith(_LONGEST))


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
def free_port() -> Callable[[], int]:
    """Gives a number of a port where nobody listens."""

    def find() -> int:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            return free.getsockname()[1]

    return find


@pytest.fixture(scope="session")
def several(free_port) -> Callable[..., list[int]]:
    """Runs a script of the tests in several processes, which find each other as under torchrun; gives their exit codes.

    They are forked off a server that has imported torch and computed nothing, so that they start at once.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_NEEDED)

    def run(script: Path, size: int, folder: Path, seconds: float = 300.0, **names: Any) -> list[int]:
        port, workers = free_port(), []
        for rank in range(size):
            environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
            environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
            given = {"ENVIRONMENT": {k: str(v) for k, v in environment.items()}, "FOLDER": str(folder), **names}
            workers.append(
                context.Process(target=runpy.run_path, args=(str(script),), kwargs={"init_globals": given}, daemon=True)
            )
            workers[-1].start()
        end = time.monotonic() + seconds
        for worker in workers:
            worker.join(max(0.0, end - time.monotonic()))
        hanging = [worker for worker in workers if worker.is_alive()]
        for worker in hanging:
            worker.kill()
        assert not hanging, f"{len(hanging)} of {size} processes hang"
        return [worker.exitcode for worker in workers]

    return run


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
