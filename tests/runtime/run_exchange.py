"""What three processes exchange through every function of `runtime.processes`; one of the processes that the fixture `several`
starts, and no test itself. It leaves `told-RANK.json` in FOLDER."""

import json
import os
import time
from pathlib import Path
from typing import Any

ENVIRONMENT: dict[str, str]
FOLDER: str

os.environ.update(ENVIRONMENT)
os.environ["LOCAL_RANK"] = "001"[int(ENVIRONMENT["RANK"])]

import torch  # noqa: E402
from torch import nn  # noqa: E402

from pretint.runtime import processes  # noqa: E402

torch.set_num_threads(1)
told: dict[str, Any] = {}
told["before"] = [processes.rank(), processes.world_size(), processes.is_main()]
with processes.joined("cpu"):
    rank = processes.rank()
    told["inside"] = [rank, processes.world_size(), processes.is_main(), processes.local_rank()]
    told["sum"] = processes.sum_over_processes(torch.tensor([1.5, float(rank)])).tolist()
    told["largest"] = list(processes.largest(10 - rank, rank))
    told["any"] = [processes.any_process(rank == 2), processes.any_process(False)]
    told["broadcast"] = processes.broadcast_from_main(torch.full((2,), float(rank + 5))).tolist()
    rows = torch.arange(14).view(7, 2)
    own = processes.share(7)
    told["share"] = [own.start, own.stop]
    told["gathered"] = torch.equal(processes.gather_rows(rows[own], 7), rows)
    told["to main"] = processes.rows_to_main(rows[own], 7).tolist()

    # each process compares its rows with those of all: the gradient is that of one process with all rows
    everything = torch.linspace(-1, 1, 21).view(7, 3)
    leaf = everything[own].clone().requires_grad_()
    gathered, first = processes.gather_with_gradient(leaf)
    told["first"] = first
    told["values"] = torch.equal(gathered.detach(), everything)
    (leaf @ gathered.T).square().sum().backward()
    whole = everything.clone().requires_grad_()
    (whole @ whole.T).square().sum().backward()
    assert leaf.grad is not None
    assert whole.grad is not None
    told["gradient"] = float((leaf.grad - whole.grad[own]).abs().max())

    norm = nn.BatchNorm1d(2)
    norm(torch.randn(8, 2) + rank)
    processes.copy_buffers(norm)
    told["statistics"] = norm.running_mean.tolist() if norm.running_mean is not None else None

    # a layer that has no part in the loss, gradients that are held back, and more images on some ranks than on others
    for accumulate in (1, 2):
        torch.manual_seed(0)
        model = nn.ModuleDict({"used": nn.Linear(3, 1), "unused": nn.Linear(3, 1)})
        model.forward = lambda x, model=model: model["used"](x)  # type: ignore[method-assign]
        network = processes.parallel(model, torch.device("cpu"), accumulates=accumulate > 1)
        for _ in range(3):
            model.zero_grad(set_to_none=True)
            for part in range(accumulate):
                with processes.share_gradients(network, now=part == accumulate - 1):
                    (network(everything[own]).square().sum() * processes.world_size()).backward()
        shared = model["used"].weight.grad.clone()
        assert model["unused"].weight.grad is None
        model.zero_grad(set_to_none=True)
        for _ in range(accumulate):
            model["used"](everything).square().sum().backward()
        told[f"averaged {accumulate}"] = float((shared - model["used"].weight.grad).abs().max())

    # process 0 is a machine, 1 and 2 are another one: with a disk for both, and with one each
    for disk, place in (("shared", Path(FOLDER, "cached")), ("own", Path(FOLDER, f"cached-{min(rank, 1)}"))):
        with processes.main_first():
            told[f"{disk} disk"] = place.exists()
            if not place.exists():
                time.sleep(0.2)
                place.write_text("here")
    told["numbers"] = [processes.gather_numbers([2**62 + rank] * rank), processes.gather_numbers([])]
    mine = {
        "wide": torch.full((2, 3), float(rank)).t(), "short": torch.full((2,), rank, dtype=torch.bfloat16),
        "flag": torch.tensor(rank > 0), "empty": torch.zeros(0, 3),
    }  # fmt: skip
    words, theirs = processes.from_main(lambda: ({"ä": [rank, None, 0.1]}, mine))
    told["from main"] = [words, {name: [str(t.dtype), t.tolist()] for name, t in theirs.items()}]
    told["says"] = [processes.first_to_say("the disk is full"), processes.first_to_say("lost", last_word=True)]
    try:
        processes.share(2)
    except Exception as error:
        told["too few"] = [type(error).__name__, str(error)]
    processes.barrier()
told["after"] = [processes.rank(), processes.world_size(), processes.sum_over_processes(torch.ones(1)).item()]
Path(FOLDER, f"told-{ENVIRONMENT['RANK']}.json").write_text(json.dumps(told))
