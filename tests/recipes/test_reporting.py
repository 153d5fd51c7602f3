import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from PIL import Image
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from pretint.evaluation import picture_delta_e2000
from pretint.recipes import ReportConfig, report
from pretint.runtime import RunFolderError


@pytest.fixture
def run_copy(small_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(small_run, tmp_path / "copy")


def test_the_worst_and_the_best_pictures_are_the_ends_of_the_sample(small_run: Path):
    with np.load(small_run / "figures" / "extremes.npz") as arrays:
        sample = arrays["delta_e2000"]
        errors = picture_delta_e2000(torch.from_numpy(arrays["painted"]), torch.from_numpy(arrays["true"])).numpy()
        assert arrays["confidence"].dtype == np.uint8
    assert len(sample) == 100
    # painted again in another batch, where the last bits may differ
    np.testing.assert_allclose(errors[:6], np.sort(sample)[::-1][:6], rtol=0.02)
    np.testing.assert_allclose(errors[6:], np.sort(sample)[:6], rtol=0.02)


def test_a_map_goes_to_the_page_and_to_the_projector(run_copy: Path, tmp_path: Path):
    out = tmp_path / "report.html"
    report(ReportConfig(runs=(run_copy,), out=out))
    assert "--embedding" in out.read_text(encoding="utf-8")
    for _ in range(2):  # the second replaces the first
        report(ReportConfig(runs=(run_copy,), out=out, embedding=True, device="cpu"))
    page = out.read_text(encoding="utf-8")
    assert "--embedding" not in page
    assert page.count("<circle") == 100
    folder = run_copy / "tensorboard" / "embedding"
    config = text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())
    (embedding,) = config.embeddings
    features = np.loadtxt(folder / embedding.tensor_path)
    assert len(features) == 100
    assert len((folder / embedding.metadata_path).read_text().splitlines()) == 100
    assert list(embedding.sprite.single_image_dim) == [32, 32]
    assert Image.open(folder / embedding.sprite.image_path).size == (320, 320)
    with np.load(run_copy / "figures" / "embedding.npz") as arrays:
        assert arrays["points"].shape == (100, 2)
        assert arrays["thumbnails"].shape == (100, 3, 32, 32)


def test_a_damaged_map_is_named(run_copy: Path, tmp_path: Path):
    (run_copy / "figures" / "embedding.npz").write_bytes(b"none")
    with pytest.raises(RunFolderError, match=r"embedding\.npz can't be read"):
        report(ReportConfig(runs=(run_copy,), out=tmp_path / "x.html"))


def test_runs_whose_grey_is_made_differently_are_noted(small_run: Path, run_copy: Path, tmp_path: Path):
    path = run_copy / "config.json"
    settings = json.loads(path.read_text())
    settings["settings"]["grey"] = "mean"
    path.write_text(json.dumps(settings))
    noted, written = report(ReportConfig(runs=(small_run, run_copy), out=tmp_path / "x.html")).lines
    assert noted.startswith("Note: ")
    assert "mean: copy" in noted
    assert written.startswith("Report: ")
