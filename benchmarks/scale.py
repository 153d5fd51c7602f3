"""What will training cost on more processes, machines and images? A model of it, tried on the processes of this machine.

1. Measured, in interleaved rounds of the loop that `pretint pretrain` runs: a step of one process with all threads and the whole
   batch; of several that know nothing of each other, at the same time, each with its share of threads and batch; how fast they
   sum numbers over the network (gloo on loopback for processors, NCCL for GPUs); and what memory each takes.
2. Predicted from these (benchmarks/cost.py; the formula is explained in docs/scale.md): a step of the same processes working
   together. Then that is measured too.
3. Predicted, and not measured: what a number of GPUs would take for a number of images, of which nothing but the network's
   operations and size are counted here; peak, share of it and bandwidth are what the options say.

    python benchmarks/scale.py --processes 2 --threads 2
"""

from __future__ import annotations

import math
import multiprocessing
import os
import re
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import torch
import torch.distributed as dist
import tyro
from cost import Network, operations, sent_bytes, state_bytes, step_seconds
from machine import describe
from timm.optim import param_groups_weight_decay

from pretint.backbones import Preprocess, create_backbone
from pretint.colour import Palette, build_palette
from pretint.data import Batch, Batches, TensorSource, make_toy
from pretint.pretext import PaletteTask, PretextModel, build_model
from pretint.recipes.pretraining import loss_function
from pretint.runtime import processes
from pretint.runtime.device import Compute
from pretint.runtime.loop import LoopSettings, Training
from pretint.runtime.runlog import RunLog

_SUMS = 10  # timed sums of each size in a round


@dataclass(frozen=True)
class Options:
    """A cost model beside a measurement, and what it predicts.

    Attributes:
        processes: how many work together.
        threads: of one process alone; each of several has its part of them.
        device: cpu, or cuda, where each process needs a GPU.
        precision: auto, bf16 or fp32.
        width: of the U-Net encoder.
        image_size: side in pixels.
        batch_size: images a step, of all processes together.
        steps: in a round.
        rounds: of each, after one to warm up.
        peak_tflops: of a GPU whose cost is predicted, in bf16 without sparsity; 312 is an A100's (NVIDIA, A100 data sheet).
        peak_share: the share of that peak that training reaches. 0.25 is what a standard ResNet-18 reaches on CIFAR-10 on an A100:
            32.3 · 10^15 operations in 7 minutes (Jordan, cifar10-airbench, README); assumed of the U-Net.
        gigabytes_per_second: of networks, each way: 300 is an A100's NVLink (same data sheet), 12.5 and 1.25 are Ethernet with 100
            and 10 Gbit/s; all nominal.
        latency_us: of a message in each of these networks, in microseconds; assumed.
        gpus: numbers of GPUs.
        gpu_batch: images a step on each GPU.
        gpu_image_size: side in pixels.
        images: numbers of images.
    """

    processes: int = 2
    threads: int = 2
    device: str = "cpu"
    precision: str = "auto"
    width: int = 32
    image_size: int = 32
    batch_size: int = 256
    steps: int = 8
    rounds: int = 5
    peak_tflops: float = 312.0
    peak_share: float = 0.25
    gigabytes_per_second: tuple[float, ...] = (300.0, 12.5, 1.25)
    latency_us: tuple[float, ...] = (2.0, 20.0, 50.0)
    gpus: tuple[int, ...] = (1, 8)
    gpu_batch: int = 256
    gpu_image_size: int = 64
    images: tuple[int, ...] = (1_000_000, 100_000_000)

    def __post_init__(self) -> None:
        if not 2 <= self.processes <= self.batch_size:
            raise ValueError(
                "--processes: there must be at least 2 that work together, and an image of each step for every one of them."
            )


@dataclass(frozen=True)
class Place:
    """Which of how many processes a worker is, with how many threads and images a step of all, and on which device."""

    rank: int
    size: int
    threads: int
    batch_size: int
    device: str


