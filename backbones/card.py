"""What should people know of an encoder before they use it? A model card in Markdown, made from the folder's `config.json`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from ..colour import LUMA_WEIGHTS
from ..runtime.encoderfacts import EncoderFacts
from .contract import SMALLEST_SIZE

# Nothing in the front matter comes from a user, so no value can end it early or add a key.
_FRONT_MATTER = """\
---
library_name: timm
tags:
- pretint
- timm
- feature-extraction
{tags}---
"""
_COLOURIZES = {"palette", "bins", "rgb-regression", "lab-regression", "split-brain"}
_LONGEST_LIST = 200


def model_card(config: dict[str, Any]) -> str:
    """A model card with YAML front matter, in the form that model hubs show.

    Args:
        config: what :func:`save_backbone` writes as `config.json`.

    Returns:
        Markdown. Whatever a user wrote into `card` stands in it as plain text.

    Raises:
        RunFolderError: it is no such dictionary.
    """
    facts = EncoderFacts.from_config(config)
    told = {key: value for key, value in facts.card.items() if value is not None}
    measured = {key: value for key, value in told.items() if isinstance(value, (dict, list))}
    training = {key: value for key, value in told.items() if key not in measured}
    tags = "- self-supervised-learning\n- colourization\n" if _colourized(facts) else ""
    parts = [
        _FRONT_MATTER.format(tags=tags),
        f"# {_text(facts.architecture)}, an image encoder",
        _opening(facts),
        "## Encoder",
        _table(_encoder_rows(facts)),
    ]
    if training:
        parts += ["## Training", _table((key.replace("_", " "), _value(value)) for key, value in training.items())]
    if measured:
        parts += ["## Measured", "Accuracies are fractions of 1.", _table(_leaves(measured))]
    parts += ["## How to load it", _with_pretint(facts), _with_timm(facts)]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _opening(facts: EncoderFacts) -> str:
    card = facts.card
    if not card.get("task"):
        return "It was saved with Pretint, which pretrains encoders by colourization. Its maker did not say how it was trained."
    seen = f" on {_text(_value(card['data']))}" if card.get("data") else ""
    epochs = f" for {_text(_value(card['epochs']))} epochs" if card.get("epochs") else ""
    task = _text(_value(card["task"]))
    if card.get("leaks"):
        helped = _text(_value(card["leaks"]))
        return (
            f"It was trained with Pretint, task {task}{seen}{epochs}, with the help of a classifier that leaks labels into it "
            f"({helped}); the decoder was dropped."
        )
    if _colourized(facts):
        return f"It learned to colourize without labels (Pretint, task {task}){seen}{epochs}; the decoder was dropped."
    return f"It was trained with Pretint, task {task}{seen}{epochs}."


def _colourized(facts: EncoderFacts) -> bool:
    """Whether all that it learnt was to colourize, without labels."""
    return not facts.card.get("leaks") and set(str(facts.card.get("task")).split("+")) <= _COLOURIZES


def _encoder_rows(facts: EncoderFacts) -> Iterator[tuple[str, str]]:
    options = ", ".join(f"{key} {value}" for key, value in facts.options.items())
    yield "architecture", facts.architecture
    yield "made of", f"{facts.backbone} ({options})" if options else facts.backbone
    yield "stem", facts.stem
    yield "features", str(facts.num_features)
    yield "input", f"{facts.in_chans} channel{'s' if facts.in_chans > 1 else ''}: {_channels(facts)}"
    yield "normalisation", f"(x − mean) / std, mean {_numbers(facts.mean)}, std {_numbers(facts.std)}"
    side = facts.image_size
    ours = facts.stem == "native" and facts.architecture.startswith("pretint_")
    smallest = f"; others from {SMALLEST_SIZE} × {SMALLEST_SIZE} work too" if ours else ""
    yield "image size", f"{side} × {side}" + (" only" if facts.fixed_size else f" in training{smallest}")
    yield "weights, SHA-256", facts.checksum
    yield "saved by", f"Pretint {facts.version}"


def _channels(facts: EncoderFacts) -> str:
    """What the input's channels are, of RGB in 0…1."""
    weights = LUMA_WEIGHTS.get(facts.grey)
    formula = " + ".join(f"{w:.4g} {c}" for w, c in zip(weights, "RGB", strict=True)) if weights else "CIE L* / 100"
    grey = f"grey by {facts.grey} ({formula})"
    if facts.chroma is None:
        return grey if facts.in_chans == 1 else "RGB in 0…1"
    chroma = {"cbcr": "Cb and Cr in −0.5…0.5", "ab": "a* and b* of CIE Lab, divided by 128"}.get(
        facts.chroma, facts.chroma
    )
    return chroma if facts.in_chans == 2 else f"{grey}, then {chroma}"


def _with_pretint(facts: EncoderFacts) -> str:
    side = facts.image_size
    return f"""\
With Pretint, from a folder that holds this card, `config.json` and `model.safetensors`; weights and features are verified:

```python
import torch
from pretint.backbones import features, load_backbone

encoder = load_backbone("FOLDER")
images = torch.rand(8, 3, {side}, {side})  # RGB in 0…1, or uint8
pooled = features(encoder, images)  # the deepest feature map's average, one row an image
```"""


def _with_timm(facts: EncoderFacts) -> str:
    stock, ours = facts.stem == "stock", facts.architecture.startswith("pretint_")
    imported = "import pretint.backbones  # registers the architecture with timm\n" if ours else ""
    if stock:
        needs = "With timm alone; nothing of Pretint is needed:"
    elif ours:
        needs = "With timm, once `pretint.backbones` is imported:"
    else:
        needs = f"With timm, once the module that registers {_text(facts.architecture)} is imported:"
    side = facts.image_size
    return f"""\
{needs}

```python
import timm
import torch
{imported}
model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()
x = torch.zeros(8, {facts.in_chans}, {side}, {side})  # pictures made input as the table says
features = model(x)  # (8, {facts.num_features})
```

timm does not make that input from RGB pictures. Without `pretrained=True` it gives random weights and no warning. From a hub the
name is `hf-hub:USER/NAME`."""


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Nested figures as rows, each named by the way to it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, str(key).replace("_", " ")))
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        for number, inner in enumerate(value, start=1):
            yield from _leaves(inner, (*path, str(number)))
    elif value is not None:
        yield " · ".join(path), _value(value)


def _value(value: Any) -> str:
    if isinstance(value, (dict, list)):
        text = json.dumps(value, ensure_ascii=False)
        return text if len(text) <= _LONGEST_LIST else f"{text[:_LONGEST_LIST]} …"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _numbers(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _table(rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {_text(name)} | {_text(value)} |" for name, value in rows)])


def _text(words: str) -> str:
    """Words as Markdown that shows them as they are, on one line: no markup, link, picture, HTML or table cell begins in them."""
    line = " ".join("".join(c if c.isprintable() else " " for c in words).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]#|~$!])", r"\\\1", line)
