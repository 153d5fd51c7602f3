"""The binary CIFAR and STL-10 archives are read to the bit, checked against their sum, and fetched safely."""

import dataclasses
import functools
import hashlib
import http.server
import io
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from pretint.data import binaries, cache_root, open_source
from pretint.runtime.errors import DataError

RANDOM = np.random.default_rng(0)


def _write(path: Path, members: dict[str, bytes]) -> str:
    """Pack the members as the publishers do; the MD5 of the archive."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, content in {"README": b"read me", **members}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return hashlib.md5(path.read_bytes()).hexdigest()


def _use(monkeypatch, name: str, md5: str, url: str = "http://127.0.0.1:9/nothing") -> binaries.BinarySpec:
    """Stand the small archive in for the real one."""
    spec = binaries.BINARY_SPECS[name]
    spec = dataclasses.replace(spec, archive=dataclasses.replace(spec.archive, md5=md5, url=url))
    monkeypatch.setitem(binaries.BINARY_SPECS, name, spec)
    return spec


def _records(images: np.ndarray, *labels: np.ndarray) -> bytes:
    """(n, 3, 32, 32) pictures and label columns as CIFAR's bytes, written picture by picture."""
    return b"".join(bytes(int(column[k]) for column in labels) + image.tobytes() for k, image in enumerate(images))


@pytest.fixture
def cifar10(tmp_path, monkeypatch):
    images = RANDOM.integers(0, 256, (6, 4, 3, 32, 32), dtype=np.uint8)
    labels = RANDOM.integers(0, 10, (6, 4))
    names = [f"cifar-10-batches-bin/{name}.bin" for name in [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]]
    members = {name: _records(images[k], labels[k]) for k, name in enumerate(names)}
    members = dict(sorted(members.items(), reverse=True))  # the order in the archive is not the order of the parts
    members["cifar-10-batches-bin/batches.meta.txt"] = "\n".join([*(f"class{k}" for k in range(10)), "", ""]).encode()
    _use(monkeypatch, "cifar10", _write(tmp_path / "cifar-10-binary.tar.gz", members))
    return tmp_path, images, labels


def test_cifar10_is_read_to_the_bit(cifar10):
    root, images, labels = cifar10
    train, test = (open_source("cifar10", split, root) for split in ("train", "test"))
    assert torch.equal(train.images, torch.from_numpy(images[:5].reshape(20, 3, 32, 32)))
    assert train.labels.tolist() == labels[:5].flatten().tolist()
    assert torch.equal(test.images, torch.from_numpy(images[5]))
    assert test.class_names == tuple(f"class{k}" for k in range(10))
    assert len(open_source("cifar10", "all", root)) == 24
    assert open_source("cifar10", "train", root, unlabelled=True).labels is None
    assert open_source("cifar10", "test", root, image_size=16).images.shape == (4, 3, 16, 16)


def test_the_cache_folder_can_be_named_by_the_environment(cifar10, monkeypatch):
    root, _, _ = cifar10
    monkeypatch.setenv("PRETINT_DATA", str(root))
    assert len(open_source("cifar10", "test")) == 4
    assert cache_root() == root
    monkeypatch.delenv("PRETINT_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_root() == Path("/somewhere/pretint")
    assert cache_root(Path("/here")) == Path("/here")


def test_cifar100_has_its_fine_labels(tmp_path, monkeypatch):
    images = RANDOM.integers(0, 256, (5, 3, 32, 32), dtype=np.uint8)
    coarse, fine = np.array([1, 2, 3, 4, 5]), np.array([99, 0, 50, 7, 8])
    members = {
        "cifar-100-binary/fine_label_names.txt": "\n".join(f"fine{k}" for k in range(100)).encode() + b"\n",
        "cifar-100-binary/test.bin": _records(images[:2], coarse, fine),
        "cifar-100-binary/train.bin": _records(images, coarse, fine),
    }
    _use(monkeypatch, "cifar100", _write(tmp_path / "cifar-100-binary.tar.gz", members))
    source = open_source("cifar100", "train", tmp_path)
    assert torch.equal(source.images, torch.from_numpy(images))
    assert source.labels.tolist() == fine.tolist()
    assert source.class_names[99] == "fine99"


def test_stl10_is_column_major_and_counts_from_one(tmp_path, monkeypatch):
    images = {name: RANDOM.integers(0, 256, (n, 3, 96, 96), dtype=np.uint8) for name, n in (("train", 3), ("test", 2))}
    images["unlabeled"] = RANDOM.integers(0, 256, (4, 3, 96, 96), dtype=np.uint8)
    members = {f"stl10_binary/{k}_X.bin": v.transpose(0, 1, 3, 2).tobytes() for k, v in images.items()}
    members |= {"stl10_binary/train_y.bin": bytes([1, 10, 5]), "stl10_binary/test_y.bin": bytes([2, 3])}
    members["stl10_binary/class_names.txt"] = "\n".join(f"c{k}" for k in range(1, 11)).encode()
    _use(monkeypatch, "stl10", _write(tmp_path / "stl10_binary.tar.gz", members))
    train = open_source("stl10", "train", tmp_path, image_size=96)
    assert torch.equal(train.images, torch.from_numpy(images["train"]))
    assert train.labels.tolist() == [0, 9, 4]
    assert train.class_names[9] == "c10"
    assert open_source("stl10", "test", tmp_path).labels.tolist() == [1, 2]
    bare = open_source("stl10", "train", tmp_path, image_size=96, unlabelled=True)
    assert torch.equal(bare.images, torch.from_numpy(images["unlabeled"]))
    assert bare.labels is None
    # Resized on reading: the mean of every third of a picture stays what it was.
    small = open_source("stl10", "train", tmp_path, image_size=32, unlabelled=True)
    assert abs(float(small.images.float().mean()) - float(bare.images.float().mean())) < 1


def test_a_flipped_byte_is_refused_and_the_file_named(cifar10):
    root, _, _ = cifar10
    path = root / "cifar-10-binary.tar.gz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz' is damaged .*delete it"):
        open_source("cifar10", "train", root)


