"""Copies to a GPU run beside its computing, and are complete before they are used."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from pretint.data.copies import Copies


def test_on_a_processor_tensors_are_handed_on_as_they_are():
    copies, pictures = Copies("cpu"), torch.arange(3)
    made, labels = copies.receive(copies.send(lambda: (pictures, None)))
    assert made is pictures
    assert labels is None


class Told:
    """Stands in for streams, events and the tensors on a GPU, and writes down what they are told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.lines: list[str] = []
        monkeypatch.setattr("torch.cuda.Stream", lambda _device: Stream(self, "copying"))
        monkeypatch.setattr("torch.cuda.current_stream", lambda _device: Stream(self, "computing"))
        monkeypatch.setattr("torch.cuda.stream", self.within)

    @contextmanager
    def within(self, stream: Any):
        self.lines.append(f"into {stream}")
        yield
        self.lines.append(f"out of {stream}")


class Stream:
    def __init__(self, told: Told, name: str):
        self.told, self.name = told, name

    def __str__(self) -> str:
        return self.name

    def record_event(self) -> torch.cuda.Event:
        self.told.lines.append(f"{self} marks")
        return torch.cuda.Event()

    def wait_event(self, event: torch.cuda.Event) -> None:
        self.told.lines.append(f"{self} waits for the mark")


def test_copies_go_through_a_stream_of_their_own_and_the_computing_waits_for_them(monkeypatch: pytest.MonkeyPatch):
    told = Told(monkeypatch)

    class OnGPU(torch.Tensor):
        def record_stream(self, stream: Any) -> None:
            told.lines.append(f"kept for {stream}")

    def make() -> tuple[torch.Tensor, None]:
        told.lines.append("copy")
        return torch.zeros(2).as_subclass(OnGPU), None

    copies = Copies("cuda")
    sent = copies.send(make)
    told.lines.append("-")
    copies.receive(sent)
    before = ["into copying", "copy", "copying marks", "out of copying"]
    assert told.lines == [*before, "-", "computing waits for the mark", "kept for computing"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_a_gpu_batches_sent_by_a_thread_arrive_whole_while_it_computes():
    device = torch.device("cuda")
    copies, busy = Copies(device), torch.randn(2048, 2048, device=device)
    sources = [torch.full((1 << 22,), number, dtype=torch.uint8).pin_memory() for number in range(8)]
    for number, source in enumerate(sources):
        sent: list[Any] = []

        def send(source: torch.Tensor = source, sent: list[Any] = sent) -> None:
            sent.append(copies.send(lambda: (source.to(device, non_blocking=True), None)))

        thread = threading.Thread(target=send)
        thread.start()
        for _ in range(20):
            busy = (busy @ busy).clamp(-1, 1)
        thread.join()
        pictures, _ = copies.receive(sent[0])
        assert pictures is not None
        assert bool((pictures == number).all())
