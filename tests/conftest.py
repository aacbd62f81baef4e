"""Every test uses one thread and one seed, so that results depend neither on the machine nor on test order."""

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)
