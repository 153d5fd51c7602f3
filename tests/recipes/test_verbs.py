"""The verbs, one after another, on a small run."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pretint.backbones import load_backbone
from pretint.colour import luma
from pretint.data import TOY_CLASSES, make_toy, register_source
from pretint.recipes import (
    ColourizeConfig,
    EvaluateConfig,
    FinetuneConfig,
    ProbeConfig,
    ReportConfig,
    RunsConfig,
    colourize,
    evaluate,
    finetune,
    open_run,
    preset_config,
    pretrain,
    probe,
    report,
    resuming,
    runs,
)
from pretint.recipes.options import plain
from pretint.runtime.device import Compute
from pretint.runtime.errors import (
    ArgumentError,
    DataError,
    PretintError,
    RunFolderError,
    UnknownNameError,
)
from pretint.runtime.results import read_results
from pretint.runtime.runfolder import RunFolder
from pretint.runtime.stopping import Interrupted

from .conftest import save_npz, small_config


@pytest.fixture
def run_copy(small_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_run, tmp_path / "run"))


def test_a_run_folder_holds_all_that_later_verbs_need(small_run: Path):
    names = {path.name for path in small_run.iterdir()}
    assert names >= {
        "config.json",
        "metrics.csv",
        "checkpoints",
        "encoder",
        "figures",
        "results.json",
        "palette.json",
        "tensorboard",
    }
    rows = RunFolder.open(small_run).read_metrics()
    assert [row["epoch"] for row in rows] == [1, 2]
    assert all(math.isfinite(value) for row in rows for value in row.values())
    (entry,) = read_results(small_run)["colour"]
    assert entry["bits_per_pixel"] == pytest.approx(entry["cross_entropy_nats"] / math.log(2))
    assert entry["split"] == "test"
    assert entry["images"] == 100
    assert entry["palette"] == "rgb-8"


def test_tensorboard_has_the_curves_and_the_pictures(small_run: Path):
    events = EventAccumulator(str(small_run / "tensorboard")).Reload()
    logged = [event.value for event in events.Scalars("validation_loss")]
    assert logged == pytest.approx(
        [row["validation_loss"] for row in RunFolder.open(small_run).read_metrics()], rel=1e-5
    )
    assert len(events.Images("grey, painted, true")) == 2


def test_saved_pictures_are_grey_painted_true(small_run: Path):
    with np.load(small_run / "figures" / "pictures.npz") as arrays:
        true, grey = torch.from_numpy(arrays["true"]), torch.from_numpy(arrays["grey"])
        assert arrays["painted"].shape == true.shape
    assert (grey == grey[:, :1]).all()
    assert (luma(true) * 255 - grey[:, :1]).abs().max() <= 0.51


def test_the_saved_encoder_is_the_one_of_the_best_epoch(small_run: Path):
    run = open_run(small_run, Compute.choose("cpu", "fp32"))
    saved, trained = load_backbone(small_run).state_dict(), run.painter.model.encoder.state_dict()
    assert saved.keys() == trained.keys()
    assert all(torch.equal(saved[name], trained[name]) for name in saved)


@pytest.mark.usefixtures("few_steps")
def test_probe_and_finetune_add_pretrained_and_random_rows(run_copy: Path):
    probe(ProbeConfig(run=run_copy, precision="fp32"))
    finetune(FinetuneConfig(run=run_copy, labels=0.5, epochs=1))
    rows = read_results(run_copy)["transfer"]
    assert [(row["protocol"], row["init"], row["labels"]) for row in rows] == [
        ("linear", "pretrained", 1.0),
        ("linear", "random", 1.0),
        ("finetune", "pretrained", 0.5),
        ("finetune", "random", 0.5),
    ]
    for row in rows:
        confusion = np.array(row["confusion"])
        assert confusion.sum() == 100
        assert row["top1"] == pytest.approx(np.trace(confusion) / 100)
        assert row["top5"] is None
    assert rows[2]["label_count"] == 200
    probe(ProbeConfig(run=run_copy, control=False))
    assert len(read_results(run_copy)["transfer"]) == 4


def test_evaluate_repeats_the_figures_of_pretraining_and_measures_other_data(run_copy: Path, tmp_path: Path):
    before = read_results(run_copy)["colour"][0]
    evaluate(EvaluateConfig(run=run_copy))
    (after,) = read_results(run_copy)["colour"]
    assert {k: after[k] for k in ("bits_per_pixel", "top1", "ab_rmse")} == pytest.approx(
        {k: before[k] for k in ("bits_per_pixel", "top1", "ab_rmse")}
    )
    other = save_npz(tmp_path / "other.npz", test=30)
    evaluate(EvaluateConfig(run=run_copy, data=str(other)))
    assert sorted(entry["images"] for entry in read_results(run_copy)["colour"]) == [30, 100]


def test_a_run_of_some_classes_paints_others_and_their_entries_stand_side_by_side(
    tmp_path: Path, small_data: Path, forget_registrations
):
    toy = {split: make_toy(split, n=100) for split in ("train", "test")}
    register_source("toys", lambda split, **_: toy[split])
    first, second = TOY_CLASSES[:2]
    out = tmp_path / "run"
    config = small_config(Path("toys"), out, classes=(first,), epochs=1, batch_size=4, depth=2, device="cpu")
    (own,) = pretrain(config).results["colour"]
    evaluate(EvaluateConfig(run=out, classes=(second,)))
    evaluate(EvaluateConfig(run=out, data="toys"))
    evaluate(EvaluateConfig(run=out))
    entries = read_results(out)["colour"]
    assert [entry["data"] for entry in entries] == [f"toy ({first})", f"toy ({second})", "toy"]
    shown = [int((toy["test"].labels == label).sum()) for label in (0, 1)]
    assert [entry["images"] for entry in entries] == [*shown, len(toy["test"])]
    assert entries[0]["ab_rmse"] == pytest.approx(own["ab_rmse"])
    with pytest.raises(UnknownNameError, match="--classes"):
        evaluate(EvaluateConfig(run=out, data="toys", classes=("shipp",)))
    assert (out / "figures" / f"evaluate-toy-{second}-test.png").is_file()


def test_classes_that_were_not_held_out_are_refused(tmp_path: Path, forget_registrations):
    toy = make_toy("train", n=100)
    register_source("toys", lambda split, **_: toy, splits=("train",))
    first, second = TOY_CLASSES[:2]
    config = small_config(
        Path("toys"), tmp_path / "run", classes=(first,), epochs=1, batch_size=4, depth=2, device="cpu"
    )
    pretrain(config)
    with pytest.raises(DataError, match=rf"--classes: there is no image of toy \({second}\)"):
        evaluate(EvaluateConfig(run=tmp_path / "run", classes=(second,)))


def test_a_card_says_which_colours_were_learnt(small_data: Path, tmp_path: Path):
    pretrain(small_config(small_data, tmp_path / "run", task="bins", epochs=1, limit=80, depth=2))
    card = load_backbone(tmp_path / "run").card
    assert (card["colours"], card["palette_space"]) == (313, "ab")


def test_labels_of_one_class_teach_nothing_whatever_their_number(tmp_path: Path, forget_registrations):
    toy = make_toy("train", n=100)
    register_source("toys", lambda split, **_: toy)
    config = small_config(Path("toys"), tmp_path / "run", task="supervised", classes=(TOY_CLASSES[3],), batch_size=4)
    with pytest.raises(DataError, match="at least two classes"):
        pretrain(config)
    assert not (tmp_path / "run").exists()


def test_a_preset_is_resumed_without_the_options_that_changed_it(tmp_path: Path):
    settings = {"data": "toy", "out": tmp_path / "run"}
    RunFolder.create(tmp_path / "run", {"settings": plain(preset_config("toronto-unet", epochs=3, **settings))})
    assert resuming.saved_settings(preset_config("toronto-unet", resume=True, **settings)).epochs == 3
    for preset, changes, says in (
        ("toronto-unet", {"epochs": 4}, r"--epochs 4 \(was 3\)"),
        ("toronto-cnn", {}, r"--preset toronto-cnn \(was toronto-unet\)"),
    ):
        with pytest.raises(ArgumentError, match=says):
            resuming.saved_settings(preset_config(preset, resume=True, **settings, **changes))


def test_colourize_keeps_size_names_and_luma(small_run: Path, tmp_path: Path):
    folder = tmp_path / "photos" / "sub folder"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    photo = np.kron(rng.integers(60, 190, (9, 13, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    Image.fromarray(photo).save(folder / "ä.png")
    Image.fromarray(photo[..., 0]).save(tmp_path / "photos" / "grey.bmp")
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"no picture")
    outcome = colourize(ColourizeConfig(run=small_run, pictures=(tmp_path / "photos",), out=tmp_path / "painted"))
    assert len(outcome.results["skipped"]) == 1
    painted = torch.from_numpy(np.array(Image.open(tmp_path / "painted" / "sub folder" / "ä.png"))).permute(2, 0, 1)
    assert painted.shape == (3, 72, 104)
    true = torch.from_numpy(photo).permute(2, 0, 1)
    inside = ((painted > 0) & (painted < 255)).all(0)
    difference = (luma(painted[None]) - luma(true[None]))[0, 0].abs()[inside]
    assert inside.float().mean() > 0.9
    assert float(difference.max()) * 255 < 1.5
    assert Image.open(tmp_path / "painted" / "grey.png").size == (104, 72)


def test_many_pictures_are_told_in_their_order_and_a_disk_that_is_full_is_an_error(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """They are written by threads while the next ones are painted."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(12):
        Image.fromarray(np.full((20, 20, 3), 20 * number, dtype=np.uint8)).save(photos / f"{number:02}.png")
    config = ColourizeConfig(run=small_run, pictures=(photos,), out=tmp_path / "painted")
    assert colourize(config).results["painted"] == [str(config.out / f"{number:02}.png") for number in range(12)]
    means = [np.asarray(Image.open(config.out / f"{number:02}.png")).mean() for number in range(12)]
    assert means == sorted(means)
    real = Image.Image.save

    def save(picture: Image.Image, path: Path, **options: object) -> None:
        if "05" in Path(path).name:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(picture, path, **options)

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(OSError, match="No space"):
        colourize(replace(config, out=tmp_path / "full"))
    left = {path.name for path in (tmp_path / "full").iterdir()}
    assert left <= {f"{number:02}.png" for number in range(12)} - {"05.png"}


