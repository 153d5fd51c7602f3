"""How well can a linear classifier read the classes off frozen features? Chosen without a look at the test images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor
from torch.nn import functional

from ..runtime.errors import ArgumentError, NotFiniteError, UnknownNameError
from ..runtime.randomness import hash_permutation
from .axes import PrincipalAxes
from .protocol import Probed, ProbeResult, checked_features, checked_splits, held_out, summarise

LEARNING_RATES = (0.03, 0.1, 0.3, 1.0)
WEIGHT_DECAYS = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
SOLVERS = ("sgd", "lbfgs")
_EPOCHS, _STEPS, _MOMENTUM = 10, 600, 0.9
_ITERATIONS = 300  # of L-BFGS; on preconditioned columns some 50 to 150 are needed
_CHUNK = 1024  # rows of logits at a time: (1024, heads * classes) stays small even for a thousand classes


def linear_probe(
    train_features: Float[Tensor, "n d"] | Mapping[str, Tensor],
    train_labels: Tensor | np.ndarray,
    test_features: Float[Tensor, "m d"] | Mapping[str, Tensor],
    test_labels: Tensor | np.ndarray,
    *,
    solver: str = "sgd",
    learning_rates: Sequence[float] = LEARNING_RATES,
    weight_decays: Sequence[float] = WEIGHT_DECAYS,
    epochs: int | None = None,
    batch_size: int = 512,
    holdout: float = 0.1,
    seed: int = 0,
    classes: int | None = None,
    device: torch.device | str | None = None,
) -> ProbeResult:
    """Multinomial logistic regression on frozen features, its hyper-parameters chosen on held-out training images.

    For each layer one head per (learning rate, weight decay) is trained on the training images without a seeded,
    class-balanced `holdout`; the head with the best accuracy there (equal ones: the lower cross-entropy) is trained
    again on all training images, and reads the test images once. The headline is the layer with the best held-out
    accuracy: the test accuracies in `per_layer` are for showing, never for choosing.

    Args:
        train_features, test_features: float (n, d) and (m, d), any scale; or dicts of layers. With two layers or more of one
            pooling, their concatenation is probed too: `"hypercolumn"`, and `"hypercolumn/2x2"` of the layers whose names end in
            /2x2, as long as that has at most 9000 columns. Layers are standardised by their training images.
        train_labels, test_labels: integers from 0, (n,) and (m,), tensor or array.
        solver: `sgd`, all heads at once in batches; or `lbfgs`, the optimum of one weight decay after another on all images at
            once, which no learning rate, number of epochs or batch size changes. They agree within half a point.
        learning_rates: peak rates in units of the curvature (`_Trainer.fit`), so that one grid fits any features.
        weight_decays: λ of mean cross-entropy + λ/2·‖W‖², W in standardised features, bias free (1/(C·n)).
        epochs: None: 10, and more for small sets, up to 600 steps.
        holdout: share of the training images to choose on, in (0, 1).
        classes: number of classes; None: the largest label + 1.
        device: where to compute; None: where the features are.

    Raises:
        ArgumentError: lengths, widths, layers or classes do not fit each other; only one class; a test class that
            training lacks; too few images of a class to hold one out; a number out of range.
        UnknownNameError: `solver` is none of `SOLVERS`.
        NotFiniteError: features with NaN or infinity, or every head diverged; names the layer.

    Source:
        Many heads at once: DINOv2 (Oquab et al. 2023), which however chooses on the evaluation set. The choice on
        held-out training images and the preconditioning are this project's.

    >>> x = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    >>> y = (x[:, 0] > 0).long()
    >>> linear_probe(x[:150], y[:150], x[150:], y[150:]).top1 > 0.9
    True
    """
    if solver not in SOLVERS:
        raise UnknownNameError("solver", solver, SOLVERS)
    _check_settings(learning_rates, weight_decays, epochs, batch_size)
    splits = checked_splits(train_features, train_labels, test_features, test_labels, classes)
    held, device = held_out(splits.labels, holdout, seed), splits.device(device)
    rates = learning_rates if solver == "sgd" else (1.0,)
    grid = [(rate, decay) for rate in rates for decay in weight_decays]
    trainer = _Trainer(
        splits.labels.to(device), held.to(device), splits.classes, grid, epochs, batch_size, seed, solver
    )
    probed = {layer: _probe_layer(layer, parts, splits.test[layer], trainer) for layer, parts in splits.train.items()}
    return summarise(probed, splits, seed, _softmax)


def linear_classifier(
    features: Float[Tensor, "n d"],
    labels: Int64[Tensor, " n"],
    classes: int,
    *,
    holdout: float = 0.1,
    seed: int = 0,
) -> tuple[Float32[Tensor, "c d"], Float32[Tensor, " c"]]:
    """Weight and bias of the classifier that :func:`linear_probe` finds, for features as they are, on their device.

    Raises:
        ArgumentError: too few images of a class to hold one out.
        NotFiniteError: features with NaN or infinity.
    """
    x, labels = checked_features(features, "features", "features"), labels.cpu()
    held, device = held_out(labels, holdout, seed), x.device
    grid = [(rate, decay) for rate in LEARNING_RATES for decay in WEIGHT_DECAYS]
    trainer = _Trainer(labels.to(device), held.to(device), classes, grid, None, 512, seed)
    axes, winner, _, _ = _winner("features", (x,), trainer)
    # (x − mean)·rotation·W + b, written as x·weightᵀ + bias
    weight = axes.rotation.to(device) @ winner.weight  # (d, c)
    return weight.T.contiguous(), winner.bias - axes.mean.to(device) @ weight


def _probe_layer(layer: str, train: tuple[Tensor, ...], test: tuple[Tensor, ...], trainer: _Trainer) -> Probed:
    """Chooses on the held-out images, trains the winner on all, reads the test images."""
    axes, winner, validation, setting = _winner(layer, train, trainer)
    logits = winner.logits(axes.project(test, trainer.labels.device)).squeeze(1).cpu()
    if not bool(torch.isfinite(logits).all()):
        raise NotFiniteError(f"learning_rates: layer {layer!r} diverged at {setting[0]}; use smaller ones.")
    chosen: dict[str, float | int] = {"learning_rate": setting[0]} if trainer.solver == "sgd" else {}
    return Probed(validation, chosen | {"weight_decay": setting[1]}, logits)


def _winner(
    layer: str, train: tuple[Tensor, ...], trainer: _Trainer
) -> tuple[PrincipalAxes, _Heads, tuple[float, float], tuple[float, float]]:
    """The head whose settings were best on the held-out images, trained on all: its axes, itself, how good it was, its settings."""
    axes, device = PrincipalAxes.fit(train), trainer.labels.device
    z, variances = axes.project(train, device), axes.variances.to(device)  # (n, d), (d,)
    heads = trainer.fit(z, variances, torch.nonzero(~trainer.held_out).flatten(), trainer.grid)
    top1, nats = trainer.validate(heads, z)
    sound = [((a, -b), setting) for a, b, setting in zip(top1, nats, trainer.grid, strict=True) if math.isfinite(b)]
    if not sound:
        raise NotFiniteError(f"learning_rates: every head diverged on layer {layer!r}; use smaller ones, up to 1.")
    validation, setting = max(sound)
    return axes, trainer.fit(z, variances, torch.arange(len(z), device=device), [setting]), validation, setting


@dataclass(frozen=True)
class _Heads:
    """Linear heads side by side: weight (d, h * c), bias (h * c,)."""

    weight: Tensor
    bias: Tensor
    count: int  # h

    def logits(self, z: Float32[Tensor, "b d"]) -> Float32[Tensor, "b h c"]:
        return torch.addmm(self.bias, z, self.weight).unflatten(1, (self.count, -1))


@dataclass(frozen=True)
class _Trainer:
    """The part of training that all layers share."""

    labels: Tensor  # int64 (n,) on the device
    held_out: Tensor  # bool (n,)
    classes: int
    grid: list[tuple[float, float]]  # (learning rate, weight decay) of each head
    epochs: int | None
    batch_size: int
    seed: int
    solver: str = "sgd"

    def fit(self, z: Tensor, variances: Tensor, rows: Tensor, grid: Sequence[tuple[float, float]]) -> _Heads:
        """Trains one head per (learning rate, weight decay) on these rows of z (n, d)."""
        if self.solver == "sgd":
            return self._descend(z, variances, rows, grid)
        heads = [self._minimise(z, variances, rows, decay) for _, decay in grid]
        return _Heads(torch.cat([h.weight for h in heads], 1), torch.cat([h.bias for h in heads]), len(heads))

    def _minimise(self, z: Tensor, variances: Tensor, rows: Tensor, decay: float) -> _Heads:
        """The optimum of one weight decay, by L-BFGS on all rows at once.

        W = diag(s)·V is sought through V, with s² one over the curvature that :meth:`_descend` divides by: the optimum is
        the same, and what L-BFGS has to learn of the curvature is little.
        """
        x, y = z[rows], self.labels[rows]
        scale = (variances[:, None].clamp_min(1e-4) + decay).rsqrt()  # (d, 1)
        whitened = torch.zeros(z.shape[1], self.classes, device=z.device, requires_grad=True)
        bias = torch.zeros(self.classes, device=z.device, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [whitened, bias],
            max_iter=_ITERATIONS,
            tolerance_grad=1e-5,
            tolerance_change=1e-8,
            history_size=20,
            line_search_fn="strong_wolfe",
        )

        def loss() -> Tensor:
            optimizer.zero_grad()
            weight = scale * whitened
            value = functional.cross_entropy(torch.addmm(bias, x, weight), y) + decay / 2 * weight.square().sum()
            value.backward()
            return value

        optimizer.step(loss)  # pyright: ignore[reportArgumentType]  # typed for losses that are plain numbers
        return _Heads((scale * whitened).detach(), bias.detach(), 1)

    def _descend(self, z: Tensor, variances: Tensor, rows: Tensor, grid: Sequence[tuple[float, float]]) -> _Heads:
        """One head per (learning rate, weight decay), all in one matrix product.

        Nesterov SGD with cosine decay, each step divided by the curvature. The columns of z are uncorrelated, so on a
        column of variance v the curvature of the cross-entropy is at most v/2 + λ; and since the channels of pooled
        features are strongly correlated, the variances span six orders of magnitude. Plain SGD stops long before the
        small ones are learnt: after 15 epochs of CIFAR-10 it reads the features of a random ResNet, the control, 2
        points worse than L-BFGS does. Divided by v + λ, all columns learn equally fast; the optimum is untouched,
        penalty included, since z is a rotation of the standardised features, which keeps norms.
        """
        device, c = z.device, self.classes
        rates, decays = torch.tensor(grid, device=device, dtype=torch.float32).repeat_interleave(c, dim=0).unbind(1)
        # Below 1e-4 of the mean variance (which is 1) a faster step would only amplify the noise of the batches.
        steps = rates / (variances[:, None].clamp_min(1e-4) + decays)  # (d, h * c)
        weight, bias = torch.zeros_like(steps), torch.zeros_like(rates)
        velocity, bias_velocity = torch.zeros_like(steps), torch.zeros_like(rates)
        heads, one_hot = _Heads(weight, bias, len(grid)), torch.eye(c, device=device)
        for factor, ids in self._batches(rows):
            x = z[ids]  # (b, d)
            # d(cross-entropy)/d(logits) = softmax - one-hot; each head has a loss of its own, so no mean over heads.
            error = _softmax(heads.logits(x)).sub_(one_hot[self.labels[ids]][:, None]).flatten(1)  # (b, h * c)
            gradient, bias_gradient = torch.addmm(weight * decays, x.T, error, alpha=1 / len(x)), error.mean(0)
            velocity.mul_(_MOMENTUM).add_(gradient)
            bias_velocity.mul_(_MOMENTUM).add_(bias_gradient)
            weight.addcmul_(gradient.add_(velocity, alpha=_MOMENTUM), steps, value=-factor)
            bias.addcmul_(bias_gradient.add_(bias_velocity, alpha=_MOMENTUM), rates, value=-factor)
        return heads

    def _batches(self, rows: Tensor) -> Iterator[tuple[float, Tensor]]:
        """(factor of the learning rate, ids) of each step; what full batches leave over differs from epoch to epoch."""
        size = min(self.batch_size, len(rows))
        per_epoch = len(rows) // size
        epochs = self.epochs or max(_EPOCHS, math.ceil(_STEPS / per_epoch))
        for epoch in range(epochs):
            order = rows[hash_permutation(self.seed, epoch, len(rows), rows.device)]
            for i in range(per_epoch):
                factor = 0.5 * (1 + math.cos(math.pi * (epoch * per_epoch + i) / (epochs * per_epoch)))
                yield factor, order[i * size : (i + 1) * size]

    def validate(self, heads: _Heads, z: Tensor) -> tuple[list[float], list[float]]:
        """top1 and mean cross-entropy in nats of each head on the held-out rows of z."""
        right, nats = torch.zeros(2, heads.count, device=z.device)
        rows = torch.nonzero(self.held_out).flatten()
        for ids in rows.split(_CHUNK):
            logits, y = heads.logits(z[ids]), self.labels[ids]  # (b, h, c), (b,)
            right += (logits.argmax(-1) == y[:, None]).sum(0)
            own = logits.gather(2, y[:, None, None].expand(-1, heads.count, 1)).squeeze(2)  # (b, h)
            nats += (torch.logsumexp(logits, dim=-1) - own).sum(0)
        return [x / len(rows) for x in right.tolist()], [x / len(rows) for x in nats.tolist()]


def _softmax(logits: Float32[Tensor, "*b c"]) -> Float32[Tensor, "*b c"]:
    """Over the classes; on a processor five times as fast as torch.softmax for ten of them."""
    # Odds below e⁻⁸⁰ would soon be denormal numbers, with which processors are ten times slower.
    odds = (logits - logits.amax(-1, keepdim=True)).clamp_min_(-80).exp_()
    return odds.div_(odds.sum(-1, keepdim=True))


def _check_settings(rates: Sequence[float], decays: Sequence[float], epochs: int | None, batch_size: int) -> None:
    """Raises ArgumentError for numbers out of range."""
    for name, got, sound, need in (
        ("learning_rates", rates, rates and all(0 < rate < math.inf for rate in rates), "one or more numbers above 0"),
        ("weight_decays", decays, decays and all(0 <= x < math.inf for x in decays), "one or more numbers, 0 or above"),
        ("epochs", epochs, epochs is None or epochs > 0, "1 or more"),
        ("batch_size", batch_size, batch_size > 0, "1 or more"),
    ):
        if not sound:
            raise ArgumentError(f"{name}: got {got}; use {need}.")
