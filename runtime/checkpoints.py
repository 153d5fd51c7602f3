"""Which states of a run are kept, how is a damaged one noticed, and how does one go back into a model?

::

    checkpoints/
      step-1200.safetensors   weights, buffers, optimiser; in its header, as JSON, where the loop was and whose run it is
      step-1500.safetensors   the newest; at least two are kept, and the one with the lowest validation loss
      manifest.json           SHA-256, size and step of each, and which is the best; written last

Each file is written under a temporary name beside its own, flushed and renamed, so that a process killed at any moment leaves
whole files only. What the manifest lists is checked against it before it is used; a file that it does not list yet is whole,
because it has its name. Nothing that is not finite is ever saved.

Run folders of format 1 hold `last.safetensors` and `best.safetensors` instead; both are read, and give way to the files above when
the run goes on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .errors import NotFiniteError, RunFolderError
from .files import file_sha256, read_json, remove_temporaries, write_json
from .processes import from_main, is_main
from .runlog import note
from .tensors import contiguous_copies, optimizer_tensors, read_metadata, read_tensors, restore_optimizer, write_tensors

KEPT = 2
_NAME = re.compile(r"step-(\d{1,18})\.safetensors")
_OLD_LAST, _OLD_BEST, _MANIFEST = "last.safetensors", "best.safetensors", "manifest.json"
_MODEL, _OPTIMIZER = "model.", "optimizer."


class Checkpoints:
    """A run's `checkpoints/` folder.

    Args:
        folder: where they lie; made with the first.
        keep: how many of the newest are kept, at least 2; the best comes on top.
        run: whose checkpoints these are, as JSON-able values in groups, such as {"settings": {...}, "palette": {...}}: stored with
            each one, and compared field by field before a run goes on.
    """

    def __init__(self, folder: Path, keep: int = KEPT, run: Mapping[str, Mapping[str, Any]] | None = None):
        self.folder, self.keep, self.run = folder, max(KEPT, keep), dict(run or {})
        self._damaged: set[Path] = set()
        self._writing: Future[None] | None = None

    @property
    def steps(self) -> list[int]:
        """The steps of which there are checkpoints, damaged or not, in order."""
        names = (_NAME.fullmatch(path.name) for path in self.folder.glob("step-*.safetensors"))
        return sorted(int(name[1]) for name in names if name)

    def __bool__(self) -> bool:
        """Whether there is anything to go on from."""
        return bool(self.steps) or (self.folder / _OLD_LAST).is_file()

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step lies."""
        return self.folder / f"step-{step}.safetensors"

    def save(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        state: dict[str, Any],
        best_step: int | None = None,
        *,
        background: bool = False,
    ) -> None:
        """Writes the checkpoint of `state["step"]`, then the manifest, and removes what is not kept; only on the main process.

        Args:
            model, optimizer: what is saved.
            state: the loop's; JSON-able, with `step`.
            best_step: the step whose checkpoint is the best; it is kept.
            background: come back as soon as everything is copied, and let a thread write while training goes on; what is wrong
                with that is raised by the next call, or by :meth:`wait`.

        Raises:
            NotFiniteError: a weight, a buffer or a moment is NaN or infinite; nothing was written.
            RunFolderError: the disk is full, for example; the checkpoints before are still there.
        """
        self.wait()
        if not is_main():
            return
        step = int(state["step"])
        tensors = {f"{_MODEL}{name}": tensor for name, tensor in model.state_dict().items()}
        tensors |= {f"{_OPTIMIZER}{name}": tensor for name, tensor in optimizer_tensors(optimizer).items()}
        copies = contiguous_copies(tensors)
        _check_finite(copies, step)
        header = {"state": json.dumps(state), "run": json.dumps(self.run)}
        thread = ThreadPoolExecutor(1, "checkpoint")
        self._writing = thread.submit(self._write_or_say, step, copies, header, best_step)
        thread.shutdown(wait=False)
        if not background:
            self.wait()

    @property
    def is_writing(self) -> bool:
        """Whether a save in the background is not done yet."""
        return self._writing is not None and not self._writing.done()

    def wait(self) -> None:
        """Comes back when what is being written is on the disk.

        Raises:
            RunFolderError: it can't be written.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write_or_say(
        self, step: int, tensors: dict[str, Tensor], header: dict[str, str], best_step: int | None
    ) -> None:
        try:
            self._write(step, tensors, header, best_step)
        except OSError as error:
            kept = [s for s in self.steps if s != step]
            still = f"step {kept[-1]} is still there" if kept else "there is none before it"
            raise RunFolderError(
                f"{self.folder}: the checkpoint of step {step} can't be written ({error.strerror or error}), {still}; free some "
                "room and go on with --resume."
            ) from error

    def _write(self, step: int, tensors: dict[str, Tensor], header: dict[str, str], best_step: int | None) -> None:
        manifest, path = self._manifest(), self.path(step)
        files = {name: about for name, about in manifest["files"].items() if (self.folder / name).is_file()}
        if files.pop(path.name, None):  # what the manifest says of it would be wrong from the next line on
            write_json(self.folder / _MANIFEST, {**manifest, "files": files})
        write_tensors(path, tensors, header, copied=True)
        # those of later steps come from a future that was given up: the run went on from before it
        reachable = [s for s in self.steps if s <= step and self.path(s) not in self._damaged - {path}]
        kept = {self.path(s).name for s in {*reachable[-self.keep :], *([] if best_step is None else [best_step])}}
        files[path.name] = {"step": step, "bytes": path.stat().st_size, "sha256": file_sha256(path)}
        best = None if best_step is None else self.path(best_step).name
        if best is not None and not (self.folder / best).is_file():  # a run of format 1 that has not found a better one
            best = _OLD_BEST
        listed = {name: about for name, about in files.items() if name in kept}
        write_json(self.folder / _MANIFEST, {"format_version": 1, "best": best, "files": listed})
        gone = [self.path(s) for s in self.steps if self.path(s).name not in kept]
        gone += [self.folder / name for name in (_OLD_LAST, _OLD_BEST) if name != best]
        for old in gone:
            old.unlink(missing_ok=True)
        remove_temporaries(self.folder)

    def load_last(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Puts the newest checkpoint that is whole into model and optimiser and returns the loop's state. The main process reads it
        for all.

        Raises:
            RunFolderError: there is none, all are damaged, or it belongs to another run.
        """
        name, tensors, header = from_main(self._read_last)
        path = self.folder / name
        _put(tensors, model, path)
        moments = {k.removeprefix(_OPTIMIZER): v for k, v in tensors.items() if k.startswith(_OPTIMIZER)}
        restore_optimizer(optimizer, moments)
        return _parsed(header, "state", path)

    def _read_last(self) -> tuple[str, dict[str, Tensor], dict[str, str]]:
        found = [self.path(step) for step in reversed(self.steps)]
        found += [path for path in (self.folder / _OLD_LAST,) if path.is_file()]
        if not found:
            raise RunFolderError(f"{self.folder} holds no checkpoint to go on from; start again with --overwrite.")
        for path in found:
            try:
                tensors, header = self._read(path)
            except RunFolderError as error:
                note(f"checkpoint {path.name} can't be used: {error}")
                self._damaged.add(path)
                continue
            if path != found[0]:
                note(f"going on from {path.name} instead")
            self._check_run(header, path)
            return path.name, tensors, header
        names = ", ".join(path.name for path in found)
        raise RunFolderError(f"{self.folder}: every checkpoint is damaged ({names}); start again with --overwrite.")

    def load_best(self, model: nn.Module) -> dict[str, Any]:
        """Puts the best weights into the model and returns the loop's state of that epoch. The main process reads them for all.

        Raises:
            RunFolderError: there are none, they are damaged, or they do not fit the model.
        """
        name, tensors, header = from_main(self._read_best)
        path = self.folder / name
        _put(tensors, model, path)
        return _parsed(header, "state", path)

    def best_weights(self) -> dict[str, Tensor]:
        """The best weights and buffers by their names in the model, on the CPU.

        Raises:
            RunFolderError: there are none, or they are damaged.
        """
        return {name.removeprefix(_MODEL): tensor for name, tensor in self._read_best()[1].items()}

    def _read_best(self) -> tuple[str, dict[str, Tensor], dict[str, str]]:
        path = self.best
        if path is None:
            raise RunFolderError(f"{self.folder} holds no finished epoch; train on with pretint pretrain --resume.")
        return (path.name, *self._read(path, _MODEL))

    @property
    def best(self) -> Path | None:
        """The checkpoint with the lowest validation loss, if an epoch has ended."""
        name = self._manifest()["best"]
        if name is None:  # no epoch has ended, or the manifest is lost: then the newest file knows
            name = _OLD_BEST
            for step in reversed(self.steps):
                try:
                    state = _parsed(read_metadata(self.path(step)), "state", self.path(step))
                except RunFolderError:
                    continue
                name = _OLD_BEST if state.get("best_step") is None else self.path(int(state["best_step"])).name
                break
        path = self.folder / name
        return path if path.is_file() else None

    def _read(self, path: Path, prefix: str = "") -> tuple[dict[str, Tensor], dict[str, str]]:
        """Tensors and words of a checkpoint, after a look at whether it is what was written.

        Raises:
            RunFolderError: it is damaged, or can't be read.
        """
        listed = self._manifest()["files"].get(path.name)
        try:
            if listed is not None and (size := path.stat().st_size) != listed["bytes"]:
                raise RunFolderError(f"{path} has {size} bytes instead of {listed['bytes']}; restore it.")
            if listed is not None and file_sha256(path) != listed["sha256"]:
                raise RunFolderError(f"{path} is not what was written (its SHA-256 is another); restore it.")
        except OSError as error:
            raise RunFolderError(f"{path} can't be read ({error.strerror or error}); restore it.") from error
        return read_tensors(path, prefix), read_metadata(path)

    def _manifest(self) -> dict[str, Any]:
        """The manifest, without what is no entry of one; empty if there is none."""
        empty: dict[str, Any] = {"format_version": 1, "best": None, "files": {}}
        path = self.folder / _MANIFEST
        if not path.is_file():
            return empty
        try:
            found = read_json(path)
            best, files = found["best"], found["files"]
            whole = {
                name: {"step": int(about["step"]), "bytes": int(about["bytes"]), "sha256": str(about["sha256"])}
                for name, about in files.items()
                if _NAME.fullmatch(name)
            }
        except (RunFolderError, KeyError, TypeError, ValueError, AttributeError):
            note(f"{path} is damaged; the checkpoints are used unchecked.")
            return empty
        named = isinstance(best, str) and (best == _OLD_BEST or _NAME.fullmatch(best))
        return {**empty, "best": best if named else None, "files": whole}

    def _check_run(self, header: dict[str, str], path: Path) -> None:
        """Raises RunFolderError, field by field, unless a checkpoint is of this run."""
        theirs = _parsed(header, "run", path) if "run" in header else {}
        ours = json.loads(json.dumps(self.run))
        changed = [
            f"{group} {key}: {values[key]!r} (was {theirs[group][key]!r})"
            for group, values in ours.items()
            for key in values
            if key in theirs.get(group, {}) and theirs[group][key] != values[key]
        ]
        if changed:
            raise RunFolderError(f"{path} is of another run: {', '.join(changed)}; put the run's own files back.")


def _check_finite(tensors: dict[str, Tensor], step: int) -> None:
    """Raises NotFiniteError, naming the first, unless all numbers are finite."""
    floating = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.numel()}
    # least and largest are NaN if a number is, and ask for no memory
    broken = [name for name, tensor in floating.items() if not torch.stack(tensor.aminmax()).isfinite().all()]
    if broken:
        raise NotFiniteError(
            f"At step {step} numbers of {len(broken)} tensors are not finite, {broken[0]} first; no checkpoint was written of it: "
            "lower --learning-rate and start again, or go on from the one before with --resume."
        )


def _put(tensors: dict[str, Tensor], model: nn.Module, path: Path) -> None:
    weights = {k.removeprefix(_MODEL): v for k, v in tensors.items() if k.startswith(_MODEL)}
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise RunFolderError(f"{path} does not fit the model: {' '.join(str(error).split())[:400]}") from None


def _parsed(header: dict[str, str], name: str, path: Path) -> dict[str, Any]:
    """A part of a header: a JSON object."""
    try:
        value = json.loads(header[name])
        if isinstance(value, dict):
            return value
    except (KeyError, ValueError, RecursionError):
        pass
    raise RunFolderError(f"{path} holds no state of a run; restore it or run again.")