class Trainer:
    """The loop of `pretint pretrain` in one process, a round at a time, each step timed."""

    def __init__(self, options: Options, place: Place, images: torch.Tensor, palette: Palette):
        self.compute = Compute.choose(place.device, options.precision)
        self.images = images[: options.steps * place.batch_size].to(self.compute.device)
        float(self.images.sum())  # pages that the processes share count from here on
        self.before = self._memory("VmRSS", torch.cuda.memory_allocated)
        torch.manual_seed(0)
        self.model, self.task = make_network(options.width, palette, options.image_size)
        self.compute.place(self.model)
        self.network = processes.parallel(self.model, self.compute.device)
        groups = param_groups_weight_decay(self.model, 0.05)
        self.optimizer = torch.optim.AdamW(groups, lr=1e-3, fused=True)
        self.loss_of = loss_function(self.network, self.task, self.compute)
        self.batches = Batches(TensorSource(self.images), place.batch_size, seed=0, device=self.compute.device)
        self.marks: list[float] = []

    def steps(self) -> list[float]:
        """Trains one epoch; seconds of each step."""
        settings = LoopSettings(epochs=1)
        self.marks = []
        training = Training(
            self.model, self.optimizer, self, self.loss_of, dict, self.compute, settings, network=self.network
        )
        with RunLog(None, "benchmark", training.total_steps, quiet=True) as log:
            training.run(log)
        return [end - start for start, end in zip(self.marks, self.marks[1:], strict=False)]

    def memory(self) -> int:
        """The most bytes held so far, images and libraries not counted."""
        return self._memory("VmHWM", torch.cuda.max_memory_allocated) - self.before

    def sums(self) -> tuple[float, float]:
        """Seconds to sum next to nothing, and as many bytes as the gradients have, over the processes."""
        return self._seconds_of_sum(1), self._seconds_of_sum(parameters_of(self.model))

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """The batches, with a look at the clock before the first and after each."""
        self._mark()
        for batch in self.batches.epoch(epoch, start_step):
            yield batch
            self._mark()

    def _mark(self) -> None:
        self._wait()
        self.marks.append(time.perf_counter())

    def _wait(self) -> None:
        if self.compute.device.type == "cuda":
            torch.cuda.synchronize(self.compute.device)

    def _seconds_of_sum(self, numbers: int) -> float:
        tensor = torch.zeros(numbers, device=self.compute.device)
        seconds = []
        for _ in range(_SUMS + 1):
            processes.barrier()
            self._wait()
            start = time.perf_counter()
            dist.all_reduce(tensor)
            self._wait()
            seconds.append(time.perf_counter() - start)
        return median(seconds[1:])

    def _memory(self, line: str, of_gpu) -> int:
        if self.compute.device.type == "cuda":
            return of_gpu(self.compute.device)
        found = re.search(rf"{line}:\s+(\d+) kB", Path("/proc/self/status").read_text())
        assert found is not None, "memory is read from /proc, which Linux has"
        return 1024 * int(found[1])


def make_network(width: int, palette: Palette, image_size: int) -> tuple[PretextModel, PaletteTask]:
    task = PaletteTask(Preprocess(), palette)
    return build_model(task, create_backbone("pretint_unet", width=width, image_size=image_size)), task


def parameters_of(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def serve(options: Options, place: Place, port: int, images: torch.Tensor, palette: Palette, requests: Connection):
    """What a worker does: answers with what the Trainer's method of that name gives, until nothing more is asked."""
    told = {"RANK": place.rank, "LOCAL_RANK": place.rank, "WORLD_SIZE": place.size, "LOCAL_WORLD_SIZE": place.size}
    told |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in told.items()})
    torch.set_num_threads(place.threads)
    with processes.joined(options.device):
        trainer = Trainer(options, place, images, palette)
        while name := requests.recv():
            requests.send(getattr(trainer, name)())
        processes.barrier()  # whoever ends first ends the others


class Workers:
    """Processes that are asked the same at the same time."""

    def __init__(self, requests: Sequence[Connection]):
        self._requests = requests

    def ask(self, name: str) -> list:
        for each in self._requests:
            each.send(name)
        return [each.recv() for each in self._requests]


