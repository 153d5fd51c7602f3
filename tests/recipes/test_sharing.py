"""What is done with a run's encoder afterwards: described, exported, pushed to a hub."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import onnxruntime
import pytest
import torch
from huggingface_hub.errors import LocalTokenNotFoundError

from pretint.backbones import create_backbone, load_backbone, save_backbone
from pretint.cli import main
from pretint.recipes import ExportConfig, InfoConfig, PushConfig, export, info, push
from pretint.runtime.encoderfacts import count_parameters
from pretint.runtime.errors import ArgumentError, HubError, RunFolderError, UnknownNameError
from pretint.runtime.results import add_results, read_results


@pytest.fixture
def run_copy(small_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_run, tmp_path / "run"))


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """The folder of a very small encoder."""
    encoder = create_backbone("pretint_cnn", width=2, depth=2)
    save_backbone(encoder, tmp_path / "tiny", {"task": "palette", "data": "cifar10", "epochs": 3, "seed": 1}, 48)
    return tmp_path / "tiny"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# info


def test_info_tells_a_runs_encoder_and_what_was_measured(run_copy: Path):
    accuracy = {"data": "scenes", "protocol": "linear", "init": "pretrained", "labels": 0.5, "seed": 0, "top1": 0.625}
    add_results(run_copy, "transfer", [accuracy])
    outcome = info(InfoConfig(folder=run_copy))
    found, encoder = outcome.results, load_backbone(run_copy)
    assert found["architecture"] == "pretint_unet"
    assert found["card"]["task"] == "palette"
    assert found["card"]["epochs"] in (1, 2)
    assert (found["in_chans"], found["grey"], found["image_size"]) == (1, "rec601", 32)
    assert found["parameters"] == sum(p.numel() for p in encoder.parameters())
    assert (
        found["checksum"] == json.loads((run_copy / "encoder" / "config.json").read_text())["pretint"]["weights_sha256"]
    )
    (row,) = found["accuracies"]
    assert (row["protocol"], row["data"], row["top1"]) == ("linear", "scenes", 0.625)
    (colour,) = found["colour"]
    assert colour["bits_per_pixel"] == read_results(run_copy)["colour"][0]["bits_per_pixel"]
    assert (colour["decode"], colour["temperature"], colour["saturation"]) == ("annealed", 0.38, 1.0)
    assert len(outcome.tables) == 3
    json.dumps(found, allow_nan=False)


def test_info_prints_a_table_and_json(tiny: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["info", str(tiny)]) == 0
    printed = capsys.readouterr().out
    for words in ("pretint_cnn", "palette", "cifar10", "rec601", "48 × 48", "native"):
        assert words in printed
    assert main(["info", str(tiny), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["accuracies"] == found["colour"] == []
    assert found["parameters"] == sum(p.numel() for p in load_backbone(tiny).parameters())


def test_info_does_without_torch(tiny: Path):
    code = f"import sys; from pretint.cli import main; main(['info', {str(tiny)!r}]); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_what_a_card_holds_steers_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    card = {"task": "\x1b[31mred", "architecture": "[bold]mine[/bold]", "note": "a\nb", "figures": {"top1": 0.5}}
    save_backbone(create_backbone("pretint_cnn", width=2, depth=2), tmp_path, card)
    assert main(["info", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    for words in ("[31mred", "[bold]mine[/bold]", "pretint_cnn", "a b", '{"top1": 0.5}'):
        assert words in printed


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("timm/resnet18", {}),
        ("timm/regnety_002", {}),
        ("pretint_resunet", {"width": 4}),
        ("timm/vit_tiny_patch16_224", {"depth": 1, "embed_dim": 24, "num_heads": 2}),
    ],
)
def test_parameters_are_counted_from_the_header(tmp_path: Path, name: str, options: dict[str, Any]):
    encoder = create_backbone(name, **options)
    save_backbone(encoder, tmp_path)
    assert count_parameters(tmp_path / "model.safetensors") == sum(p.numel() for p in encoder.parameters())


DAMAGE = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json"),
    "half a config": (lambda folder: (folder / "config.json").write_text('{"pretint": '), "config.json"),
    "another config": (lambda folder: (folder / "config.json").write_text('{"a": 1}'), "no encoder of Pretint"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors"),
    "half the weights": (
        lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:300]),
        "damaged",
    ),
}


@pytest.mark.parametrize("verb", ["info", "export", "push"])
@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_folder_is_one_sentence(tiny: Path, verb: str, case: str, capsys: pytest.CaptureFixture[str]):
    damage, words = DAMAGE[case]
    damage(tiny)
    before = contents(tiny.parent)
    more = {"info": [], "export": ["--format", "safetensors"], "push": ["ada/flowers"]}[verb]
    assert main([verb, str(tiny), *more]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.strip().splitlines()) == 1
    assert words in captured.err
    assert contents(tiny.parent) == before


@pytest.mark.parametrize("verb", ["info", "export", "push"])
def test_a_folder_that_is_none_and_a_run_that_is_not_finished_are_named(tmp_path: Path, verb: str):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps({"format_version": 1, "settings": {}}))
    call = {
        "info": lambda path: info(InfoConfig(folder=path)),
        "export": lambda path: export(ExportConfig(run=path, format="onnx")),
        "push": lambda path: push(PushConfig(folder=path, name="ada/flowers")),
    }[verb]
    for path, words in (("nowhere", "does not exist"), (".", "neither a run folder nor"), ("run", "--resume")):
        with pytest.raises(RunFolderError, match=words):
            call(tmp_path / path)


# export


def test_a_run_is_exported_beside_itself(run_copy: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(run_copy.parent)
    before = contents(run_copy)
    rgb = torch.rand(2, 3, 32, 32)
    encoder = load_backbone(run_copy)
    with torch.no_grad():
        wanted = encoder(encoder.preprocess(rgb))
    outcome = export(ExportConfig(run=Path("run"), format="onnx"))
    assert outcome.results["exported"] == "run.onnx"
    assert outcome.results["smallest_image"] == 8
    assert outcome.results["relative_error"] < 1e-5
    session = onnxruntime.InferenceSession("run.onnx", providers=["CPUExecutionProvider"])
    (features,) = session.run(None, {"images": rgb.numpy()})
    assert torch.allclose(torch.from_numpy(features), wanted, rtol=1e-4, atol=1e-5)
    assert export(ExportConfig(run=Path("run/encoder"), format="safetensors")).results["exported"] == "run.safetensors"
    monkeypatch.chdir(run_copy)
    made = Path(export(ExportConfig(run=Path("."), format="timm")).results["exported"])
    assert made == run_copy.with_name("run-timm")
    for file in ("config.json", "model.safetensors", "README.md"):
        assert (made / file).read_bytes() == (run_copy / "encoder" / file).read_bytes()
    assert contents(run_copy) == before


def test_an_encoder_folder_is_exported_where_it_is_told(tiny: Path, capsys: pytest.CaptureFixture[str]):
    out = tiny.parent / "new" / "features.pt2"
    words = ["export", str(tiny), "--format", "torch-export", "--maps", "--out", str(out)]
    assert main(words) == 0
    assert str(out) in capsys.readouterr().out
    assert list(torch.export.load(out).module()(torch.rand(1, 3, 9, 9))) == ["features", "map_0", "map_1"]
    first = out.read_bytes()
    assert main(words) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert out.read_bytes() == first
    assert main([*words, "--overwrite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["format"] == "torch-export"


def test_an_unknown_format_is_answered_with_the_closest(tiny: Path):
    with pytest.raises(UnknownNameError, match="'safetensors'"):
        export(ExportConfig(run=tiny, format="safetensor"))


# push


class Hub:
    """What `push` asks of the hub's client, written down."""

    calls: list[tuple[str, dict[str, Any]]]
    private = True
    failure: Exception | None = None

    def __init__(self):
        Hub.calls = []

    def create_repo(self, repo_id: str, **options: Any) -> str:
        self.calls.append(("create_repo", {"repo_id": repo_id, **options}))
        if self.failure is not None:
            raise self.failure
        return f"https://hub.example/{repo_id}"

    def repo_info(self, repo_id: str) -> SimpleNamespace:
        return SimpleNamespace(private=self.private)

    def upload_folder(self, **options: Any) -> None:
        self.calls.append(("upload_folder", options))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> type[Hub]:
    fresh = type("FreshHub", (Hub,), {})
    monkeypatch.setattr(huggingface_hub, "HfApi", fresh)
    Hub.calls = []
    return fresh


