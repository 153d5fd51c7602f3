"""The command is asked to stop: one line, the usual exit code, a complete checkpoint, and no temporary file."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from safetensors.torch import load_file

from pretint.runtime.checkpoints import Checkpoints
from pretint.runtime.files import is_temporary
from pretint.runtime.runfolder import RunFolder

COMMAND = """
import os, sys, time
from pathlib import Path
from pretint.cli import main
if alone:
    os.setsid()
os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
os.dup2(1, 2)
os.environ["PRETINT_DATA"] = str(cache)
fsync = os.fsync
def slow(descriptor):
    Path(mark).write_text(os.readlink(f"/proc/self/fd/{descriptor}"))
    time.sleep(seconds)
    fsync(descriptor)
if only:
    os.fsync = lambda descriptor: slow(descriptor) if only in os.readlink(f"/proc/self/fd/{descriptor}") else fsync(descriptor)
sys.exit(main([str(word) for word in words]))
"""

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="asks /proc which file is being written")


class Command:
    """`pretint WORDS` in a process of its own, in which files whose name holds `only` take `seconds` to be flushed; `alone` in a
    session, which a terminal's Ctrl-C reaches as a whole."""

    def __init__(
        self,
        child: Callable[..., BaseProcess],
        folder: Path,
        *words: object,
        only: str = "",
        seconds: float = 0.0,
        alone: bool = False,
    ):
        self.said, self.mark = folder / "said.txt", folder / "mark.txt"
        self.mark.unlink(missing_ok=True)
        names = {"said": self.said, "mark": self.mark, "cache": folder / "cache", "only": only, "seconds": seconds}
        self.process = child(COMMAND, words=words, alone=alone, **names)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 120
        while not condition():
            assert self.process.is_alive(), self.said.read_text()
            assert time.monotonic() < end, self.said.read_text()
            time.sleep(0.01)

    def ask(self, number: int, *, all_of_session: bool = False) -> None:
        assert self.process.pid is not None
        (os.killpg if all_of_session else os.kill)(self.process.pid, number)

    def exit_code(self) -> int | None:
        self.process.join(60)
        return self.process.exitcode


def temporaries(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if is_temporary(path.name)]


def pretrain_words(data: Path, out: Path, *more: object) -> list[object]:
    return [
        "pretrain", "--task", "rgb-regression", "--data", data, "--out", out, "--width", 4, "--depth", 2, "--limit", 70,
        "--batch-size", 16, "--device", "cpu", "--precision", "fp32", *more,
    ]  # fmt: skip


def test_sigterm_ends_the_step_and_leaves_one_complete_checkpoint_within_ten_seconds_with_exit_code_143(
    child, small_data: Path, tmp_path: Path
):
    """A second SIGTERM comes while the checkpoint is flushed and changes nothing; --resume goes on from there, until Ctrl-C, which
    leaves as much, with exit code 130."""
    out = tmp_path / "run"
    checkpoints = Checkpoints(out / "checkpoints")
    command = Command(
        child, tmp_path, *pretrain_words(small_data, out, "--epochs", 100_000), only=".step-", seconds=0.2
    )
    command.wait_for(lambda: bool(checkpoints))
    command.ask(signal.SIGTERM)
    asked = time.monotonic()
    command.mark.unlink(missing_ok=True)
    command.wait_for(command.mark.exists)
    command.ask(signal.SIGTERM)
    assert command.exit_code() == 143
    assert time.monotonic() - asked < 10
    last_lines = command.said.read_text().splitlines()[-2:]
    step = checkpoints.steps[-1]
    assert last_lines == [
        f"Stopped at step {step}; the state is saved, --resume goes on from here.",
        "pretint: stopped.",
    ]
    assert "Traceback" not in command.said.read_text()
    assert temporaries(tmp_path) == []
    again = Command(
        child, tmp_path, "pretrain", "--out", out, "--resume", "--data", small_data, "--task", "rgb-regression"
    )
    again.wait_for(lambda: checkpoints.steps[-1] > step)
    again.ask(signal.SIGINT)
    assert again.exit_code() == 130
    assert again.said.read_text().splitlines()[-1] == "pretint: stopped."
    assert temporaries(tmp_path) == []
    assert [row["epoch"] for row in RunFolder.open(out).read_metrics()][:3] == [1, 2, 3]


@pytest.mark.parametrize("what", ["evaluation", "cache building"])
def test_ctrl_c_during_evaluation_and_cache_building_leaves_no_temporary_file_and_one_line_with_exit_code_130(
    child, small_run: Path, tmp_path: Path, what: str
):
    """The signal comes while a file lies there under its temporary name."""
    run = Path(shutil.copytree(small_run, tmp_path / "run"))
    before = (run / "results.json").read_bytes()
    words, only = (["evaluate", run], ".results.json") if what == "evaluation" else (["probe", run], ".safetensors.")
    command = Command(child, tmp_path, *words, "--device", "cpu", "--precision", "fp32", only=only, seconds=100.0)
    command.wait_for(command.mark.exists)
    assert is_temporary(Path(command.mark.read_text()).name)
    command.ask(signal.SIGINT)
    assert command.exit_code() == 130
    assert command.said.read_text().splitlines()[-1] == "pretint: stopped."
    assert "Traceback" not in command.said.read_text()
    assert temporaries(tmp_path) == []
    assert (run / "results.json").read_bytes() == before


def test_a_launch_of_two_processes_ends_by_ctrl_c_and_by_sigterm_with_one_line_and_a_complete_checkpoint(
    child, small_data: Path, tmp_path: Path
):
    """Ctrl-C in a terminal reaches the launcher and both processes; a scheduler's SIGTERM the launcher alone."""
    out = tmp_path / "run"
    checkpoints = Checkpoints(out / "checkpoints")
    words = pretrain_words(small_data, out, "--epochs", 100_000, "--processes", 2)
    go_on = ["pretrain", "--out", out, "--resume", "--processes", 2]
    step = 0
    for number, command_words in ((signal.SIGINT, words), (signal.SIGTERM, go_on)):
        command = Command(child, tmp_path, *command_words, alone=True)
        try:
            command.wait_for(lambda step=step: any(saved > step for saved in checkpoints.steps))
            command.ask(number, all_of_session=number == signal.SIGINT)
            asked = time.monotonic()
            assert command.exit_code() == 128 + number, command.said.read_text()
            assert time.monotonic() - asked < 10
        finally:
            with contextlib.suppress(ProcessLookupError):
                command.ask(signal.SIGKILL, all_of_session=True)
        said, step = command.said.read_text(), checkpoints.steps[-1]
        assert said.count("pretint: stopped.") == 1
        assert said.count(f"Stopped at step {step}; the state is saved") == 1
        assert "Traceback" not in said
        assert temporaries(tmp_path) == []
        assert load_file(checkpoints.path(step))
