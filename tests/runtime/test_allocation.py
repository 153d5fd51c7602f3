"""Memory that is freed stays with the process, unless the user has said otherwise."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from pretint.runtime.allocation import keep_freed_memory

PAGE_FAULTS = """
import resource, sys, torch
from pretint.runtime.allocation import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def step():
    return float(torch.empty(2**24).fill_(1.0)[-1])  # 64 MiB
for _ in range(16):  # aligned blocks find their place in the heap after some turns
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_kept_memory_is_not_faulted_in_anew():
    faults = {
        mode: int(subprocess.run([sys.executable, "-c", PAGE_FAULTS, mode], capture_output=True, check=True).stdout)
        for mode in ("keep", "leave")
    }
    assert faults["keep"] < 100 < faults["leave"]


def test_a_user_who_set_the_allocator_is_left_alone(monkeypatch):
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    assert not keep_freed_memory()
