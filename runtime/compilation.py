"""Is a network compiled for training, and how? What is chosen has a reason that can be said; what can't be compiled runs as it is.

`torch.compile` gives a second way to call a network and leaves the network itself alone: checkpoints, encoder folders, validation
and painting go by the network that they always went by, whose names and weights do not know of it.

A compiled network gives the same bits each time on the same machine with the same versions, wherever torch's own kernels do; they
are other bits than those of the network as it is. So a run that goes on is compiled if it was compiled from its beginning, and not
if not. On CUDA, where the fastest kernels are found by timing them, equal bits are not promised, as they are not without compiling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .device import Compute
from .processes import any_process, world_size
from .words import shortened

COMPILE = ("auto", "on", "off")
_MODES = ("default", "max-autotune", "max-autotune-no-cudagraphs")

# What is known of convolutional networks on CUDA: the first step takes 30 to 130 s longer, and from then on 14 to 19 % of the time
# of a loop that is tuned already is saved. The longest wait has to come in again by the smallest saving.
_LONGEST_WAIT, _LEAST_SAVING = 130.0, 0.14
PAYS_FROM = _LONGEST_WAIT / _LEAST_SAVING  # seconds of training as it is

# A CUDA graph is run once as it is, then recorded, then replayed: what fails, fails in one of these.
_TRIES_ON_CUDA = 3


@dataclass(frozen=True)
class Compilation:
    """What was chosen.

    Attributes:
        mode: as torch.compile calls it; None leaves the network as it is.
        why: the reason, as the end of a sentence.
    """

    mode: str | None
    why: str

    @property
    def sentence(self) -> str:
        """
        >>> Compilation(None, "--compile off").sentence
        'the network is not compiled: --compile off.'
        """
        if self.mode is None:
            return f"the network is not compiled: {self.why}."
        return f"the network is compiled (torch.compile, mode {self.mode}): {self.why}."

    def to_dict(self, compute: Compute) -> dict[str, Any]:
        """Plain values for JSON, with the kind of device that they are for."""
        return {"mode": self.mode, "why": self.why, "device": compute.device.type}

    @classmethod
    def before(cls, saved: object, compute: Compute) -> Compilation | None:
        """What a run that goes on had, of what :meth:`to_dict` gave; None if that was on another kind of device.

        Of a run that does not say, or not in a way that is understood, the network was not compiled. Where it goes on with several
        processes the mode becomes one that :func:`choose_compilation` has for them.
        """
        saved = saved if isinstance(saved, dict) else {}
        if saved.get("device", compute.device.type) != compute.device.type:
            return None
        mode = saved["mode"] if saved.get("mode") in _MODES else None
        if world_size() > 1 and str(mode).startswith("max-autotune"):
            return cls(
                "default", f"as it was before this run was stopped, but for {mode}, which suits one process only"
            )
        return cls(mode, "as it was before this run was stopped")


def choose_compilation(
    wanted: str, compute: Compute, seconds: Callable[[], float], *, steady: bool, accumulates: bool
) -> Compilation:
    """Whether to compile, and in which mode.

    `off` never does and `on` always. `auto` does it on CUDA, if training is to take :data:`PAYS_FROM` seconds or more; not on a
    processor, where it was measured to gain nothing, and not elsewhere, where it was not measured.

    The mode is `max-autotune` on CUDA: kernels are chosen by timing, and the steps are replayed as CUDA graphs. Those have one
    shape of batch, and their gradients lie where the next replay writes: so none where batches differ in size or gradients are
    added up. It is `default` elsewhere; under deterministic algorithms, since another choice of kernels has other bits; and of
    several processes, which would disturb each other's timing, choose differently, and are known to hang over it.

    Args:
        wanted: one of :data:`COMPILE`.
        compute: where the network is trained.
        seconds: how long training is going to take as it is; only asked where it decides, and the same in all processes.
        steady: whether all batches are of one size.
        accumulates: whether gradients of several batches are added up.
    """
    kind, deterministic = compute.device.type, torch.are_deterministic_algorithms_enabled()
    why = f"--compile {wanted}"
    if wanted == "off":
        return Compilation(None, why)
    if wanted == "auto":
        if kind != "cuda":
            return Compilation(None, f"on {kind} nothing is known to be gained; --compile on does it all the same")
        if deterministic:
            return Compilation(None, "under --deterministic it is done by --compile on alone")
        minutes, enough = seconds() / 60, PAYS_FROM / 60
        why = f"training takes about {minutes:.1f} minutes without, and it pays from {enough:.1f} on"
        if minutes < enough:
            return Compilation(None, why)
    if kind != "cuda" or deterministic or world_size() > 1:
        return Compilation("default", why)
    return Compilation("max-autotune" if steady and not accumulates else "max-autotune-no-cudagraphs", why)


def compiled(model: nn.Module, inputs: Tensor, compute: Compute, chosen: Compilation) -> tuple[nn.Module, Compilation]:
    """The network as training calls it, tried out forwards and backwards; if that fails in any process, the network as it is.

    Batches of another size than the first make torch compile once more, for any size, and not for each.

    Args:
        model: on its device; it is the same afterwards, to its statistics and the state of random generators.
        inputs: (b, c, h, w), a batch of its input.
        compute: device, precision and layout.
        chosen: in which mode, or not at all.

    Returns:
        What to call, which shares the model's weights, and what came of the choice.
    """
    if chosen.mode is None:
        return model, chosen
    problem = None
    network = model
    try:
        network = torch.compile(model, mode=chosen.mode)
        _try_out(network, model, inputs, compute)
    except Exception as error:  # whatever compilers raise, the network itself can do without them
        problem = _reason(error)
    if any_process(problem is not None):
        return model, Compilation(None, f"it can't be here ({problem or 'see another process'})")
    assert isinstance(network, nn.Module)
    return network, chosen


def _try_out(network: Callable[[Tensor], Any], model: nn.Module, inputs: Tensor, compute: Compute) -> None:
    """Passes forwards and backwards as in training, without a loss: what is compiled does not depend on it."""
    on_cuda, was_training = compute.device.type == "cuda", model.training
    kept = [(buffer, buffer.clone()) for buffer in model.buffers()]
    model.train()
    try:
        with torch.random.fork_rng([compute.device] if on_cuda else []):
            for _ in range(_TRIES_ON_CUDA if on_cuda else 1):
                with compute.autocast():
                    predictions = network(compute.layout(inputs))
                torch.autograd.backward([one.float().sum() for one in _tensors(predictions) if one.requires_grad])
                model.zero_grad(set_to_none=True)
        if on_cuda:
            torch.cuda.synchronize(compute.device)  # what a kernel does wrong shows when it has run
    finally:
        model.zero_grad(set_to_none=True)
        with torch.no_grad():
            for buffer, value in kept:
                buffer.copy_(value)
        model.train(was_training)


def _tensors(predictions: Any) -> Iterator[Tensor]:
    """All tensors of a prediction, which may be a tuple of predictions."""
    if isinstance(predictions, Tensor):
        yield predictions
    elif isinstance(predictions, (tuple, list)):
        for one in predictions:
            yield from _tensors(one)


def _reason(error: Exception) -> str:
    """What an error says before its advice on debugging, in one line."""
    words = " ".join(str(error).partition("\n\n")[0].split())
    return shortened(words or type(error).__name__, 200)
