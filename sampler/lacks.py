"""What a variant needs and this machine lacks, in a sentence: a device, a package, a compiler that can take it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sampler.errors import UsageError, in_one_line
from sampler.noise import PhiloxNoise
from sampler.posterior import State
from sampler.variants import Variant


def check_device(way: Variant, device: torch.device) -> None:
    """Refuse a device that the variant cannot run on."""
    if way.needs and way.needs != device.type:
        raise UsageError(f"variant {way.name!r} needs the device {way.needs}, but --device is {device}")


@contextmanager
def lacks_told(way: Variant) -> Iterator[None]:
    """Drawing with a variant: its update is tried before, and what it lacks here is a UsageError, also during it."""
    try:
        _try_update(way)
        yield
    except ImportError as error:
        raise UsageError(f"variant {way.name!r} cannot run here: {error}") from None
    except RuntimeError as error:
        if not isinstance(error, torch._dynamo.exc.TorchDynamoException):  # which is of this kind
            raise
        reason = in_one_line(getattr(error, "inner_exception", error))
        raise UsageError(f"variant {way.name!r} could not be compiled here: {reason}") from None


def _try_update(way: Variant) -> None:
    """Load the update; one in C++ is built on its first call, which is made here, on one number."""
    apply = way.update.of_states()
    if way.update.needs != "cpu":
        return
    x = torch.zeros(1, 1, 1, 1)
    noise = PhiloxNoise(0, range(1)).key(0, x) if way.update.draws else x
    try:
        apply(State(x), x, noise, torch.zeros(6))
    except RuntimeError as error:
        raise UsageError(f"variant {way.name!r} cannot run here: {error}") from None
