"""How painting is chosen after training: ways of decoding side by side, sweeps of temperature, maps of confidence."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from PIL import Image

from pretint.cli import main
from pretint.colour import bin_prior, rgb_to_lab
from pretint.data import hold_out, open_source
from pretint.recipes import ColourizeConfig, EvaluateConfig, colourize, evaluate, open_run, pretrain
from pretint.recipes.colour_results import read_bin_prior
from pretint.runtime.device import Compute
from pretint.runtime.errors import ArgumentError, RunFolderError, UnknownNameError
from pretint.runtime.results import read_results
from pretint.runtime.runfolder import RunFolder

from .conftest import small_config

CPU = {"device": "cpu", "precision": "fp32"}


@pytest.fixture
def run_copy(small_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_run, tmp_path / "run"))


@pytest.fixture(scope="module")
def regression_run(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "regression"
    pretrain(small_config(small_data, out, task="lab-regression", epochs=1))
    return out


@pytest.fixture(scope="module")
def superres_run(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "superres"
    pretrain(small_config(small_data, out, task="superres", predict_at=2, grey="lstar", epochs=1, limit=80))
    return out


@pytest.fixture(scope="module")
def square_run(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose network takes pictures of one size alone."""
    out = tmp_path_factory.mktemp("runs") / "square"
    system = {"backbone": "pretint_cs520", "decoder": "cs520", "width": 4, "depth": None}
    pretrain(small_config(small_data, out, task="rgb-regression", epochs=1, limit=80, **system))
    return out


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    rgb = np.kron(np.random.default_rng(0).integers(40, 200, (5, 7, 3)), np.ones((9, 9, 1))).astype(np.uint8)
    Image.fromarray(rgb).save(tmp_path / "my.photo.png")
    return tmp_path / "my.photo.png"


def test_ways_of_painting_stand_side_by_side_in_the_results(run_copy: Path):
    evaluate(EvaluateConfig(run=run_copy, decode="mode", **CPU))
    evaluate(EvaluateConfig(run=run_copy, temperature=1.0, **CPU))
    evaluate(EvaluateConfig(run=run_copy, saturation=0.0, **CPU))
    evaluate(EvaluateConfig(run=run_copy, decode="mode", **CPU))
    entries = read_results(run_copy)["colour"]
    ways = [(entry["decode"], entry["temperature"], entry["saturation"]) for entry in entries]
    assert ways == [("annealed", 0.38, 1.0), ("mode", None, 1.0), ("annealed", 1.0, 1.0), ("annealed", 0.38, 0.0)]
    # how it is painted changes the picture, not what is predicted
    assert [entry["top1"] for entry in entries[1:]] == [entries[1]["top1"]] * 3
    assert len({entry["ab_rmse"] for entry in entries}) == 4
    assert entries[1]["colourfulness"] > entries[2]["colourfulness"]  # the mode is vivid, the mean is dull
    assert entries[3]["ab_rmse"] == pytest.approx(entries[3]["grey_ab_rmse"], rel=0.02)
    figures = {path.stem for path in (run_copy / "figures").glob("evaluate-*.png")}
    assert {name.removeprefix("evaluate-scenes.npz-test-") for name in figures} == {"mode", "t1.0", "s0.0"}


def test_an_entry_has_all_that_concerns_labels_and_classes(small_run: Path):
    (entry,) = read_results(small_run)["colour"]
    confusion = np.array(entry["confusion"])
    assert confusion.shape == (8, 8)
    assert np.trace(confusion) / confusion.sum() == pytest.approx(entry["top1"])
    assert 0 <= entry["class_balanced_top1"] <= 1
    assert len(entry["delta_m3_per_class"]) == 2
    # 100 pictures of two classes: their mean is the whole's if the classes are weighed by their pictures
    low, high = sorted(entry["delta_m3_per_class"])
    assert low <= entry["delta_m3"] <= high


def test_the_rebalanced_area_weighs_by_the_training_pictures(small_run: Path, small_data: Path):
    train = open_source(str(small_data), "train", image_size=32)
    kept, _ = hold_out(train, 0.1, 0)
    prior = read_bin_prior(RunFolder(small_run))
    assert torch.equal(prior, bin_prior(lambda: [train.gather(kept)]))
    (entry,) = read_results(small_run)["colour"]
    assert entry["auc_prior"] == "training"
    for key in ("ab_rmse", "auc", "auc_rebalanced"):
        assert entry[f"prior_{key}"] is not None
    assert 0 < entry["auc_rebalanced"] < 100


def test_a_run_without_that_prior_weighs_by_the_judged_pictures(run_copy: Path):
    (run_copy / "chroma.json").unlink()
    evaluate(EvaluateConfig(run=run_copy, **CPU))
    (entry,) = read_results(run_copy)["colour"]
    assert entry["auc_prior"] == "judged"
    assert entry["prior_auc"] is None
    (run_copy / "chroma.json").write_text('{"bin_prior": [0.5, 0.5]}')
    with pytest.raises(RunFolderError, match="2 shares"):
        evaluate(EvaluateConfig(run=run_copy, **CPU))


def test_a_task_that_predicts_colours_takes_saturation_alone(regression_run: Path, photo: Path, tmp_path: Path):
    evaluate(EvaluateConfig(run=regression_run, saturation=0.0, **CPU))
    entries = read_results(regression_run)["colour"]
    assert [(entry["decode"], entry["temperature"], entry["saturation"]) for entry in entries] == [
        (None, None, 1.0), (None, None, 0.0),
    ]  # fmt: skip
    for options in ({"decode": "mode"}, {"temperature": 0.5}):
        with pytest.raises(ArgumentError, match="lab-regression paints in its own way alone"):
            evaluate(EvaluateConfig(run=regression_run, **options, **CPU))
    refused = {"confidence": True}, {"temperatures": (0.1, 1.0)}, {"decode": "mode"}
    for options, says in zip(refused, ("no distribution", "own way alone", "own way alone"), strict=True):
        with pytest.raises(ArgumentError, match=says):
            colourize(ColourizeConfig(run=regression_run, pictures=(photo,), out=tmp_path / "x", **options, **CPU))
    assert not (tmp_path / "x").exists()


