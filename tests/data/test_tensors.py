"""A source gives exactly the pictures asked for, shares memory with its views, and knows its content."""

import pytest
import torch

from pretint.data import Batches, ImageSource, TensorSource, is_grey
from pretint.data.tensors import fits
from pretint.runtime.errors import ArgumentError


def _source(n: int = 10, labelled: bool = True) -> TensorSource:
    images = torch.randint(0, 256, (n, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(n) % 3 if labelled else None
    return TensorSource(images, labels, ("a", "b", "c") if labelled else None, name="x", split="train")


def test_a_tensor_source_is_an_image_source():
    assert isinstance(_source(), ImageSource)


def test_gather_gives_the_pictures_in_the_order_of_the_ids():
    source = _source()
    ids = torch.tensor([7, 0, 7])
    assert torch.equal(source.gather(ids), torch.stack([source.images[7], source.images[0], source.images[7]]))


def test_subsets_of_subsets_name_the_right_pictures_and_share_memory():
    source = _source()
    inner = source.subset(torch.tensor([9, 4, 2, 6])).subset(torch.tensor([3, 0]))
    assert len(inner) == 2
    assert torch.equal(inner.gather(torch.tensor([0, 1])), source.images[[6, 9]])
    assert torch.equal(inner.images, source.images[[6, 9]])
    assert inner.labels.tolist() == [0, 0]
    assert inner.class_names == ("a", "b", "c")
    assert inner._images.data_ptr() == source._images.data_ptr()


def test_a_subset_refuses_ids_that_are_not_there():
    for ids in ([10], [-1], [3, 99]):
        with pytest.raises(ArgumentError, match="0 to 9"):
            _source().subset(torch.tensor(ids))


def test_equal_content_has_an_equal_fingerprint_and_any_change_another():
    source = _source()
    assert _source().fingerprint == source.fingerprint
    assert len(source.fingerprint) == 16
    assert source.subset(torch.arange(10)).fingerprint == source.fingerprint
    changed = source.images.clone()
    changed[9, 2, 7, 7] ^= 1
    others = [
        TensorSource(changed, source.labels),
        TensorSource(source.images, source.labels.flip(0)),
        source.unlabelled(),
        source.subset(torch.arange(9)),
        source.subset(torch.arange(10).flip(0)),
    ]
    assert len({other.fingerprint for other in others} | {source.fingerprint}) == 6


def test_unlabelled_hides_labels_and_class_names():
    bare = _source().unlabelled()
    assert bare.labels is None
    assert bare.class_names is None
    assert bare.subset(torch.tensor([1])).labels is None


def test_moving_to_the_same_device_is_free():
    source = _source()
    assert source.to("cpu") is source


def test_pictures_that_do_not_fit_on_a_device_stay_and_are_read_ahead(monkeypatch):
    source = _source()
    monkeypatch.setattr("pretint.data.tensors.fits", lambda _size, device: device.type == "cpu")
    moved = source.to("meta")  # which torch has everywhere
    view = moved.subset(torch.tensor([8, 1, 5]))
    assert (moved.device.type, view.device.type, moved.images.device.type) == ("meta", "meta", "cpu")
    assert (moved.streams, view.streams, source.streams) == (True, True, False)
    assert moved._images.data_ptr() == source._images.data_ptr()
    assert moved.fingerprint == source.fingerprint
    ids = torch.tensor([2, 0, 2])
    assert torch.equal(moved.gather(ids, "cpu"), source.gather(ids))
    assert torch.equal(view.gather(ids, "cpu"), source.images[[5, 8, 5]])
    assert torch.equal(view.labels_of(ids), source.labels[[5, 8, 5]])
    batches = [Batches(one, 4, seed=3, device="cpu").epoch(1) for one in (moved, source)]
    for left, right in zip(*batches, strict=True):
        assert torch.equal(left.rgb, right.rgb)
        assert torch.equal(left.labels, right.labels)
    back = moved.to("cpu")
    assert (back.streams, back.device.type) == (False, "cpu")
    assert torch.equal(back.labels, source.labels)


def test_pictures_that_take_up_to_half_of_a_gpus_free_memory_move_there(monkeypatch):
    source, moved = _source(), []
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _device: (2 * source.images.nbytes, 10**9))
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device: moved.append(device) or tensor)
    source.to("cuda")
    assert moved == [torch.device("cuda")] * 2  # pictures and labels
    assert not fits(source.images.nbytes + 1, torch.device("cuda"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("free", [0, 10**9])
def test_on_a_gpu_batches_are_the_same_whether_pictures_fit_or_not(monkeypatch, free):
    source = _source(50)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _device: (free, 10**10))
    moved = source.to("cuda")
    assert moved.streams == (free == 0)
    for left, right in zip(*(Batches(one, 8, seed=3).epoch(1) for one in (moved, source)), strict=True):
        assert left.rgb.device.type == left.labels.device.type == left.ids.device.type == "cuda"
        assert torch.equal(left.rgb.cpu(), right.rgb)
        assert torch.equal(left.labels.cpu(), right.labels)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(2, 3, 8, 8), None, "uint8"),
        (torch.zeros(2, 8, 8, 3, dtype=torch.uint8), None, "shape"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), "labels"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.tensor([0.0, 1.0]), "integer"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, -1]), "start at 0"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 5]), "class names"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(images, labels, message):
    with pytest.raises(ArgumentError, match=message):
        TensorSource(images, labels, ("a", "b"))


def test_one_coloured_pixel_makes_a_source_coloured():
    grey = torch.randint(0, 256, (50, 1, 8, 8), dtype=torch.uint8).expand(-1, 3, -1, -1).contiguous()
    assert is_grey(TensorSource(grey))
    grey[31, 2, 4, 5] ^= 8
    assert not is_grey(TensorSource(grey))
