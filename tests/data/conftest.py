"""Pictures in folders, archives and arrays, as the tests of data share them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pretint.data import ImageSource


def png(number: int, size: tuple[int, int] = (11, 8)) -> bytes:
    picture = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def members_of_two_classes(per_class: int = 7) -> dict[str, bytes]:
    """Pictures of two classes in two splits; not in the order of their names."""
    names = [
        f"{split}/{kind}/{k}.png" for split in ("train", "test") for kind in ("dog", "cat") for k in range(per_class)
    ]
    return {name: png(number) for number, name in enumerate(names)}


def fill_folder(root: Path, members: dict[str, bytes]) -> Path:
    for name, content in members.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    mode = "w" if path.suffix == ".tar" else f"w:{path.suffix[1:]}"
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def write_npz(path: Path) -> Path:
    random = np.random.default_rng(0)
    arrays = {f"{p}images": random.integers(0, 256, (20, 9, 8, 3), np.uint8) for p in ("", "test_")}
    np.savez(path, **arrays, labels=np.arange(20) % 3, test_labels=np.arange(20) % 2)
    return path


SMALL = {"image_size": 8, "workers": 1, "shard_bytes": 5 * 192}  # five pictures a file


def assert_same(left: ImageSource, right: ImageSource) -> None:
    """Both give the same pictures, and say the same of them."""
    ids = torch.randperm(len(left), generator=torch.Generator().manual_seed(0))
    assert torch.equal(left.gather(ids), right.gather(ids))
    assert torch.equal(left.labels, right.labels)
    assert (left.class_names, left.name, left.split, left.broken) == (
        right.class_names,
        right.name,
        right.split,
        right.broken,
    )
