"""Several processes do what one does: the same weights, palette and figures, each image seen once, one folder written."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pretint.cli import main
from pretint.recipes import PretrainConfig, ProbeConfig, pretrain, probe
from pretint.recipes.opening import read_settings
from pretint.runtime import launcher
from pretint.runtime.checkpoints import Checkpoints
from pretint.runtime.errors import ArgumentError
from pretint.runtime.results import read_results
from pretint.runtime.runfolder import RunFolder

SCRIPT = Path(__file__).with_name("run_commands.py")
AGENT = """
import os
from torch.distributed.run import main
os.chdir(disk)
os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 1)
os.dup2(1, 2)
os.environ["OMP_NUM_THREADS"] = "1"
main([str(word) for word in words])
"""
TRAIN, TEST, BATCH, KEPT = 61, 31, 12, 55  # neither number of images divides by 2 or 3, of processes
STEPS = KEPT // BATCH
USUAL = (
    "--image-size 16 --backbone pretint_cnn --width 8 --depth 2 --precision fp32 --device cpu --optimizer sgd --learning-rate 0.05 "
    f"--holdout 0.1 --epochs 2 --batch-size {BATCH}"
).split()
# masked grey images and weighted colours: what a process counts of its share differs from what another does of its
BINS = ["--task", "bins", "--rebalance", "0.5", *USUAL]
NOISY = [
    *USUAL,
    *["--task", "palette", "--colours", "6", "--precision", "bf16", "--optimizer", "adamw", "--learning-rate", "0.01"],
]
COUPLED = ["--task", "palette+contrast", "--colours", "6", *USUAL]


def save_colourful(path: Path) -> Path:
    """Smooth random pictures of two classes, every third one grey."""
    generator, arrays = np.random.default_rng(0), {}
    for prefix, n in (("", TRAIN), ("test_", TEST)):
        coarse = generator.integers(0, 256, (n, 4, 4, 3))
        coarse[::3] = coarse[::3, :, :, :1]
        arrays[f"{prefix}images"] = coarse.repeat(4, 1).repeat(4, 2).astype(np.uint8)
        arrays[f"{prefix}labels"] = np.arange(n) % 2
    np.savez(path, **arrays)
    return path


def newest(run: Path) -> Path:
    checkpoints = Checkpoints(run / "checkpoints")
    return checkpoints.path(checkpoints.steps[-1])


class Runs:
    """Folders of runs, and what the processes that made them told."""

    def __init__(self, folder: Path, several, child=None):
        self.folder, self._several, self._child, self.told = folder, several, child, {}
        self.data = str(save_colourful(folder / "pictures.npz"))
        np.savez(folder / "one.npz", images=np.full((1, 16, 16, 3), 90, np.uint8))
        for rank in (0, 1):
            images = np.random.default_rng(rank).integers(0, 256, (20, 16, 16, 3), np.uint8)
            np.savez(folder / f"own-{rank}.npz", images=images)
        np.savez(folder / "untested.npz", images=images, test_images=images[:1])

    def start(
        self,
        size: int,
        title: str,
        commands: dict[str, list[str]],
        spoilt: dict[str, tuple[int, int]] | None = None,
        noisy: bool = False,
        **stops: tuple[int, int, int],
    ) -> list[int]:
        """Runs commands, each known by the name of its run, in so many processes; returns the processes' exit codes.

        Args:
            size: how many processes.
            title: of the folder that they leave what they tell in.
            commands, spoilt, noisy, stops: as run_commands.py has them, by the commands' names.
        """
        place = self.folder / title
        place.mkdir()
        names = {**self._names(commands, stops), "SPOILT": self._numbered(commands, spoilt or {}), "NOISY": noisy}
        codes = self._several(SCRIPT, size, place, **names)
        self._collect(place, commands)
        return codes

    def start_machines(
        self, title: str, commands: dict[str, list[str]], port: int, **stops: tuple[int, int, int]
    ) -> list[int]:
        """The same on two machines, of one process each, by two of torchrun's agents that share nothing but the loopback network;
        returns the agents' exit codes. Machine N runs in the folder `disk-N`, and process N is its.
        """
        place, agents = self.folder / title, []
        for number in (0, 1):
            disk = place / f"disk-{number}"
            disk.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.data, disk)
            names = place / f"names-{number}.json"
            names.write_text(json.dumps({"FOLDER": str(place), **self._names(commands, stops)}))
            words = [
                "--nnodes", 2, "--nproc-per-node", 1, "--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}",
                "--rdzv-id", title, "--rdzv-conf", f"is_host={1 - number}", "--local-addr", f"127.0.0.{1 + number}",
                SCRIPT.with_name("run_node.py"), names,
            ]  # fmt: skip
            agents.append(self._child(AGENT, disk=disk, said=place / f"agent-{number}.txt", words=words))
        try:
            for agent in agents:
                agent.join(200)
            codes = [agent.exitcode for agent in agents]
        finally:
            for agent in agents:
                agent.kill()
        self._collect(place, commands)
        return codes

    @classmethod
    def _names(cls, commands: dict[str, list[str]], stops: dict[str, tuple[int, int, int]]) -> dict[str, Any]:
        return {"COMMANDS": list(commands.values()), "STOPS": cls._numbered(commands, stops)}

    @staticmethod
    def _numbered(commands: dict[str, list[str]], what: dict[str, Any]) -> dict[int, Any]:
        return {list(commands).index(name): value for name, value in what.items()}

    def _collect(self, place: Path, commands: dict[str, list[str]]) -> None:
        """Notes what the processes told of each command that came to its end."""
        files = sorted(place.glob("told-*.json"))
        self.told |= dict(zip(commands, zip(*map(self._read, files), strict=False), strict=False))

    @staticmethod
    def _read(path: Path) -> list[dict[str, Any]]:
        return json.loads(path.read_text())

    def printed(self, title: str) -> str:
        return "".join(path.read_text() for path in sorted((self.folder / title).glob("printed-*.txt")))

    def pretrain(self, name: str, options: list[str], *more: str) -> list[str]:
        return ["pretrain", "--data", self.data, "--out", str(self.folder / name), *options, *more]

    def copying(self, name: str, to: str) -> list[str]:
        return ["copy", str(self.folder / name), str(self.folder / to)]

    def seen(self, name: str, epoch: int) -> list[int]:
        """The image ids of an epoch, batch by batch, each batch in the order of the ranks."""
        each = [[ids for number, ids in teller["seen"] if number == epoch] for teller in self.told[name]]
        return [i for batch in zip(*each, strict=True) for ids in batch for i in ids]

    def codes(self, name: str) -> list[int]:
        return [teller["code"] for teller in self.told[name]]

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        return load_file(newest(self.folder / name))

    def judging(self, name: str, processes: int) -> dict[str, list[str]]:
        common = [str(self.folder / name), "--data", self.data, "--device", "cpu", "--precision", "fp32"]
        return {
            f"evaluated-{processes}": ["evaluate", *common],
            f"probed-{processes}": ["probe", *common, "--no-cache"],
            f"tuned-{processes}": ["finetune", *common, "--epochs", "2", "--batch-size", "12"],
        }


@pytest.fixture(scope="module")
def runs(several, child, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """One process, then two, then one that goes on with what two began, then three."""
    all_runs = Runs(tmp_path_factory.mktemp("together"), several, child)
    go, accumulated = all_runs.pretrain, [*BINS, "--accumulate", "2"]
    skipping, nan = [*BINS, "--epochs", "1", "--on-nonfinite", "skip"], STEPS - 1
    copies = {"stopped-1": "from-1", "judged-2": "bins-1", "judged-3": "bins-1", "transferred": "bins-1"}
    all_runs.start(
        1,
        "one",
        {
            "bins-1": go("bins-1", BINS), "accumulated-1": go("accumulated-1", accumulated), "coupled-1": go("coupled-1", COUPLED),
            "from-1": go("from-1", BINS), "skipped-1": go("skipped-1", skipping),
            **{to: all_runs.copying(name, to) for to, name in copies.items()}, **all_runs.judging("bins-1", 1),
        },
        spoilt={"skipped-1": (0, nan)},
        **{"from-1": (0, STEPS + 2, signal.SIGTERM)},
    )  # fmt: skip
    all_runs.start(
        2,
        "two",
        {
            "bins-2": go("bins-2", BINS), "accumulated-2": go("accumulated-2", accumulated), "coupled-2": go("coupled-2", COUPLED),
            "from-2": go("from-2", BINS), "on-2": go("from-1", [], "--resume"),
            "again-2": go("again-2", BINS), "went-on-2": go("again-2", [], "--resume"),
            **all_runs.judging("judged-2", 2),
            "odd": go("odd", BINS, "--batch-size", "9"), "large": go("large", BINS, "--batch-size", "64"),
            "few": ["evaluate", str(all_runs.folder / "bins-1"), "--data", str(all_runs.folder / "one.npz"), "--device", "cpu"],
            "transferred": [
                "transfer", str(all_runs.folder / "transferred"), "--data", all_runs.data, "--device", "cpu", "--precision",
                "fp32", "--protocols", "linear", "--seeds", "1", "--epochs", "1", "--batch-size", "12",
                "--no-control", "--no-ceiling", "--root", str(all_runs.folder / "cache-{rank}"),
            ],
            "sync": go("sync", BINS, "--sync-batch-norm"),
            "own": go("own", BINS, "--data", str(all_runs.folder / "own-{rank}.npz")),
            "unheld": go("unheld", BINS, "--holdout", "0.01"),
            "untested": go("untested", BINS, "--data", str(all_runs.folder / "untested.npz")),
            "nan": go("nan", BINS), "skipped-2": go("skipped-2", skipping),
        },
        spoilt={"nan": (1, nan), "skipped-2": (1, nan)},
        **{"from-2": (1, STEPS + 2, signal.SIGTERM), "again-2": (0, 3, signal.SIGTERM)},
    )  # fmt: skip
    all_runs.start(
        1,
        "one goes on",
        {"stopped-2": all_runs.copying("from-2", "stopped-2"), "on-1": go("from-2", [], "--resume")},
    )
    judging = all_runs.judging("judged-3", 3)
    all_runs.start(3, "three", {"coupled-3": go("coupled-3", COUPLED), "evaluated-3": judging["evaluated-3"]})
    return all_runs


def assert_close(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(
            found[name], tensor, rtol=0, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("name", ["bins", "accumulated", "coupled"])
def test_two_processes_with_half_a_batch_each_train_to_the_weights_of_one_with_the_whole_within_1e_6(runs, name):
    assert runs.codes(f"{name}-2") == [0, 0]
    assert_close(runs.weights(f"{name}-2"), runs.weights(f"{name}-1"))


def test_a_loss_whose_denominators_differ_between_processes_is_reduced_in_two_parts(runs):
    """Masked grey images, weighted colours, accumulation and a sum of tasks: losses as logged are equal to the single process."""
    for name in ("bins", "accumulated", "coupled"):
        one, two = (RunFolder.open(runs.folder / f"{name}-{n}").read_metrics() for n in (1, 2))
        for loss in ("train_loss", "validation_loss"):
            assert [row[loss] for row in two] == pytest.approx([row[loss] for row in one], abs=1e-6), (name, loss)


def test_two_processes_see_the_batches_of_one_in_its_order(runs):
    for epoch in (0, 1):
        assert runs.seen("bins-2", epoch) == runs.seen("bins-1", epoch)
        assert len(set(runs.seen("bins-2", epoch))) == STEPS * BATCH
    assert runs.seen("bins-1", 0) != runs.seen("bins-1", 1)


@pytest.mark.parametrize(("begun", "ended"), [("from-1", "on-2"), ("from-2", "on-1")])
def test_a_run_of_two_processes_goes_on_with_one_and_of_one_with_two_and_every_image_of_the_epoch_is_seen_once(
    runs, begun, ended
):
    assert set(runs.codes(begun)) == {143}
    assert set(runs.codes(ended)) == {0}
    seen = runs.seen(begun, 1) + runs.seen(ended, 1)
    assert seen == runs.seen("bins-1", 1)
    assert set(Counter(seen).values()) == {1}
    assert_close(runs.weights(begun), runs.weights("bins-1"))


def test_two_processes_stopped_and_resumed_end_with_the_same_bits_as_two_that_never_stopped(runs):
    assert runs.codes("again-2") == [143, 143]
    assert len(runs.seen("again-2", 0)) == 3 * BATCH
    found, wanted = runs.weights("again-2"), runs.weights("bins-2")
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    for name in ("train_loss", "validation_loss"):
        logged = [
            [row[name] for row in RunFolder.open(runs.folder / run).read_metrics()] for run in ("again-2", "bins-2")
        ]
        assert logged[0] == logged[1]


@pytest.mark.parametrize("name", ["from-2", "again-2"])
def test_sigterm_to_one_of_two_processes_stops_both_at_one_step_with_one_complete_checkpoint_and_code_143(runs, name):
    assert runs.codes(name) == [143, 143]
    first, second = ([len(ids) for _, ids in teller["seen"]] for teller in runs.told[name])
    assert first == second
    assert f"Stopped at step {len(first)}" in runs.printed("two")
    assert not list((runs.folder / "stopped-2").rglob("*.tmp"))


def test_evaluation_counts_each_image_once_under_one_two_and_three_processes(runs):
    entries = []
    for folder in ("bins-1", "judged-2", "judged-3"):
        (entry,) = (e for e in read_results(runs.folder / folder)["colour"] if e["data"] == "pictures.npz")
        entries.append(entry)
    one = entries[0]
    assert one["images"] == TEST
    for entry in entries[1:]:
        assert entry["images"] == TEST
        assert entry["command"] != one["command"]  # it names its own run and number of processes
        for name, value in one.items():
            if name == "command":
                continue
            if isinstance(value, float):
                assert entry[name] == pytest.approx(value, rel=1e-5, abs=1e-6), name
            else:
                assert entry[name] == value or name.endswith("per_class") or name == "command", name


def test_probe_and_fine_tuning_judge_each_test_image_once_under_two_processes(runs):
    one, two = (read_results(runs.folder / folder)["transfer"] for folder in ("bins-1", "judged-2"))
    assert [(row["protocol"], row["init"]) for row in two] == [(row["protocol"], row["init"]) for row in one]
    assert len(one) == 4
    for left, right in zip(one, two, strict=True):
        assert np.sum(right["confusion"]) == TEST
        if left["protocol"] == "linear":
            assert right["confusion"] == left["confusion"]


def test_a_supervised_control_is_kept_in_each_cache_where_machines_have_caches_of_their_own(runs):
    assert runs.codes("transferred") == [0, 0]
    kept = [load_file(next((runs.folder / f"cache-{rank}" / "supervised").rglob("*.safetensors"))) for rank in (0, 1)]
    assert all(torch.equal(kept[0][name], kept[1][name]) for name in kept[0])
    assert {row["init"] for row in read_results(runs.folder / "transferred")["transfer"]} >= {"supervised-grey"}


@pytest.mark.parametrize("file", ["palette.json", "chroma.json"])
def test_palette_and_colour_histogram_are_equal_to_the_bit_for_one_two_and_three_processes(runs, file):
    contents = {(runs.folder / f"coupled-{n}" / file).read_bytes() for n in (1, 2, 3)}
    assert runs.codes("coupled-3") == [0, 0, 0]
    assert len(contents) == 1


def test_a_run_folder_is_the_same_for_any_number_of_processes(runs):
    files = [
        {
            str(path.relative_to(runs.folder / name))
            for path in (runs.folder / name).rglob("*")
            if "tensorboard" not in str(path)
        }
        for name in ("coupled-1", "coupled-2", "coupled-3")
    ]
    assert files[0] == files[1] == files[2]
    assert [read_settings(RunFolder.open(runs.folder / f"coupled-{n}")).processes for n in (1, 2, 3)] == [1, 2, 3]
    assert len(list((runs.folder / "coupled-2" / "tensorboard").glob("events*"))) == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("odd", "--batch-size: 9 images can't be shared evenly by 2 processes"),
        ("large", "fewer than a batch of 64"),
        ("few", "1 images are fewer than 2 processes"),
        ("sync", "--sync-batch-norm: torch has it for CUDA alone"),
        ("own", "process 1 has read other images than process 0"),
        ("unheld", "1 held-out images are fewer than 2 processes"),
        ("untested", "1 test images are fewer than 2 processes"),
    ],
)
def test_fewer_images_than_the_batch_or_the_processes_and_other_misfits_are_one_sentence(runs, name, words):
    assert runs.codes(name) == [2, 2]
    assert runs.printed("two").count(words) == 1
    assert not (runs.folder / name).exists()


def test_a_loss_that_is_not_finite_ends_both_processes_with_one_sentence_and_reaches_no_checkpoint(runs):
    """Only one of them has met it, and its gradient is finite."""
    assert runs.codes("nan") == [2, 2]
    listed = runs.folder / "nan" / "nonfinite.json"
    (record,) = json.loads(listed.read_text())["steps"]
    assert record["step"] == STEPS - 1
    assert len(set(record["images"])) == BATCH  # of both
    said = f"not finite at step {STEPS - 1} (epoch 1) (its images are listed in {listed});"
    assert runs.printed("two").count(said) == runs.printed("two").count("pretint: The loss or a gradient") == 1
    assert not list((runs.folder / "nan").rglob("*.safetensors"))


def test_a_step_that_is_not_finite_in_one_of_two_processes_is_skipped_by_both(runs):
    assert runs.codes("skipped-2") == [0, 0]
    assert_close(runs.weights("skipped-2"), runs.weights("skipped-1"))
    one, two = (RunFolder.open(runs.folder / f"skipped-{n}").read_metrics()[0] for n in (1, 2))
    assert two["skipped_steps"] == one["skipped_steps"] == 1
    assert two["train_loss"] == pytest.approx(one["train_loss"], abs=1e-6)
    assert sum(runs.printed(title).count(f"Skipped step {STEPS - 1} (epoch 1)") for title in ("one", "two")) == 2


def test_one_process_killed_ends_the_others_with_an_error_and_no_hang(several, tmp_path: Path):
    lonely = Runs(tmp_path, several)
    start = time.monotonic()
    codes = lonely.start(2, "killed", {"run": lonely.pretrain("run", BINS)}, run=(1, STEPS + 2, signal.SIGKILL))
    assert codes == [2, -signal.SIGKILL]
    assert time.monotonic() - start < 200
    assert "Another process has ended" in lonely.printed("killed")
    assert newest(tmp_path / "run").name == f"step-{STEPS}.safetensors"  # of the first epoch's end
    assert load_file(newest(tmp_path / "run"))


def test_two_processes_with_batch_norm_dropout_and_bf16_stopped_time_and_again_end_with_the_bits_of_two_that_never_stopped(
    several, tmp_path: Path
):
    """AdamW; stopped in the first step, in the middle of an epoch, and at its boundary, before the epoch is recorded."""
    noisy = Runs(tmp_path, several)
    go_on = noisy.pretrain("run", [], "--resume")
    commands = {"whole": noisy.pretrain("whole", NOISY), "first": noisy.pretrain("run", NOISY)}
    commands |= dict.fromkeys(("middle", "boundary", "end"), go_on)
    stops = {
        "first": (1, 1, signal.SIGTERM),
        "middle": (0, 2, signal.SIGTERM),
        "boundary": (1, STEPS - 3, signal.SIGTERM),
    }
    noisy.start(2, "noisy", commands, noisy=True, **stops)
    assert [noisy.codes(name) for name in commands] == [[0, 0], [143, 143], [143, 143], [143, 143], [0, 0]]
    for step in (1, 3, STEPS):
        assert noisy.printed("noisy").count(f"Stopped at step {step};") == 1
    found, wanted = noisy.weights("run"), noisy.weights("whole")
    assert {name.rpartition(".")[2] for name in wanted} >= {"running_var", "exp_avg_sq"}
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    rows = [RunFolder.open(tmp_path / name).read_metrics() for name in ("run", "whole")]
    for name in ("train_loss", "validation_loss", "learning_rate"):
        assert [row[name] for row in rows[0]] == [row[name] for row in rows[1]]


@pytest.fixture(scope="module")
def machines(runs, free_port) -> Path:
    """The folder of two machines that have trained together, after a run that one process began on the first machine's disk; then
    that machine, which keeps the runs' folders and torchrun's meeting point, is lost in the middle of a run."""
    place = runs.folder / "machines"
    shutil.copytree(runs.folder / "stopped-1", place / "disk-0" / "runs" / "begun")
    words = ["pretrain", "--data", "pictures.npz", *BINS, "--out"]
    commands = {
        "bins-machines": [*words, "runs/bins"],
        "on-machines": ["pretrain", "--out", "runs/begun", "--resume"],
        "lost": [*words, "runs/lost"],
    }
    codes = runs.start_machines("machines", commands, free_port(), lost=(0, STEPS + 2, signal.SIGUSR1))
    assert codes == [-signal.SIGKILL, 1]
    return place


def test_two_machines_train_what_two_processes_on_one_train_to_the_bit_and_one_process_within_1e_6(runs, machines):
    run = machines / "disk-0" / "runs" / "bins"
    found, wanted = load_file(newest(run)), runs.weights("bins-2")
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert_close(found, runs.weights("bins-1"))
    for loss in ("train_loss", "validation_loss"):
        logged, two, one = (
            [row[loss] for row in RunFolder.open(folder).read_metrics()]
            for folder in (run, runs.folder / "bins-2", runs.folder / "bins-1")
        )
        assert logged == two
        assert logged == pytest.approx(one, abs=1e-6)


def test_machines_need_no_common_disk_and_the_first_ones_holds_the_only_run_folder(runs, machines):
    files = [
        {str(path.relative_to(run)) for path in run.rglob("*") if "tensorboard" not in str(path)}
        for run in (machines / "disk-0" / "runs" / "bins", runs.folder / "bins-2")
    ]
    assert files[0] == files[1]
    assert [path.name for path in (machines / "disk-1").iterdir()] == ["pictures.npz"]


def test_a_run_that_one_process_began_goes_on_with_two_machines(runs, machines):
    assert runs.codes("on-machines") == [0, 0]
    assert runs.seen("from-1", 1) + runs.seen("on-machines", 1) == runs.seen("bins-1", 1)
    assert_close(load_file(newest(machines / "disk-0" / "runs" / "begun")), runs.weights("bins-1"))


def test_a_machine_that_is_lost_ends_the_others_with_an_error_and_no_hang(runs, machines):
    assert "lost" not in runs.told
    assert "Another process has ended" in runs.printed("machines")
    lost = machines / "disk-0" / "runs" / "lost"
    assert newest(lost).name == f"step-{STEPS}.safetensors"  # of the first epoch's end


def test_processes_are_started_by_the_command_or_by_torchrun_and_not_by_the_function(small_data: Path, tmp_path: Path):
    with pytest.raises(ArgumentError, match="torchrun"):
        pretrain(PretrainConfig(data=str(small_data), out=tmp_path / "run", processes=2))


def test_another_number_than_torchrun_started_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ArgumentError, match="torchrun started 4"):
        probe(ProbeConfig(run=tmp_path, processes=2))
    monkeypatch.setenv("WORLD_SIZE", "many")
    with pytest.raises(ArgumentError, match="WORLD_SIZE"):
        probe(ProbeConfig(run=tmp_path))


def test_batches_that_cannot_be_shared_are_refused_before_any_process_is_started(monkeypatch, capsys, tmp_path):
    """A run that goes on is judged by its own batch size, which its processes read from its folder."""
    started = []
    monkeypatch.setattr(launcher, "launch", lambda words, processes: started.append(processes) or 0)
    words = ["pretrain", "--data", "toy", "--device", "cpu", "--out", str(tmp_path / "run")]
    assert main([*words, "--processes", "3", "--batch-size", "32"]) == 2
    assert (
        "--batch-size: 32 images can't be shared evenly by 3 processes; use a multiple of 3." in capsys.readouterr().err
    )
    assert not started
    assert main([*words, "--processes", "3", "--batch-size", "33"]) == 0
    assert main([*words, "--processes", "3", "--resume"]) == 0
    assert started == [3, 3]
