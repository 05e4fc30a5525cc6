"""Rows of real trajectories, and the native kernel where it can be built."""

import pytest
import torch
from torch import Tensor

from sampler import schedule, trajectory
from tests.kernels.ahead_of_time import LINES


def _rows() -> Tensor:
    """[N, 6] float32: first, middle and last rows of every sampler, clipped and not."""
    noise = schedule.linear()
    fifty = trajectory.spaced(noise, 50)
    trajectories = [
        trajectory.ancestral(noise),
        trajectory.ancestral(noise, fifty, variance="beta", clip=None),
        trajectory.ddim(noise, fifty, eta=0.5),
        trajectory.ddim(noise, fifty, prediction="v", clip=2.5),
        trajectory.strided(noise, fifty, prediction="x0"),
    ]
    return torch.cat([t.tables("cpu")[1][[0, 1, t.steps // 2, -2, -1]] for t in trajectories])


ROWS = _rows()


@pytest.fixture(scope="session")
def rows() -> Tensor:
    return ROWS


@pytest.fixture(scope="session")
def memory_rows() -> Tensor:
    """[N, 7] float32: rows of solvers with memory; of each five, the first and the last have g = 0."""
    noise = schedule.linear()
    fifty = trajectory.spaced(noise, 50)
    paths = [
        trajectory.dpmpp_2m(noise, fifty),
        trajectory.dpmpp_2m_sde(noise, fifty),
        trajectory.dpmpp_2m_sde(noise, fifty, prediction="v", clip=None),
    ]
    return torch.cat([path.tables("cpu")[1][[0, 1, 25, -2, -1]] for path in paths])


@pytest.fixture(scope="session")
def native():
    """The module `kernels.native`, built."""
    from kernels import native

    reason = native.available()
    if reason is not None:
        pytest.skip(reason)
    torch.set_num_threads(1)
    return native


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if LINES:
        terminalreporter.section("kernels, compiled ahead of time")
        terminalreporter.write_line("\n".join(LINES))
