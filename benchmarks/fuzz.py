"""Does anything but a typed error come out of hostile files and command lines? Hypothesis, for as many minutes as are given.

Files that Pretint reads are made whole and then changed: a value of their JSON, some of their bytes, the members of an archive.
Each is read by the code that reads it in a run; what may come out is a result, or a PretintError of one sentence. Command lines
are put together from verbs, options and values; what may come out is exit code 0, or 2 with a sentence or a usage text.

    python benchmarks/fuzz.py --minutes 10
    python benchmarks/fuzz.py --minutes 1 --only "image bytes" "tar members"
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import io
import json
import shutil
import sys
import tarfile
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from pretint import cli, recipes
from pretint.backbones import create_backbone, load_backbone, save_backbone
from pretint.colour import Palette
from pretint.data import BrokenImageError, decode_image, inspect_data, make_pack, open_source
from pretint.recipes.opening import check_fits_weights, read_settings
from pretint.runtime.encoderfacts import EncoderFacts, count_parameters
from pretint.runtime.errors import PretintError
from pretint.runtime.results import read_results
from pretint.runtime.runfolder import RunFolder
from pretint.runtime.tensors import read_metadata, read_tensors, write_tensors

Check = Callable[[Any, Path], None]

# What someone might write where something else belongs.
HOSTILE = st.one_of(
    st.none(), st.booleans(), st.integers(), st.just(10**9), st.just(2**63), st.just(10**400), st.floats(), st.text(max_size=20),
    st.sampled_from(["os", "../../x", "os.system", "__class__", "timm/../x", "hf-hub:a/b", "local-dir:.", "", "\x00", "\x1b[31m",
                     "NaN", "pickle", "rgb", "palette", "timm/resnet18", "pretint_unet", "cuda:99"]),
    st.lists(st.integers(), max_size=3), st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
    st.recursive(st.integers(), lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.just("a"), inner), max_leaves=5),
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Hostile input of all kinds.

    Attributes:
        minutes: how long in all.
        only: names of targets; all by default.
        seed: where to begin.
    """

    minutes: float = 10.0
    only: tuple[str, ...] = ()
    seed: int = 0


@st.composite
def changed_json(draw: st.DrawFn, whole: str) -> str:
    """JSON of which some values or keys are something else, or are gone."""
    value = json.loads(whole)
    for _ in range(draw(st.integers(1, 3))):
        inside, key = value, None
        while isinstance(inside, (dict, list)) and inside:
            parent, keys = inside, sorted(inside) if isinstance(inside, dict) else range(len(inside))
            key = draw(st.sampled_from(keys))
            inside = parent[key]
            if draw(st.integers(0, 2)) == 0:
                break
        if key is None:
            break
        if draw(st.integers(0, 4)) == 0:
            del parent[key]
        else:
            parent[key] = draw(HOSTILE)
    return json.dumps(value)


@st.composite
def changed_bytes(draw: st.DrawFn, wholes: tuple[bytes, ...]) -> bytes:
    """A file of which some bytes are others, are missing, or are there twice."""
    content = bytearray(draw(st.sampled_from(wholes)))
    for _ in range(draw(st.integers(1, 6))):
        if not content:
            break
        # headers are where most can go wrong
        end = draw(st.sampled_from([min(64, len(content)), len(content)]))
        at, kind = draw(st.integers(0, end - 1)), draw(st.integers(0, 4))
        if kind == 0:
            del content[at : at + draw(st.integers(1, 200))]
        elif kind == 1:
            content[at:at] = draw(st.binary(max_size=20))
        elif kind == 2:
            content[at:at] = content[at : at + 50]
        else:
            content[at] = draw(st.sampled_from([0, 1, 127, 128, 255]) | st.integers(0, 255))
    return bytes(content)


def may_refuse(call: Callable[[], Any]) -> None:
    """Runs it; a typed error is an answer too, anything else goes through."""
    with contextlib.suppress(PretintError):
        call()


# The whole files, made once.


@functools.cache
def workshop() -> Path:
    """A folder with one of each file, for this process."""
    folder = Path(tempfile.mkdtemp(prefix="pretint-fuzz-"))
    torch.manual_seed(0)
    save_backbone(create_backbone("pretint_cnn", width=2, depth=2), folder / "encoder")
    configured = recipes.PretrainConfig(backbone="pretint_cnn", width=2, depth=2, epochs=1)
    from pretint.recipes.options import plain

    run = RunFolder.create(
        folder / "run", {"verb": "pretrain", "settings": plain(configured), "data": {"name": "toy", "classes": 3}}
    )
    write_tensors(run.checkpoints / "best.safetensors", {"model.a": torch.zeros(2000)}, {"state": "{}"})
    (folder / "arrays.npz").write_bytes(arrays_file())
    make_pack(folder / "arrays.npz", folder / "pack", image_size=8, shard_bytes=1)
    return folder


