"""What several processes exchange, and how they are started and end."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pretint.runtime import processes
from pretint.runtime.errors import ArgumentError, ProcessError
from pretint.runtime.launcher import launch


@pytest.fixture(scope="module")
def told(several, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of three processes found."""
    folder = tmp_path_factory.mktemp("exchange")
    assert several(Path(__file__).with_name("run_exchange.py"), 3, folder) == [0, 0, 0]
    return [json.loads((folder / f"told-{rank}.json").read_text()) for rank in range(3)]


def test_processes_know_their_number_only_between_joining_and_leaving(told):
    for rank, one in enumerate(told):
        assert one["before"] == [0, 1, True]
        assert one["inside"] == [rank, 3, rank == 0, rank == 2]  # the last one is the second on its machine
        assert one["after"] == [0, 1, 1.0]


def test_sums_maxima_and_broadcasts_are_the_same_everywhere(told):
    for one in told:
        assert one["sum"] == [4.5, 3.0]
        assert one["largest"] == [10, 2]
        assert one["any"] == [True, False]
        assert one["broadcast"] == [5.0, 5.0]
    assert len({tuple(one["statistics"]) for one in told}) == 1


def test_shares_are_neighbours_that_cover_everything_once_and_come_together_in_order(told):
    assert [one["share"] for one in told] == [[0, 2], [2, 4], [4, 7]]
    assert all(one["gathered"] for one in told)
    assert [len(one["to main"]) for one in told] == [7, 0, 0]
    assert told[0]["to main"] == torch.arange(14).view(7, 2).tolist()


def test_rows_gathered_with_gradient_have_the_gradient_of_one_process_with_all_rows(told):
    assert [one["first"] for one in told] == [0, 2, 4]
    assert all(one["values"] for one in told)
    assert max(one["gradient"] for one in told) < 1e-5


@pytest.mark.parametrize("accumulate", [1, 2])
def test_gradients_are_those_of_one_process_also_held_back_and_beside_a_layer_without_part_in_the_loss(
    told, accumulate
):
    assert max(one[f"averaged {accumulate}"] for one in told) < 1e-5


def test_the_main_process_goes_first_then_the_first_of_each_machine_then_those_who_find_what_these_made(told):
    assert [one["shared disk"] for one in told] == [False, True, True]
    assert [one["own disk"] for one in told] == [False, False, True]


def test_what_the_main_process_reads_is_told_to_all(told):
    tensors = {
        "wide": ["torch.float32", [[0.0, 0.0]] * 3], "short": ["torch.bfloat16", [0.0, 0.0]], "flag": ["torch.bool", False],
        "empty": ["torch.float32", []],
    }  # fmt: skip
    assert [one["from main"] for one in told] == [[{"ä": [0, None, 0.1]}, tensors]] * 3


def test_whole_numbers_of_all_processes_come_together_however_many_each_has(told):
    assert [one["numbers"] for one in told] == [[[2**62 + 1, 2**62 + 2, 2**62 + 2], []]] * 3


def test_of_an_error_that_all_processes_meet_one_line_is_printed(told):
    assert sum(one["says"][0] for one in told) == 1
    assert not any(one["says"][1] for one in told)


def test_fewer_images_than_processes_is_a_clear_message(told):
    for one in told:
        assert one["too few"] == [
            "DataError",
            "2 images are fewer than 3 processes, and each needs one; use 2 or fewer.",
        ]


def test_alone_nothing_is_sent_and_a_model_stays_itself():
    model = nn.Linear(2, 2)
    with processes.joined("cpu"):
        assert processes.parallel(model, torch.device("cpu")) is model
        assert processes.share(5) == slice(0, 5)
        rows = torch.zeros(5, 2)
        assert processes.gather_rows(rows, 5) is rows
        assert processes.rows_to_main(rows, 5) is rows
        assert processes.gather_with_gradient(rows) == (rows, 0)
        assert processes.sum_over_processes(rows) is rows
    assert not torch.distributed.is_initialized()


