"""What a kernel's configuration is chosen by: the device's milliseconds of the kernel alone.

Triton's own benchmark times the launch of a short kernel from Python rather than the kernel, and with `restore_value` a
clone and a copy of the state in every call.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

SLICES, SLICE_S = 10, 5e-3  # how often the calls of a slice are timed, and about how long they take
CALLS = (3, 20)  # fewest and most of a slice
CYCLES_PER_S = 2e9  # of the device's clock, or a little more
LONGEST_SLEEP_S = 0.05


def device_ms(
    call: Callable[[], object], quantiles: Sequence[float], cuda: Any = torch.cuda, now=time.perf_counter
) -> list[float]:
    """Quantiles of the milliseconds of a call, between events that the device meets with every launch queued.

    It sleeps while the host launches. What was launched before has ended, for the call may write what that reads.
    """

    def slice_ms(calls: int, sleep_s: float) -> float:
        start, stop = (cuda.Event(enable_timing=True) for _ in range(2))
        cuda._sleep(int(min(sleep_s, LONGEST_SLEEP_S) * CYCLES_PER_S))
        start.record()
        for _ in range(calls):
            call()
        stop.record()
        stop.synchronize()
        return start.elapsed_time(stop) / calls

    cuda.synchronize()
    call()  # compiles it
    cuda.synchronize()
    began = now()
    for _ in range(CALLS[0]):
        call()
    launch_s = (now() - began) / CALLS[0]
    cuda.synchronize()
    once_s = slice_ms(CALLS[0], 2 * CALLS[0] * launch_s) / 1e3
    calls = max(CALLS[0], min(CALLS[1], int(SLICE_S / max(once_s, 1e-9))))
    times = sorted(slice_ms(calls, 2 * calls * launch_s) for _ in range(SLICES))
    return [times[round(q * (SLICES - 1))] for q in quantiles]


@contextmanager
def kept(tensor: Tensor | None) -> Iterator[None]:
    """Whatever is written to it inside, it holds the same afterwards; None: there is nothing to keep."""
    before = None if tensor is None else tensor.clone()
    try:
        yield
    finally:
        if tensor is not None and before is not None:
            tensor.copy_(before)
