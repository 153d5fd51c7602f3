"""What does a run leave behind, and where in its folder does each thing lie?

::

    config.json      settings, command, versions, format version      figures/         pictures for people and for the report
    metrics.csv      one row an epoch                                 results.json     what was measured
    checkpoints/     the newest and the best, with a manifest         palette.json    the palette of a palette task
    encoder/         the encoder folder that other projects load      tensorboard/     event files
    chroma.json      the training pictures' share of each ab bin      nonfinite.json  images of NaN steps

Format 2 keeps several checkpoints, named by their step; format 1, which has `last` and `best`, is read, and becomes format 2 when
the run goes on.
"""

from __future__ import annotations

import csv
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import RunFolderError
from .files import is_temporary, make_folder, read_json, remove_temporaries, write_json

FORMAT_VERSION = 2
_CONTENTS = (
    "checkpoints", "chroma.json", "config.json", "encoder", "figures", "metrics.csv", "nonfinite.json", "palette.json",
    "report.html", "results.json", "tensorboard",
)  # fmt: skip


@dataclass(frozen=True)
class RunFolder:
    """A run's folder; make one with :meth:`create` or :meth:`open`."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def encoder(self) -> Path:
        return self.path / "encoder"

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def palette(self) -> Path:
        return self.path / "palette.json"

    @property
    def chroma(self) -> Path:
        return self.path / "chroma.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def nonfinite(self) -> Path:
        return self.path / "nonfinite.json"

    @classmethod
    def check_free(cls, path: Path, *, resume: bool, overwrite: bool) -> None:
        """Refuses an output folder that must not be written to, before anything is computed.

        Raises:
            RunFolderError: it is a file, holds a run (and neither `resume` nor `overwrite` is set), or holds other things;
                or `resume` is set and there is no run to go on with.
        """
        if path.exists() and not path.is_dir():
            raise RunFolderError(f"--out {path} is a file; name a folder that does not exist yet.")
        found = sorted(p.name for p in path.iterdir() if not is_temporary(p.name)) if path.is_dir() else []
        if resume:
            if "config.json" not in found:
                raise RunFolderError(f"--resume: {path} holds no run to go on with; leave --resume out to start one.")
            return
        holds_run = cls._holds_run(path)
        strangers = [name for name in found if name not in _CONTENTS or not holds_run]
        if strangers:
            raise RunFolderError(
                f"--out {path} holds other files ({', '.join(strangers[:3])}); name a folder of its own."
            )
        if holds_run and not overwrite:
            raise RunFolderError(
                f"--out {path} holds a run already; add --resume to go on with it, --overwrite to replace it, "
                "or name another folder."
            )

    @classmethod
    def _holds_run(cls, path: Path) -> bool:
        try:
            return bool(cls.open(path))
        except RunFolderError:
            return False

    @classmethod
    def create(cls, path: Path, config: dict[str, Any]) -> RunFolder:
        """An empty run folder with its `config.json`; what an earlier run left there is removed (see :meth:`check_free`)."""
        folder = cls(path)
        folder.remove()
        make_folder(folder.figures)
        write_json(path / "config.json", {"format_version": FORMAT_VERSION, **config})
        return folder

    def remove(self) -> None:
        """Removes what a run leaves behind, and the folder itself if nothing else is in it."""
        remove_temporaries(self.path)
        for name in _CONTENTS:
            target = self.path / name
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)
        if self.path.is_dir() and not any(self.path.iterdir()):
            self.path.rmdir()

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run's folder.

        Raises:
            RunFolderError: it is missing, is none, or was written by a newer Pretint.
        """
        if not (path / "config.json").is_file():
            what = "does not exist" if not path.exists() else "is no run folder (it has no config.json)"
            raise RunFolderError(f"{path} {what}; name the --out folder of a pretint pretrain.")
        folder = cls(path)
        config = folder.config
        version = config.get("format_version")
        if not isinstance(version, int) or version < 1 or not isinstance(config.get("settings"), dict):
            raise RunFolderError(f"{path} is no run folder of Pretint; name the --out folder of a pretint pretrain.")
        if version > FORMAT_VERSION:
            raise RunFolderError(
                f"{path} has format {version}, this Pretint reads up to {FORMAT_VERSION}; upgrade Pretint."
            )
        return folder

    def bring_up_to_date(self, **changes: Any) -> None:
        """Before a run goes on: the folder has the present format, and nothing in it that a killed writer left behind; its
        `config.json` has the changes."""
        for folder in (self.path, self.checkpoints, self.encoder, self.figures):
            remove_temporaries(folder)
        config = self.config
        present = {**config, **changes, "format_version": FORMAT_VERSION}
        if config != present:
            write_json(self.path / "config.json", present)

    @property
    def config(self) -> dict[str, Any]:
        config = read_json(self.path / "config.json")
        if not isinstance(config, dict):
            raise RunFolderError(f"{self.path / 'config.json'} is not a run's config; restore it or run again.")
        return config

    def read_metrics(self) -> list[dict[str, float]]:
        """The rows of `metrics.csv`, numbers as floats; empty if the run has no complete epoch."""
        if not self.metrics.is_file():
            return []
        try:
            with self.metrics.open(newline="", encoding="utf-8") as file:
                return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
        except (ValueError, TypeError, AttributeError) as error:
            raise RunFolderError(f"{self.metrics} is damaged ({error}); restore it or run again.") from None


def find_runs(folder: Path) -> list[RunFolder]:
    """All runs below a folder, by path; the folder itself counts too.

    Raises:
        RunFolderError: the folder is missing.
    """
    if not folder.is_dir():
        raise RunFolderError(f"{folder} is no folder; name one that holds runs.")
    found = []
    for config in sorted(folder.rglob("config.json")):
        if config.parent.name == "encoder":
            continue
        try:
            found.append(RunFolder.open(config.parent))
        except RunFolderError:
            continue
    return found
