"""`pretint benchmark` recommends what it measured as fastest, and types a command that pretint pretrain understands."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from statistics import median

import pytest
import torch
import tyro

from pretint.cli import main
from pretint.recipes import BenchmarkConfig, PretrainConfig, benchmark, benchmarking, preset_config
from pretint.recipes.benchmarking import Way, fastest, not_timed
from pretint.recipes.timing import Contender, example_palette, example_pictures
from pretint.runtime.device import Compute
from pretint.runtime.errors import ArgumentError, PretintError, UnknownNameError
from pretint.runtime.rounds import interleaved

Speed = Callable[[Way], float]


class FakeContender(Contender):
    """Stands in for a network: its speed is what a test says of its way; the first round is slow."""

    speed: Speed
    bare_share = 0.8

    def __init__(self, config: PretrainConfig, _pictures, _palette, compute: Compute):
        self.way = Way(compute.precision, compute.layout_name, config.batch_size)
        self.rounds, self.seconds = 0, 0.0
        if type(self).speed(self.way) == 0:
            raise torch.OutOfMemoryError

    def settle(self, seconds: float) -> None:
        self.seconds = seconds

    def ours(self) -> float:
        self.rounds += 1
        noise = {1: 0.01, 2: 0.9, 3: 1.0, 4: 1.1}[self.rounds]
        return type(self).speed(self.way) * noise

    def bare(self) -> float:
        return type(self).speed(self.way) / self.bare_share


@pytest.fixture
def timed_as(monkeypatch) -> Callable[[Speed, bool], None]:
    """Makes the networks as fast as a function of the way says, on a processor with or without bf16."""

    def make(speed: Speed, bf16: bool = True) -> None:
        monkeypatch.setattr(FakeContender, "speed", staticmethod(speed), raising=False)
        monkeypatch.setattr(benchmarking, "Contender", FakeContender)
        monkeypatch.setattr(benchmarking, "has_bf16", lambda _: bf16)
        monkeypatch.setattr("pretint.runtime.device.has_bf16", lambda _: bf16)
        monkeypatch.setattr(benchmarking, "example_pictures", lambda _: torch.zeros(1))
        monkeypatch.setattr(benchmarking, "example_palette", lambda *_: None)

    return make


def typed(command: str) -> PretrainConfig:
    """The settings that `pretint pretrain` has for a command."""
    words = shlex.split(command)
    assert words[:2] == ["pretint", "pretrain"]
    from pretint.recipes import typed_preset

    return tyro.cli(
        PretrainConfig, default=typed_preset(words[2:]), args=words[2:], config=(tyro.conf.FlagCreatePairsOff,)
    )


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("layout", ["channels-last", "channels-first"])
@pytest.mark.parametrize("batch_size", [64, 128, 256])
def test_the_fastest_way_is_recommended_and_its_command_gives_it(
    timed_as, precision: str, layout: str, batch_size: int
):
    quick = Way(precision, layout, batch_size)

    def speed(way: Way) -> float:
        return 100.0 * 2.0 ** sum(a == b for a, b in zip(way, quick, strict=True))

    timed_as(speed)
    results = benchmark(BenchmarkConfig(device="cpu")).results
    assert results["recommended"] == {
        "precision": precision, "layout": layout, "batch_size": batch_size, "images_per_second": 800.0,
    }  # fmt: skip
    config = typed(results["command"])
    compute = Compute.choose(config.device, config.precision, config.layout)
    assert (compute.precision, compute.layout_name, config.batch_size) == (precision, layout, batch_size)
    assert config.decoder == preset_config("pretint").decoder  # all else is what plain pretint pretrain has
    assert (config.precision == "auto") == (precision == "bf16")  # what is chosen anyway needs no typing
    assert (config.layout == "auto") == (layout == "channels-last")


def test_every_way_is_timed_and_the_median_of_the_rounds_behind_the_first_counts(timed_as):
    timed_as(lambda way: {"bf16": 200.0, "fp32": 100.0}[way.precision])
    outcome = benchmark(BenchmarkConfig(device="cpu"))
    rows = outcome.results["precisions_and_layouts"]
    assert {(row["precision"], row["layout"]) for row in rows} == {
        (precision, layout) for precision in ("bf16", "fp32") for layout in ("channels-last", "channels-first")
    }
    assert {row["batch_size"] for row in rows} == {128}
    assert [row["batch_size"] for row in outcome.results["batch_sizes"]] == [64, 128, 256]
    for row in rows:
        assert row["rounds"] == pytest.approx(
            [0.9 * row["images_per_second"], row["images_per_second"], 1.1 * row["images_per_second"]]
        )
        assert row["images_per_second"] == median(row["rounds"])
    assert outcome.results["share_of_bare"] == pytest.approx(FakeContender.bare_share)
    assert outcome.results["bare"][0]["images_per_second"] == pytest.approx(200 / FakeContender.bare_share)
    assert "0.80 of a bare loop" in outcome.lines[0]
    assert outcome.results["command"] in outcome.lines[1]
    assert [table.row_count for table in outcome.tables] == [4, 3]
    json.dumps(outcome.results)


def test_another_batch_size_must_be_five_percent_faster():
    ways = {Way("bf16", "channels-last", size): [rate] for size, rate in ((64, 104.0), (128, 100.0), (256, 90.0))}
    assert fastest(ways, start=128).batch_size == 128
    assert fastest({**ways, Way("bf16", "channels-last", 64): [106.0]}, start=128).batch_size == 64
    assert fastest({way: rates for way, rates in ways.items() if way.batch_size != 128}, start=128).batch_size == 64


def test_what_is_given_is_not_varied_and_bf16_is_tried_only_where_there_are_instructions(timed_as):
    timed_as(lambda _: 1.0, bf16=False)
    rows = benchmark(BenchmarkConfig(device="cpu")).results["precisions_and_layouts"]
    assert {row["precision"] for row in rows} == {"fp32"}
    config = BenchmarkConfig(device="cpu", precision="bf16", layout="channels-first", batch_sizes=(32,))
    results = benchmark(config).results
    assert [(r["precision"], r["layout"], r["batch_size"]) for r in results["precisions_and_layouts"]] == [
        ("bf16", "channels-first", 32)
    ]
    assert typed(results["command"]).precision == "bf16"


def test_batches_that_do_not_fit_into_memory_are_left_out(timed_as, capsys):
    timed_as(lambda way: 0.0 if way.batch_size > 128 else 10.0)
    results = benchmark(BenchmarkConfig(device="cpu")).results
    assert [row["batch_size"] for row in results["batch_sizes"]] == [64, 128]
    assert "batches of 256 do not fit" in capsys.readouterr().err
    with pytest.raises(ArgumentError, match="--batch-sizes"):
        benchmark(BenchmarkConfig(device="cpu", batch_sizes=(512,)))


@pytest.mark.parametrize("loop", ["ours", "bare"])
def test_a_way_that_runs_out_of_memory_while_it_is_timed_is_left_out_and_the_others_are_timed_on(
    loop: str, timed_as, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    timed_as(lambda _: 10.0)
    original, tried = getattr(FakeContender, loop), []

    def greedy(self: FakeContender) -> float:
        if self.way.batch_size > 128:
            tried.append(self.rounds)
            if len(tried) == 2:
                raise torch.OutOfMemoryError
        return original(self)

    monkeypatch.setattr(FakeContender, loop, greedy)
    results = benchmark(BenchmarkConfig(device="cpu")).results
    assert len(tried) == 2
    for timed in ("batch_sizes", "bare"):
        assert [row["batch_size"] for row in results[timed]] == [64, 128]
        assert all(len(row["rounds"]) == 3 for row in results[timed])
    assert capsys.readouterr().err.count("batches of 256 do not fit") == 1
    tried.clear()
    with pytest.raises(ArgumentError, match="--batch-sizes"):
        benchmark(BenchmarkConfig(device="cpu", batch_sizes=(512,), precision="fp32", layout="channels-last"))


def test_what_is_not_timed_is_said(timed_as):
    timed_as(lambda _: 10.0)
    assert not_timed(torch.device("cpu")) in benchmark(BenchmarkConfig(device="cpu")).lines
    assert "15 minutes or longer is compiled" in not_timed(torch.device("cuda"))


@pytest.mark.parametrize(
    ("settings", "error", "named"),
    [
        ({"rounds": 0}, ArgumentError, "--rounds"),
        ({"minutes": -1.0}, ArgumentError, "--minutes"),
        ({"batch_sizes": ()}, ArgumentError, "--batch-sizes"),
        ({"batch_sizes": (64, 0)}, ArgumentError, "--batch-sizes"),
        ({"task": "random"}, ArgumentError, "--task"),
        ({"task": "pallete"}, UnknownNameError, "palette"),
        ({"backbone": "pretint_unt"}, UnknownNameError, "pretint_unet"),
        ({"preset": "toronto"}, UnknownNameError, "toronto-unet"),
        ({"layout": "nhwc"}, UnknownNameError, "channels-last"),
        ({"image_size": 4}, ArgumentError, "--image-size"),
    ],
)
def test_bad_settings_are_typed_errors(settings: dict, error: type[PretintError], named: str):
    with pytest.raises(error, match=named):
        BenchmarkConfig(**settings)


def test_one_image_is_too_few_for_batch_normalisation():
    with pytest.raises(ArgumentError, match="at least 2"):
        benchmark(
            BenchmarkConfig(device="cpu", backbone="pretint_cnn", width=8, task="rgb-regression", batch_sizes=(1,))
        )


@pytest.mark.parametrize("task", ["palette", "contrast", "supervised"])
def test_both_loops_train_the_network_on_as_many_images_as_they_say(task: str, monkeypatch):
    now = iter(range(10**6))  # each look at the clock is a second later
    config = PretrainConfig(task=task, backbone="pretint_cnn", width=8, depth=3, batch_size=8, augment="flip")
    pictures = example_pictures(config.image_size)
    compute = Compute(torch.device("cpu"), bf16=False, channels_last=False)
    contender = Contender(config, pictures, example_palette(config, pictures), compute)
    contender.steps = 3
    seen: list[int] = []
    contender.model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    weights = [parameter.detach().clone() for parameter in contender.model.parameters()]
    monkeypatch.setattr("pretint.recipes.timing.time.perf_counter", lambda: float(next(now)))
    assert contender.bare() == 3 * 8 / 1.0
    assert seen == [8, 8, 8]
    assert any(not torch.equal(a, b) for a, b in zip(weights, contender.model.parameters(), strict=True))
    assert contender.ours() > 0
    assert seen == [8] * 6


def test_a_round_is_settled_to_last_about_as_long_as_wanted(monkeypatch):
    config = PretrainConfig(task="rgb-regression", backbone="pretint_cnn", width=8, depth=3, batch_size=4)
    contender = Contender(config, example_pictures(32), None, Compute(torch.device("cpu"), bf16=False))
    monkeypatch.setattr(contender, "bare", lambda: 40.0)  # images a second: a batch takes a tenth of one
    for seconds, steps in ((1.5, 15), (0.01, 2), (1e6, 500)):
        contender.settle(seconds)
        assert contender.steps == steps


def test_pictures_of_any_size_are_of_that_size_and_fill_no_memory():
    counts = {8: 512, 32: 512, 48: 512, 512: 85, 1300: 16}  # 64 MiB at most, but for 16 pictures
    assert {size: tuple(example_pictures(size).images.shape) for size in counts} == {
        size: (count, 3, size, size) for size, count in counts.items()
    }


def test_rounds_are_interleaved_and_the_first_of_each_loop_is_left_out():
    order: list[str] = []

    def loop(name: str, rates: list[float]) -> Callable[[], float]:
        def run() -> float:
            order.append(name)
            return rates[order.count(name) - 1]

        return run

    found = interleaved({"a": loop("a", [1.0, 2.0, 3.0]), "b": loop("b", [4.0, 5.0, 6.0])}, rounds=2)
    assert order == ["a", "b", "a", "b", "a", "b"]
    assert found == {"a": [2.0, 3.0], "b": [5.0, 6.0]}


def test_the_command_prints_json_for_a_small_network(capsys):
    words = [
        "benchmark", "--task", "rgb-regression", "--backbone", "pretint_cnn", "--width", "8", "--batch-sizes", "16", "--precision",
        "fp32", "--layout", "channels-first", "--rounds", "1", "--minutes", "0.001", "--device", "cpu", "--json",
    ]  # fmt: skip
    assert main(words) == 0
    results = json.loads(capsys.readouterr().out)
    assert results["recommended"]["images_per_second"] > 0
    assert results["settings"] == {
        "task": "rgb-regression",
        "backbone": "pretint_cnn",
        "image_size": 32,
        "device": "cpu",
    }
    assert "--layout channels-first" in results["command"]
