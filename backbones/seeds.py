"""Which encoders did published colourization systems have? Their layer lists as data, and one class that builds any of them.

The Toronto nets are the programming assignment of the University of Toronto's courses CSC321, CSC421 and CSC413 (2018 to 2024),
the Wallner nets are his tutorial's three versions ("alpha", "beta", "full"; the last one's encoder is Baldassarre et al. 2017,
"Deep koalarization", table 1), and cs520 is a course's convolutional autoencoder. Each list is cut where the published network
stops looking at the picture and starts to paint; the rest are the decoders of `pretint.pretext`.

Choices of this project, where a source is silent or does not fit:

* cs520: 32, 64 and 128 channels, each convolution with ReLU and 2 × 2 max-pooling; the source names only 5 × 5 and pooling.
* Wallner: a stage is what lies between two halvings, and beta ends with its 256 channels, as full does. Zeros pad all sides; the
  original pads a strided convolution only at the right and at the bottom.
* Odd sides are rounded up, also by pooling; the originals take even sides only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from ..runtime.errors import UnknownNameError
from .contract import PyramidEncoder, strides_and_dilations


class Layer(NamedTuple):
    """A convolution: its channels are a multiple of the net's width; it may halve the picture's sides."""

    times: int
    halves: bool = False


_conv, _half = Layer, partial(Layer, halves=True)


@dataclass(frozen=True)
class SeedPlan:
    """An encoder's layer list.

    Attributes:
        about: what it is, in a few words.
        width: channels of the first convolution, as published.
        stages: the convolutions of each stage.
        pool: sides are halved by max-pooling behind the convolution, else by its stride.
        norm: batch normalisation in front of the ReLU.
        kernel: side of each convolution's kernel.
        weights: what :func:`draw_weights` is told.
    """

    about: str
    width: int
    stages: tuple[tuple[Layer, ...], ...]
    pool: bool = False
    norm: bool = False
    kernel: int = 3
    weights: str = "glorot"

    @property
    def halvings(self) -> int:
        """How often the picture's sides are halved."""
        return sum(layer.halves for layers in self.stages for layer in layers)


_TORONTO = ((_half(1),), (_half(2),), (_conv(2),))
SEED_ENCODERS: dict[str, SeedPlan] = {
    "pretint_toronto_cnn": SeedPlan(
        "encoder of the Toronto course's net with pooling", 32, _TORONTO, pool=True, norm=True, weights="uniform"
    ),
    "pretint_toronto_strided": SeedPlan(
        "encoder of the Toronto course's nets with strides", 32, _TORONTO, norm=True, weights="uniform"
    ),
    "pretint_wallner_alpha": SeedPlan(
        "encoder of Wallner's smallest net", 8, ((_half(1), _conv(1), _conv(2)), (_half(2), _conv(4)), (_half(4),))
    ),
    "pretint_wallner_beta": SeedPlan(
        "encoder of Wallner's net without fusion",
        64,
        ((_conv(1),), (_half(1), _conv(2)), (_half(2), _conv(4)), (_half(4), _conv(8), _conv(4))),
    ),
    "pretint_wallner_full": SeedPlan(
        "encoder of Wallner's net with fusion",
        64,
        ((_half(1), _conv(2)), (_half(2), _conv(4)), (_half(4), _conv(8), _conv(8), _conv(4))),
    ),
    "pretint_cs520": SeedPlan(
        "encoder of the CS520 autoencoder", 32, ((_half(1),), (_half(2),), (_half(4),)), pool=True, kernel=5
    ),
}


def draw_weights(module: nn.Module, distribution: str) -> None:
    """Fresh weights for the convolutions, transposed convolutions and dense layers in a module.

    Args:
        module: where they are.
        distribution: `uniform`: weights and biases from U(±1/√n), n = C_in·k² (the Toronto course's; torch's own default, but for
            transposed convolutions, where torch has n = C_out·k²); `glorot`: Glorot and Bengio 2010, eq. 16, biases zero (Keras's
            default, in which the Wallner nets were written).
    """
    for layer in module.modules():
        if not isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            continue
        biases = [] if layer.bias is None else [layer.bias]
        if distribution == "glorot":
            nn.init.xavier_uniform_(layer.weight)
            for bias in biases:
                nn.init.zeros_(bias)
        else:
            inputs = layer.weight.shape[0 if isinstance(layer, nn.ConvTranspose2d) else 1]
            bound = (inputs * layer.weight[0, 0].numel()) ** -0.5
            for weight in (layer.weight, *biases):
                nn.init.uniform_(weight, -bound, bound)


class SeedStage(nn.Module):
    """Convolutions, each with what follows it: (n, in, h, w) -> (n, out, ⌈h/stride⌉, ⌈w/stride⌉)."""

    def __init__(self, convs: Sequence[nn.Module]):
        super().__init__()
        self.convs = nn.Sequential(*convs)

    def forward(self, x: Tensor) -> Tensor:
        return self.convs(x)


def _conv_pool_norm_act(plan: SeedPlan, in_chans: int, out_chans: int, stride: int, dilation: int) -> nn.Sequential:
    """Convolution with bias, then pooling, normalisation (as far as the plan has them) and ReLU."""
    strided, padding = 1 if plan.pool else stride, dilation * (plan.kernel // 2)
    layers: list[nn.Module] = [nn.Conv2d(in_chans, out_chans, plan.kernel, strided, padding, dilation)]
    if plan.pool:
        # ceil_mode keeps a row of an odd side; Identity keeps the names of what follows where a halving is dilated instead
        layers.append(nn.MaxPool2d(2, ceil_mode=True) if stride == 2 else nn.Identity())
    if plan.norm:
        layers.append(nn.BatchNorm2d(out_chans))
    return nn.Sequential(*layers, nn.ReLU(inplace=True))


class SeedEncoder(PyramidEncoder):
    """The encoder of a published colourization system.

    Args:
        seed: its name in `SEED_ENCODERS`.
        width: channels of the first convolution, which the others are multiples of; as published by default.
        num_classes, in_chans, global_pool, drop_rate, output_stride: as in :class:`PyramidEncoder`.

    Raises:
        UnknownNameError: no such seed.
        ArgumentError: `output_stride` is not a power of two.

    >>> SeedEncoder("pretint_toronto_cnn").feature_info[-1]
    {'num_chs': 64, 'reduction': 4, 'module': 'stages.2'}
    """

    def __init__(
        self,
        seed: str,
        width: int | None = None,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        output_stride: int | None = None,
    ):
        if seed not in SEED_ENCODERS:
            raise UnknownNameError("seed", seed, SEED_ENCODERS)
        plan = SEED_ENCODERS[seed]
        # entry i of each list: what holds after i halvings
        strides, dilations, reductions = strides_and_dilations(plan.halvings + 1, output_stride)
        width = plan.width if width is None else width
        stages, channels, reached = [], [], []
        current, halved = in_chans, 0
        for layers in plan.stages:
            convs = []
            for layer in layers:
                out = layer.times * width
                stride = strides[halved + 1] if layer.halves else 1
                # a convolution that halves still lies on the grid in front of it
                convs.append(_conv_pool_norm_act(plan, current, out, stride, dilations[halved]))
                current, halved = out, halved + layer.halves
            stages.append(SeedStage(convs))
            channels.append(current)
            reached.append(reductions[halved])
        for stage in stages:
            draw_weights(stage, plan.weights)
        super().__init__(stages, channels, reached, num_classes, in_chans, global_pool, drop_rate, initialise=False)
