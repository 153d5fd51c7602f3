"""Runs what run_commands.py runs, for a worker that torchrun starts; no test itself.

Its argument is a JSON file with the globals of run_commands.py. SIGUSR1 takes the machine away: the worker and torchrun's agent,
which has started it, are killed at once.
"""

import json
import os
import runpy
import signal
import sys
from pathlib import Path


def lose_machine(_number: int, _frame: object) -> None:
    for process in (os.getppid(), os.getpid()):
        os.kill(process, signal.SIGKILL)


signal.signal(signal.SIGUSR1, lose_machine)
names = json.loads(Path(sys.argv[1]).read_text())
names["STOPS"] = {int(command): stop for command, stop in names["STOPS"].items()}
usual = {"ENVIRONMENT": {}, "SPOILT": {}, "NOISY": False}
runpy.run_path(str(Path(__file__).with_name("run_commands.py")), init_globals={**usual, **names})
