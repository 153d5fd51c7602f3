"""How long does `pretint demo` take, and how far is the pretrained encoder above the random one?

python benchmarks/demo.py
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from machine import describe

from pretint.recipes import DemoConfig, demo


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        outcome = demo(DemoConfig(out=Path(folder) / "demo"))
        seconds = time.perf_counter() - start
    rows = {row["init"]: row for row in outcome.results["transfer"]}
    mine, control = rows["pretrained"]["top1"], rows["random"]["top1"]
    print(describe(), end="\n\n")
    print("| demo | linear top-1 | random weights | gain |\n|---|---|---|---|")
    print(f"| {seconds:.0f} s | {100 * mine:.1f} % | {100 * control:.1f} % | {100 * (mine - control):+.1f} points |")


if __name__ == "__main__":
    main()
