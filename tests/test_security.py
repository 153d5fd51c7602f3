"""Nothing in a file is executed, imported or believed beyond reason, and nothing is written outside the run's folder."""

from __future__ import annotations

import ast
import json
import os
import resource
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import pretint
from pretint.backbones import create_backbone, load_backbone, save_backbone
from pretint.colour import Palette
from pretint.data import make_toy
from pretint.recipes import PretrainConfig, pretrain
from pretint.recipes.opening import open_run, read_palette, read_settings
from pretint.runtime.device import Compute
from pretint.runtime.errors import ArgumentError, PretintError, RunFolderError
from pretint.runtime.files import MAX_JSON_BYTES, read_json, write_json
from pretint.runtime.results import read_results
from pretint.runtime.runfolder import RunFolder
from pretint.runtime.sealed import read_sealed, write_sealed

SHIPPED = Path(pretint.__file__).parent
CPU = Compute.choose("cpu", "fp32")

# what sends objects from process to process
PICKLED = {
    "broadcast_object_list",
    "all_gather_object",
    "gather_object",
    "scatter_object_list",
    "send_object_list",
    "recv_object_list",
}

# module -> names that read pickles or run what a file says; None: all of it
FORBIDDEN: dict[str, set[str] | None] = {
    "pickle": None, "cPickle": None, "dill": None, "cloudpickle": None, "marshal": None, "shelve": None, "joblib": {"load"},
    "yaml": {"load", "unsafe_load", "full_load", "load_all"}, "subprocess": None, "pty": None, "code": None, "runpy": None,
    "torch": {"load"}, "os": {"system", "popen", "execv", "execve", "execvp", "spawnv", "startfile"}, "pandas": {"read_pickle"},
    "torch.hub": None, "torch.jit": {"load"}, "torch.distributed": PICKLED, "dist": PICKLED,
}  # fmt: skip
BUILTINS = {"eval", "exec", "compile", "__import__"}


def dotted(node: ast.AST) -> str:
    """`torch.load` of the expression that says so; empty for anything else."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def dangers(source: str) -> list[str]:
    """What a module's code uses of the above, with the line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Import):
            found += [
                f"{line}: import {alias.name}" for alias in node.names if FORBIDDEN.get(alias.name, set()) is None
            ]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            known = FORBIDDEN.get(node.module or "", set())
            found += [
                f"{line}: from {node.module} import {a.name}" for a in node.names if known is None or a.name in known
            ]
        elif isinstance(node, ast.Attribute):
            module, _, name = dotted(node).rpartition(".")
            known = FORBIDDEN.get(module, set())
            if known is None or name in known:
                found.append(f"{line}: {module}.{name}")
        elif isinstance(node, ast.Call):
            called = dotted(node.func)
            words = {word.arg: word.value for word in node.keywords}
            if called in BUILTINS:
                found.append(f"{line}: {called}()")
            if (
                called in ("np.load", "numpy.load")
                and ast.unparse(words.get("allow_pickle", ast.Constant(None))) != "False"
            ):
                found.append(f"{line}: {called} without allow_pickle=False")
            if "shell" in words and ast.unparse(words["shell"]) != "False":
                found.append(f"{line}: shell=True")
            if called.endswith("torch.export.load"):
                found.append(f"{line}: torch.export.load")
    return found


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from pickle import loads", "import torch\ntorch.load('x')", "from torch import load", "eval('1')",
        "exec('1')", "import yaml\nyaml.load(f)", "np.load('x')", "np.load('x', allow_pickle=True)", "import subprocess",
        "run('x', shell=True)", "os.system('x')", "__import__('os')",
        "import torch.distributed as dist\ndist.all_gather_object(a, b)", "from torch.distributed import broadcast_object_list",
    ],
)  # fmt: skip
def test_the_search_for_dangers_finds_them(code: str):
    assert dangers(code)


