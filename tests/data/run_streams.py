"""What one of several processes sees of sources that stay in files; started by the fixture `several`, and no test itself.

SOURCES names folders of pictures of 8 px, FOLDER is where the cache lies and where it leaves `seen-RANK.npz` and `told-RANK.json`.
"""

import json
import os
from pathlib import Path

ENVIRONMENT: dict[str, str]
FOLDER: str
SOURCES: dict[str, str]
MANY: int

os.environ.update(ENVIRONMENT)

import numpy as np  # noqa: E402
import torch  # noqa: E402

from pretint.data import Batches, open_source, shard_reading  # noqa: E402
from pretint.runtime import processes, randomness  # noqa: E402

torch.set_num_threads(1)
made, make = [], shard_reading._made
shard_reading._made = lambda paths, unlabelled: made.append(len(paths)) or make(paths, unlabelled)
seen: dict[str, np.ndarray] = {}
with processes.joined("cpu"):
    for many in (MANY, 1):  # an order that is kept, and one that is computed
        randomness.MANY = many
        for name, path in SOURCES.items():
            source = open_source(path, image_size=8, root=Path(FOLDER, "cache"))
            for drop_last in (False, True):
                batches = Batches(source, 6, seed=1, drop_last=drop_last)
                for step, batch in enumerate(batches.epoch(2)):
                    key = f"{name} {many} {drop_last} {step}"
                    assert batch.labels is not None
                    seen |= {f"{key} ids": batch.ids.numpy(), f"{key} rgb": batch.rgb.numpy()}
                    seen[f"{key} labels"] = batch.labels.numpy()
np.savez(Path(FOLDER, f"seen-{ENVIRONMENT['RANK']}.npz"), **seen)
Path(FOLDER, f"told-{ENVIRONMENT['RANK']}.json").write_text(json.dumps({"made": made}))
