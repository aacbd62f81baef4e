"""Every test computes on one thread and from one seed, so that results depend on neither the machine nor the order."""

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)
