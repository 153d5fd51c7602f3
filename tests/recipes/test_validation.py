"""What is measured of the held-out images after each epoch?"""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from pretint.recipes import pretrain
from pretint.recipes.training_data import held_out_ids, open_training_source
from pretint.runtime.device import Compute
from pretint.runtime.runfolder import RunFolder

from .conftest import small_config


@pytest.mark.parametrize(("limit", "holdout", "held", "measured"), [(399, 0.644, 257, True), (66, 0.001, 1, False)])
def test_a_picture_that_is_left_alone_ends_no_run(
    small_data: Path, tmp_path: Path, limit: int, holdout: float, held: int, measured: bool
):
    """Batches of 256 leave one picture for the last, which contrast has nothing to tell from."""
    config = small_config(small_data, tmp_path / "run", task="contrast", epochs=1, limit=limit, holdout=holdout)
    assert len(held_out_ids(config, open_training_source(config, Compute.choose("cpu")))[1]) == held
    pretrain(config)
    (row,) = RunFolder.open(tmp_path / "run").read_metrics()
    assert ("validation_loss" in row) == measured
    if measured:
        assert 0 < row["validation_loss"] < 2 * math.log(256)
