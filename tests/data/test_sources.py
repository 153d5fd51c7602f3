"""open_source finds what is meant by a name or a path, or says in one sentence what would work."""

import doctest
import importlib
import os
import re
from pathlib import Path

import pytest
import torch

import pretint.data
from pretint.data import (
    SOURCES,
    TensorSource,
    available_splits,
    is_grey,
    make_toy,
    open_source,
    register_source,
    source_names,
)
from pretint.runtime.errors import ArgumentError, DataError, UnknownNameError

MODULES = sorted(path.stem for path in Path(pretint.data.__file__).parent.glob("*.py") if path.stem != "__init__")


def test_the_toy_opens_by_name():
    source = open_source("toy", "train", toy_size=50, seed=4)
    assert torch.equal(source.images, make_toy("train", 50, 4).images)
    assert len(open_source("toy", "test", toy_size=50)) == 10
    assert len(open_source("toy", "all", toy_size=50)) == 60
    assert open_source("toy", toy_size=20, unlabelled=True).labels is None
    assert open_source("toy", toy_size=20, image_size=48).image_size == 48
    assert not is_grey(source)


@pytest.mark.parametrize("name", SOURCES)
def test_built_in_sources_have_both_splits_without_being_fetched(name):
    assert available_splits(name) == ("train", "test")


@pytest.mark.parametrize(("wrong", "right"), [("cifr10", "cifar10"), ("toys", "toy"), ("stl-10", "stl10")])
def test_a_mistyped_name_is_answered_with_the_closest(wrong, right):
    with pytest.raises(UnknownNameError, match=f"path that exists.*did you mean .*'{right}'"):
        open_source(wrong)
    with pytest.raises(UnknownNameError):
        available_splits(wrong)


@pytest.mark.parametrize("spec", ["no/such/folder", "missing.tar.xz", Path("missing"), "../nowhere/"])
def test_a_missing_path_is_called_missing(spec):
    with pytest.raises(DataError, match="does not exist"):
        open_source(spec)


@pytest.mark.parametrize("spec", ["", "a\0b", "x" * 5000])
def test_odd_names_are_unknown_names_or_missing_paths(spec):
    with pytest.raises((UnknownNameError, DataError)):
        open_source(spec)


def test_a_file_of_another_kind_is_refused(tmp_path):
    for name in ("photo.jpg", "data.zip"):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(DataError, match="neither a folder nor"):
            open_source(tmp_path / name)


def test_splits_and_sizes_that_are_none_are_refused():
    with pytest.raises(UnknownNameError, match="did you mean 'train'"):
        open_source("toy", "trian")
    with pytest.raises(ArgumentError, match="image_size"):
        open_source("toy", image_size=0)
    with pytest.raises(ArgumentError, match="at least 1"):
        open_source("toy", toy_size=0)


def test_a_name_goes_before_a_path_and_a_written_path_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir("toy")
    assert len(open_source("toy", toy_size=10)) == 10
    with pytest.raises(DataError, match="holds no picture"):
        open_source("./toy")


def test_a_source_of_ones_own_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(pretint.data.sources, "_registered", {})
    calls = []

    def opener(split, *, image_size, root, seed):
        calls.append((split, image_size, root, seed))
        return TensorSource(torch.zeros(4, 3, image_size, image_size, dtype=torch.uint8), torch.arange(4), name="mine")

    register_source("mine", opener, splits=("train",))
    assert len(open_source("mine", "train", tmp_path, image_size=16, seed=9)) == 4
    assert calls == [("train", 16, tmp_path, 9)]
    assert available_splits("mine") == ("train",)
    assert open_source("mine", unlabelled=True).labels is None
    assert source_names()[-1] == "mine"
    with pytest.raises(UnknownNameError, match="did you mean 'mine'"):
        open_source("mime")
    with pytest.raises(ArgumentError, match="built-in"):
        register_source("toy", opener)


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_in_docstrings_run(module):
    assert doctest.testmod(importlib.import_module(f"pretint.data.{module}")).failed == 0


@pytest.mark.parametrize("module", MODULES)
def test_no_read_path_can_run_what_it_reads(module):
    text = Path(importlib.import_module(f"pretint.data.{module}").__file__).read_text()
    assert not re.search(r"\bimport pickle|torch\.load\(|yaml\.load\(|\beval\(|shell=True|allow_pickle=True", text)
    assert not re.search(r"\.extract(all)?\(|unpack_archive", text)
