"""The metric on trial: before it may void a row it must reject every known-bad set and accept other seeds.

`trial.npz` ships pictures of the reference, of other seeds and of two drawn faults; the other faults are made of them.
`python -m bench.quality.trial` prints the table that ships beside it.
"""

from sampler import start

STOPPED = "stopped"
start.begin(__name__, STOPPED)  # before the imports that take seconds

import argparse
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.contenders import AT_EQUAL_STEPS, AT_FEWER_STEPS
from bench.quality import blind, drawing, plan
from bench.quality.classifier import WEIGHTS
from bench.quality.drawing import Drawn
from bench.quality.equivalence import (
    EQUIVALENT,
    NO_WORSE,
    PASSES,
    RESAMPLES,
    WORSE,
    Budget,
    Loss,
    losses,
    resampled,
    verdict,
)
from bench.quality.judging import Seen, judge, noise, real_test, see
from bench.quality.real import load as load_real
from sampler.errors import UsageError
from sampler.files import replacing

FILE = WEIGHTS / "trial.npz"
SHIPPED = {"reference": plan.REFERENCE, "other seeds": plan.OTHER_SEEDS, "25 steps": plan.DAMAGED,
           "shifted schedule": plan.SHIFTED, "unguided": plan.UNGUIDED, "100 steps": plan.FEWER,
           "limited, 50 steps": plan.FEW_LIMITED, "limited DDIM": plan.FEW_LIMITED_DDIM}  # fmt: skip
GOOD, FEWER, FEW_LIMITED = (
    "the reference with other seeds",
    "100 of 1,000 steps",
    "limited guidance, 50 ancestral steps",
)
DEAR = 25  # steps from which a shipped set is worth taking over instead of drawing it
ALIKE = 1e-3  # of the pixels of redrawn pictures that may be one grey level off: rounding of another machine
AT = (200, 300, 400, 500, 1000)  # pictures a set whose power is stated
REFUSED = "refused"  # of a set that must not pass, and need not be shown to be worse
MIXED = {"every fourth picture unguided": (4, REFUSED), "every second picture unguided": (2, WORSE)}
# shares of the reference's pictures replaced by pictures of the label that were rated faulty or broken
SPOILT = {"a fifth of the pictures faulty": (0.2, blind.DOUBTFUL), "three in ten faulty": (0.3, blind.DOUBTFUL),
          "one in ten broken": (0.1, blind.BROKEN), "three in ten broken": (0.3, blind.BROKEN)}  # fmt: skip


@dataclass(frozen=True)
class Tried:
    """One set before the judge: what it is, whether it must be rejected, and what was found of it.

    wanted: what its verdict must be, where that is neither WORSE of a bad set nor EQUIVALENT of a good one.
    """

    name: str
    bad: bool
    verdict: str
    why: str
    losses: dict[str, Loss]
    wanted: str = ""

    @property
    def must(self) -> str:
        return self.wanted or (WORSE if self.bad else EQUIVALENT)

    @property
    def right(self) -> bool:
        if self.must == REFUSED:
            return self.verdict not in PASSES
        return self.verdict in PASSES if self.must == NO_WORSE else self.verdict == self.must

    def json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "Tried":
        return cls(**{**stored, "losses": {name: Loss(**loss) for name, loss in stored["losses"].items()}})


def hold(sets: Callable[[str], Seen], budget: Budget = AT_EQUAL_STEPS, seed: int = 0) -> list[Tried]:
    """Try the metric on every set; sets: a set of `SHIPPED` by its name."""
    reference, tried = sets("reference"), []
    for name, seen, wanted, of in suspects(sets, budget, seed):
        found = losses(seen.set, reference.set, load_real().train, seed)
        bad = wanted in (WORSE, REFUSED)
        tried.append(Tried(name, bad, *verdict(found, of), found, "" if wanted in (WORSE, EQUIVALENT) else wanted))
    return tried


