"""Is PretintFeatures a scikit-learn transformer by scikit-learn's own checks, and are its features the encoder's?"""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from pretint.backbones import create_backbone, features, load_backbone, save_backbone
from pretint.data.images import fit_pictures
from pretint.downstream import PretintFeatures
from pretint.runtime import ArgumentError, RunFolderError, UnknownNameError


@pytest.fixture(autouse=True, scope="module")
def _folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Small encoders under relative paths, since scikit-learn's checks want their estimator while tests are collected."""
    folder, before = tmp_path_factory.mktemp("encoders"), Path.cwd()
    torch.manual_seed(0)
    save_backbone(create_backbone("pretint_cnn", width=4, depth=3), folder / "encoder")
    save_backbone(create_backbone("timm/resnet18"), folder / "run" / "encoder")
    save_backbone(create_backbone("timm/vit_tiny_patch16_224", depth=1, patch_size=4), folder / "fixed")
    os.chdir(folder)
    yield
    os.chdir(before)


def make_images(n: int = 7, h: int = 12, w: int = 20, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, h, w, channels), dtype=np.uint8)


def reference(images: np.ndarray, folder: str = "encoder", **options: int) -> np.ndarray:
    """What the encoder itself makes of images (n, h, w, 3)."""
    rgb = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    return features(load_backbone(folder), rgb, **options).numpy()


# scikit-learn's checks use rows of any length (1, 2, 10 …), whose numbers have any range. Each row is folded into a line of
# grey pixels and stretched to the smallest picture that the encoder takes. No check is expected to fail.
@parametrize_with_checks(
    [PretintFeatures("encoder", image_shape=(1, -1), size=(8, 8), pixel_range="minmax")],
    expected_failed_checks=lambda _: {},
)
def test_scikit_learn_finds_nothing_to_complain_of(estimator, check):
    check(estimator)


def test_without_image_shape_it_says_that_it_takes_no_rows():
    tags = [PretintFeatures("encoder", image_shape=shape).__sklearn_tags__() for shape in (None, (8, 8, 3))]
    assert [tag.input_tags.two_d_array for tag in tags] == [False, True]


@pytest.mark.parametrize("folder", ["encoder", "run"])
def test_features_are_those_of_the_encoder_to_the_bit(folder: str):
    images = make_images()
    for x in (images, (images / 255).astype(np.float32)):
        ours = PretintFeatures(folder, batch_size=3).fit_transform(x)
        assert ours.dtype == np.float32
        np.testing.assert_array_equal(ours, reference(x, folder, batch_size=3))


def test_flat_rows_integers_and_lists_give_what_the_images_give():
    images = make_images()
    expected = reference(images)
    rows = images.reshape(len(images), -1)
    for x in (rows, rows.astype(np.int64), rows.tolist(), torch.from_numpy(rows)):
        for shape in ((12, 20, 3), (12, -1, 3)):
            np.testing.assert_array_equal(PretintFeatures("encoder", image_shape=shape).fit_transform(x), expected)
    fitted = PretintFeatures("encoder", image_shape=(12, 20, 3)).fit(images)
    assert fitted.n_features_in_ == 12 * 20 * 3
    assert fitted.image_shape_ == (12, 20, 3)
    np.testing.assert_array_equal(fitted.transform(rows), expected)


def test_grey_images_count_as_three_equal_channels():
    grey = make_images(channels=1)
    expected = reference(grey.repeat(3, axis=-1))
    np.testing.assert_array_equal(PretintFeatures("encoder").fit_transform(grey), expected)
    rows = PretintFeatures("encoder", image_shape=(12, 20))
    np.testing.assert_array_equal(rows.fit_transform(grey.reshape(len(grey), -1)), expected)


def test_size_crops_and_resizes_as_pretraining_does():
    images = make_images()
    rgb = torch.from_numpy(images).permute(0, 3, 1, 2)
    expected = features(load_backbone("encoder"), fit_pictures(rgb, 8)).numpy()
    np.testing.assert_array_equal(PretintFeatures("encoder", size=8).fit_transform(images), expected)
    # in floats nothing is rounded to 8 bits between the resizing and the encoder
    np.testing.assert_allclose(PretintFeatures("encoder", size=8).fit_transform(images / 255), expected, atol=0.02)
    stretched = torch.nn.functional.interpolate(rgb, (16, 16), mode="bicubic", antialias=True)
    expected = features(load_backbone("encoder"), stretched).numpy()
    np.testing.assert_array_equal(PretintFeatures("encoder", size=(16, 16)).fit_transform(images), expected)


