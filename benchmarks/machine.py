"""On what was a figure measured, and how much memory does this process hold?"""

from __future__ import annotations

import os
import platform
import shlex
import sys
from pathlib import Path

import timm
import torch

import pretint


def describe() -> str:
    """Processor or GPU, cores, versions, and the command."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    versions = ", ".join(
        f"{name} {version}"
        for name, version in (
            ("Pretint", pretint.__version__),
            ("torch", torch.__version__),
            ("timm", timm.__version__),
            ("Python", platform.python_version()),
        )
    )
    words = [Path(word).name if "/" in word else word for word in sys.argv[1:]]  # whose disk it was does not matter
    command = shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words])
    return f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads; {versions}; `{command}`"


def _processor() -> str:
    flags, model = "", platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            key, _, value = line.partition(":")
            model = value.strip() if key.strip() == "model name" else model
            flags = value if key.strip() == "flags" else flags
    instructions = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in flags.split()]
    return f"{model} ({', '.join(instructions)})" if instructions else model


def anonymous_megabytes() -> float:
    """Anonymous resident memory of this process: what is not a page of some file. NaN where that is not told (not on Linux)."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return float("nan")
    line = next(line for line in status.read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024
