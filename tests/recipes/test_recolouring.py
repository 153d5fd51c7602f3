"""The classifier that judges painted pictures: trained once a data set, never stale, redone when damaged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from pretint.data import TensorSource
from pretint.recipes import recolouring
from pretint.recipes.recolouring import Budget, colour_classifier
from pretint.runtime.device import Compute
from pretint.runtime.errors import DataError

CPU = Compute.choose("cpu", "fp32")
TINY = Budget(epochs=1, min_steps=1)


def coloured(n: int, split: str, seed: int = 0) -> TensorSource:
    """Noisy pictures, red (class 0) and blue (class 1) by turns."""
    noise = torch.randint(0, 60, (n, 3, 8, 8), generator=torch.Generator().manual_seed(seed))
    noise[::2, 0] += 150
    noise[1::2, 2] += 150
    return TensorSource(noise.to(torch.uint8), torch.arange(n) % 2, ("red", "blue"), name="colours", split=split)


TRAIN, TEST = coloured(48, "train"), coloured(16, "test", seed=1)
IN_TURNS = torch.arange(48) % 2


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the data that classifiers were trained on."""
    done: list[str] = []
    real = recolouring.fine_tune

    def counted(encoder, train, *arguments, **settings):
        done.append(train.name)
        return real(encoder, train, *arguments, **settings)

    monkeypatch.setattr(recolouring, "fine_tune", counted)
    return done


def logits(cache: Path, train: TensorSource = TRAIN, budget: Budget = TINY) -> torch.Tensor:
    return colour_classifier(train, TEST, cache, CPU, budget)(TEST.images)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor]:
    """A cache folder with the classifier of TRAIN, and the logits that it gave when it had been trained."""
    cache = tmp_path_factory.mktemp("cache") / "recolour"
    return cache, logits(cache)


@pytest.fixture
def cache(filled: tuple[Path, torch.Tensor], tmp_path: Path) -> Path:
    return Path(shutil.copytree(filled[0], tmp_path / "recolour"))


def test_it_learns_the_classes_from_colour(tmp_path: Path):
    found = logits(tmp_path, coloured(320, "train"), Budget(epochs=1, min_steps=60)).argmax(1)
    assert (found == IN_TURNS[:16]).float().mean() > 0.9


def test_the_second_time_it_is_read_and_judges_alike(cache: Path, filled, trainings: list[str]):
    torch.testing.assert_close(logits(cache), filled[1], rtol=0, atol=0)
    assert trainings == []


def test_other_data_labels_and_budgets_have_a_classifier_of_their_own(cache: Path, trainings: list[str]):
    relabelled = TensorSource(TRAIN.images, 1 - IN_TURNS, TRAIN.class_names, name="relabelled")
    repainted = coloured(48, "train", seed=2)
    for train, budget in ((relabelled, TINY), (repainted, TINY), (TRAIN, Budget(epochs=1, min_steps=2))):
        logits(cache, train, budget)
    assert trainings == ["relabelled", "colours", "colours"]
    logits(cache)
    logits(cache, relabelled)
    assert len(trainings) == 3


def test_another_version_of_pretint_trains_its_own(cache: Path, trainings: list[str], monkeypatch):
    monkeypatch.setattr(recolouring, "__version__", "99.0")
    logits(cache)
    assert trainings == ["colours"]


@pytest.mark.parametrize("name", ["classifier.safetensors", "encoder/model.safetensors", "encoder/config.json"])
def test_a_damaged_one_is_trained_anew(cache: Path, filled, trainings: list[str], name: str, capsys):
    (path,) = cache.glob(f"*/{name}")
    content = bytearray(path.read_bytes())
    content[-3] ^= 0xFF  # of the last number, or of the JSON's last braces
    path.write_bytes(content)
    torch.testing.assert_close(logits(cache), filled[1], rtol=1e-4, atol=1e-4)
    assert trainings == ["colours"]
    assert "is damaged" in capsys.readouterr().err
    logits(cache)
    assert len(trainings) == 1


def test_a_classifier_of_another_encoder_is_not_taken(cache: Path, trainings: list[str]):
    (own,) = cache.iterdir()
    logits(cache, budget=Budget(epochs=1, min_steps=1, seed=1))
    (other,) = (path for path in cache.iterdir() if path != own)
    shutil.copy(other / "classifier.safetensors", own / "classifier.safetensors")
    logits(cache)
    assert len(trainings) == 2


def test_a_cache_that_cannot_be_written_costs_a_word_only(tmp_path: Path, capsys):
    (tmp_path / "file").write_text("not a folder")
    assert logits(tmp_path / "file").shape == (16, 2)
    assert "can't be written" in capsys.readouterr().err


def test_of_large_data_a_share_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shares = []
    real = recolouring.fine_tune

    def noted(*arguments, **settings):
        shares.append(settings["labels"])
        return real(*arguments, **settings)

    monkeypatch.setattr(recolouring, "fine_tune", noted)
    logits(tmp_path, budget=Budget(epochs=1, min_steps=1, most_images=36))
    assert shares == [0.75]


def test_data_that_no_classifier_can_learn_from_is_refused_with_a_sentence(tmp_path: Path):
    with pytest.raises(DataError, match="--recolour: colours has no labels"):
        colour_classifier(TRAIN, TEST.unlabelled(), tmp_path, CPU, TINY)
    with pytest.raises(DataError, match="are of one class"):
        colour_classifier(TRAIN.subset(torch.arange(0, 48, 2)), TEST, tmp_path, CPU, TINY)
    others = TensorSource(TEST.images, TEST.labels, ("red", "green"), name="colours", split="test")
    with pytest.raises(DataError, match="the classes of train and test of colours differ"):
        colour_classifier(TRAIN, others, tmp_path, CPU, TINY)
