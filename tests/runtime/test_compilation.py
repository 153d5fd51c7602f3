"""Whether a network is compiled, and that compiling changes nothing but speed."""

from __future__ import annotations

import copy
import functools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pretint.runtime.checkpoints import Checkpoints
from pretint.runtime.compilation import PAYS_FROM, Compilation, choose_compilation, compiled
from pretint.runtime.determinism import determinism
from pretint.runtime.device import Compute
from pretint.runtime.loop import LoopSettings, Loss, Training
from pretint.runtime.stopping import Interrupted

from .conftest import CPU, RowBatches, Rows, run, stop_after, weights

CUDA = Compute(torch.device("cuda"), bf16=True)
STEADY: dict[str, Any] = {"steady": True, "accumulates": False}


def not_asked() -> float:
    raise AssertionError("nobody wants to know how long it takes")


def test_off_is_never_and_on_is_always():
    assert choose_compilation("off", CUDA, not_asked, **STEADY).mode is None
    assert choose_compilation("on", CUDA, not_asked, **STEADY).mode == "max-autotune"
    assert choose_compilation("on", CPU, not_asked, **STEADY).mode == "default"


@pytest.mark.parametrize("kind", ["cpu", "mps"])
def test_auto_compiles_nothing_where_nothing_was_measured_to_be_gained(kind: str):
    chosen = choose_compilation("auto", Compute(torch.device(kind), bf16=False), not_asked, **STEADY)
    assert chosen.mode is None
    assert "--compile on" in chosen.why


def test_auto_compiles_on_cuda_from_the_length_on_at_which_the_longest_wait_comes_in_by_the_smallest_saving():
    assert pytest.approx(130.0) == 0.14 * PAYS_FROM
    assert choose_compilation("auto", CUDA, lambda: PAYS_FROM - 1, **STEADY).mode is None
    chosen = choose_compilation("auto", CUDA, lambda: 2 * PAYS_FROM, **STEADY)
    assert chosen.mode == "max-autotune"
    assert "31.0 minutes" in chosen.sentence
    assert "15.5" in chosen.sentence


def test_graphs_are_replayed_only_where_every_step_is_alike(monkeypatch: pytest.MonkeyPatch):
    """One size of batch, gradients of one batch, one process, and kernels that may be chosen by timing."""
    for steady, accumulates in ((False, False), (True, True)):
        chosen = choose_compilation("on", CUDA, not_asked, steady=steady, accumulates=accumulates)
        assert chosen.mode == "max-autotune-no-cudagraphs"
    with determinism():
        assert choose_compilation("on", CUDA, not_asked, **STEADY).mode == "default"
        assert choose_compilation("auto", CUDA, not_asked, **STEADY).mode is None
    monkeypatch.setattr("pretint.runtime.compilation.world_size", lambda: 2)
    assert choose_compilation("on", CUDA, not_asked, **STEADY).mode == "default"


def test_a_run_that_goes_on_with_several_processes_leaves_the_modes_that_suit_one_only(monkeypatch: pytest.MonkeyPatch):
    had = [Compilation(mode, "--compile on").to_dict(CUDA) for mode in ("max-autotune", "max-autotune-no-cudagraphs")]
    assert [getattr(Compilation.before(one, CUDA), "mode", None) for one in had] == [one["mode"] for one in had]
    monkeypatch.setattr("pretint.runtime.compilation.world_size", lambda: 2)
    for one in had:
        before = Compilation.before(one, CUDA)
        assert before is not None
        assert before.mode == "default"
        assert f"but for {one['mode']}, which suits one process only" in before.sentence


def test_a_run_that_goes_on_has_what_it_had_unless_that_was_on_another_kind_of_device():
    had = Compilation("default", "--compile on").to_dict(CPU)
    assert Compilation.before(had, CPU) == Compilation("default", "as it was before this run was stopped")
    assert Compilation.before(had, CUDA) is None
    for unknown in (None, {}, [], {"mode": "rm -rf", "device": "cpu"}, {"mode": ["default"]}):
        before = Compilation.before(unknown, CPU)
        assert before is not None
        assert before.mode is None


class Net(nn.Module):
    """Two layers with statistics of their own, and two outputs."""

    def __init__(self, dropout: float = 0.0):
        super().__init__()
        # no bias in front of the norm: its gradient would be nothing but rounding, which AdamW makes steps of full size
        self.first, self.norm, self.drop = nn.Linear(5, 8, bias=False), nn.BatchNorm1d(8), nn.Dropout(dropout)
        self.second, self.other = nn.Linear(8, 1), nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        hidden = self.drop(self.norm(self.first(x)).relu())
        return self.second(hidden), (self.other(hidden),)


def make_net(dropout: float = 0.0) -> Net:
    torch.manual_seed(1)
    return Net(dropout)


