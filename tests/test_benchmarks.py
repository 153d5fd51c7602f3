"""What the benchmarks rest on: the cost model's arithmetic, loops in a process of their own, options that make no sense."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch


@pytest.fixture(scope="module", autouse=True)
def _importable() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
        yield


@pytest.fixture(scope="module")
def cost() -> ModuleType:
    return importlib.import_module("cost")


def test_one_process_costs_what_it_computes(cost: ModuleType):
    network = cost.Network(bandwidth=1.0, latency=1.0)
    assert cost.step_seconds(0.3, 10**9, 1, network) == 0.3
    assert cost.sent_bytes(10**9, 1) == 0
    assert cost.state_bytes(1000, 1) == 16_000


def test_two_processes_exchange_what_is_computed_by_hand(cost: ModuleType):
    """Gradients of 30 MiB in buckets of 1, 25 and 4 MiB, each of them a message of half its size there and one back."""
    network, gradients = cost.Network(bandwidth=1e9, latency=1e-3), 30 * 2**20
    assert network.all_reduce(25 * 2**20, 2) == pytest.approx(0.0282144)  # 26.2144 ms of bytes, 2 ms of messages
    exchange, small = 0.03145728 + 0.006, 3 * (16e-9 + 0.002)
    assert cost.step_seconds(0.1, gradients, 2, network) == pytest.approx(0.1 + exchange + small)
    hidden = 0.027262976 + 0.004  # the buckets of 1 and 25 MiB, which the 67 ms of backward are long enough for
    assert cost.step_seconds(0.1, gradients, 2, network, overlaps=True) == pytest.approx(
        0.1 + exchange + small - hidden
    )
    assert cost.step_seconds(0.03, gradients, 2, network, overlaps=True) == pytest.approx(
        0.03 + exchange + small - 0.02
    )
    assert cost.sent_bytes(gradients, 2) == gradients
    assert cost.sent_bytes(gradients, 4) == 1.5 * gradients
    assert cost.state_bytes(1000, 2) == 20_000


@pytest.mark.parametrize("processes", [2, 3, 16])
def test_a_network_is_known_from_the_seconds_of_its_sums(cost: ModuleType, processes: int):
    network, size = cost.Network(bandwidth=1.25e9, latency=5e-5), 31_000_000
    small, large = network.all_reduce(0, processes), network.all_reduce(size, processes)
    found = cost.Network.of(small, large, size, processes)
    assert (found.bandwidth, found.latency) == pytest.approx((1.25e9, 5e-5))


def test_operations_of_a_convolution_are_those_of_its_products(cost: ModuleType):
    """Forward, and backward for the weights; nobody wants the gradient of a picture."""
    network = torch.nn.Conv2d(3, 8, 3, padding=1, bias=False)
    assert cost.operations(network, torch.zeros(4, 3, 16, 16)) == 2 * (2 * 3 * 8 * 9 * 16 * 16)


def test_a_process_apart_that_dies_is_told_of_and_not_waited_for():
    apart = importlib.import_module("apart")
    with pytest.raises(SystemExit, match="exit code 3"), apart.Apart() as process:
        process.make(os._exit, 3)


@pytest.mark.parametrize("processes", ["1", "0", "512"])
def test_a_number_of_processes_that_nothing_can_be_compared_with_is_refused(
    processes: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    scale, tyro = importlib.import_module("scale"), importlib.import_module("tyro")
    monkeypatch.setattr(sys, "argv", ["scale.py", "--processes", processes])
    with pytest.raises(SystemExit):
        tyro.cli(scale.Options)
    assert "at least 2" in "".join(capsys.readouterr())
