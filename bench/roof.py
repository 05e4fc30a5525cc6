"""The roof: what this device can do at most, measured in the same run, and what a step asks of it."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from bench.clock import clock_for
from sampler import precision

COPY_MIB = 256  # beyond any cache
SIDE = {"cpu": 1024, "cuda": 8192}  # of the square matrices multiplied: a smaller product leaves a GPU half empty
CALLS = {"cpu": 1, "cuda": 20}  # between two readings of the clock: a GPU's clock reads a wait, and a call is short
REPEATS = 5
# Fewer multiplications than the definition: Winograd F(2×2, 3×3) (Lavin & Gray 2016, arXiv 1509.09308)
WINOGRAD = 2.25
TF32 = "tf32"  # no format of a tensor's, but one in which float32 is multiplied
FORMATS = {"cpu": ("float32", "bfloat16"), "cuda": ("float32", TF32, "bfloat16", "float16")}


def measure(device: torch.device, formats: tuple[str, ...] = ()) -> dict[str, Any]:
    """Copy bandwidth (bytes read and written a second), matrix rate (flop/s) by format, the cheapest operator's call.

    The best of some repeats each, with as many threads as the process has. call_us: of the host, on CUDA a launch.
    """
    generator = torch.Generator(device).manual_seed(0)  # a GPU multiplies ones and zeros faster than numbers
    source = torch.randn(COPY_MIB * 2**18, generator=generator, device=device)
    target = torch.empty_like(source)
    copied = 2 * source.numel() * 4 / best_s(lambda: target.copy_(source), device)
    rates, side = {}, SIDE[device.type]
    for name in formats or FORMATS[device.type]:
        with (precision.tf32 if name == TF32 else precision.full)(nn.Identity()).context():
            number_format = torch.float32 if name == TF32 else getattr(torch, name)
            a = torch.randn(side, side, generator=generator, dtype=number_format, device=device)
            out = torch.empty_like(a)
            seconds = best_s(lambda a=a, out=out: torch.mm(a, a, out=out), device)  # type: ignore[misc]
        rates[name] = 2 * side**3 / seconds
    one, many = torch.ones(1, device=device), 1000

    def calls() -> None:
        for _ in range(many):
            one.add_(1.0)

    with torch.inference_mode():
        call_s = best_s(calls, device, calls=1) / many
    return {"copy_bytes_per_s": copied, "matrix_flop_per_s": rates, "call_us": call_s * 1e6}


def best_s(do: Callable[[], Any], device: torch.device, calls: int = 0) -> float:
    """Seconds of a call in the fastest of some runs of several, after one that is not counted.

    By the device's own clock where it has one, else by the wall.
    """
    calls = calls or CALLS[device.type]
    clock, best = clock_for(device.type), math.inf
    for i in range(REPEATS + 1):
        start = clock.mark()
        for _ in range(calls):
            do()
        reading = clock.between(start, clock.mark())
        if i:
            best = min(best, (reading.decisive_s if device.type == "cuda" else reading.wall_s) / calls)
    return best


class _Traffic(TorchDispatchMode):
    """Bytes of every operator's inputs and outputs, as if nothing stayed in a cache and nothing were fused."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if function.is_view:
            return out
        tensors = [t for t in _flat((args, out)) if isinstance(t, torch.Tensor)]
        self.bytes += sum(t.numel() * t.element_size() for t in tensors)
        return out


def _flat(values: Any):
    for value in values if isinstance(values, tuple | list) else [values]:
        if isinstance(value, tuple | list):
            yield from _flat(value)
        else:
            yield value


def work(network: nn.Module, x: torch.Tensor, t: torch.Tensor, condition: torch.Tensor | None) -> dict[str, float]:
    """What one call of the network asks for: floating-point operations, and bytes if nothing were fused."""
    counter, traffic = FlopCounterMode(display=False), _Traffic()
    with torch.inference_mode():
        with counter:
            network(x, t, condition)
        with traffic:
            network(x, t, condition)
    return {"flop": counter.get_total_flops(), "unfused_bytes": traffic.bytes}
