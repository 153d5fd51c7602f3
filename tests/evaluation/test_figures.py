from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
import torch

from pretint.evaluation import confusion_matrix, contact_sheet, depth_curves, label_curves, loss_curves
from pretint.runtime import ArgumentError

NASTY = '<script>alert("1")</script> & $x^$ \x00 `'
ROWS = [{"epoch": epoch, "train_loss": 2 / epoch, "validation_loss": str(3 / epoch)} for epoch in (1, 2, 3)]


def pictures(count: int, shade: int = 0, height: int = 8, width: int = 6) -> np.ndarray:
    return np.random.default_rng(shade).integers(0, 256, (count, 3, height, width), dtype=np.uint8)


def texts(svg: str) -> list[str]:
    return ["".join(node.itertext()) for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("columns", [None, 3])
def test_every_pixel_of_the_contact_sheet_is_enlarged_unchanged(columns):
    rows = [pictures(5, shade) for shade in (0, 1)]
    sheet = np.asarray(contact_sheet(rows, ["grey", "true"], scale=3, columns=columns))
    for row in rows:
        for picture in row:
            block = picture.transpose(1, 2, 0).repeat(3, 0).repeat(3, 1)
            windows = np.lib.stride_tricks.sliding_window_view(sheet[..., 0], block.shape[:2])
            corners = np.argwhere((windows[:, :, 0, 0] == block[0, 0, 0]) & (windows[:, :, -1, -1] == block[-1, -1, 0]))
            assert any(np.array_equal(sheet[y : y + 24, x : x + 18], block) for y, x in corners)


def test_the_contact_sheet_without_labels_has_white_gutters_and_nothing_else():
    black = np.zeros((2, 3, 32, 32), np.uint8)
    sheet = np.asarray(contact_sheet([black, black], scale=2, gutter=4))
    assert sheet.shape == (4 + 2 * 68, 4 + 2 * 68, 3)
    assert (sheet == 0).all(-1).sum() == 4 * 64 * 64
    assert (sheet == 255).all(-1).sum() == sheet.shape[0] * sheet.shape[1] - 4 * 64 * 64


def test_labels_are_not_cut_off():
    white = np.full((1, 3, 32, 32), 255, np.uint8)
    sheet = np.asarray(contact_sheet([white], ["Qg runs/a-long-name-of-a-run, jÄ"], scale=2))
    ink = np.argwhere(sheet.min(-1) < 200)
    (top, left), (bottom, right) = ink.min(0), ink.max(0)
    assert top > 0
    assert bottom < sheet.shape[0] - 1
    assert left > 0
    assert right < sheet.shape[1] - 64 - 4  # ends before the picture begins


def test_the_contact_sheet_takes_tensors():
    tensor = torch.from_numpy(pictures(2))
    assert contact_sheet([tensor]).tobytes() == contact_sheet([pictures(2)]).tobytes()


@pytest.mark.parametrize(
    ("rows", "labels", "message"),
    [
        ([], None, "at least one row"),
        ([pictures(0)], None, "at least one row"),
        ([pictures(2), pictures(3)], None, "same pictures"),
        ([pictures(2)], ["a", "b"], "one label a row"),
        ([pictures(2).astype(np.float32)], None, "uint8 of shape"),
    ],
)
def test_rows_that_make_no_sheet_are_refused(rows, labels, message):
    with pytest.raises(ArgumentError, match=message):
        contact_sheet(rows, labels)


def test_figures_are_well_formed_whatever_a_run_is_called():
    figures = [
        loss_curves({NASTY: {NASTY: ROWS}}),
        depth_curves({NASTY: {NASTY: 0.5, "b": 0.6}}, {NASTY: {"b": 0.3}}),
        label_curves({NASTY: {1.0: (0.3, None)}}),
        confusion_matrix([[5, 1], [2, 7]], [NASTY, "b"]),
    ]
    for svg in figures:
        assert "<script" not in svg
        assert any("<script>" in text for text in texts(svg))


def test_long_names_are_shortened_in_the_middle():
    svg = loss_curves({"task": {"runs/" + "x" * 100 + "-end": ROWS}})
    label = next(text for text in texts(svg) if text.startswith("runs/"))
    assert label.endswith("-end")
    assert len(label) <= 40


def test_loss_curves_draw_what_they_are_given():
    svg = loss_curves({"palette": {"a": ROWS, "b": ROWS[:1]}, "rgb-regression": {"c": ROWS}})
    assert {"palette", "rgb-regression", "a", "b", "c", "training", "validation", "epoch", "loss"} <= set(texts(svg))
    assert loss_curves({"t": {"a": ROWS}}) != loss_curves({"t": {"a": ROWS[:2]}})


def test_epochs_without_a_number_are_left_out():
    gaps = [*ROWS, {"epoch": 4, "train_loss": "", "validation_loss": None}, {"epoch": 5, "train_loss": "nan"}]
    assert loss_curves({"t": {"a": gaps}}) == loss_curves({"t": {"a": ROWS}})
    with pytest.raises(ArgumentError, match="nothing to draw"):
        loss_curves({"t": {"a": [{"epoch": 1}]}})


def test_confusion_cells_are_per_cent_of_their_true_class():
    numbers = texts(confusion_matrix([[30, 10], [1, 0]], ["cat", "dog"]))
    assert {"75", "25", "100", "cat", "dog", "true", "predicted"} <= set(numbers)
    assert "0" not in numbers


def test_a_hundred_classes_become_a_small_picture_without_numbers():
    svg = confusion_matrix(np.eye(100, dtype=int) * 50)
    assert len(svg) < 60_000
    assert "<image" in svg


@pytest.mark.parametrize(
    ("counts", "names", "message"),
    [
        ([[1, 2]], None, "square"),
        ([[1, 0], [0, 1]], ["a"], "one name a class"),
        (np.zeros((0, 0), int), None, "square"),
    ],
)
def test_confusions_that_do_not_fit_are_refused(counts, names, message):
    with pytest.raises(ArgumentError, match=message):
        confusion_matrix(counts, names)


def test_figures_take_the_colour_of_the_page_and_leave_no_trace_in_matplotlib():
    before = dict(matplotlib.rcParams)
    svg = loss_curves({"t": {"a": ROWS}}, prefix="here")
    assert dict(matplotlib.rcParams) == before
    assert "currentColor" in svg
    assert "fill: #ffffff" not in svg
    ids = {node.get("id") for node in ElementTree.fromstring(svg).iter() if node.get("id")}
    assert all(str(name).startswith("here-") for name in ids)
    assert svg == loss_curves({"t": {"a": ROWS}}, prefix="here")


def test_label_curves_name_the_labels_and_what_the_lines_mean():
    trained, scratch = {"a": {1.0: (0.2, 0.01), 100.0: (0.8, None)}}, {"a": {1.0: (0.1, None)}}
    svg = label_curves(trained, scratch, unit="labels used, %")
    assert {"a", "1", "100", "labels used, %", "pretrained", "random weights, or from scratch"} <= set(texts(svg))
    assert "supervised" not in texts(svg)
    assert "supervised" in texts(label_curves(trained, scratch, {"b": {10.0: (0.9, None)}}))
    assert label_curves(trained, scratch) != label_curves(trained)
    with pytest.raises(ArgumentError, match="no labels"):
        label_curves({})


def test_a_supervised_control_is_a_line_of_its_own_in_the_colour_of_its_run():
    without = depth_curves({"a": {"stage0": 0.5}}, {"a": {"stage0": 0.4}})
    svg = depth_curves({"a": {"stage0": 0.5}}, {"a": {"stage0": 0.4}}, {"a": {"stage0": 0.7}})
    assert "supervised" in texts(svg)
    assert "supervised" not in texts(without)
    assert "#d9661f" not in svg  # the second run's colour


@pytest.mark.parametrize("runs", [1, 12])
def test_every_entry_of_the_legend_lies_in_the_picture_below_layers_that_need_much_room(runs):
    layers = [f"stage{i}" for i in range(4)] + [f"stage{i}/2x2" for i in range(4)] + ["hypercolumn", "hypercolumn/2x2"]
    series = {f"a-run-with-a-rather-long-name-{k}": dict.fromkeys(layers, 0.5) for k in range(runs)}
    svg = ElementTree.fromstring(depth_curves(series, supervised=series))
    height = float(svg.attrib["viewBox"].split()[3])
    places = {e.text: float(e.attrib["y"]) for e in svg.iter("{http://www.w3.org/2000/svg}text") if "y" in e.attrib}
    assert 0 < places[f"a-run-with-a-rather-long-name-{runs - 1}"] < height
    assert any("rotate(-45" in e.attrib.get("transform", "") for e in svg.iter("{http://www.w3.org/2000/svg}text"))
