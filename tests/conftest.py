"""One thread, repeatable examples, and no GPU test where there is no GPU."""

import os
import signal

from sampler import start

start.loading_in_pytest()  # during the imports that take seconds

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; child processes inherit it
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing under test may wait for a network

import pytest
import torch

try:
    from hypothesis import settings
except ModuleNotFoundError:  # `make gpu` runs in whatever environment is there
    pass
else:
    # a first call of torch takes seconds, and the same commit must get the same verdict
    settings.register_profile("house", deadline=None, derandomize=True)
    settings.load_profile("house")


start.loaded()


@pytest.fixture
def hears_ctrl_c():
    """Ctrl-C is a KeyboardInterrupt in this process, also where it was begun to ignore it (nohup, a background job)."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="PyTorch sees no CUDA device here"))
