"""How does a run go on? With the settings it was started with, on the same data, from its own checkpoints."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from ..data import ImageSource
from ..runtime.errors import ArgumentError, DataError
from ..runtime.files import file_sha256
from ..runtime.processes import from_main, is_main
from ..runtime.runfolder import RunFolder
from ..runtime.runlog import note
from .kinds import from_plain
from .opening import check_fits_weights, read_settings
from .options import plain
from .published import usual_config
from .settings import PretrainConfig

# Settings that decide nothing about where a run goes, but for the last bits of its numbers (device, processes, compile), and may
# change when it goes on: whoever moves it to a machine without a compiler must be able to.
_FREE = frozenset({
    "out", "resume", "overwrite", "json", "root", "device", "processes", "compile", "save_every", "save_minutes", "keep",
    "on_nonfinite",
})  # fmt: skip


def folder_settings(config: PretrainConfig) -> dict[str, Any]:
    """Settings as a run's `config.json` holds them: the palette's space by name, even where the task chose it."""
    return {**plain(config), "palette_space": config.label_space}


def saved_settings(config: PretrainConfig, typed: Collection[str] | None = None) -> PretrainConfig:
    """The settings of the run in `--out`, which the main process reads for all; what was typed must agree with them.

    Args:
        config: names the run, and holds what was typed.
        typed: the names of the settings that were; by default those that are not as usual.

    Raises:
        RunFolderError: there is no such run.
        ArgumentError: settings were typed that the run was not started with; all are named.
    """

    def read() -> dict[str, Any]:
        folder = RunFolder.open(config.folder)
        saved = read_settings(folder)
        check_fits_weights(saved, folder)
        return plain(saved)

    saved = from_plain(PretrainConfig, from_main(read))
    # where minutes were given, its epochs came out of them, and stay
    free = _FREE if saved.minutes is None else _FREE | {"minutes", "epochs"}
    given, was = plain(config), plain(saved)
    if typed is None:
        usual = {**plain(usual_config(config.preset)), "preset": None}
        typed = [name for name, value in given.items() if value != usual[name]]
    changed = [name for name in typed if name not in free and given[name] != was[name]]
    if changed:
        listed = ", ".join(f"--{k.replace('_', '-')} {given[k]} (was {was[k]})" for k in changed)
        raise ArgumentError(
            f"--resume: the run in {config.folder} was started with other settings: {listed}; leave them out."
        )
    note(f"pretrain: going on with the saved settings of {config.folder} ({saved.epochs} epochs in all)")
    cares = ("root", "device", "compile", "save_every", "save_minutes", "keep", "on_nonfinite")
    anew: dict[str, Any] = {name: getattr(config, name) for name in cares if name in typed}
    return replace(
        saved,
        out=config.folder,
        resume=True,
        overwrite=False,
        json=config.json,
        processes=config.processes,
        **anew,
    )


def go_on(config: PretrainConfig, source: ImageSource, compilation: dict[str, Any]) -> RunFolder:
    """The folder of the run that is resumed, in the present format; its data must be what it was.

    Args:
        config: its settings.
        source: its data.
        compilation: whether its network is compiled from here on, for its `config.json`.

    Raises:
        DataError: it is not.
    """
    folder = RunFolder(config.folder)
    was = from_main(lambda: RunFolder.open(config.folder).config.get("data", {}).get("fingerprint"))
    if was != source.fingerprint:
        raise DataError(
            f"--resume: {config.data} has changed since the run was started; start a new run in another --out."
        )
    if is_main():
        folder.bring_up_to_date(compilation=compilation)
    return folder


def whose(config: PretrainConfig, folder: RunFolder) -> dict[str, dict[str, Any]]:
    """What every checkpoint of a run says of it: the settings that decide where it goes, and its palette."""
    settings = {name: value for name, value in folder_settings(config).items() if name not in _FREE}
    palette = {"sha256": file_sha256(folder.palette)} if folder.palette.is_file() else {}
    return {"settings": settings, "palette": palette}