def some_pictures() -> tuple[bytes, ...]:
    y, x = np.mgrid[0:12, 0:16]
    picture = Image.fromarray(np.stack([x * 15, y * 20, x + y], axis=-1).astype(np.uint8))
    ways: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (picture, "JPEG", {}), (picture, "JPEG", {"progressive": True}), (picture.convert("CMYK"), "JPEG", {}),
        (picture, "PNG", {}), (picture.quantize(8), "PNG", {"transparency": 1}), (picture.convert("LA"), "PNG", {}),
        (picture, "WEBP", {}),
        (picture.convert("RGBA"), "WEBP", {"lossless": True}), (picture, "BMP", {}), (picture, "GIF", {}), (picture, "TIFF", {}),
        (picture, "TIFF", {"compression": "tiff_lzw"}),
    ]  # fmt: skip
    found = []
    for image, form, options in ways:
        buffer = io.BytesIO()
        image.save(buffer, form, **options)
        found.append(buffer.getvalue())
    return tuple(found)


PICTURES = some_pictures()
LABELS = (b"3", b'{"cls": 3}', b'{"label": 1e999}', b"-1", b'{"cls": [NaN]}')


# The targets: how each kind of hostile input is read.


def read_run_config(text: str, folder: Path) -> None:
    shutil.copytree(workshop() / "run", folder / "run")
    (folder / "run" / "config.json").write_text(text)

    def read() -> None:
        run = RunFolder.open(folder / "run")
        check_fits_weights(read_settings(run), run)

    may_refuse(read)


def read_encoder_config(text: str, folder: Path) -> None:
    shutil.copytree(workshop() / "encoder", folder / "encoder")
    (folder / "encoder" / "config.json").write_text(text)
    may_refuse(lambda: EncoderFacts.read(folder / "encoder"))
    may_refuse(lambda: load_backbone(folder / "encoder"))


def read_safetensors(content: bytes, folder: Path) -> None:
    path = folder / "a.safetensors"
    path.write_bytes(content)
    for read in (read_tensors, read_metadata, count_parameters):
        may_refuse(functools.partial(read, path))


def read_picture(content: bytes, _folder: Path) -> None:
    with contextlib.suppress(BrokenImageError):
        assert decode_image(content, 8, max_pixels=10**6, extra_formats=("gif", "tiff")).shape == (3, 8, 8)


def read_archive(content: bytes, folder: Path) -> None:
    for suffix in (".tar", ".npz"):
        path = folder / f"a{suffix}"
        path.write_bytes(content)
        may_refuse(functools.partial(open_source, path, image_size=8, max_broken=1.0))
        may_refuse(functools.partial(inspect_data, str(path)))
    assert sorted(path.name for path in folder.iterdir()) == ["a.npz", "a.tar"]


def read_shards(content: bytes, folder: Path) -> None:
    (folder / "shards").mkdir()
    for number, suffix in enumerate((".tar", ".tar.gz")):
        path = folder / "shards" / f"a{suffix}"
        path.write_bytes(content if number == 0 else gzip.compress(content, 1))
        may_refuse(functools.partial(inspect_data, str(path.parent)))
        for unlabelled in (False, True) if number == 0 else ():
            may_refuse(functools.partial(open_all, path.parent, folder / "cache", unlabelled))
        pack = functools.partial(
            make_pack, path.parent, folder / f"pack{number}", image_size=8, max_broken=1.0, workers=1
        )
        may_refuse(pack)
        path.unlink()
    assert {path.name for path in folder.iterdir()} <= {"shards", "cache", "pack0", "pack1"}


def open_all(path: Path, cache: Path, unlabelled: bool) -> None:
    with warnings.catch_warnings(action="ignore"):  # each broken picture is told
        source = open_source(path, image_size=8, max_broken=1.0, unlabelled=unlabelled, root=cache)
        assert source.gather(torch.arange(len(source))).shape[1:] == (3, 8, 8)