def test_push_makes_the_repository_and_uploads_the_encoder_only(run_copy: Path, hub: type[Hub]):
    (run_copy / "encoder" / "token.txt").write_text("secret")
    message = "Thirty epochs"
    outcome = push(PushConfig(folder=run_copy, name="ada/flowers", private=True, commit_message=message))
    assert Hub.calls == [
        ("create_repo", {"repo_id": "ada/flowers", "private": True, "exist_ok": True}),
        (
            "upload_folder",
            {
                "repo_id": "ada/flowers",
                "folder_path": run_copy / "encoder",
                "allow_patterns": ["config.json", "model.safetensors", "README.md"],
                "commit_message": message,
            },
        ),
    ]
    assert outcome.results["url"] == "https://hub.example/ada/flowers"


def test_nothing_is_said_about_privacy_unless_it_is_asked_for(
    tiny: Path, hub: type[Hub], capsys: pytest.CaptureFixture[str]
):
    hub.private = False
    assert main(["push", str(tiny), "ada/flowers"]) == 0
    assert Hub.calls[0][1]["private"] is None
    assert "hub.example/ada/flowers" in capsys.readouterr().out


def test_a_repository_that_is_public_already_gets_nothing_private(tiny: Path, hub: type[Hub]):
    hub.private = False
    with pytest.raises(HubError, match="is public"):
        push(PushConfig(folder=tiny, name="ada/flowers", private=True))
    assert [name for name, _ in Hub.calls] == ["create_repo"]


