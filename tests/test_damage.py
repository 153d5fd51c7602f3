"""A flipped byte in a cache or an archive is noticed and named; a stale temporary file or a missing part heals or fails clearly."""

from __future__ import annotations

import shutil
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pretint.backbones import create_backbone, load_backbone, save_backbone
from pretint.colour import Palette
from pretint.data import TensorSource, open_source
from pretint.downstream import extract_features
from pretint.recipes.colour_results import read_bin_prior, write_bin_prior
from pretint.recipes.opening import read_palette
from pretint.runtime.errors import DataError, RunFolderError
from pretint.runtime.files import write_json
from pretint.runtime.runfolder import RunFolder
from pretint.runtime.sealed import read_sealed, write_sealed

RANDOM = np.random.default_rng(0)


def flips(path: Path, count: int):
    """The file with one bit of one byte changed, at random places; whole again at the end."""
    content = path.read_bytes()
    for place in RANDOM.integers(0, len(content), count):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(RANDOM.integers(8))
        path.write_bytes(damaged)
        yield int(place)
    path.write_bytes(content)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", {"settings": {}})


def same(one: Palette, other: Palette) -> bool:
    return torch.equal(one.centres, other.centres) and torch.equal(one.grey_lookup, other.grey_lookup)


def test_a_flipped_byte_in_a_runs_palette_is_noticed_and_named(run: RunFolder):
    shares, counts = torch.full((3,), 1 / 3, dtype=torch.float64), torch.ones(256, 3, dtype=torch.float64)
    palette = Palette("rgb", torch.rand(3, 3, generator=torch.Generator().manual_seed(0)), shares, counts)
    write_sealed(run.palette, palette.to_dict())
    assert same(read_palette(run), palette)
    noticed = 0
    for _ in flips(run.palette, 60):
        try:
            assert same(read_palette(run), palette)  # blanks between numbers mean nothing
        except RunFolderError as error:
            assert "palette.json" in str(error)  # noqa: PT017 - or the palette as it was
            noticed += 1
    assert noticed > 20
    write_json(run.palette, palette.to_dict())  # as earlier releases wrote it
    assert same(read_palette(run), palette)


def test_a_digit_changed_in_a_runs_palette_or_prior_is_a_wrong_checksum(run: RunFolder):
    write_sealed(run.palette, {"space": "rgb", "centres": [[0.25, 0.5, 1.0]]})
    run.palette.write_text(run.palette.read_text().replace("0.25", "0.35"))
    with pytest.raises(RunFolderError, match=r"palette\.json was changed since it was written"):
        read_sealed(run.palette)
    write_bin_prior(run, torch.full((313,), 1 / 313, dtype=torch.float64))
    assert len(read_bin_prior(run)) == 313
    run.chroma.write_text(run.chroma.read_text().replace("3", "4", 1))
    with pytest.raises(RunFolderError, match=r"chroma\.json was changed"):
        read_bin_prior(run)


def test_a_flipped_byte_in_cached_features_is_noticed_named_and_mended(tmp_path: Path):
    torch.manual_seed(0)
    encoder = create_backbone("pretint_cnn", width=2, depth=2).eval()
    source = TensorSource(torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8))
    wanted = extract_features(encoder, source, cache=tmp_path).arrays
    (path,) = tmp_path.iterdir()
    for place in flips(path, 40):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = extract_features(encoder, source, cache=tmp_path).arrays
        assert all(torch.equal(found[name], wanted[name]) for name in wanted), place
        assert any("damaged" in str(w.message) and path.name in str(w.message) for w in caught), place


def test_a_flipped_byte_in_the_weights_of_an_encoder_is_noticed_and_named(tmp_path: Path):
    """The supervised controls and the classifier of true colours are cached as such folders too."""
    torch.manual_seed(0)
    save_backbone(create_backbone("pretint_cnn", width=2, depth=2), tmp_path)
    for place in flips(tmp_path / "model.safetensors", 40):
        try:
            load_backbone(tmp_path)
        except RunFolderError as error:
            assert str(tmp_path) in str(error)  # noqa: PT017 - or the weights as they were
            continue
        # a word in the header's metadata is all that no checksum covers
        assert place < 8 + int.from_bytes((tmp_path / "model.safetensors").read_bytes()[:8], "little"), place
    load_backbone(tmp_path)


def test_stale_temporary_files_and_missing_parts_heal_or_fail_clearly(tmp_path: Path):
    """What a killed process left beside a cache is not taken for a part of it; what lacks a part says which."""
    torch.manual_seed(0)
    encoder = create_backbone("pretint_cnn", width=2, depth=2).eval()
    source = TensorSource(torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8))
    cache = tmp_path / "features"
    wanted = extract_features(encoder, source, cache=cache).arrays
    (path,) = cache.iterdir()
    stale = cache / f".{path.name}.0123abcd.tmp"
    stale.write_bytes(path.read_bytes()[:100])
    path.unlink()
    assert torch.equal(extract_features(encoder, source, cache=cache).arrays["stage0"], wanted["stage0"])
    save_backbone(encoder, tmp_path / "encoder")
    (tmp_path / "encoder" / ".model.safetensors.0123abcd.tmp").write_bytes(b"half")
    load_backbone(tmp_path / "encoder")
    for part in ("model.safetensors", "config.json"):
        lacking = Path(shutil.copytree(tmp_path / "encoder", tmp_path / f"without {part}"))
        (lacking / part).unlink()
        with pytest.raises(RunFolderError, match="without"):
            load_backbone(lacking)


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_flipped_byte_in_a_plain_tar_is_noticed_where_anything_in_it_has_a_checksum(tmp_path: Path, form: str):
    """Headers and PNG files carry sums; a JPEG file carries none, so that its pixels may change unnoticed but never the names,
    the number or the classes of the pictures."""
    suffix = form.lower()
    for number in range(8):
        pixels = RANDOM.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        path = tmp_path / "data" / f"class{number % 2}" / f"{number}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, form)
    archive = tmp_path / "data.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(tmp_path / "data", "data")
    clean = open_source(archive, image_size=16)
    unnoticed = 0
    for place in flips(archive, 120):
        try:
            found = open_source(archive, image_size=16, max_broken=0.5)
        except DataError as error:
            assert "data.tar" in str(error)  # noqa: PT017 - or pictures
            continue
        if found.fingerprint != clean.fingerprint and not found.broken:
            assert torch.equal(found.labels, clean.labels), place
            unnoticed += 1
    assert unnoticed == 0 if form == "PNG" else unnoticed < 80
