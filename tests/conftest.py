"""One thread and fixed seeds, so that a test that passes once passes always."""

from __future__ import annotations

import pytest
import torch

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Features that are kept, here and in commands that are started, are the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEERABLE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _seeded():
    """Weights drawn by torch's own generator are the same in every order of the tests."""
    torch.manual_seed(0)
