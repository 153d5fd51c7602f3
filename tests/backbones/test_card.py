"""A model card: front matter that a YAML reader accepts, values that stay text whatever they hold, code that runs."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from markdown_it import MarkdownIt

from pretint.backbones import Preprocess, create_backbone, load_backbone, model_card, save_backbone
from pretint.runtime.errors import RunFolderError

yaml = pytest.importorskip("yaml")
MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
NASTY = [
    "a | b", "|||", "<script>alert(1)</script>", "<!-- x", "[x](javascript:alert(1))", "![x](http://x/y.png)", "`a` ``b`",
    "*a* _b_ ~~c~~ **d**", "# no heading", "\\", "\\|", "a\\", "&lt;b&gt;", "&#42;a&#42;", "<http://x>", "$x$", "ü ± 3 %",
    "{{ x }}",
]  # fmt: skip
ON_SEVERAL_LINES = [
    "---\nlicense: mit\n---", "a\nb", "a\r\n\r\n# b", "tab\there", "\x1b[31mred", "\u202eevil", "a\u2028b", "```\ncode",
]  # fmt: skip


def saved(
    tmp_path: Path, card: dict[str, Any] | None = None, name: str = "pretint_unet", **options: Any
) -> dict[str, Any]:
    """The config.json of a small saved encoder."""
    save_backbone(create_backbone(name, **options), tmp_path / "encoder", card)
    return json.loads((tmp_path / "encoder" / "config.json").read_text())


def parts(card: str) -> tuple[Any, str]:
    """The front matter as YAML reads it, and the Markdown behind it."""
    empty, front, body = card.split("---\n", 2)
    assert empty == ""
    return yaml.safe_load(front), body


def rows(body: str) -> dict[str, str]:
    """The rows of all tables, as a reader sees them in a browser."""
    page = MARKDOWN.render(body)
    cells = [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)]
    assert all(len(row) in (0, 2) for row in cells)
    return {html.unescape(row[0]): html.unescape(row[1]) for row in cells if row}


def test_saving_writes_the_card_beside_the_weights(tmp_path: Path):
    config = saved(tmp_path, {"task": "palette"}, width=2)
    assert (tmp_path / "encoder" / "README.md").read_text(encoding="utf-8") == model_card(config)


def test_the_front_matter_says_what_a_hub_asks(tmp_path: Path):
    front, body = parts(model_card(saved(tmp_path, {"task": "palette"}, width=2)))
    assert front["library_name"] == "timm"
    assert {"self-supervised-learning", "colourization", "feature-extraction"} <= set(front["tags"])
    assert "learned to colourize without labels" in body


@pytest.mark.parametrize("task", ["supervised", "random", "rotation", "palette+supervised"])
def test_what_did_not_learn_to_colourize_is_not_said_to(tmp_path: Path, task: str):
    front, body = parts(model_card(saved(tmp_path, {"task": task}, width=2)))
    assert set(front["tags"]) == {"pretint", "timm", "feature-extraction"}
    assert "colourize" not in body
    assert f"task {task}" in body


def test_an_encoder_that_labels_helped_is_not_called_self_supervised(tmp_path: Path):
    leaks = "labels of timm/resnet18.a1_in1k"
    front, body = parts(model_card(saved(tmp_path, {"task": "palette", "data": "cifar10", "leaks": leaks}, width=2)))
    assert set(front["tags"]) == {"pretint", "timm", "feature-extraction"}
    assert "without labels" not in body
    assert "a classifier that leaks labels into it" in body
    assert rows(body)["leaks"] == leaks


def test_the_card_tells_what_the_encoder_is_and_what_it_was_trained_on(tmp_path: Path):
    card = {
        "task": "palette", "data": "cifar10", "images": 50000, "epochs": 30, "palette_space": "cbcr", "nothing": None,
        "linear_probe": {"cifar10": {"top1": 0.6512, "layer": "stage2"}},
    }  # fmt: skip
    config = saved(tmp_path, card, width=2, preprocess=Preprocess(1, "rec709", 0.45, 0.2))
    found = rows(parts(model_card(config))[1])
    assert found["architecture"] == "pretint_unet"
    assert found["made of"] == "pretint_unet (width 2)"
    assert found["features"] == "16"
    assert found["input"] == "1 channel: grey by rec709 (0.2126 R + 0.7152 G + 0.0722 B)"
    assert found["normalisation"] == "(x − mean) / std, mean 0.45, std 0.2"
    assert found["image size"] == "32 × 32 in training; others from 8 × 8 work too"
    assert found["weights, SHA-256"] == config["pretint"]["weights_sha256"]
    assert (found["task"], found["data"], found["images"], found["epochs"]) == ("palette", "cifar10", "50000", "30")
    assert found["palette space"] == "cbcr"
    assert found["linear probe · cifar10 · top1"] == "0.6512"
    assert found["linear probe · cifar10 · layer"] == "stage2"
    assert "nothing" not in found


def test_other_inputs_are_named_too(tmp_path: Path):
    for options, words in (
        ({"in_chans": 3}, "3 channels: RGB in 0…1"),
        ({"in_chans": 2}, "2 channels: Cb and Cr in −0.5…0.5"),
        ({"preprocess": Preprocess(1, "lstar")}, "1 channel: grey by lstar (CIE L* / 100)"),
    ):
        assert rows(parts(model_card(saved(tmp_path, None, "pretint_cnn", width=2, **options)))[1])["input"] == words


@pytest.mark.parametrize("words", NASTY)
def test_whatever_a_card_holds_is_shown_as_it_is(tmp_path: Path, words: str):
    config = saved(
        tmp_path, {"task": words, words: "key", "measured": {words: {"top1": words}}}, "pretint_cnn", width=2, depth=2
    )
    _, body = parts(model_card(config))
    found = rows(body)
    assert found["task"] == words
    name = " ".join(words.replace("_", " ").split())
    assert found[name] == "key"
    assert found[f"measured · {name} · top1"] == words
    page = MARKDOWN.render(body)
    assert not re.findall(r"<(?:script|a|img|em|strong|s|del|!--)[ >]", page)
    assert page.count("<h1>") == 1


@pytest.mark.parametrize("words", ON_SEVERAL_LINES)
def test_what_would_begin_a_new_line_or_can_not_be_printed_becomes_a_space(tmp_path: Path, words: str):
    config = saved(tmp_path, {"task": words, "data": words, "note": words}, "pretint_cnn", width=2, depth=2)
    card = model_card(config)
    plain = model_card(config | {"pretint": config["pretint"] | {"card": {"task": "t", "data": "d", "note": "n"}}})
    assert len(card.splitlines()) == len(plain.splitlines())
    assert parts(card)[0] == parts(plain)[0]
    printable = " ".join("".join(c if c.isprintable() else " " for c in words).split())
    assert rows(parts(card)[1])["note"] == printable


@pytest.mark.parametrize("card", [{1: "a", None: 2}, {"a": []}, {"a": [[]]}, {"a": {}}, {"a": [1, {"b": 2}]}, {"": ""}])
def test_odd_cards_make_a_card_too(tmp_path: Path, card: dict[Any, Any]):
    config = saved(tmp_path, None, "pretint_cnn", width=2, depth=2)
    config["pretint"]["card"] = card
    assert "## How to load it" in model_card(config)


def code(card: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", card, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(
    ("name", "options", "imported"),
    [
        ("pretint_unet", {"width": 2}, True),
        ("pair/pretint_cnn", {"width": 2, "depth": 2}, True),
        ("timm/resnet18", {}, True),
        ("timm/regnety_002", {"stem": "stock", "image_size": 64}, False),
    ],
)
def test_the_code_in_the_card_runs(tmp_path: Path, monkeypatch, name: str, options: dict[str, Any], imported: bool):
    saved(tmp_path, None, name, **options)
    monkeypatch.chdir(tmp_path)
    card = (tmp_path / "encoder" / "README.md").read_text(encoding="utf-8")
    ours, timms = code(card)
    assert ("import pretint" in timms) is imported
    for block in (ours, timms):
        names: dict[str, Any] = {}
        exec(block.replace("FOLDER", "encoder"), names)
        given = names["pooled"] if "pooled" in names else names["features"]
        assert given.shape == (8, load_backbone("encoder").num_features)
        assert isinstance(given, torch.Tensor)


JUNK = [None, [], {}, "x", {"pretint": None}, {"pretint": {}}, {"pretint": {"card": {}}}]


@pytest.mark.parametrize("config", JUNK)
def test_what_is_no_config_is_refused(config: Any):
    with pytest.raises(RunFolderError, match="no encoder of Pretint"):
        model_card(config)


@pytest.mark.parametrize("key", ["mean", "std", "in_chans", "grey"])
@pytest.mark.parametrize("junk", [None, [], "x", [float("nan")], {}])
def test_junk_in_the_preprocessing_is_refused_or_shown(tmp_path: Path, key: str, junk: Any):
    config = saved(tmp_path, None, "pretint_cnn", width=2, depth=2)
    config["pretint"]["preprocess"][key] = junk
    try:
        card = model_card(config)
    except RunFolderError:
        return
    assert key == "grey"
    assert parts(card)[0]["library_name"] == "timm"
