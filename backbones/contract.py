"""What is an encoder? timm's contract, for encoders that are a chain of stages, each at its own resolution.

Annotations are plain `Tensor`, and no strings, on purpose: TorchScript and torch.fx read them. Shapes stand in docstrings and
comments.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from timm.layers import ClassifierHead, get_device_dtype
from timm.models import checkpoint_seq
from torch import Tensor, nn

from ..runtime.errors import ArgumentError

SMALLEST_SIZE = 8


class PyramidEncoder(nn.Module):
    """An encoder of stages; stage i gives feature level i.

    Args:
        stages: modules (n, c_i, h_i, w_i) -> (n, c_i+1, h_i+1, w_i+1); the first takes the image (n, in_chans, h, w).
        channels: output channels of each stage.
        reductions: input side over output side of each stage; odd sides are rounded up.
        num_classes: outputs of the classifier, 0 for none.
        in_chans: channels of the image.
        global_pool: timm's name of the pooling before the classifier (`avg`, `max`, `avgmax`, `catavgmax`, `` for none).
        drop_rate: dropout before the classifier.
        initialise: draw fresh weights; else the stages keep theirs.

    Our encoders make the stages themselves and take one more: `output_stride`, the deepest stage's reduction; later stages dilate.
    """

    def __init__(
        self,
        stages: Sequence[nn.Module],
        channels: Sequence[int],
        reductions: Sequence[int],
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        initialise: bool = True,
    ):
        super().__init__()
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        self.num_features = channels[-1]
        self.feature_info = [
            {"num_chs": c, "reduction": r, "module": f"stages.{i}"}
            for i, (c, r) in enumerate(zip(channels, reductions, strict=True))
        ]
        self.stages = nn.Sequential(*stages)
        if initialise:  # before the head is made: the same seed gives the same stages, with and without a classifier
            self.stages.apply(_initialise)
        self.head = ClassifierHead(self.num_features, num_classes, pool_type=global_pool, drop_rate=drop_rate)
        self.head_hidden_size = self.head.num_features
        self.grad_checkpointing = False

    @torch.jit.ignore()
    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Regular expressions that sort parameters by depth, for layer-wise learning rates."""
        return {"stem": r"^stages\.0\.", "blocks": r"^stages\.(\d+)" if coarse else r"^stages\.(\d+)\.[a-z_]+\.(\d+)"}

    @torch.jit.ignore()
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trades time for memory: activations of stages are computed again in the backward pass."""
        self.grad_checkpointing = enable

    @torch.jit.ignore()
    def get_classifier(self) -> nn.Module:
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh classifier of `num_classes` outputs (0: none); `global_pool` changes the pooling too."""
        self.num_classes = num_classes
        # a head without classifier has no parameter that says where and in which precision the new one belongs
        where = get_device_dtype(self)
        self.head.reset(
            num_classes, global_pool, in_features=self.num_features, device=where["device"], dtype=where["dtype"]
        )
        self.head_hidden_size = self.head.num_features

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Feature maps (n, c_i, h_i, w_i) of chosen stages, shallow to deep.

        Args:
            x: images (n, in_chans, h, w).
            indices: which stages; an int n for the last n, None for all.
            norm: no effect, stages end normalised.
            stop_early: do not run stages behind the last wanted one.
            output_fmt: only NCHW.
            intermediates_only: leave out the last stage's map in front of the list.
        """
        assert output_fmt == "NCHW", "output_fmt must be NCHW."
        if not torch.jit.is_scripting():
            self._check_input(x)
        take, last = _take_indices(len(self.feature_info), indices)
        intermediates = []
        stages = self.stages[: last + 1] if stop_early else self.stages
        for i, stage in enumerate(stages):
            x = checkpoint_seq([stage], x) if self.grad_checkpointing and not torch.jit.is_scripting() else stage(x)
            if i in take:
                intermediates.append(x)
        return intermediates if intermediates_only else (x, intermediates)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Removes the stages behind the last wanted one, and the head; returns the wanted stages' numbers."""
        take, last = _take_indices(len(self.feature_info), indices)
        pruned = last < len(self.stages) - 1
        self.stages = self.stages[: last + 1]
        if pruned:
            self.num_features = self.feature_info[last]["num_chs"]
        if prune_head or pruned:
            self.reset_classifier(0, "")
        return take

    def forward_features(self, x: Tensor) -> Tensor:
        """(n, in_chans, h, w) -> the deepest stage's map (n, num_features, h', w')."""
        if not torch.jit.is_scripting():
            self._check_input(x)
            if self.grad_checkpointing:
                return checkpoint_seq(self.stages, x)
        return self.stages(x)

    @torch.jit.ignore()
    def _check_input(self, x: Tensor) -> None:
        """Raises ArgumentError where the channels do not fit; says nothing while a graph is recorded."""
        if isinstance(x, torch.fx.Proxy) or torch.jit.is_tracing():
            return
        if x.ndim != 4 or x.shape[1] != self.in_chans:
            other = (
                ", and fold_rgb(encoder) or load_backbone(folder, in_chans=3) makes an encoder that takes RGB itself"
            )
            raise ArgumentError(
                f"input: shape {tuple(x.shape)} is not (n, {self.in_chans}, h, w); encoder.preprocess(rgb) makes it of RGB"
                f"{other if self.in_chans == 1 else ''}."
            )

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(n, num_features, h', w') -> logits (n, num_classes); pooled features with `pre_logits` or without classifier."""
        return self.head(x, pre_logits=True) if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def _take_indices(levels: int, indices: int | list[int] | None) -> tuple[list[int], int]:
    """The wanted levels as numbers from 0, and the deepest of them; None is all, an int n the last n."""
    wanted = range(levels) if indices is None else range(-indices, 0) if isinstance(indices, int) else indices
    take = [levels + i if i < 0 else i for i in wanted]
    fits = bool(take) and all(0 <= i < levels for i in take)
    assert fits, f"indices {indices} do not fit {levels} feature levels."
    return take, max(take)


def _initialise(module: nn.Module) -> None:
    """He et al. 2015, eq. 10 with fan-out, for the ReLU networks that encoders are; normalisations start as the identity."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def conv_norm_act(in_chans: int, out_chans: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """3 × 3 convolution, batch normalisation, ReLU: (n, in, h, w) -> (n, out, ⌈h/stride⌉, ⌈w/stride⌉)."""
    return nn.Sequential(
        nn.Conv2d(in_chans, out_chans, 3, stride, padding=dilation, dilation=dilation, bias=False),
        nn.BatchNorm2d(out_chans),
        nn.ReLU(inplace=True),
    )


def stage_channels(width: int, depth: int) -> list[int]:
    """Channels of each stage: doubled from stage to stage, at most eight times the width."""
    return [width * min(2**i, 8) for i in range(depth)]


def strides_and_dilations(depth: int, output_stride: int | None) -> tuple[list[int], list[int], list[int]]:
    """Stride, dilation and reduction of each stage: halved from stage to stage down to `output_stride`, then dilated instead
    (Yu and Koltun 2016, "Dilated residual networks"), so that each stage sees as far as without it.

    Raises:
        ArgumentError: `output_stride` is not a power of two.

    >>> strides_and_dilations(4, 2)
    ([1, 2, 1, 1], [1, 1, 2, 4], [1, 2, 2, 2])
    """
    deepest = 2 ** (depth - 1)
    largest = deepest if output_stride is None else output_stride
    if largest < 1 or largest & (largest - 1):
        raise ArgumentError(f"output_stride: {largest} is not possible; use a power of two from 1 to {deepest}.")
    halvings = [2**i for i in range(depth)]
    reductions = [min(r, largest) for r in halvings]
    strides = [1] + [b // a for a, b in pairwise(reductions)]
    return strides, [r // done for r, done in zip(halvings, reductions, strict=True)], reductions


def unwrapped(encoder: nn.Module) -> nn.Module:
    """The module inside the wrappers of torch.compile and of data parallelism, whose prefixes must not get into the keys."""
    while True:
        inner = getattr(encoder, "_orig_mod", None)
        if isinstance(encoder, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
            inner = encoder.module
        if not isinstance(inner, nn.Module):
            return encoder
        encoder = inner
