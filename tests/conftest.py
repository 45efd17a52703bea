"""What holds for all tests: one thread, the same random numbers each time, and a cache of their own."""

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The cache folder of the machine is left alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"
