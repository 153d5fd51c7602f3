"""What the tests of probes share."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture
def one_thread():
    """Matrices as small as in these tests lose time to a second thread, and much of it when the machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