def read_pack(text: str, folder: Path) -> None:
    shutil.copytree(workshop() / "pack", folder / "pack")
    (folder / "pack" / "pack.json").write_text(text)
    for unlabelled in (False, True):
        may_refuse(functools.partial(open_all, folder / "pack", folder, unlabelled))
    may_refuse(functools.partial(inspect_data, str(folder / "pack"), image_size=8))


def read_palette(text: str, _folder: Path) -> None:
    may_refuse(lambda: Palette.from_dict(json.loads(text)))


def read_run_results(text: str, folder: Path) -> None:
    shutil.copytree(workshop() / "run", folder / "run")
    (folder / "run" / "results.json").write_text(text)
    may_refuse(lambda: read_results(folder / "run"))
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert cli.main(["runs", str(folder)]) == 0
        shutil.copytree(workshop() / "encoder", folder / "run" / "encoder")
        assert cli.main(["info", str(folder / "run")]) in (0, 2)


def give_command(words: list[str], folder: Path) -> None:
    """The verbs themselves do nothing here; what is tried is all that comes before them."""
    functions = {name: mock.Mock(return_value=recipes.Outcome({})) for _, name, _ in cli.VERBS.values()}
    printed = io.StringIO()
    with (
        mock.patch.multiple(recipes, create=True, **functions),
        contextlib.chdir(folder),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(printed),
    ):
        try:
            code = cli.main(words)
        except SystemExit as stop:  # the parser's own: its usage text names the option
            assert stop.code in (0, 2), stop.code  # noqa: PT017 - or an exit code of main's
            return
    assert code in (0, 2), code
    if code == 2:
        assert printed.getvalue().startswith("pretint: ")
        assert len(printed.getvalue().strip().splitlines()) == 1
    assert not any(folder.iterdir())


# What they are given.


@st.composite
def tars(draw: st.DrawFn) -> bytes:
    """An archive of a few members of any kind and name, then perhaps with changed bytes."""
    buffer = io.BytesIO()
    names = st.sampled_from(
        [
            "a.png",
            "a.cls",
            "a.json",
            "cat/b.jpg",
            "../c.png",
            "/etc/d.png",
            "e/../../f.png",
            "train/x/g.png",
            "h.txt",
            "i.tar",
        ]
    )
    kinds = [tarfile.REGTYPE] * 6 + [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE,
                                     tarfile.DIRTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE, b"Z"]  # fmt: skip
    with tarfile.open(
        fileobj=buffer, mode="w", format=draw(st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
    ) as tar:
        for _ in range(draw(st.integers(0, 4))):
            info = tarfile.TarInfo(draw(names | st.text(st.characters(codec="utf-8"), min_size=1, max_size=150)))
            info.type = draw(st.sampled_from(kinds))
            info.linkname = draw(st.sampled_from(["", "a.png", "/etc/passwd", "../../x"]))
            content = draw(st.sampled_from((*PICTURES, *LABELS)) | st.binary(max_size=600))
            info.size = len(content) if info.type == tarfile.REGTYPE else 0
            with contextlib.suppress(ValueError):  # a name that the format can't hold
                tar.addfile(info, io.BytesIO(content))
    content = buffer.getvalue()
    return content if draw(st.booleans()) else draw(changed_bytes((content,)))


def arrays_file() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, images=np.zeros((2, 8, 8, 3), np.uint8), labels=np.arange(2), class_names=np.array(["a", "b"]))
    return buffer.getvalue()


@functools.cache
def safetensors_file() -> bytes:
    path = workshop() / "whole.safetensors"
    write_tensors(
        path, {"x": torch.arange(6.0), "n": torch.tensor(3), "h": torch.zeros(2, dtype=torch.bfloat16)}, {"state": "{}"}
    )
    return path.read_bytes()