def training_of(model: Net, network: nn.Module, folder: Path | None = None) -> Training:
    batches, optimizer = RowBatches(), torch.optim.AdamW(model.parameters(), lr=0.05, fused=True)

    def loss_of(batch: Rows) -> Loss:
        first, (other,) = network(batch.rgb)
        return Loss.mean_of((first - batch.target).square() + (other + batch.target).square())

    checkpoints = None if folder is None else Checkpoints(folder)
    settings = LoopSettings(epochs=2, warmup_epochs=0.0)
    return Training(model, optimizer, batches, loss_of, dict, CPU, settings, checkpoints, network)


class Counting:
    """Stands in for torch's compiler: records graphs as it does, counts them, and runs them as they are."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.graphs: list[Any] = []
        torch._dynamo.reset()
        counted = functools.partial(torch.compile, backend=self)
        monkeypatch.setattr("torch.compile", lambda model, mode: counted(model))

    def __call__(self, graph: Any, inputs: list[Any]) -> Callable[..., Any]:
        self.graphs.append(graph)
        return graph.forward


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    return Counting(monkeypatch)


def test_trying_out_leaves_weights_statistics_and_random_numbers_as_they_were(counting: Counting):
    model = make_net(dropout=0.5).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    inputs = torch.randn(4, 5)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    network, chosen = compiled(model, inputs, CPU, Compilation("default", "--compile on"))
    assert torch.equal(torch.rand(3), expected)
    assert network is not model
    assert chosen.mode == "default"
    assert not model.training
    assert all(p.grad is None for p in model.parameters())
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    mine = {id(p) for p in model.parameters()}
    assert {id(p) for p in network.parameters()} == mine  # what one of them learns the other knows


def test_smaller_batches_are_compiled_once_more_for_any_size_and_not_for_each(counting: Counting):
    network, _ = compiled(make_net(), torch.randn(12, 5), CPU, Compilation("default", "--compile on"))
    assert len(counting.graphs) == 1
    for size in (12, 11, 10, 9, 7, 12, 5):
        network.train()
        network(torch.randn(size, 5))
    assert len(counting.graphs) == 2


def test_the_network_itself_stays_as_it_is(counting: Counting):
    """Validation, painting and saving call it in evaluation mode, with batches of any size: nothing is compiled for that."""
    model = make_net()
    compiled(model, torch.randn(12, 5), CPU, Compilation("default", "--compile on"))
    with torch.inference_mode():
        model.eval()(torch.randn(3, 5))
    assert len(counting.graphs) == 1


def test_what_cannot_be_compiled_runs_as_it_is_and_the_reason_is_one_line(monkeypatch: pytest.MonkeyPatch):
    def no_compiler(graph: Any, inputs: list[Any]) -> Callable[..., Any]:
        raise RuntimeError("Cannot find a working\ncompiler.\n\nSet TORCH_LOGS for more.")

    torch._dynamo.reset()
    broken = functools.partial(torch.compile, backend=no_compiler)
    monkeypatch.setattr("torch.compile", lambda model, mode: broken(model))
    model = make_net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    network, chosen = compiled(model, torch.randn(12, 5), CPU, Compilation("default", "--compile on"))
    assert network is model
    assert chosen.mode is None
    assert "Cannot find a working compiler." in chosen.sentence
    assert "TORCH_LOGS" not in chosen.sentence
    assert "\n" not in chosen.sentence
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_another_process_cannot_compile_no_process_compiles(counting: Counting, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pretint.runtime.compilation.any_process", lambda flag: True)
    model = make_net()
    network, chosen = compiled(model, torch.randn(12, 5), CPU, Compilation("default", "--compile on"))
    assert network is model
    assert "another process" in chosen.sentence


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """torch's own compiler, where it has a C++ compiler to work with."""
    if shutil.which(os.environ.get("CXX", "c++")) is None and shutil.which("g++") is None:
        pytest.skip("there is no C++ compiler")
    import torch._inductor.config as settings

    torch._dynamo.reset()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    with settings.patch(compile_threads=1):  # else processes are started that stay
        yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("compiler")
def test_a_compiled_network_learns_what_the_network_itself_learns_and_goes_on_to_the_bit(tmp_path: Path):
    chosen = Compilation("default", "--compile on")
    plain = make_net()
    run(training_of(plain, plain))
    model = make_net()
    fresh = copy.deepcopy(model.state_dict())
    network, came = compiled(model, torch.randn(4, 5), CPU, chosen)
    assert came == chosen, came.sentence

    def training(folder: Path | None = None) -> Training:
        model.load_state_dict(fresh)
        return training_of(model, network, folder)

    whole = training()
    run(whole)
    learnt, statistics = weights(whole), model.norm.running_mean.clone()
    assert torch.allclose(learnt, torch.cat([p.detach().flatten() for p in plain.parameters()]), atol=1e-5)
    assert torch.allclose(model.norm.running_var, plain.norm.running_var, atol=1e-5)

    with pytest.raises(Interrupted):
        run(stop_after(training(tmp_path), 5))
    resumed = training(tmp_path)
    resumed.resume()
    assert resumed.state.step == 5
    run(resumed)
    assert torch.equal(weights(resumed), learnt)
    assert torch.equal(model.norm.running_mean, statistics)
