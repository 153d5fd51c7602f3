import numpy as np
import pytest
import torch

from pretint.evaluation.swatches import palette_confusion
from pretint.runtime import ArgumentError

COLOURS = np.array([[250, 10, 20], [30, 240, 50], [60, 70, 230]], np.uint8)
CELL = 30


def cells(image) -> np.ndarray:
    """The colour near the corner of each of the 4 × 4 squares that begin at the swatches: away from numbers and frames."""
    array = np.asarray(image).astype(int)
    top = np.argwhere((array == COLOURS[0]).all(-1))[:, 0].min()  # the first row of swatches
    left = np.argwhere((array == COLOURS[0]).all(-1))[:, 1].min()
    right = np.argwhere((array == COLOURS[2]).all(-1))[:, 1].max()
    starts = [left, *(right + 1 - (2 - k) * CELL - (CELL - 3) for k in range(3))]
    rows = [top, *starts[1:]]
    return np.array([[array[y + 2, x + 2] for x in starts] for y in rows])


def test_both_axes_carry_the_swatches_in_order():
    found = cells(palette_confusion(np.eye(3, dtype=int), COLOURS, cell=CELL))
    assert np.array_equal(found[0, 1:], COLOURS)
    assert np.array_equal(found[1:, 0], COLOURS)


def test_rows_are_true_colours_and_darker_cells_are_larger_shares():
    shown = cells(palette_confusion([[80, 20, 0], [0, 5, 5], [0, 0, 7]], COLOURS, cell=CELL))[1:, 1:].sum(-1)
    shares = np.array([[0.8, 0.2, 0], [0, 0.5, 0.5], [0, 0, 1]])
    white = shown == 3 * 255
    assert np.array_equal(white, shares == 0)
    order = np.argsort(shares.flatten(), kind="stable")
    assert (np.diff(shown.flatten()[order]) <= 0).all()
    assert shown[1, 1] == shown[1, 2] > shown[2, 2]


def test_a_row_counts_by_its_shares_and_an_empty_one_stays_white():
    once, often = [[6, 2, 0], [0, 0, 0], [1, 1, 2]], [[600, 200, 0], [0, 0, 0], [1, 1, 2]]
    image = palette_confusion(once, COLOURS, cell=CELL)
    assert image.tobytes() == palette_confusion(torch.tensor(often), torch.from_numpy(COLOURS), cell=CELL).tobytes()
    assert (cells(image)[2, 1:] == 255).all()


def ink(image) -> int:
    """Dark pixels among the cells: frames, and numbers on light cells (those on dark ones are white)."""
    array = np.asarray(image)[-3 * CELL - 10 :, -3 * CELL - 10 :].astype(int)
    return int((array.max(-1) < 0x60).sum())


def test_shares_from_five_per_cent_on_are_written_and_smaller_ones_are_not():
    six, four, none = (
        palette_confusion([[0, 100 - few, few], [0] * 3, [0] * 3], COLOURS, cell=CELL) for few in (6, 4, 0)
    )
    assert ink(six) > ink(none)
    assert ink(four) == ink(none)


def test_the_words_beside_a_small_matrix_are_not_cut_off():
    image = np.asarray(palette_confusion([[1, 0], [0, 1]], COLOURS[:2], cell=8))
    dark = image.max(-1) < 0x60
    assert dark[:20].any()
    assert not dark[-1].any()
    assert not dark[:, -1].any()


@pytest.mark.parametrize(
    ("counts", "colours", "cell", "message"),
    [
        ([[1, 2, 3]], COLOURS, 26, "k × k"),
        (np.zeros((0, 0), int), COLOURS, 26, "k × k"),
        ([[1, -2, 0], [0, 1, 0], [0, 0, 1]], COLOURS, 26, "none negative"),
        (np.eye(3, dtype=int), COLOURS[:2], 26, "3 uint8 RGB"),
        (np.eye(3, dtype=int), COLOURS, 5, "at least 8"),
    ],
)
def test_what_makes_no_matrix_is_refused(counts, colours, cell, message):
    with pytest.raises(ArgumentError, match=message):
        palette_confusion(counts, colours, cell=cell)
