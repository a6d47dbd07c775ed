"""What every test shares: one thread, so that tests run side by side and bits compare; and where real images lie."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; the test is skipped where GOSSAMER_DATA does not name one."""
    folder = os.environ.get("GOSSAMER_DATA")
    if not folder:
        pytest.skip("GOSSAMER_DATA is not set: no real images here")
    return Path(folder)