def test_the_way_of_painting_can_be_chosen_after_training(small_run: Path, tmp_path: Path):
    rgb = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    painted = {}
    for name, options in {
        "as trained": {}, "mode": {"decode": "mode"}, "sample": {"decode": "sample", "temperature": 1.0},
        "grey": {"saturation": 0.0},
    }.items():  # fmt: skip
        colourize(ColourizeConfig(run=small_run, pictures=(tmp_path / "a.png",), out=tmp_path / name, **options))
        painted[name] = np.asarray(Image.open(tmp_path / name / "a.png"))
    assert len({picture.tobytes() for picture in painted.values()}) == 4
    assert (np.ptp(painted["grey"].astype(int), axis=2) <= 1).all()
    with pytest.raises(PretintError, match="did you mean 'sample'"):
        colourize(ColourizeConfig(run=small_run, pictures=(tmp_path / "a.png",), out=tmp_path / "x", decode="sampel"))
    assert not (tmp_path / "x").exists()


def test_colourize_refuses_what_is_no_picture(small_run: Path, tmp_path: Path):
    with pytest.raises(DataError, match="does not exist"):
        colourize(ColourizeConfig(run=small_run, pictures=(tmp_path / "none.jpg",)))
    with pytest.raises(DataError, match="no picture"):
        colourize(ColourizeConfig(run=small_run, pictures=(tmp_path,)))


