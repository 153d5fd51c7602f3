"""How long do the probes take on cached features, how much memory, and does scikit-learn find the same in the same run?

By default on made-up features of ten overlapping classes whose channels are as strongly correlated as an encoder's; with `--run`
on those of one layer of a run's encoder. Ridge probe and kNN, then the full sweep of the linear probe, then scikit-learn's
LogisticRegression on the same standardised features with the same grid of penalties, chosen on the same held-out images.

    python benchmarks/probes.py
    python benchmarks/probes.py --run runs/a --data cifar10 --layer stage2
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import tyro
from machine import describe
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from pretint.downstream import knn, linear_probe, ridge_probe
from pretint.downstream.protocol import held_out

Result = TypeVar("Result")
# the weight decays of the sweep; with four learning rates 48 heads
DECAYS = tuple(float(x) for x in np.logspace(-7, -1, 12))


@dataclass(frozen=True)
class Options:
    """Seconds, memory and accuracy of the probes.

    Attributes:
        images: to train on; a fifth as many to test.
        width: channels.
        classes: how many.
        run: a run whose encoder gives the features instead.
        data: what is judged with it.
        layer: of the encoder.
        solver: sgd or lbfgs.
        reference: run scikit-learn too; it takes many times as long.
        iterations: that scikit-learn may take for each penalty.
    """

    images: int = 50_000
    width: int = 512
    classes: int = 10
    run: Path | None = None
    data: str = "cifar10"
    layer: str = "stage2"
    solver: str = "sgd"
    reference: bool = True
    iterations: int = 1000


@dataclass(frozen=True)
class Split:
    features: Tensor  # float32 (n, d)
    labels: Tensor  # int64 (n,)


def made_up(n: int, options: Options, seed: int) -> Split:
    """Gaussian classes that overlap, seen through a map whose singular values span two orders of magnitude."""
    fixed, own = (torch.Generator().manual_seed(s) for s in (100, seed))
    d = options.width
    centres = 2.6 / d**0.5 * torch.randn(options.classes, d, generator=fixed)  # some 3.7 deviations apart
    left, right = (torch.linalg.qr(torch.randn(d, d, generator=fixed)).Q for _ in range(2))
    y = torch.randint(options.classes, (n,), generator=own)
    x = (centres[y] + torch.randn(n, d, generator=own)) @ (left * torch.logspace(0, -2, d) @ right)
    return Split((x + 1).contiguous(), y)


def of_run(run: Path, options: Options) -> tuple[Split, Split]:
    from pretint.recipes.protocols import features_of
    from pretint.recipes.transfer_data import TransferOptions, open_judged

    judged = open_judged(run, TransferOptions(data=options.data, control=False))
    found = features_of(judged, judged.encoder, 1, None)
    train, test = (Split(split.arrays[options.layer], split.labels) for split in found if split.labels is not None)
    return train, test


def measured(work: Callable[[], Result]) -> tuple[Result, float, float]:
    """What it gave, seconds, and MiB at most above what the process held before (NaN where that is not told)."""
    before = _reset_peak()
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start, _peak() - before


def _reset_peak() -> float:
    """Forgets the process's peak and gives what it holds now, in MiB; Linux only."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return float("nan")
    return _peak()


def _peak() -> float:
    status = Path("/proc/self/status")
    if not status.is_file():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << (20 if sys.platform == "darwin" else 10))
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def scikit_learn(train: Split, test: Split, held: np.ndarray, iterations: int) -> float:
    """Test accuracy of the penalty that is best on the held-out images, fitted again on all."""
    labels = train.labels.numpy()
    scaler = StandardScaler().fit(train.features.numpy())
    x, y = scaler.transform(train.features.numpy()), test.labels.numpy()

    def fit(rows: np.ndarray, decay: float) -> LogisticRegression:
        # their C multiplies a sum over images, our weight decay a mean
        return LogisticRegression(C=1 / (decay * rows.sum()), max_iter=iterations).fit(x[rows], labels[rows])

    best = max(DECAYS, key=lambda decay: fit(~held, decay).score(x[held], labels[held]))
    return fit(np.ones_like(held), best).score(scaler.transform(test.features.numpy()), y)


def main(options: Options) -> None:
    if options.run is None:
        train, test = made_up(options.images, options, 1), made_up(options.images // 5, options, 2)
    else:
        train, test = of_run(options.run, options)
    given = (train.features, train.labels, test.features, test.labels)
    n, d = train.features.shape
    heads = len(DECAYS) * (4 if options.solver == "sgd" else 1)
    print(describe(), end="\n\n")
    print(f"{n} × {d} training features ({train.features.numel() * 4 / 2**20:.0f} MiB), {len(test.labels)} to test\n")
    print("| probe | seconds | memory above the features, MiB | test accuracy |")
    print("|---|---|---|---|")
    works: dict[str, Callable[[], float]] = {
        "ridge, 20 penalties": lambda: ridge_probe(*given).top1,
        "kNN, 7 values of k": lambda: knn(*given).top1,
        f"linear ({options.solver}), {heads} heads": lambda: (
            linear_probe(*given, solver=options.solver, weight_decays=DECAYS).top1
        ),
    }
    if options.reference:
        held = held_out(train.labels, 0.1, 0).numpy()
        name = f"scikit-learn's LogisticRegression, {len(DECAYS)} penalties"
        works[name] = lambda: scikit_learn(train, test, held, options.iterations)
    seconds, accuracies = [], []
    for name, work in works.items():
        top1, took, memory = measured(work)
        print(f"| {name} | {took:.1f} | {memory:.0f} | {top1:.2%} |", flush=True)
        seconds.append(took)
        accuracies.append(top1)
    print(f"\nRidge and kNN: {seconds[0] + seconds[1]:.1f} s.")
    if options.reference:
        apart = 100 * abs(accuracies[3] - accuracies[2])
        print(f"scikit-learn took {seconds[3] / seconds[2]:.1f} times as long as ours, {apart:.2f} points apart.")


if __name__ == "__main__":
    main(tyro.cli(Options))