@contextmanager
def workers(options: Options, places: Sequence[Place], images: torch.Tensor, palette: Palette) -> Iterator[Workers]:
    context = multiprocessing.get_context("spawn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pipes = [context.Pipe() for _ in places]
    started = [
        context.Process(target=serve, args=(options, place, port, images, palette, served), daemon=True)
        for place, (_, served) in zip(places, pipes, strict=True)
    ]
    for process in started:
        process.start()
    for _, served in pipes:
        served.close()  # so that a worker that dies ends the waiting for its answer
    yield Workers([requests for requests, _ in pipes])
    for requests, _ in pipes:
        requests.send("")
    for process in started:
        process.join()


@dataclass(frozen=True)
class Measured:
    """Medians: seconds of a step, bytes in each process, seconds of a small sum and of one of the gradients."""

    one: float
    apart: float
    together: float
    one_memory: int
    apart_memory: int
    together_memory: int
    small: float
    large: float


def measure(options: Options, images: torch.Tensor, palette: Palette) -> Measured:
    n, cuda = options.processes, options.device == "cuda"
    threads, share = max(1, options.threads // n), options.batch_size // n
    alone = [Place(0, 1, options.threads, options.batch_size, options.device)]
    apart = [Place(0, 1, threads, share, f"cuda:{rank}" if cuda else "cpu") for rank in range(n)]
    together = [Place(rank, n, threads, options.batch_size, options.device) for rank in range(n)]
    steps: dict[str, list[float]] = {"one": [], "apart": [], "together": []}
    sums: list[tuple[float, float]] = []
    with ExitStack() as stack:
        groups = {
            name: stack.enter_context(workers(options, places, images, palette))
            for name, places in zip(steps, (alone, apart, together), strict=True)
        }
        for number in range(options.rounds + 1):
            for name, group in groups.items():
                # the slowest process sets the pace of a step
                each = [max(seconds) for seconds in zip(*group.ask("steps"), strict=True)]
                steps[name] += each if number else []
            sums.append(tuple(map(max, *groups["together"].ask("sums"))))
        memory = {f"{name}_memory": max(group.ask("memory")) for name, group in groups.items()}
    small, large = (median(seconds) for seconds in zip(*sums[1:], strict=True))
    return Measured(**{name: median(each) for name, each in steps.items()}, **memory, small=small, large=large)


def difference(predicted: float, measured: float) -> str:
    return f"{100 * (predicted / measured - 1):+.1f} %"


def compare(options: Options, found: Measured, parameters: int, count: int) -> None:
    """Prints what was measured, and the prediction beside the measurement."""
    n, size, batch = options.processes, 4 * parameters, options.batch_size
    network = Network.of(found.small, found.large, size, n)
    print("| measured | |\n|---|---|")
    print(f"| one process, {options.threads} threads, {batch} images a step | {1000 * found.one:.1f} ms a step |")
    print(f"| the same in operations | {count * batch / found.one / 1e12:.3f} · 10^12 a second |")
    print(
        f"| {n} apart, {max(1, options.threads // n)} threads, {batch // n} images each | {1000 * found.apart:.1f} ms a step |"
    )
    print(f"| gradients | {size / 1e6:.1f} MB |")
    print(f"| a sum of 4 bytes | {1e6 * found.small:.0f} µs |")
    print(f"| a sum of the gradients | {1000 * found.large:.1f} ms, {network.bandwidth / 1e9:.2f} GB/s each way |")
    overlaps = options.device == "cuda"
    seconds = step_seconds(found.apart, size, n, network, overlaps=overlaps)
    memory = found.apart_memory + state_bytes(parameters, n) - state_bytes(parameters, 1)
    print(f"\n| {n} processes together | predicted | measured | difference |\n|---|---|---|---|")
    print(
        f"| a step | {1000 * seconds:.1f} ms | {1000 * found.together:.1f} ms | {difference(seconds, found.together)} |"
    )
    print(
        f"| memory each | {memory / 1e6:.0f} MB | {found.together_memory / 1e6:.0f} MB "
        f"| {difference(memory, found.together_memory)} |"
    )
    print(f"| of one process's speed | {found.one / seconds:.2f} × | {found.one / found.together:.2f} × | |")


def predict(options: Options, found: Measured, parameters: int, count: int) -> None:
    """Prints what GPUs would take."""
    n, side = options.processes, options.gpu_image_size
    # what grows with the images of a step, by two sizes of it
    grown = (found.one_memory - found.apart_memory) / (options.batch_size - options.batch_size // n)
    each = grown * (side / options.image_size) ** 2
    compute = count * options.gpu_batch / (1e12 * options.peak_tflops * options.peak_share)
    size, image = 4 * parameters, 3 * side * side
    print(
        f"\nPredicted, not measured: {options.gpu_batch} images of {side} px a step on each GPU, {count / 1e9:.2f} · 10^9 "
        f"operations an image, {options.peak_share:.0%} of {options.peak_tflops:g} TFLOP/s. Each GPU "
        f"holds {(state_bytes(parameters, 2) + each * options.gpu_batch) / 1e9:.1f} GB besides the images (feature maps "
        "as measured above, by their number of pixels).\n"
    )
    print("| images | GPUs | network | sent a step | a step | of it waiting | images/s | an epoch | data | read |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    networks = [Network(math.inf, 0.0)]
    networks += [
        Network(1e9 * gigabytes, 1e-6 * microseconds)
        for gigabytes, microseconds in zip(options.gigabytes_per_second, options.latency_us, strict=True)
    ]
    for images in options.images:
        for gpus in options.gpus:
            for network in networks[1:] if gpus > 1 else networks[:1]:
                step = step_seconds(compute, size, gpus, network, overlaps=True)
                rate = gpus * options.gpu_batch / step
                name = f"{network.bandwidth / 1e9:g} GB/s, {1e6 * network.latency:g} µs" if gpus > 1 else "–"
                print(
                    f"| {images:,} | {gpus} | {name} | {sent_bytes(size, gpus) / 1e6:.1f} MB | {1000 * step:.1f} ms "
                    f"| {1 - compute / step:.0%} | {rate:,.0f} | {duration(images / rate)} | {images * image / 1e9:,.1f} GB "
                    f"| {rate * image / 1e9:.2f} GB/s |"
                )


def duration(seconds: float) -> str:
    for name, length in (("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {name}"
    return f"{seconds:.1f} s"


def main(options: Options) -> None:
    images = make_toy("train", n=options.steps * options.batch_size, image_size=options.image_size).images
    palette = build_palette(lambda: iter([images]), 24, "rgb")
    parameters = parameters_of(make_network(options.width, palette, options.image_size)[0])
    found = measure(options, images, palette)
    print(describe(), "\n")
    counts = []
    for size in (options.image_size, options.gpu_image_size):
        network, _ = make_network(options.width, palette, size)
        counts.append(operations(network, torch.zeros(2, 1, size, size)))
    compare(options, found, parameters, counts[0])
    predict(options, found, parameters, counts[1])


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
