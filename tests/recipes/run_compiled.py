"""Runs commands of `pretint` whose networks go through all of torch's compiler but the making of machine code.

It is run by path in a process that the fixture `several` starts, with ENVIRONMENT, FOLDER and COMMANDS as globals. As
`graphs-RANK.json` it leaves how many graphs each command had compiled.
"""

import json
import os
from pathlib import Path

ENVIRONMENT: dict[str, str]
FOLDER: str
COMMANDS: list[list[str]]

os.environ.update(ENVIRONMENT)
rank = os.environ.get("RANK", "0")
printed = os.open(f"{FOLDER}/printed-{rank}.txt", os.O_WRONLY | os.O_CREAT)
os.dup2(printed, 1)
os.dup2(printed, 2)

import torch  # noqa: E402
from torch._dynamo.utils import counters  # noqa: E402

from pretint.cli import main  # noqa: E402

torch.set_num_threads(1)
compile_network = torch.compile
torch.compile = lambda model, mode: compile_network(model, backend="aot_eager")
graphs, codes = [], []
for words in COMMANDS:
    torch._dynamo.reset()  # a command has a process of its own elsewhere
    counters.clear()
    codes.append(main(words))
    graphs.append(counters["stats"]["unique_graphs"])
Path(FOLDER, f"graphs-{rank}.json").write_text(json.dumps(graphs))
raise SystemExit(max(codes))
