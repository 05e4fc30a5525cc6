"""The processes that torchrun has started: which of them this is, and how they wait for one another."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch

from sampler.models import checked_device

# Ranks that do not find each other (one died while they met) end, so that torchrun starts them again; that others take
# long over their share is no reason to.
TO_MEET, TO_WAIT = timedelta(minutes=1), timedelta(days=7)


@dataclass(frozen=True)
class Ranks:
    """This process's place. wait: until all have come to this point; gathered: what each of them says, by rank."""

    rank: int
    world: int
    local: int
    wait: Callable[[], None]
    gathered: Callable[[Any], list[Any]] = lambda said: [said]

    def device(self, asked: str) -> torch.device:
        """The device asked for; of several GPUs, the rank's own."""
        device = checked_device(asked)
        if device.type == "cuda" and device.index is None and self.world > 1:
            return checked_device(f"cuda:{self.local}")
        return device


@contextmanager
def ranks() -> Iterator[Ranks]:
    """The process's place among those that torchrun has started; alone where it was not started by it."""
    world, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    if world == 1:
        yield Ranks(0, 1, local, lambda: None)
        return
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import _set_pg_timeout

    def gathered(said: Any) -> list[Any]:
        heard: list[Any] = [None] * world
        dist.all_gather_object(heard, said)
        return heard

    # gloo also where the samples are drawn on GPUs: what is exchanged is a few words, and none of it a picture
    dist.init_process_group("gloo", timeout=TO_MEET)
    _set_pg_timeout(TO_WAIT)
    try:
        yield Ranks(dist.get_rank(), world, local, dist.barrier, gathered)
    finally:
        dist.destroy_process_group()
