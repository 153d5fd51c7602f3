import numpy as np
import pytest
import torch
from skimage.color import deltaE_ciede2000, rgb2lab

from pretint.evaluation import picture_delta_e2000, worst_and_best
from pretint.runtime import ArgumentError


def pictures(seed: int) -> torch.Tensor:
    return torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_the_error_of_a_picture_is_scikit_images_mean_over_its_pixels():
    painted, true = pictures(0), pictures(1)
    labs = [rgb2lab(each.numpy().transpose(0, 2, 3, 1)) for each in (painted, true)]
    expected = deltaE_ciede2000(*labs).mean((1, 2))
    np.testing.assert_allclose(picture_delta_e2000(painted, true).numpy(), expected, rtol=1e-3)


def test_pictures_of_other_sizes_are_refused():
    with pytest.raises(ArgumentError, match="same pictures"):
        picture_delta_e2000(pictures(0), pictures(1)[:2])


@pytest.mark.parametrize("count", [0, 1, 5, 12, 40])
def test_worst_and_best_are_the_ends_of_the_sorted_errors_and_share_nothing(count):
    errors = torch.randperm(count, generator=torch.Generator().manual_seed(2)).float()
    worst, best = worst_and_best(errors, most=6)
    kept = min(6, count // 2)
    assert errors[worst].tolist() == sorted(errors.tolist(), reverse=True)[:kept]
    assert errors[best].tolist() == sorted(errors.tolist())[:kept]
    assert not set(worst.tolist()) & set(best.tolist())