def test_report_and_runs_show_the_run(run_copy: Path, tmp_path: Path):
    probe(ProbeConfig(run=run_copy))
    top1 = read_results(run_copy)["transfer"][0]["top1"]
    report(ReportConfig(runs=(run_copy,), out=tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text()
    assert f"{100 * top1:.1f}" in page
    (row,) = runs(RunsConfig(folder=tmp_path)).results["runs"]
    assert row["linear_top1"] == top1
    assert row["task"] == "palette"


def test_an_interrupted_run_resumed_equals_one_that_was_not(small_data: Path, tmp_path: Path, monkeypatch):
    """With 7 batches an epoch, which are 4 steps, and a signal in the middle of the second epoch."""
    from pretint.runtime import loop

    settings = {"accumulate": 2, "predict_at": 2, "precision": "bf16", "limit": 128, "batch_size": 16}
    whole = small_config(small_data, tmp_path / "whole", **settings)
    pretrain(whole)
    steps, original = 0, loop.Training._step

    def step_then_stop(self, group):
        nonlocal steps
        steps += 1
        if steps == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, group)

    monkeypatch.setattr(loop.Training, "_step", step_then_stop)
    with pytest.raises(Interrupted):
        pretrain(small_config(small_data, tmp_path / "parts", **settings))
    assert len(RunFolder.open(tmp_path / "parts").read_metrics()) == 1
    monkeypatch.undo()
    pretrain(small_config(small_data, tmp_path / "parts", batch_size=16, resume=True))
    weights = [(tmp_path / name / "encoder" / "model.safetensors").read_bytes() for name in ("whole", "parts")]
    assert weights[0] == weights[1]
    losses = [[r["train_loss"] for r in RunFolder.open(tmp_path / name).read_metrics()] for name in ("whole", "parts")]
    assert losses[0] == losses[1]


def test_regression_runs_have_no_palette_figures(small_data: Path, tmp_path: Path):
    outcome = pretrain(small_config(small_data, tmp_path / "run", task="lab-regression", epochs=1, grey="lstar"))
    (entry,) = outcome.results["colour"]
    assert entry["bits_per_pixel"] is None
    assert entry["ab_rmse"] > 0
    json.dumps(outcome.results, allow_nan=False)


def grey_npz(path: Path) -> Path:
    grey = np.random.default_rng(0).integers(0, 256, (100, 32, 32, 1), dtype=np.uint8)
    np.savez(path, images=np.broadcast_to(grey, (100, 32, 32, 3)))
    return path


def test_data_that_can_not_be_trained_on_is_refused_before_anything_is_written(tmp_path: Path, small_data: Path):
    out = tmp_path / "run"
    for data, settings, words in [
        (grey_npz(tmp_path / "grey.npz"), {}, "grey"),
        (small_data, {"batch_size": 1000}, "fewer than a batch"),
        (tmp_path / "nothing", {}, "does not exist"),
        (small_data, {"colours": 4000, "task": "palette"}, "4000"),
    ]:
        if words == "4000":
            flat = np.zeros((100, 32, 32, 3), np.uint8)
            flat[:, :16] = (200, 30, 30)
            np.savez(tmp_path / "flat.npz", images=flat)
            data = tmp_path / "flat.npz"
        with pytest.raises(PretintError, match=words):
            pretrain(small_config(data, out, **settings))
        assert not out.exists(), words


def test_unlabelled_data_can_not_be_probed(run_copy: Path, tmp_path: Path):
    images = np.random.default_rng(0).integers(0, 256, (50, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "plain.npz", images=images, test_images=images)
    with pytest.raises(DataError, match="labels"):
        probe(ProbeConfig(run=run_copy, data=str(tmp_path / "plain.npz")))


def test_a_run_that_fails_in_its_first_epoch_leaves_nothing_behind(small_data: Path, tmp_path: Path, monkeypatch):
    def out_of_memory(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("pretint.runtime.loop.Training._step", out_of_memory)
    with pytest.raises(RuntimeError, match="out of memory"):
        pretrain(small_config(small_data, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_colourize_never_writes_over_a_picture_it_was_given(small_run: Path, tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    for name in ("a.png", "b.png", "b.bmp"):
        Image.fromarray(noise).save(tmp_path / name)
    with pytest.raises(ArgumentError, match="name another folder"):
        colourize(ColourizeConfig(run=small_run, pictures=(tmp_path / "a.png",), out=tmp_path))
    with pytest.raises(ArgumentError, match="would both become"):
        colourize(
            ColourizeConfig(run=small_run, pictures=(tmp_path / "b.png", tmp_path / "b.bmp"), out=tmp_path / "out")
        )
    assert not (tmp_path / "out").exists()


def test_without_a_test_split_the_held_out_images_are_measured_again_by_evaluate(tmp_path: Path):
    save_npz(tmp_path / "both.npz", train=200)
    with np.load(tmp_path / "both.npz") as arrays:
        np.savez(tmp_path / "single.npz", images=arrays["images"], labels=arrays["labels"])
    first = pretrain(small_config(tmp_path / "single.npz", tmp_path / "run", epochs=1)).results["colour"]
    again = evaluate(EvaluateConfig(run=tmp_path / "run")).results["colour"]
    assert [(entry["split"], entry["images"]) for entry in again] == [("held-out", 20)]
    assert again[0]["ab_rmse"] == pytest.approx(first[0]["ab_rmse"])


def test_a_run_that_is_not_finished_says_how_to_go_on(small_run: Path, tmp_path: Path):
    shutil.copytree(small_run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "encoder")
    with pytest.raises(RunFolderError, match="--resume"):
        probe(ProbeConfig(run=tmp_path / "run"))
