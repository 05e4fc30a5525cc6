"""The processes that torchrun has started: which of them this is, and how they wait for one another."""

import os
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from typing import Any

import torch

from sampler.models import checked_device

# To find torchrun's store; and for the slowest rank's share, be it days.
TO_MEET, TO_WAIT = timedelta(minutes=5), timedelta(days=7)


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
    # The store that torchrun keeps is all that is needed: what is exchanged is a few words, and none of it a picture. A
    # process group of gloo's was seen to wait without end for its own connections, in ranks that were started again.
    from torch.distributed import rendezvous

    store, rank, world = next(rendezvous("env://", timeout=TO_MEET))
    meetings = count()

    def gathered(said: Any) -> list[Any]:
        meeting = next(meetings)
        keys = [f"meeting {meeting}, rank {other}" for other in range(world)]
        store.set(keys[rank], pickle.dumps(said))
        store.wait(keys, TO_WAIT)
        return [pickle.loads(store.get(key)) for key in keys]

    def wait() -> None:
        gathered(None)

    yield Ranks(rank, world, local, wait, gathered)
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" and store.add("left", 1) < world and rank == 0:
        while store.add("left", 0) < world:  # the store ends with this process: nobody may still be asking
            time.sleep(0.01)