def test_confidence_is_written_beside_each_picture(small_run: Path, photo: Path, tmp_path: Path):
    out = tmp_path / "painted"
    outcome = colourize(ColourizeConfig(run=small_run, pictures=(photo,), out=out, confidence=True, **CPU))
    assert outcome.results["painted"] == [str(out / "my.photo.png")]
    assert outcome.results["confidence"] == [str(out / "my.photo.confidence.png")]
    shown = np.asarray(Image.open(out / "my.photo.confidence.png"))
    rgb = torch.from_numpy(np.array(Image.open(photo))).permute(2, 0, 1)
    sure = open_run(small_run, Compute.choose("cpu", "fp32")).painter.look_at(rgb, 32).confidence()
    # the nearest of the map's 256 colours says how sure: high is bright
    table = colormaps["cividis"](np.arange(256), bytes=True)[:, :3].astype(int)
    read = np.abs(shown[..., None, :].astype(int) - table).sum(-1).argmin(-1) / 255
    assert shown.shape == (45, 63, 3)
    assert np.abs(read - sure.numpy()).max() < 0.02
    assert table[255].sum() > table[0].sum()


def test_a_sweep_paints_a_file_for_each_temperature(small_run: Path, photo: Path, tmp_path: Path):
    swept, alone = tmp_path / "swept", tmp_path / "alone"
    colourize(ColourizeConfig(run=small_run, pictures=(photo,), out=swept, temperatures=(0.05, 0.38, 1.0), **CPU))
    assert {path.name for path in swept.iterdir()} == {f"my.photo.t{t}.png" for t in (0.05, 0.38, 1.0)}
    colourize(ColourizeConfig(run=small_run, pictures=(photo,), out=alone, temperature=0.05, **CPU))
    first, last, single = (
        np.asarray(Image.open(path))
        for path in (swept / "my.photo.t0.05.png", swept / "my.photo.t1.0.png", alone / "my.photo.png")
    )
    assert np.array_equal(first, single)
    assert (first != last).any()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"temperature": 0.5, "temperatures": (0.1,)}, "--temperature and --temperatures"),
        ({"decode": "mode", "temperatures": (0.1,)}, "--decode mode has none"),
        ({"temperatures": (0.1, 1.5)}, r"temperature: 1\.5 must be above 0"),
        ({"temperature": 0.0}, r"temperature: 0\.0 must be above 0"),
        ({"saturation": -1.0}, r"saturation: -1\.0"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_is_read(options, says):
    with pytest.raises(ArgumentError, match=says):
        ColourizeConfig(run=Path("none"), pictures=(Path("none.png"),), **options)


def test_a_mistyped_way_is_refused_before_anything_is_read():
    with pytest.raises(UnknownNameError, match="did you mean 'sample'"):
        EvaluateConfig(run=Path("none"), decode="sampel")


def test_two_pictures_never_become_one_file(small_run: Path, photo: Path, tmp_path: Path):
    other = tmp_path / "my.photo.confidence.jpg"
    Image.open(photo).save(other)
    with pytest.raises(ArgumentError, match="would both become"):
        colourize(ColourizeConfig(run=small_run, pictures=(photo, other), out=tmp_path / "out", confidence=True, **CPU))


def test_the_command_takes_several_temperatures(small_run: Path, photo: Path, tmp_path: Path, capsys):
    words = ["colourize", str(small_run), str(photo), "--out", str(tmp_path / "out"), "--temperatures", "0.1", "1.0"]
    assert main([*words, "--decode", "sample"]) == 0
    assert "Painted 1 picture into" in capsys.readouterr().out
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_a_run_that_gives_no_colours_to_grey_pictures_paints_no_photograph(superres_run: Path, tmp_path: Path):
    # refused before the picture, which is not there, would be read
    (tmp_path / "empty.png").touch()
    config = ColourizeConfig(run=superres_run, pictures=(tmp_path / "empty.png",), out=tmp_path / "out", **CPU)
    with pytest.raises(ArgumentError, match="task: superres gives no colours to grey pictures; take a run of palette"):
        colourize(config)
    assert not (tmp_path / "out").exists()


def test_the_grey_that_is_shown_beside_paintings_is_as_light_as_the_picture(superres_run: Path):
    with np.load(superres_run / "figures" / "pictures.npz") as arrays:
        true, grey = torch.from_numpy(arrays["true"]), torch.from_numpy(arrays["grey"])
    assert (grey.amax(1) == grey.amin(1)).all()
    lightness = [rgb_to_lab(pictures)[:, 0] for pictures in (true, grey)]
    torch.testing.assert_close(*lightness, atol=0.3, rtol=0)  # a level of uint8 is at most 0.55 units of L*


def test_a_network_of_one_size_paints_pictures_of_any(square_run: Path, photo: Path, tmp_path: Path):
    colourize(ColourizeConfig(run=square_run, pictures=(photo,), out=tmp_path / "out", **CPU))
    painted = np.asarray(Image.open(tmp_path / "out" / "my.photo.png"))
    assert painted.shape == (45, 63, 3)
    with pytest.raises(ArgumentError, match="--size: this network sees pictures of 32 × 32 pixels alone, not of 64"):
        colourize(ColourizeConfig(run=square_run, pictures=(photo,), out=tmp_path / "none", size=64, **CPU))
    assert not (tmp_path / "none").exists()
