"""The 256³ label table against brute force."""

import pytest
import torch

from pretint.colour import PALETTE_SPACES, to_palette_space
from pretint.colour.tables import colour_index, label_table
from pretint.runtime.errors import ArgumentError, UnknownNameError


def _random_colours(n: int, seed: int) -> torch.Tensor:
    return torch.randint(0, 256, (1, 3, 1, n), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def _centres(colours: torch.Tensor, space: str) -> torch.Tensor:
    return to_palette_space(colours, space)[0, :, 0].t().contiguous()


def _brute_force(colours: torch.Tensor, centres: torch.Tensor, space: str) -> torch.Tensor:
    """Nearest of all centres in double precision; argmin takes the first of equal ones."""
    points = to_palette_space(colours, space)[0, :, 0].t().double()  # (n, c)
    return (points[:, None] - centres.double()).square().sum(-1).argmin(1)


@pytest.mark.parametrize(
    ("space", "k"), [(space, 24) for space in PALETTE_SPACES] + [("cbcr", 2), ("rgb", 300), ("ab", 300)]
)
def test_every_colours_label_is_its_nearest_centre(space, k):
    generator = torch.Generator().manual_seed(k)
    centres = _centres(_random_colours(k, seed=k), space)
    centres += 0.01 * centres.std() * torch.randn(centres.shape, generator=generator)
    table = label_table(centres, space)
    assert table.dtype == (torch.uint8 if k <= 256 else torch.int16)
    colours = _random_colours(60_000, seed=1)
    # Greys too: in chroma spaces all of them are one point.
    colours[..., :256] = torch.arange(256, dtype=torch.uint8)
    labels = table[colour_index(colours).flatten().long()].long()
    assert torch.equal(labels, _brute_force(colours, centres, space))


def test_the_lowest_index_wins_a_tie():
    # Red and green are equally far from every colour with R = G, and centre 2 is centre 1 again.
    centres = torch.tensor([[0.0, 1, 0], [1, 0, 0], [1, 0, 0]])
    table = label_table(centres, "rgb").view(256, 256, 256)
    level = torch.arange(256)
    expected = (level[:, None] > level).long()
    assert torch.equal(table.long(), expected[:, :, None].expand(256, 256, 256))


@pytest.mark.parametrize("space", ["ab", "cbcr"])
def test_chroma_labels_do_not_depend_on_the_lightness_of_greys(space):
    centres = torch.tensor([[-0.3, -0.3], [0.0, 0.0], [0.3, 0.3]]) * (100 if space == "ab" else 1)
    table = label_table(centres, space)
    greys = torch.arange(256) * (65536 + 256 + 1)
    assert (table[greys] == 1).all()


def test_the_table_does_not_depend_on_the_number_of_threads():
    centres = _centres(_random_colours(24, seed=5), "lab")
    before = torch.get_num_threads()
    tables = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            tables.append(label_table(centres, "lab"))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*tables)


def test_colour_index_counts_through_the_cube():
    colours = torch.tensor([[0, 0, 1], [0, 1, 0], [1, 0, 0], [255, 255, 255]], dtype=torch.uint8)
    assert colour_index(colours.t().reshape(1, 3, 1, 4)).flatten().tolist() == [1, 256, 65536, 2**24 - 1]


def test_unknown_spaces_and_too_many_centres_are_refused():
    with pytest.raises(UnknownNameError, match="did you mean 'cbcr'"):
        to_palette_space(_random_colours(1, 0), "ycbcr")
    with pytest.raises(ArgumentError, match="at most 32768 colours, got 40000"):
        label_table(torch.zeros(40_000, 3), "rgb")