def test_a_lost_connection_becomes_a_sentence_and_another_error_stays_what_it_is(monkeypatch: pytest.MonkeyPatch):
    for name, value in {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "1")
    monkeypatch.setattr(processes, "_meet", lambda device_type: processes._Group(0, 2))
    with pytest.raises(ProcessError, match="--resume"), processes.joined("cpu"):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:40133")
    with pytest.raises(RuntimeError, match="mat1"), processes.joined("cpu"):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    assert processes.world_size() == 1


def test_devices_that_can_not_be_shared_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    processes.check_devices("cuda", 1)
    processes.check_devices("cpu", 64)
    with pytest.raises(ArgumentError, match="as many GPUs, and this machine has 1"):
        processes.check_devices("cuda", 2)
    with pytest.raises(ArgumentError, match="Apple"):
        processes.check_devices("mps", 2)


def test_several_machines_need_a_gpu_for_each_of_their_own_processes_only(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    processes.check_devices("cuda", 8, here=2)
    with pytest.raises(ArgumentError, match="4 processes need as many GPUs, and this machine has 2"):
        processes.check_devices("cuda", 8, here=4)
    with pytest.raises(ArgumentError, match="Apple"):
        processes.check_devices("mps", 2, here=1)


def test_a_number_of_processes_without_the_rest_of_what_torchrun_sets_is_refused_in_a_sentence(monkeypatch):
    for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("RANK", "3")
    missing = "LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT is not set"
    with pytest.raises(ArgumentError, match=missing), processes.joined("cpu"):
        pass


@pytest.fixture
def instead_of_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A shell script that the launcher starts as if it were Python; `$LOCAL_RANK` tells it who it is."""

    def put(script: str) -> Path:
        file = tmp_path / "python"
        file.write_text(f"#!/bin/sh\ncd {tmp_path}\n{script}\n")
        file.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(file))
        return tmp_path

    return put


def test_the_command_is_started_in_each_process_with_its_part_of_the_threads(instead_of_python, monkeypatch, capfd):
    folder = instead_of_python('echo "$* / $RANK of $WORLD_SIZE / $OMP_NUM_THREADS" > "told-$RANK"')
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    assert launch(["pretrain", "--data", "toy"], 2) == 0
    told = [(folder / f"told-{rank}").read_text().strip() for rank in (0, 1)]
    assert told == [f"-m pretint pretrain --data toy / {rank} of 2 / 2" for rank in (0, 1)]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("exit 2", 2),  # an error that the user can mend, which the processes have told
        ("[ $RANK = 0 ] && exit 2; exit 0", 2),
        ("[ $RANK = 1 ] && exit 143; sleep 60", 143),  # one of them got SIGTERM, and saved
        ("[ $RANK = 1 ] && kill -9 $$; sleep 60", 137),
    ],
)
def test_one_process_that_fails_or_is_killed_ends_the_others_and_gives_the_exit_code(
    instead_of_python, script, code, capfd
):
    instead_of_python(script)
    start = time.monotonic()
    assert launch(["pretrain"], 2) == code
    assert time.monotonic() - start < 50
    said = capfd.readouterr().err
    assert said == "" if code != 137 else "process 1 of this run was killed by SIGKILL" in said


def test_sigterm_to_the_launcher_is_handed_on_once_and_waits_for_the_processes_to_save(instead_of_python):
    """Exit code 143; a second SIGTERM during the save changes nothing."""
    folder = instead_of_python(
        "trap 'echo x >> got-$RANK; sleep 1; touch saved-$RANK; exit 143' TERM; touch ready-$RANK; while :; do sleep 0.1; done"
    )

    def stop_twice() -> None:
        while len(list(folder.glob("ready-*"))) < 2:
            time.sleep(0.05)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.4)

    before = signal.getsignal(signal.SIGTERM)
    stopper = threading.Thread(target=stop_twice)
    stopper.start()
    assert launch(["pretrain"], 2) == 143
    stopper.join()
    assert all((folder / f"saved-{rank}").exists() for rank in (0, 1))
    assert [(folder / f"got-{rank}").read_text() for rank in (0, 1)] == ["x\n", "x\n"]
    assert signal.getsignal(signal.SIGTERM) is before
