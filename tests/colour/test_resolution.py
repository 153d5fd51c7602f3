"""Averaging pictures down, against slow means of cells."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pretint.colour import shrink, shrink_to


def _pictures(height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def _slow_means(rgb: torch.Tensor, rows: int, columns: int) -> np.ndarray:
    """The mean of each cell of so many rows and columns; at the border of what is there."""
    pixels = rgb.numpy().astype(float)
    return np.stack([
        np.stack([pixels[..., y : y + rows, x : x + columns].mean((2, 3)) for x in range(0, rgb.shape[3], columns)], -1)
        for y in range(0, rgb.shape[2], rows)
    ], -2)  # fmt: skip


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(8, 12), (9, 11), (5, 4)])
def test_pictures_are_averaged_cell_by_cell_and_rounded(size, factor):
    rgb = _pictures(*size)
    small = shrink(rgb, factor)
    assert small.dtype == torch.uint8
    assert np.abs(small.numpy() - _slow_means(rgb, factor, factor)).max() <= 0.5 + 1e-4


@pytest.mark.parametrize(("size", "wanted", "cells"), [
    ((8, 12), (8, 12), (1, 1)), ((8, 12), (4, 3), (2, 4)), ((9, 11), (5, 6), (2, 2)), ((9, 9), (3, 3), (3, 3)),
])  # fmt: skip
def test_a_size_is_reached_by_whole_factors_of_each_side(size, wanted, cells):
    rgb = _pictures(*size)
    small = shrink_to(rgb, *wanted)
    assert tuple(small.shape[-2:]) == wanted
    assert np.abs(small.numpy() - _slow_means(rgb, *cells)).max() <= 0.5 + 1e-4


def test_where_no_whole_factor_leads_to_a_size_cells_overlap():
    row = torch.tensor([0, 30, 60, 90, 120], dtype=torch.uint8).expand(1, 3, 5, 5).contiguous()
    # cells of ceil(5 / 4) = 2 would give three columns: these are columns 0-1, 1-2, 2-3, 3-4
    assert shrink_to(row, 4, 4)[0, 0].tolist() == [[15, 45, 75, 105]] * 4
