"""The `pretint` command: tyro over the recipes, errors to sentences, nothing else."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from ._version import __version__
from .runtime.errors import ArgumentError, PretintError, ProcessError, UnknownNameError
from .runtime.stopping import StopRequests
from .runtime.words import legible

# verb: (config, function, what it does); the recipe is imported only when its verb is called
VERBS: dict[str, tuple[str, str, str]] = {
    "demo": ("DemoConfig", "demo", "pretrain on generated scenes, probe, and write a report: the whole way in minutes"),
    "pretrain": ("PretrainConfig", "pretrain", "teach an encoder by colourization"),
    "probe": ("ProbeConfig", "probe", "judge a run's frozen encoder by a linear probe, beside random weights"),
    "finetune": ("FinetuneConfig", "finetune", "fine-tune a run's encoder, beside the same network from scratch"),
    "transfer": (
        "TransferConfig",
        "transfer",
        "judge runs by every protocol and seed, beside random and supervised ones",
    ),
    "evaluate": ("EvaluateConfig", "evaluate", "measure how well a run paints a data set"),
    "colourize": ("ColourizeConfig", "colourize", "paint photographs of any size"),
    "report": ("ReportConfig", "report", "one self-contained page about one or more runs"),
    "info": ("InfoConfig", "info", "what an encoder is, what it was trained on, and what was measured"),
    "export": (
        "ExportConfig",
        "export",
        "write an encoder as ONNX, torch.export program, timm's folder or bare weights",
    ),
    "push": ("PushConfig", "push", "upload a run's encoder to a model hub"),
    "benchmark": ("BenchmarkConfig", "benchmark", "find the fastest settings for pretraining on this machine"),
    "data check": ("DataCheckConfig", "check_data", "list what is wrong with a data set, without training"),
    "data pack": ("PackConfig", "pack", "decode images once, into files that training reads as a memory map"),
    "runs": ("RunsConfig", "runs", "list runs with their task, data and accuracies"),
    "backbones": ("BackbonesConfig", "backbones", "list encoders"),
    "presets": ("PresetsConfig", "presets", "list presets: published systems, and the best recipe found here"),
    "tasks": ("TasksConfig", "tasks", "list colour tasks"),
}


# first words of verbs that have two
GROUPS = frozenset(verb.split()[0] for verb in VERBS if " " in verb)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit code: 0, 1 for a check that failed, 2 for what the user can mend, 130 or 143 when stopped."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        return 0
    if words[0] in GROUPS and words[1:2] in ([], ["-h"], ["--help"]):
        print(_help(words[0]))
        return 0
    if words[0] in ("-V", "--version"):
        print(f"pretint {__version__}")
        return 0
    try:
        named = 2 if words[0] in GROUPS else 1
        with StopRequests(at_once=True):  # training has a handler of its own, which ends the step and saves first
            return _run(" ".join(words[:named]), words[named:])
    except PretintError as error:
        _complain(f"pretint: {legible(str(error))}", last_word=isinstance(error, ProcessError))
        return 2
    except KeyboardInterrupt as stop:
        _complain("pretint: stopped.")
        return 128 + getattr(stop, "signal_number", 2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        _complain(
            f"pretint: {legible(str(error.filename or 'a file'))}: {error.strerror or error}; make it writable or free some room."
        )
        return 2


def _run(verb: str, words: list[str]) -> int:
    if verb not in VERBS:
        raise UnknownNameError("verb", verb, VERBS)
    import tyro

    from . import recipes

    config_name, function_name, sentence = VERBS[verb]
    settings = (tyro.conf.FlagCreatePairsOff, tyro.conf.SuppressFixed)
    config = tyro.cli(
        getattr(recipes, config_name),
        default=recipes.typed_preset(words) if verb == "pretrain" else tyro.MISSING_NONPROP,
        args=words,
        prog=f"pretint {verb}",
        description=sentence.capitalize() + ".",
        config=settings,
    )
    wanted = getattr(config, "processes", None)
    if wanted is None and _is_launched():
        raise ArgumentError(f"{verb}: it works in one process; start it without torchrun.")
    if wanted is not None and wanted > 1 and not _is_launched():
        return recipes.start_processes(config, [*verb.split(), *words])
    more = {"typed": recipes.typed_options(words)} if verb == "pretrain" else {}
    outcome = getattr(recipes, function_name)(config, **more)
    if not _is_launched() or os.environ.get("RANK") == "0":
        _show(outcome, config.json)
    return outcome.code


def _is_launched() -> bool:
    """Whether this is one of several processes, as torchrun's environment variables tell."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def _complain(sentence: str, *, last_word: bool = False) -> None:
    """Prints what was wrong, once for all processes."""
    if _is_launched():
        from .runtime.processes import first_to_say

        if not first_to_say(sentence, last_word=last_word):
            return
    print(sentence, file=sys.stderr, flush=True)


def _show(outcome: Any, as_json: bool) -> None:
    if as_json:
        print(json.dumps(outcome.results, indent=2))
        return
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 120)
    for table in outcome.tables:
        console.print(table)
    for line in outcome.lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _help(group: str | None = None) -> str:
    """All verbs, or those of a group."""
    shown = {verb: entry for verb, entry in VERBS.items() if group is None or verb.split()[0] == group}
    width = max(map(len, shown))
    verbs = "\n".join(f"  {verb:{width}}  {sentence}" for verb, (_, _, sentence) in shown.items())
    return (
        f"pretint {__version__}: pretrain image encoders by colourization\n\nusage: pretint VERB [options]\n\n{verbs}\n\n"
        "pretint VERB --help lists a verb's options; --json prints results for programs."
    )
