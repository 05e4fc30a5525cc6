"""Number formats and memory layouts of the network: how a module is prepared, and what the loop runs in.

The sampler's state stays float32 NCHW; only the network's insides change. A half-precision autocast
is entered once around the whole loop, not in every call, so that weights are cast once.
"""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from sampler.guidance import Denoiser


@dataclass(frozen=True)
class Prepared:
    """A network ready to be called in the loop, the context the loop runs in, and the dtype it reads x in."""

    network: Denoiser
    context: Callable[[], AbstractContextManager] = nullcontext
    reads: torch.dtype = torch.float32


Precision = Callable[[nn.Module], Prepared]
Layout = Callable[[nn.Module], nn.Module]


@contextmanager
def _tf32(allowed: bool):
    """Set TensorFloat-32 for matrix products and for cuDNN (whose own default is on)."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def full(network: nn.Module) -> Prepared:
    """float32 throughout, TensorFloat-32 off."""
    return Prepared(network, lambda: _tf32(False))


def tf32(network: nn.Module) -> Prepared:
    """float32 with TensorFloat-32 matrix units (CUDA only; elsewhere the same as `full`)."""
    return Prepared(network, lambda: _tf32(True))


@cache  # one dtype, one function: variants are compared by what they are made of
def autocast(dtype: torch.dtype) -> Precision:
    """Autocast to float16 or bfloat16, entered once around the loop."""

    def prepare(network: nn.Module) -> Prepared:
        device_type = next(network.parameters(), torch.empty(0)).device.type
        return Prepared(network, lambda: torch.autocast(device_type, dtype))

    return prepare


@cache
def cast(dtype: torch.dtype) -> Precision:
    """Weights cast once to `dtype`; the state is cast at the network's door and comes back in `dtype`."""

    def prepare(network: nn.Module) -> Prepared:
        network = copy.deepcopy(network).to(dtype)

        def call(x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
            if condition is not None and condition.is_floating_point():
                condition = condition.to(dtype)
            return network(x.to(dtype), t, condition)

        return Prepared(call, lambda: _tf32(False), dtype)

    return prepare


def contiguous(network: nn.Module) -> nn.Module:
    """The layout the network came in (NCHW)."""
    return network


def channels_last(network: nn.Module) -> nn.Module:
    """A copy with NHWC weights; convolutions then give channels-last activations.

    On a CPU these stay so. On CUDA an eager GroupNorm hands NCHW on, which the next convolution copies back.
    """
    return copy.deepcopy(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
