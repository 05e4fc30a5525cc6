"""The metric on trial: before it may void a row it must reject every known-bad set and accept other seeds.

`trial.npz` ships pictures of the reference, of other seeds and of two drawn faults; the other faults are made of them.
`python -m bench.quality.trial` prints the table that ships beside it.
"""

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.contenders import AT_EQUAL_STEPS
from bench.quality import plan
from bench.quality.classifier import WEIGHTS
from bench.quality.drawing import Drawn
from bench.quality.equivalence import EQUIVALENT, WORSE, Z_FAIL, Z_PASS, Budget, Loss, losses, verdict
from bench.quality.judging import Seen, see
from bench.quality.real import load as load_real
from sampler.errors import UsageError
from sampler.files import replacing

FILE = WEIGHTS / "trial.npz"
SHIPPED = {"reference": plan.REFERENCE, "other seeds": plan.OTHER_SEEDS, "25 steps": plan.DAMAGED,
           "shifted schedule": plan.SHIFTED}  # fmt: skip
GOOD = "the reference with other seeds"


@dataclass(frozen=True)
class Tried:
    """One set before the judge: what it is, whether it must be rejected, and what was found of it."""

    name: str
    bad: bool
    verdict: str
    why: str
    losses: dict[str, Loss]

    @property
    def right(self) -> bool:
        return self.verdict == (WORSE if self.bad else EQUIVALENT)

    def json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "Tried":
        return cls(**{**stored, "losses": {name: Loss(**loss) for name, loss in stored["losses"].items()}})


def hold(sets: Callable[[str], Seen], budget: Budget = AT_EQUAL_STEPS, seed: int = 0) -> list[Tried]:
    """Try the metric on every set; sets: a set of `SHIPPED` by its name."""
    reference, tried = sets("reference"), []
    for name, seen in suspects(sets, seed):
        found = losses(seen.set, reference.set, load_real().train, seed)
        tried.append(Tried(name, name != GOOD, *verdict(found, budget), found))
    return tried


def suspects(sets: Callable[[str], Seen], seed: int = 0) -> Iterator[tuple[str, Seen]]:
    """The sets that are tried; the labels of all are the reference's."""
    reference = sets("reference")
    images, labels = _images(reference), reference.set.labels
    yield GOOD, sets("other seeds")
    yield "25 of 1,000 steps", sets("25 steps")
    yield "a shifted noise schedule", sets("shifted schedule")
    generator = torch.Generator().manual_seed(seed)
    yield "noise", see(torch.rand(images.shape, generator=generator) * 2 - 1, labels)
    yield "a constant image", see(torch.zeros_like(images), labels)
    yield "one sample repeated", see(images[:1].expand_as(images), labels)
    yield "one sample a label repeated", see(images[labels], labels)
    yield "wrong labels", replace(reference, set=replace(reference.set, correct=_moved(reference)))
    yield "images inverted in intensity", see(-images, labels)


def _images(seen: Seen) -> Tensor:
    if seen.images is None:
        raise UsageError("a trial needs the pictures themselves")
    return seen.images


def _moved(reference: Seen) -> Tensor:
    """Whether each picture is recognised as the label after its own."""
    return reference.logits.argmax(1) == (reference.set.labels + 1) % 10


def power(tried: list[Tried], pictures: int, budget: Budget = AT_EQUAL_STEPS) -> tuple[float, float]:
    """Chances to reject 25 steps by the kernel distance, and to accept what loses nothing, with N pictures a set.

    From the standard errors found at this N, which fall with √N; normal approximation, losses as if independent.
    """
    by_name = {t.name: t.losses for t in tried}
    damaged, same = by_name["25 of 1,000 steps"], by_name[GOOD]
    smaller = math.sqrt(damaged["kernel"].pictures / pictures)
    reject = _normal((damaged["kernel"].value - budget.kernel) / (damaged["kernel"].error * smaller) - Z_FAIL)
    accept = math.prod(_normal(getattr(budget, n) / (loss.error * smaller) - Z_PASS) for n, loss in same.items())
    return reject, accept


def _normal(z: float) -> float:
    return 0.5 * (1 + math.erf(z / math.sqrt(2)))


@cache
def shipped(name: str, path: Path = FILE) -> Seen:
    """A shipped set, seen by the shipped classifier."""
    try:
        with np.load(path) as stored:
            pixels = torch.from_numpy(stored[name])
    except (OSError, KeyError, ValueError) as problem:
        raise UsageError(f"cannot read the set {name!r} from {path}: {problem}") from None
    return see(pixels.float().div(127.5).sub(1), torch.arange(len(pixels)) % 10)


def ship(drawn: Callable[[str], Drawn], path: Path = FILE) -> None:
    """Write the sets that ship; drawn: a point's pictures by its name."""
    sets = {name: ((drawn(point).images + 1) * 127.5).round().to(torch.uint8).numpy()
            for name, point in SHIPPED.items()}  # fmt: skip
    with replacing(path) as partial, open(partial, "wb") as file:
        np.savez_compressed(file, **sets)  # type: ignore[arg-type]


def main() -> int:
    from bench.quality import record, tables  # which import this

    tried = hold(shipped)
    print(tables.tried(record.Quality({}, "", "", 0, trial=tried)))
    return 0 if all(t.right for t in tried) else 1


if __name__ == "__main__":
    sys.exit(main())