def test_no_pickle_no_torch_load_no_yaml_load_no_eval_no_shell_in_any_shipped_module():
    """No pickle in any read path: no pickle, torch.load, yaml.load, eval, exec, shell=True, and np.load never with pickles."""
    assert dangers("model.eval()\nnp.load('x', allow_pickle=False)\nimport torch") == []
    packages = (p for p in SHIPPED.iterdir() if p.is_dir() and p.name not in ("tests", "benchmarks", "build", "dist"))
    modules = [*SHIPPED.glob("*.py"), *(module for package in packages for module in package.glob("*.py"))]
    assert len(modules) > 100
    found = {str(m.relative_to(SHIPPED)): danger for m in modules if (danger := dangers(m.read_text()))}
    # an exported program is loaded back once, from the memory it was written to, to compare what it computes
    assert set(found) == {"backbones/program.py"}
    assert [line.split(": ")[1] for line in found["backbones/program.py"]] == ["torch.export.load"]


def test_only_our_own_recipes_are_imported_by_name():
    """importlib.import_module is called in one place, with names that stand in the code."""
    calling = [m for m in SHIPPED.glob("*/*.py") if m.parent.name != "tests" and "import_module" in m.read_text()]
    calling = [m for m in calling if m.parent.name not in ("benchmarks",)]
    assert [str(m.relative_to(SHIPPED)) for m in calling] == ["recipes/__init__.py"]


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few steps on 64 toy pictures."""
    import numpy as np

    folder = tmp_path_factory.mktemp("security")
    toy = make_toy("train", 64)
    np.savez(folder / "toy.npz", images=toy.images.permute(0, 2, 3, 1).numpy()[:, ::2, ::2])
    settings = {"epochs": 1, "batch_size": 16, "width": 4, "depth": 2, "colours": 4, "image_size": 16}
    pretrain(
        PretrainConfig(
            data=str(folder / "toy.npz"), out=folder / "run", backbone="pretint_cnn", device="cpu", **settings
        )
    )
    return folder / "run"


@pytest.fixture
def run_copy(small_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_run, tmp_path / "run"))


HUGE = 10**9
HOSTILE_SETTINGS: dict[str, Any] = {
    "a module's name as backbone": {"backbone": "os"},
    "a path as backbone": {"backbone": "../../evil"},
    "a hub as backbone": {"backbone": "hf-hub:evil/model"},
    "a folder as backbone": {"backbone": "local-dir:/tmp"},
    "timm and a path": {"backbone": "timm/../../evil"},
    "a hub behind timm": {"backbone": "timm/hf-hub:evil/model"},
    "a module's name as task": {"task": "os.system"},
    "a path as task": {"task": "../../x"},
    "a module's name as decoder": {"decoder": "subprocess"},
    "a module's name as fusion": {"fusion": "timm/os"},
    "a giant classifier as fusion": {"fusion": "timm/vit_giant_patch14_224"},
    "a giant backbone": {"backbone": "timm/vit_giant_patch14_224", "width": None, "depth": None},
    "a width of 1e9": {"width": HUGE},
    "a width that fits no memory": {"width": 4096},
    "a depth of 1e9": {"depth": HUGE},
    "a depth that fits no memory": {"depth": 4096},
    "a width of 1e300": {"width": 1e300},
    "1e9 colours": {"colours": HUGE},
    "images of 1e9": {"image_size": HUGE},
    "a width that is a word": {"width": "evil"},
    "a width that is a list": {"width": [1, 2]},
    "a width that is a dictionary": {"width": {"__class__": "os"}},
    "a number as task": {"task": 7},
    "a list as task": {"task": ["palette"]},
    "a list as backbone": {"backbone": ["os"]},
    "nothing as backbone": {"backbone": None},
    "an option that is none": {"__class__": "os.system"},
    "a preset that is none": {"preset": "../../x"},
    "a preset that is a list": {"preset": ["x"]},
    "a long word": {"backbone": "x" * 2**20},
    "a number as data": {"data": 7},
    "a number as path": {"out": 7},
    "a list as grey": {"grey": ["rec601"]},
    "a dictionary as palette space": {"palette_space": {}},
    "true as seed": {"seed": "x"},
}


@pytest.mark.parametrize("case", HOSTILE_SETTINGS)
def test_a_hostile_config_json_of_a_run_is_a_typed_error_and_nothing_it_names_is_imported(
    run_copy: Path, case: str, monkeypatch: pytest.MonkeyPatch
):
    """Names of modules, ../../x, sizes of 1e9 and words for numbers: a typed error, no import, no giant allocation."""
    (run_copy.parent / "evil.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(run_copy.parent))
    config = read_json(run_copy / "config.json")
    config["settings"].update(HOSTILE_SETTINGS[case])
    write_json(run_copy / "config.json", config)
    before, peak = set(sys.modules), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(PretintError) as caught:
        open_run(run_copy, CPU)
    assert len(str(caught.value)) < 2000
    assert not {name for name in set(sys.modules) - before if not name.startswith(("timm", "torch", "pretint"))}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 100_000


@pytest.mark.parametrize(
    "content",
    [
        b'{"format_version": NaN, "settings": {}}',
        b'{"format_version": 1, "settings": {"learning_rate": Infinity}}',
        b'{"format_version": 1, "settings": {"epochs": ' + b"9" * 10_000 + b"}}",
        b'{"format_version": 1, "settings": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"format_version": 1, "settings": [1]}',
        b'{"format_version": "1", "settings": {}}',
        b"[]",
        b"null",
        b"\x00" * 100,
        b'{"format_version": 1, "settings": {"task": "\xff"}}',
    ],
    ids=lambda content: content[:40].decode("latin-1"),
)
def test_nan_deep_nesting_and_other_kinds_in_a_config_json_are_typed_errors(tmp_path: Path, content: bytes):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(RunFolderError):
        read_settings(RunFolder.open(tmp_path))


def test_json_of_hundreds_of_megabytes_is_refused_unread(tmp_path: Path):
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(500 * 2**20)  # a hole: it takes no room
    with pytest.raises(RunFolderError, match=f"over the limit of {MAX_JSON_BYTES}"):
        RunFolder.open(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda about: about.update(image_size=HUGE), lambda about: about.update(image_size=float("1e300")),
        lambda about: about["backbone"].update(options={"width": HUGE}), lambda about: about["backbone"].update(name="os"),
        lambda about: about["backbone"].update(name=["os"]), lambda about: about["backbone"].update(options=[["width", 1]]),
        lambda about: about["preprocess"].update(mean=["x"]), lambda about: about["preprocess"].update(in_chans=HUGE),
        lambda about: about["preprocess"].update(grey="../../x"), lambda about: about["preprocess"].update(evil=1),
        lambda about: about.update(fixed_features=[1.0] * 10**6), lambda about: about.update(fixed_features="x"),
        lambda about: about.update(folder_version="1e9"), lambda about: about.update(card=["x"]),
    ],
)  # fmt: skip
def test_a_hostile_config_of_an_encoder_is_a_typed_error(tmp_path: Path, change):
    save_backbone(create_backbone("pretint_cnn", width=2, depth=2), tmp_path)
    config = read_json(tmp_path / "config.json")
    change(config["pretint"])
    write_json(tmp_path / "config.json", config)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RunFolderError):
        load_backbone(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 100_000


@pytest.mark.parametrize(
    "results",
    [
        {"transfer": [1]}, {"transfer": [{"top1": "x"}]}, {"transfer": [{"protocol": ["linear"]}]}, {"colour": {"a": 1}},
        {"transfer": [{"seed": [1]}]}, {"schema_version": None}, {"schema_version": 10**9}, [],
    ],
)  # fmt: skip
def test_hostile_results_are_a_typed_error(tmp_path: Path, results: Any):
    (tmp_path / "results.json").write_text(json.dumps(results))
    with pytest.raises(RunFolderError):
        read_results(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"space": "os"}, {"space": ["rgb"]}, {"space": None}, {"grey": 1}, {"centres": "x"}, {"centres": [[1, 2, "x"]] * 4},
        {"centres": [[1.0, 2.0]] * 4}, {"centres": [1, [2]]}, {"prior": {}}, {"prior": [-1.0] * 4}, {"grey_lookup": [[1.0]]},
        {"centres": None}, {"centres": [[10**400, 0, 0]] * 4},
    ],
)  # fmt: skip
def test_a_hostile_palette_is_a_typed_error(run_copy: Path, change: dict[str, Any]):
    folder = RunFolder.open(run_copy)
    palette = read_sealed(folder.palette)
    write_sealed(folder.palette, {**palette, **change})
    with pytest.raises(PretintError):
        read_palette(folder)


def test_the_palette_of_a_dictionary_that_lacks_a_part_says_which():
    with pytest.raises(ArgumentError, match="prior"):
        Palette.from_dict({"space": "rgb", "grey": "rec601", "centres": [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]})


_WATCHED: list[str] | None = None


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: notes what is written to, while somebody listens. Hooks can't be taken away again."""
    if _WATCHED is None:
        return
    if event == "open":
        path, mode, flags = arguments
        writes = (isinstance(mode, str) and set(mode) & set("wax+")) or (
            isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)
        )
        if writes and isinstance(path, (str, bytes, os.PathLike)):
            _WATCHED.append(os.fsdecode(path))
    elif event in (
        "os.mkdir",
        "os.remove",
        "os.rmdir",
        "os.truncate",
        "os.chmod",
        "os.symlink",
        "os.link",
        "shutil.rmtree",
    ):
        _WATCHED.append(os.fsdecode(arguments[0]))
    elif event == "os.rename":
        _WATCHED.extend(os.fsdecode(path) for path in arguments[:2])