def test_a_pixel_range_moves_black_and_white():
    images = make_images() / 255
    expected = reference(images.astype(np.float32))
    for low, high in ((0, 16), (-1, 1), (0, 255)):
        x = low + images * (high - low)
        ours = PretintFeatures("encoder", pixel_range=(low, high)).fit_transform(x)
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_minmax_learns_the_range_from_the_images_of_fit_and_clips_later_ones():
    images = make_images() / 255
    lowest, highest = images.min(), images.max()
    transformer = PretintFeatures("encoder", pixel_range="minmax").fit(100 * images - 50)
    np.testing.assert_allclose(transformer.pixel_range_, (100 * lowest - 50, 100 * highest - 50))
    expected = reference(((images - lowest) / (highest - lowest)).astype(np.float32))
    np.testing.assert_allclose(transformer.transform(100 * images - 50), expected, rtol=1e-4, atol=1e-5)
    white = np.full((1, 12, 20, 3), 1e6)
    np.testing.assert_allclose(transformer.transform(white), reference(np.ones((1, 12, 20, 3), np.float32)), atol=1e-5)
    flat = PretintFeatures("encoder", pixel_range="minmax").fit_transform(np.full((2, 12, 20, 3), 3.0))
    np.testing.assert_array_equal(flat, reference(np.zeros((2, 12, 20, 3), np.float32)))