@st.composite
def safetensors(draw: st.DrawFn) -> bytes:
    """Changed bytes, or a header that says something else before the same numbers."""
    whole = safetensors_file()
    if draw(st.booleans()):
        return draw(changed_bytes((whole,)))
    length = int.from_bytes(whole[:8], "little")
    header = draw(changed_json(whole[8 : 8 + length].decode())).encode()
    claimed = draw(st.sampled_from([len(header), len(header) + 1, 0, 2**40, 2**64 - 1]))
    return claimed.to_bytes(8, "little") + header + whole[8 + length :]


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    verb = draw(st.sampled_from([*cli.VERBS, "pretrian", "data", "data chekc", "--json", ""]))
    words = verb.split(" ")
    options = ["--nothing", "-x", "--", "--help"]
    if verb in cli.VERBS:
        options += [f"--{field.name.replace('_', '-')}" for field in fields(getattr(recipes, cli.VERBS[verb][0]))] * 3
    values = ["0", "1", "-1", "3.5", "nan", "inf", "1e400", "9" * 400, "None", "none", "True", "x", "", " ", "../../x", "/dev/null",
              ".", "toy", "cifar10", "palette", "palette+contrast", "pretint_unet", "timm/resnet18", "rgb", "cpu", "bf16", "猫",
              "\x1b[31m", "a\nb", "--", "{}", "[1]", "$(touch x)", "%s", "a" * 5000]  # fmt: skip
    for _ in range(draw(st.integers(0, 5))):
        words.append(draw(st.sampled_from(options)))
        words += draw(st.lists(st.sampled_from(values), max_size=2))
    return words


def whole_pack() -> str:
    """The index without its checksum, which a hostile one would have right."""
    value = json.loads((workshop() / "pack" / "pack.json").read_text())
    del value["sha256"]
    return json.dumps(value)


def whole_config(kind: str) -> str:
    return (workshop() / kind / "config.json").read_text()


RESULTS = json.dumps({
    "schema_version": 1,
    "colour": [{"data": "toy", "split": "test", "decode": "mode", "temperature": 0.4, "bits_per_pixel": 2.5, "delta_e2000": 10.0}],
    "transfer": [{"data": "toy", "protocol": "linear", "init": "pretrained", "labels": 1.0, "seed": 0, "top1": 0.5, "layer": "a"}],
    "features": [],
})  # fmt: skip
PALETTE = json.dumps({
    "space": "rgb", "centres": [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]], "prior": [0.5, 0.5], "grey_lookup": [[1.0, 1.0]] * 256,
    "grey": "rec601",
})  # fmt: skip
TARGETS: dict[str, tuple[Callable[[], st.SearchStrategy[Any]], Check]] = {
    "config.json of a run": (lambda: changed_json(whole_config("run")), read_run_config),
    "config.json of an encoder": (lambda: changed_json(whole_config("encoder")), read_encoder_config),
    "safetensors headers": (safetensors, read_safetensors),
    "image bytes": (lambda: changed_bytes(PICTURES), read_picture),
    "tar members": (tars, read_archive),
    "tar shards": (tars, read_shards),
    "pack.json": (lambda: changed_json(whole_pack()), read_pack),
    "npz bytes": (lambda: changed_bytes((arrays_file(),)), read_archive),
    "palette JSON": (lambda: changed_json(PALETTE), read_palette),
    "results.json": (lambda: changed_json(RESULTS), read_run_results),
    "command lines": (command_lines, give_command),
}


def fuzz(target: str, examples: int, first: int) -> int:
    """Tries a target on so many examples; returns how many were tried. Raises what came out that should not, with the example."""
    make, check = TARGETS[target]
    tried = 0

    # the example database would make runs depend on earlier ones
    @seed(first)
    @settings(
        max_examples=examples, database=None, deadline=None, suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink), print_blob=False, report_multiple_bugs=False,
    )  # fmt: skip
    @given(make())
    def try_one(value: Any) -> None:
        nonlocal tried
        tried += 1
        with tempfile.TemporaryDirectory() as folder:
            check(value, Path(folder))

    try_one()
    return tried


def main(options: Options) -> int:
    """Rounds over all targets until the time is over; the exit code is 1 if anything but a typed error came out."""
    from machine import describe

    print(describe())
    names = list(options.only) or list(TARGETS)
    tried, failed = dict.fromkeys(names, 0), {}
    start, number = time.monotonic(), options.seed
    while time.monotonic() - start < 60 * options.minutes and set(names) - set(failed):
        for name in (n for n in names if n not in failed):
            try:
                tried[name] += fuzz(name, 100, number)
            except Exception as error:
                failed[name] = error
                print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
            if time.monotonic() - start > 60 * options.minutes:
                break
        number += 1
    print("\n| input | examples | other than a result or a typed error |\n|---|---|---|")
    for name in names:
        print(f"| {name} | {tried[name]:,} | {'none' if name not in failed else repr(failed[name])[:200]} |")
    print(f"\n{sum(tried.values()):,} examples in {(time.monotonic() - start) / 60:.1f} minutes.")
    shutil.rmtree(workshop())
    return 1 if failed else 0


if __name__ == "__main__":
    import tyro

    sys.exit(main(tyro.cli(Options)))