sys.addaudithook(_watch)


def test_nothing_is_written_outside_the_run_folder(small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A pretraining whose every opening of a file, making of a folder and renaming is watched; its home, its working folder and
    its folder of temporary files are as they were."""
    global _WATCHED
    for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "PRETINT_DATA"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    settings = {"epochs": 1, "batch_size": 16, "width": 4, "depth": 2, "colours": 4, "image_size": 16}
    config = PretrainConfig(
        data=str(small_run.parent / "toy.npz"), out=tmp_path / "run", backbone="pretint_cnn", device="cpu", **settings
    )
    before = sorted(tmp_path.rglob("*"))
    _WATCHED = []
    try:
        pretrain(config)
    finally:
        written, _WATCHED = _WATCHED, None
    outside = {
        path for path in written
        if not Path(path).is_relative_to(tmp_path / "run") and "__pycache__" not in path and path != os.devnull
    }  # fmt: skip
    assert outside == set()
    assert any("config.json" in path for path in written)
    assert [path for path in sorted(tmp_path.rglob("*")) if not path.is_relative_to(tmp_path / "run")] == before


def test_names_in_the_report_stay_text(run_copy: Path):
    """The report page escapes file and class names."""
    from pretint.recipes import ReportConfig, report

    evil = "<script>alert(1)</script>"
    config = read_json(run_copy / "config.json")
    config["settings"]["data"] = config["data"]["name"] = evil
    write_json(run_copy / "config.json", config)
    row = {"data": evil, "pretrained_on": evil, "protocol": "linear", "init": "pretrained", "labels": 1.0, "layer": evil,
           "seed": 0, "top1": 0.5, "top5": None, "sees": "grey", "leaks": None, "class_names": [evil]}  # fmt: skip
    results = read_results(run_copy)
    results["transfer"] = [row]
    write_json(run_copy / "results.json", results)
    named = run_copy.rename(run_copy.with_name("<img src=x onerror=alert(1)>"))
    report(ReportConfig(runs=(named,)))
    page = (named / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_weights_beside_a_config_that_describes_more_than_they_hold_are_refused_before_memory_is_taken(run_copy: Path):
    config = read_json(run_copy / "config.json")
    config["settings"]["width"] = 1024
    write_json(run_copy / "config.json", config)
    with pytest.raises(RunFolderError, match=r"describes a network of \d+ bytes, but its weights have"):
        open_run(run_copy, CPU)
    assert torch.get_default_device().type == "cpu"