def suspects(
    sets: Callable[[str], Seen], budget: Budget = AT_EQUAL_STEPS, seed: int = 0
) -> Iterator[tuple[str, Seen, str, Budget]]:
    """Every set that is tried, what its verdict must be, and by which budget; all have the reference's labels."""
    yield GOOD, sets("other seeds"), EQUIVALENT, budget
    yield FEWER, sets("100 steps"), NO_WORSE, AT_FEWER_STEPS
    yield FEW_LIMITED, sets("limited, 50 steps"), NO_WORSE, AT_FEWER_STEPS
    yield "limited guidance, 50 DDIM steps", sets("limited DDIM"), WORSE, AT_FEWER_STEPS
    yield "no guidance, 50 DDIM steps", sets("unguided"), WORSE, AT_FEWER_STEPS
    for name, (every, wanted) in MIXED.items():
        yield name, _mixed(sets("reference"), sets("unguided"), every), wanted, budget
    for name, (share, grade) in SPOILT.items():
        yield name, spoilt(sets, share, grade, seed), WORSE, budget
    for name, seen in _gross(sets, seed):
        yield name, seen, WORSE, budget


def spoilt(sets: Callable[[str], Seen], share: float, grade: int, seed: int = 0) -> Seen:
    """The reference's pictures with a share of each label's replaced by rated ones of that label, drawn by the seed.

    grade: DOUBTFUL for pictures that every rater found faulty, BROKEN for those that any rater found broken.
    """
    raters, dice = blind.shipped(), random.Random(seed)
    spoils = all if grade == blind.DOUBTFUL else any
    rated = [at for at in raters[0] if spoils(rater[at] >= grade for rater in raters)]
    both = reference = sets("reference")
    first = {}
    for name in dict.fromkeys(of for of, _ in rated):
        first[name] = len(both)
        both = Seen(both.set.joined(sets(name).set), torch.cat([both.logits, sets(name).logits]))
    of_label: dict[int, list[int]] = {}
    for name, i in (at for at in rated if at[1] < len(sets(at[0]))):
        of_label.setdefault(int(sets(name).set.labels[i]), []).append(first[name] + i)
    picked = torch.arange(len(reference))
    for label, spoiling in sorted(of_label.items()):
        mine = torch.nonzero(reference.set.labels == label)[:, 0].tolist()
        for at in dice.sample(mine, round(share * len(mine))):
            picked[at] = dice.choice(spoiling)
    return Seen(both.set.pick(picked), both.logits[picked])


