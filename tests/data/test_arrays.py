"""An .npz is read when it holds what it should, and refused in one sentence otherwise; never by unpickling."""

import io
import zipfile

import numpy as np
import pytest
import torch

from pretint.data import available_splits, open_source
from pretint.runtime.errors import DataError

RANDOM = np.random.default_rng(0)


def _images(n: int, height: int = 32, width: int = 32) -> np.ndarray:
    return RANDOM.integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def test_pictures_and_labels_come_back_to_the_bit(tmp_path):
    images, labels = _images(7), np.arange(7) % 3
    np.savez(tmp_path / "x.npz", images=images, labels=labels, class_names=np.array(["a", "b", "c"]))
    source = open_source(tmp_path / "x.npz")
    assert torch.equal(source.images, torch.from_numpy(images).permute(0, 3, 1, 2))
    assert source.labels.tolist() == labels.tolist()
    assert source.class_names == ("a", "b", "c")
    assert available_splits(tmp_path / "x.npz") == ("train",)


def test_a_test_split_lies_beside_it(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", images=_images(5), test_images=_images(3), test_labels=np.array([2, 0, 1]))
    assert available_splits(tmp_path / "x.npz") == ("train", "test")
    assert open_source(tmp_path / "x.npz", "train").labels is None
    assert open_source(tmp_path / "x.npz", "test").labels.tolist() == [2, 0, 1]
    assert open_source(tmp_path / "x.npz", "test", unlabelled=True).labels is None
    assert len(open_source(tmp_path / "x.npz", "all")) == 8


def test_other_sizes_are_resized_and_cropped_about_the_centre(tmp_path):
    images = np.zeros((2, 64, 128, 3), np.uint8)
    images[:, :, 32:96] = (20, 130, 240)
    np.savez(tmp_path / "x.npz", images=images)
    source = open_source(tmp_path / "x.npz", image_size=16)
    assert source.images.shape == (2, 3, 16, 16)
    assert (source.images == torch.tensor([20, 130, 240])[:, None, None]).all()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": _images(2)}, "no array called 'images'"),
        ({"images": _images(2).astype(np.float32)}, "float32.*needed is uint8"),
        ({"images": _images(2).transpose(0, 3, 1, 2)}, "needed is uint8 of shape"),
        ({"images": _images(0)}, "shape"),
        ({"images": np.array([{"a": 1}], dtype=object)}, "cannot be read"),
        ({"images": _images(2), "labels": np.array([1, 2, 3])}, "for each of 2"),
        ({"images": _images(2), "labels": np.array([0.5, 1.5])}, "'labels'.*float64"),
        ({"images": _images(2), "labels": np.array([-1, 0])}, "class number from 0"),
        ({"images": _images(2), "labels": np.array([0, 4]), "class_names": np.array(["a", "b"])}, "from 0 to 1"),
    ],
)
def test_arrays_of_another_kind_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError, match=message):
        open_source(tmp_path / "x.npz")


def test_a_pickle_inside_is_never_loaded(tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").touch, ())

    np.savez(tmp_path / "x.npz", images=_images(2), labels=np.array([Trap(), Trap()], dtype=object))
    with pytest.raises(DataError):
        open_source(tmp_path / "x.npz")
    assert not (tmp_path / "sprung").exists()


def test_a_header_that_claims_terabytes_is_refused_before_memory_is_set_aside(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (10**8, 100, 100, 3)}
    )
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue() + bytes(100))
    with pytest.raises(DataError, match="claims 3000000000"):
        open_source(tmp_path / "x.npz")


def test_a_flipped_byte_and_a_cut_file_are_noticed(tmp_path):
    np.savez(tmp_path / "x.npz", images=_images(4))
    content = bytearray((tmp_path / "x.npz").read_bytes())
    (tmp_path / "cut.npz").write_bytes(content[:5000])
    content[5000] ^= 1
    (tmp_path / "flipped.npz").write_bytes(content)
    for name in ("cut.npz", "flipped.npz"):
        with pytest.raises(DataError, match="cannot be read"):
            open_source(tmp_path / name)


def test_a_split_that_is_not_there_is_named(tmp_path):
    np.savez(tmp_path / "x.npz", images=_images(2))
    with pytest.raises(DataError, match="test_images"):
        open_source(tmp_path / "x.npz", "test")
