"""Sources that stay in files give the batches of one in memory: the last one too, alone and to several processes."""

from __future__ import annotations

import io
import itertools
import json
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pretint.data import Batches, ImageSource, augment, make_pack, open_source
from pretint.runtime.randomness import MANY, KeyedPermutation, hash_permutation

N, BATCH = 20, 6


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same pictures as arrays, as a pack of them, and as three tar shards."""
    folder = tmp_path_factory.mktemp("streams")
    images = np.random.default_rng(0).integers(0, 256, (N, 8, 8, 3), np.uint8)
    np.savez(folder / "plain.npz", images=images, labels=np.arange(N) % 3)
    make_pack(folder / "plain.npz", folder / "pack", image_size=8, workers=1, shard_bytes=7 * 192)
    (folder / "shards").mkdir()
    for number, ids in enumerate(np.array_split(np.arange(N), 3)):
        with tarfile.open(folder / "shards" / f"{number}.tar", "w") as tar:
            for k in ids:
                for suffix, content in (("bmp", _bmp(images[k])), ("cls", str(k % 3).encode())):
                    info = tarfile.TarInfo(f"{k:04}.{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return {"plain": folder / "plain.npz", "pack": folder / "pack", "shards": folder / "shards"}


def _bmp(pixels: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "BMP")
    return buffer.getvalue()


def _check(source: ImageSource, ids: torch.Tensor, rgb: torch.Tensor, labels: torch.Tensor) -> None:
    """Pictures and labels are those that the ids have in the source in memory."""
    assert torch.equal(rgb, augment(source.gather(ids), ids, seed=1, epoch=2))
    assert torch.equal(labels, ids % 3)


@pytest.mark.parametrize("name", ["pack", "shards"])
@pytest.mark.parametrize("drop_last", [False, True])
def test_batches_from_files_are_those_from_memory_to_the_last(sources: dict[str, Path], name: str, drop_last: bool):
    plain, order = open_source(sources["plain"], image_size=8), hash_permutation(1, 2, N)
    batches = Batches(open_source(sources[name], image_size=8), BATCH, seed=1, drop_last=drop_last)
    for first in (0, 2):
        found = list(batches.epoch(2, first))
        expected = list(order.split(BATCH))[first : len(batches)]
        assert [len(ids) for ids in expected][-1] == (6 if drop_last else 2)
        for batch, ids in zip(found, expected, strict=True):
            assert torch.equal(batch.ids, ids)
            _check(plain, batch.ids, batch.rgb, batch.labels)


def test_an_epoch_that_is_left_early_leaves_no_thread(sources: dict[str, Path]):
    epoch = Batches(open_source(sources["pack"], image_size=8), 2, seed=0).epoch(0)
    next(epoch)
    assert any("read-ahead" in thread.name for thread in threading.enumerate())
    epoch.close()
    assert not any("read-ahead" in thread.name for thread in threading.enumerate())


def test_several_processes_share_the_batches_of_one(sources: dict[str, Path], several: Callable, tmp_path: Path):
    """Of a stored and of a computed order; a rest of fewer pictures than processes belongs to the batch before it."""
    script = Path(__file__).with_name("run_streams.py")
    names = {name: str(path) for name, path in sources.items() if name != "plain"}
    assert several(script, 3, tmp_path, SOURCES=names, MANY=MANY) == [0, 0, 0]
    seen = [dict(np.load(tmp_path / f"seen-{rank}.npz")) for rank in range(3)]
    plain = open_source(sources["plain"], image_size=8)
    checked = 0
    for many, order in ((MANY, hash_permutation(1, 2, N)), (1, KeyedPermutation(1, 2, N)[:])):
        for drop_last, cuts in ((False, (0, 6, 12, 20)), (True, (0, 6, 12, 18))):
            for name in names:
                for step, (start, stop) in enumerate(itertools.pairwise(cuts)):
                    key = f"{name} {many} {drop_last} {step}"
                    ids, rgb, labels = (
                        torch.cat([torch.from_numpy(one[f"{key} {what}"]) for one in seen])
                        for what in ("ids", "rgb", "labels")
                    )
                    assert torch.equal(ids, order[start:stop]), key
                    assert {len(one[f"{key} ids"]) for one in seen} <= {2, 3}
                    _check(plain, ids, rgb, labels)
                    checked += 1
    assert checked * 3 == len(seen[0])  # and there is no fourth batch
    told = [json.loads((tmp_path / f"told-{rank}.json").read_text()) for rank in range(3)]
    assert [one["made"] for one in told] == [[3], [], []]  # the index of shards, by the main process for all