def stripes(n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Horizontal and vertical stripes of random phase, period and colour: no single pixel tells them apart."""
    generator = np.random.default_rng(0)
    labels = np.arange(n) % 2
    steps = np.arange(16)[:, None] / generator.uniform(3, 6, n) + generator.uniform(0, 1, n)  # (16, n)
    wave = 0.5 + 0.5 * np.sin(2 * np.pi * steps).T[:, :, None, None]  # (n, 16, 1, 1)
    wave = np.where(labels[:, None, None, None] == 1, wave, wave.swapaxes(1, 2))  # (n, 16 or 1, 1 or 16, 1)
    colours = generator.uniform(0.5, 1, (n, 1, 1, 3))
    return (255 * wave * colours * np.ones((n, 16, 16, 3))).astype(np.uint8), labels


def test_a_pipeline_learns_what_raw_pixels_do_not_tell():
    images, labels = stripes(400)
    rows = images.reshape(len(images), -1)
    train, test = slice(0, 300), slice(300, None)
    pipeline = make_pipeline(PretintFeatures("run"), StandardScaler(), LogisticRegression(max_iter=1000))
    assert pipeline.fit(images[train], labels[train]).score(images[test], labels[test]) > 0.9
    raw = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(rows[train], labels[train])
    assert raw.score(rows[test], labels[test]) < 0.7


def test_a_grid_search_clones_it_and_reaches_its_parameters():
    images, labels = stripes()
    pipeline = make_pipeline(PretintFeatures("encoder"), LogisticRegression())
    search = GridSearchCV(pipeline, {"pretintfeatures__size": [8, 16]}, cv=2, error_score="raise").fit(images, labels)
    assert search.best_params_["pretintfeatures__size"] in (8, 16)
    copy = clone(search.best_estimator_[0])
    assert copy.get_params() == search.best_estimator_[0].get_params()
    assert not hasattr(copy, "encoder_")


@pytest.mark.parametrize("how", ["pickle", "joblib"])
def test_a_fitted_pickle_needs_the_folder_no_more(how: str, tmp_path: Path):
    images = make_images()
    shutil.copytree("run", tmp_path / "run")
    fitted = PretintFeatures(tmp_path / "run").fit(images)
    expected = fitted.transform(images)
    shutil.rmtree(tmp_path / "run")
    module, buffer = {"pickle": pickle, "joblib": joblib}[how], BytesIO()
    module.dump(fitted, buffer)
    assert (
        b"torch" not in buffer.getvalue()
    )  # the weights are the folder's file: no class of torch's has to be found again
    buffer.seek(0)
    again = module.load(buffer)
    np.testing.assert_array_equal(again.transform(images), expected)
    assert again.encoder_.card == fitted.encoder_.card
    with pytest.raises(RunFolderError, match="does not exist"):
        clone(again).fit(images)


def test_a_pickle_whose_weights_were_changed_is_refused():
    state = PretintFeatures("encoder").fit(make_images()).__getstate__()
    weights = bytearray(state["_weights"])
    weights[-1] ^= 1
    with pytest.raises(RunFolderError, match="checksum"):
        PretintFeatures("encoder").__setstate__(state | {"_weights": bytes(weights)})


def test_an_unfitted_one_pickles_as_its_parameters_alone():
    blob = pickle.dumps(PretintFeatures("no such folder", size=9))
    assert len(blob) < 500
    assert pickle.loads(blob).get_params()["size"] == 9


def test_names_of_features_and_pandas_output():
    images = make_images()
    transformer = PretintFeatures("encoder", image_shape=(12, 20, 3)).fit(images)
    names = [f"pretintfeatures{i}" for i in range(16)]
    assert transformer.get_feature_names_out().tolist() == names
    pandas = pytest.importorskip("pandas")
    columns = [f"pixel{i}" for i in range(12 * 20 * 3)]
    frame = pandas.DataFrame(images.reshape(len(images), -1), index=list("abcdefg"), columns=columns)
    out = transformer.set_output(transform="pandas").fit(frame).transform(frame)
    assert transformer.feature_names_in_.tolist() == columns
    assert out.columns.tolist() == names
    assert out.index.tolist() == list("abcdefg")
    np.testing.assert_array_equal(out.to_numpy(), reference(images))
    with pytest.raises(ValueError, match="feature names"):
        transformer.transform(frame[columns[::-1]])


def test_it_wants_to_be_fitted():
    with pytest.raises(NotFittedError):
        PretintFeatures("encoder").transform(make_images())


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (make_images()[0], "stack images, a single one as X[None]"),
        (make_images().transpose(0, 3, 1, 2), "put the channels last, such as with X.transpose(0, 2, 3, 1)"),
        (make_images(channels=4), "leave out a fourth one"),
        (make_images()[None], "is not (n, height, width, 3)"),
        (make_images().reshape(7, -1), "give image_shape=(height, width, 3)"),
        (make_images().astype(float), "float64 values from 0 to 255 do not lie in 0…1; give the values of black and white"),
        (make_images().astype(np.int16) - 9, "do not lie in 0…255"),
        (make_images() / 50 - 2, "do not lie in 0…1"),
        (make_images()[:0], "0 sample(s)"),
        (np.full((2, 12, 12, 3), np.nan), "NaN"),
        (np.full((2, 12, 12, 3), "x"), "numeric"),
        (make_images(h=4), "images: 4 × 20 pixels are too small; this encoder takes 8 and more); give size=32"),
    ],
)  # fmt: skip
def test_what_is_no_array_of_images_is_a_sentence(x: np.ndarray, message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        PretintFeatures("encoder").fit(x)


def test_a_size_that_the_encoder_can_not_take_is_named_with_the_one_it_takes():
    with pytest.raises(ValueError, match="give size=32"):
        PretintFeatures("fixed").fit(make_images(h=36, w=36))
    assert PretintFeatures("fixed", size=32).fit_transform(make_images(h=36, w=36)).shape == (7, 192)


def test_other_images_than_those_of_fit_are_refused():
    fitted = PretintFeatures("encoder", image_shape=(12, 20, 3)).fit(make_images())
    with pytest.raises(ValueError, match="differ from those of fit"):
        fitted.transform(make_images(h=20, w=12))
    with pytest.raises(ValueError, match="expecting 720 features"):
        fitted.transform(make_images(h=13))
    with pytest.raises(ValueError, match="do not lie in 0…1"):
        fitted.transform(make_images() * 1.0)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"size": 0}, "size: got 0"),
        ({"size": (8, 8, 8)}, "size: got (8, 8, 8)"),
        ({"image_shape": (8, 8, 4)}, "image_shape: got (8, 8, 4)"),
        ({"image_shape": (-1, -1)}, "image_shape: got (-1, -1)"),
        ({"image_shape": 8}, "image_shape: got 8"),
        ({"pixel_range": (1, 0)}, "pixel_range: got (1, 0)"),
        ({"pixel_range": 255}, "pixel_range: got 255"),
        ({"pixel_range": "auto"}, "pixel_range: got 'auto'"),
        ({"pixel_range": (0, float("nan"))}, "pixel_range: got (0, nan)"),
    ],
)
def test_bad_parameters_are_refused_in_fit_and_not_before(parameters: dict, message: str):
    transformer = PretintFeatures("encoder", **parameters)
    with pytest.raises(ArgumentError, match=re.escape(message)):
        transformer.fit(make_images())


def test_an_unknown_device_and_a_wrong_folder_are_sentences(tmp_path: Path):
    with pytest.raises(UnknownNameError, match="device: 'gpu' is not known"):
        PretintFeatures("encoder", device="gpu").fit(make_images())
    with pytest.raises(RunFolderError, match="does not exist"):
        PretintFeatures("nowhere").fit(make_images())
    (tmp_path / "config.json").write_text(json.dumps({}))
    with pytest.raises(RunFolderError, match="no encoder of Pretint"):
        PretintFeatures(tmp_path).fit(make_images())
    with pytest.raises(ValueError, match="do not fold into image_shape"):
        PretintFeatures("encoder", image_shape=(7, 7, 3)).fit(make_images().reshape(7, -1))
