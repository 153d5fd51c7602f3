import base64
import io

import numpy as np
import pytest
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier

from pretint.evaluation import ReportRun, project
from pretint.evaluation.embedding import maps
from pretint.runtime import ArgumentError


def clusters(count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Three groups far apart in 80 dimensions, and which one each row is of."""
    generator = np.random.default_rng(0)
    labels = np.arange(count) % 3
    centres = 20 * generator.normal(size=(3, 80))
    return (centres[labels] + generator.normal(size=(count, 80))).astype(np.float32), labels


def test_what_is_far_apart_among_the_features_is_apart_on_the_map():
    features, labels = clusters()
    places = project(features)
    assert places.shape == (60, 2)
    assert KNeighborsClassifier(3).fit(places, labels).score(places, labels) == 1
    assert np.array_equal(places, project(features))


@pytest.mark.parametrize(("rows", "columns"), [(1, 5), (2, 5), (7, 1), (20, 1)])
def test_few_pictures_and_few_features_have_a_map_too(rows, columns):
    places = project(np.random.default_rng(1).normal(size=(rows, columns)))
    assert places.shape == (rows, 2)
    assert np.isfinite(places).all()


def test_equal_features_lie_on_one_place():
    assert not project(np.ones((12, 4))).any()


@pytest.mark.parametrize("features", [np.zeros((0, 3)), np.array([[np.nan, 1.0]])])
def test_no_pictures_and_features_that_are_not_finite_are_refused(features):
    with pytest.raises(ArgumentError, match="finite"):
        project(features)


def mapped(name: str, count: int = 5, **changes) -> ReportRun:
    shades = np.linspace(0, 250, count).astype(np.uint8)
    embedding = {
        "points": np.random.default_rng(2).normal(size=(count, 2)),
        "labels": np.arange(count) % 2,
        "class_names": ["cat", "dog"],
        "thumbnails": np.broadcast_to(shades[:, None, None, None], (count, 3, 8, 8)),
    }
    return ReportRun(name, embedding=embedding | changes)


def test_runs_that_saw_the_same_pictures_share_a_sprite():
    found = maps([mapped("a"), mapped("b"), mapped("c", count=4), ReportRun("none")])
    assert [(each["name"], each["sprite"]) for each in found["drawn"]] == [("a", 0), ("b", 0), ("c", 1)]
    assert len(found["sprites"]) == 2


def test_the_sprite_holds_every_picture_where_the_page_looks_for_it():
    found = maps([mapped("a")])
    (drawn,) = found["drawn"]
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(found["sprites"][0].split(",")[1]))))
    for place in range(5):
        top, left = place // drawn["columns"] * 8, place % drawn["columns"] * 8
        assert abs(sheet[top : top + 8, left : left + 8].mean() - 250 * place / 4) < 2


def test_each_dot_is_in_its_class_and_inside_the_drawing():
    (drawn,) = maps([mapped("a")])["drawn"]
    assert [(each["name"], [place for _, _, place in each["points"]]) for each in drawn["classes"]] == [
        ("cat", [0, 2, 4]),
        ("dog", [1, 3]),
    ]
    places = [(x, y) for each in drawn["classes"] for x, y, _ in each["points"]]
    assert all(0 < x < drawn["width"] and 0 < y < drawn["height"] for x, y in places)
    unlabelled = maps([mapped("a", labels=np.full(5, -1))])["drawn"][0]
    assert [each["name"] for each in unlabelled["classes"]] == [""]
