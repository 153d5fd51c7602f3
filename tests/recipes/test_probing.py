"""What a probe looks at: averages and grids of every stage, and of a pair either half alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pretint.recipes import ProbeConfig, pretrain, probe
from pretint.runtime.errors import ArgumentError, UnknownNameError
from pretint.runtime.results import read_results

from .conftest import small_config

pytestmark = pytest.mark.usefixtures("few_steps")


@pytest.fixture(scope="module")
def pair_run(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "pair"
    pretrain(small_config(small_data, out, task="contrast", backbone="pretint_cnn", epochs=1, width=4))
    return out


def test_grids_stand_beside_averages(small_run: Path, tmp_path: Path):
    run = Path(shutil.copytree(small_run, tmp_path / "run"))
    outcome = probe(ProbeConfig(run=run, grid=3, control=False, cache=False, precision="fp32"))
    rows = [row for row in outcome.results["transfer"] if row["init"] == "pretrained"]
    stages = [f"stage{i}" for i in range(3)]
    assert list(rows[0]["per_layer"]) == [
        *stages,
        *(f"{name}/3x3" for name in stages),
        "hypercolumn",
        "hypercolumn/3x3",
    ]


def test_a_half_is_judged_beside_random_weights_of_its_own(pair_run: Path):
    for part in (None, "luma", "chroma"):
        probe(ProbeConfig(run=pair_run, part=part, grid=1, cache=False, precision="fp32"))
    rows = read_results(pair_run)["transfer"]
    assert [(row["init"], row["sees"]) for row in rows] == [
        (init, sees) for sees in ("luma and chroma", "grey", "chroma") for init in ("pretrained", "random")
    ]


def test_both_solvers_find_nearly_the_same(small_run: Path, tmp_path: Path):
    found = []
    for solver in ("sgd", "lbfgs"):
        run = Path(shutil.copytree(small_run, tmp_path / solver))
        outcome = probe(ProbeConfig(run=run, grid=1, control=False, cache=False, precision="fp32", solver=solver))
        (row,) = outcome.results["transfer"]
        assert row["settings"] == {"grid": 1, "solver": solver}
        found.append([layer["test_top1"] for layer in row["per_layer"].values()])
    # 100 test images, and each solver chooses its own weight decay
    assert found[0] == pytest.approx(found[1], abs=0.06)


def test_what_has_no_halves_is_refused(small_run: Path):
    with pytest.raises(ArgumentError, match="pair"):
        probe(ProbeConfig(run=small_run, part="luma"))
    with pytest.raises(UnknownNameError, match="--part"):
        ProbeConfig(run=small_run, part="grey")
    with pytest.raises(ArgumentError, match="--grid"):
        ProbeConfig(run=small_run, grid=0)