def test_an_encoder_whose_weights_were_changed_is_not_sent(tiny: Path, hub: type[Hub]):
    weights = bytearray((tiny / "model.safetensors").read_bytes())
    weights[-5] ^= 0x10
    (tiny / "model.safetensors").write_bytes(weights)
    with pytest.raises(RunFolderError, match="checksum"):
        push(PushConfig(folder=tiny, name="ada/flowers"))
    assert Hub.calls == []


@pytest.mark.parametrize("name", ["flowers", "ada/", "/flowers", "ada/flowers/x", "ada flowers", "ada/flow ers", "", "../x",
                                  "ada/flowers\n", "https://hub.example/ada/flowers", "ädä/x", "a" * 200 + "/x"])  # fmt: skip
def test_a_name_that_is_none_is_refused_before_anything_is_read(tmp_path: Path, name: str):
    with pytest.raises(ArgumentError, match="user/name"):
        PushConfig(folder=tmp_path / "nowhere", name=name)


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (LocalTokenNotFoundError("Token is required"), "hf auth login, or set HF_TOKEN"),
        (huggingface_hub.errors.OfflineModeIsEnabled("Cannot reach"), "HF_HUB_OFFLINE"),
        (huggingface_hub.errors.HFValidationError("Cannot have --\nor .."), "choose another"),
        (ConnectionError("no route\nto host"), "look at the network"),
    ],
)
def test_a_failed_push_is_a_sentence_that_says_what_to_do(
    tiny: Path, hub: type[Hub], failure: Exception, words: str, capsys: pytest.CaptureFixture[str]
):
    hub.failure = failure
    assert main(["push", str(tiny), "ada/flowers"]) == 2
    printed = capsys.readouterr().err
    assert words in printed
    assert len(printed.strip().splitlines()) == 1
    assert [name for name, _ in Hub.calls] == ["create_repo"]


class Refusal(http.server.BaseHTTPRequestHandler):
    """A hub on this machine that refuses everything."""

    status = 401

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.send_response(self.status)
        self.send_header("content-length", "0")
        self.end_headers()

    do_GET = do_POST

    def log_message(self, format: str, *args: Any):
        """Says nothing."""


@pytest.fixture
def refusing_hub() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusal)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("status", "words"), [(401, "hf auth login"), (403, "write access"), (400, "status 400")])
def test_the_real_client_s_errors_are_sentences_too(
    tiny: Path, refusing_hub: str, monkeypatch: pytest.MonkeyPatch, status: int, words: str
):
    monkeypatch.setattr(Refusal, "status", status)
    monkeypatch.setattr(huggingface_hub, "HfApi", functools.partial(huggingface_hub.HfApi, refusing_hub, "hf_none"))
    with pytest.raises(HubError, match=words) as caught:
        push(PushConfig(folder=tiny, name="ada/flowers"))
    assert len(str(caught.value).splitlines()) == 1


def test_a_hub_that_can_not_be_reached_is_a_sentence(tiny: Path, refusing_hub: str, monkeypatch: pytest.MonkeyPatch):
    closed = refusing_hub.rsplit(":", 1)[0] + ":9"
    monkeypatch.setattr(huggingface_hub, "HfApi", functools.partial(huggingface_hub.HfApi, closed, "hf_none"))
    with pytest.raises(HubError, match="look at the network"):
        push(PushConfig(folder=tiny, name="ada/flowers"))