def _mixed(reference: Seen, other: Seen, every: int) -> Seen:
    """The reference's pictures with every so-manieth of each label's replaced by the other set's at its place."""
    at = torch.arange(len(reference))
    replaced = (at // 10) % every == 0
    both = Seen(reference.set.joined(other.set), torch.cat([reference.logits, other.logits]))
    picked = at + len(reference) * replaced
    return Seen(both.set.pick(picked), both.logits[picked])


def _gross(sets: Callable[[str], Seen], seed: int) -> Iterator[tuple[str, Seen]]:
    """Sets that are wrong as a whole."""
    reference = sets("reference")
    images, labels = _images(reference), reference.set.labels
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


@dataclass(frozen=True)
class Power:
    """With N pictures a set: the chance that 25 steps are found WORSE, and that other seeds are found EQUIVALENT.

    strange: that limited guidance with 50 DDIM steps is found WORSE than rows of few steps may be; None in results that
    were stored before it was tried.
    """

    pictures: int
    rejected: float
    accepted: float
    strange: float | None = None


def powers(sets: Callable[[str], Seen], budget: Budget = AT_EQUAL_STEPS, at: Iterable[int] = AT) -> list[Power]:
    """The chances at several N, over sets of N pictures drawn with replacement from these, each given its verdict.

    25 steps lose on the average what they lost here; other seeds, by what they are, nothing.
    """
    reference, real = sets("reference").set, load_real().train
    found = []
    for n in at:
        damaged = resampled(sets("25 steps").set, reference, real, pictures=n)
        seeds = resampled(sets("other seeds").set, reference, real, pictures=n)
        harmless = {name: values - values[0] for name, values in seeds.items()}
        odd = resampled(sets("limited DDIM").set, reference, real, pictures=n)
        found.append(Power(n, _share(WORSE, damaged, n, budget), _share(EQUIVALENT, harmless, n, budget),
                           _share(WORSE, odd, n, AT_FEWER_STEPS)))  # fmt: skip
    return found


def _share(wanted: str, lost: dict[str, Tensor], pictures: int, budget: Budget) -> float:
    """How many of the resampled sets get this verdict."""
    errors = {name: float(values[1:].std()) for name, values in lost.items()}
    verdicts = [
        verdict({name: Loss(float(lost[name][i]), errors[name], pictures) for name in lost}, budget)[0]
        for i in range(1, RESAMPLES + 1)
    ]
    return verdicts.count(wanted) / RESAMPLES


def shipped_pixels(name: str, path: Path = FILE) -> Tensor:
    """The pictures of a shipped set, [N, 1, 28, 28] uint8."""
    try:
        with np.load(path) as stored:
            return torch.from_numpy(stored[name])
    except (OSError, KeyError, ValueError) as problem:
        raise UsageError(f"cannot read the set {name!r} from {path}: {problem}") from None


@cache
def shipped(name: str, path: Path = FILE) -> Seen:
    """A shipped set, seen by the shipped classifier."""
    pixels = shipped_pixels(name, path)
    return see(pixels.float().div(127.5).sub(1), torch.arange(len(pixels)) % 10)


def adopt(
    plan_of: drawing.Plan, wanted: dict[str, int], store: Path, processes: int, say, path: Path = FILE,
    dear: int = DEAR,
) -> dict[str, str]:  # fmt: skip
    """Keep the shipped pictures of a point as if they had been drawn here, where its first shard shows that they would
    be: it is drawn, and every pixel of it is compared. Returns the points that were, and what the comparison said.

    A point that is drawn here already, or of which more are wanted than ship, is left alone.
    """
    points, taken = plan_of(), {}
    worth = {name: point for name, point in SHIPPED.items() if point in wanted and points[point].path.steps >= dear}
    for name, point_name in worth.items():
        point, count = points[point_name], wanted[point_name]
        pixels = shipped_pixels(name, path)
        if len(pixels) < count or drawing.read(point, count, store) is not None:
            continue
        drawing.draw(plan_of, [(point_name, point.shard)], store, processes, say)
        first = drawing.read(point, point.shard, store)
        assert first is not None
        apart = ((first.images + 1) * 127.5).round().to(torch.int16) - pixels[: point.shard].to(torch.int16)
        off, most = float((apart != 0).double().mean()), int(apart.abs().max())
        if most > 1 or off > ALIKE:
            say(f"{point_name}: the shipped pictures are not those of this machine, all are drawn")
            continue
        drawing.keep(point, pixels[:count], store)
        taken[point_name] = f"the first {point.shard} drawn again: {off:.1%} of their pixels off by {most} grey level"
    return taken


def ship(drawn: Callable[[str], Drawn | None], path: Path = FILE) -> None:
    """Write the sets that ship; drawn: a point's pictures by its name, if there are any."""
    sets = {}
    for name, point in SHIPPED.items():
        if (those := drawn(point)) is None:
            raise UsageError(f"the pictures of {point} are not drawn; first run: python -m bench quality")
        sets[name] = ((those.images + 1) * 127.5).round().to(torch.uint8).numpy()
    with replacing(path) as partial, open(partial, "wb") as file:
        np.savez_compressed(file, **sets)  # type: ignore[arg-type]


def main(argv: list[str] | None = None) -> int:
    from bench.quality import judged, record, tables  # which import this

    parser = argparse.ArgumentParser(prog="python -m bench.quality.trial", description=__doc__)
    parser.add_argument("--ship", action="store_true", help="first write what ships, from the pictures that are kept")
    if parser.parse_args(argv).ship:
        points, wanted = plan.points(), dict(plan.wanted(plan.SAMPLES))
        try:
            ship(lambda name: drawing.read(points[name], wanted[name], judged.STORE))
        except UsageError as mistake:
            print(f"error: {mistake}", file=sys.stderr)
            return 3
    tried, n = hold(shipped), len(shipped("reference"))
    floor, ceiling = judge(real_test(n)), judge(noise(n))
    found = record.Quality({}, "", "", n, floor=floor, ceiling=ceiling, trial=tried, power=powers(shipped))
    print(f"{tables.tried(found)}\n\n{tables.floor_and_ceiling(found)}")
    return 0 if all(t.right for t in tried) else 1


if __name__ == "__main__":
    start.finish(main, STOPPED)