@pytest.mark.parametrize("loss", ["a member", "a byte"])
def test_an_archive_with_the_right_sum_and_wrong_content_is_refused(tmp_path, monkeypatch, loss):
    record = bytes(1 + 3072)
    members = {f"cifar-10-batches-bin/data_batch_{k}.bin": record for k in range(1, 6)}
    members |= {"cifar-10-batches-bin/batches.meta.txt": b"a\nb\n"}
    if loss == "a member":
        del members["cifar-10-batches-bin/data_batch_3.bin"]
    else:
        members["cifar-10-batches-bin/data_batch_3.bin"] = record[:-1]
    _use(monkeypatch, "cifar10", _write(tmp_path / "cifar-10-binary.tar.gz", members))
    with pytest.raises(DataError, match="data_batch_3" if loss == "a member" else "inside a picture"):
        open_source("cifar10", "train", tmp_path)


def test_without_a_network_one_sentence_says_which_file_from_where_and_where_to(tmp_path, monkeypatch):
    spec = _use(monkeypatch, "cifar100", "0" * 32)
    with pytest.raises(DataError) as caught:
        open_source("cifar100", "train", tmp_path / "cache")
    message = str(caught.value)
    assert "\n" not in message
    for part in ("cifar-100-binary.tar.gz", spec.archive.url, str(tmp_path / "cache")):
        assert part in message
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.fixture
def server(tmp_path):
    """A web server for the folder tmp_path/web; yields its address."""
    (tmp_path / "web").mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path / "web"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


def _small_cifar100() -> dict[str, bytes]:
    members = {f"cifar-100-binary/{split}.bin": bytes(3074) * 2 for split in ("train", "test")}
    return {**members, "cifar-100-binary/fine_label_names.txt": b"\n".join(b"f%d" % k for k in range(100))}


def test_an_archive_is_downloaded_once_and_only_whole(tmp_path, monkeypatch, server):
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    md5 = _write(tmp_path / "web" / "cifar-100-binary.tar.gz", _small_cifar100())
    cache, url = tmp_path / "cache", f"{server}/cifar-100-binary.tar.gz"
    _use(monkeypatch, "cifar100", "f" * 32, url)  # the server's file is not the one that is expected
    with pytest.raises(DataError, match="could not be downloaded"):
        open_source("cifar100", "train", cache)
    assert list(cache.iterdir()) == []
    _use(monkeypatch, "cifar100", md5, url)
    assert len(open_source("cifar100", "train", cache)) == 2
    assert [path.name for path in cache.iterdir()] == ["cifar-100-binary.tar.gz"]
    (tmp_path / "web" / "cifar-100-binary.tar.gz").unlink()
    assert len(open_source("cifar100", "test", cache)) == 2


def test_the_sums_of_the_real_archives_are_those_that_torchvision_knows():
    from torchvision.datasets import STL10

    assert binaries.STL10.archive.md5 == STL10.tgz_md5
    assert binaries.STL10.archive.filename == STL10.filename
    assert binaries.STL10.archive.url == STL10.url
    # Of CIFAR torchvision knows only the pickled archives; these sums stand on the publisher's page.
    assert binaries.CIFAR10.archive.md5 == "c32a1d4ab5d03f1284b67883e8d87530"
    assert binaries.CIFAR100.archive.md5 == "03b5dce01913d631647c71ecec9e9cb8"
