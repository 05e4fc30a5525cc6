"""`torchrun --nproc-per-node N -m bench scaling`: what N ranks draw together, beside what one draws alone.

In each round, in an order drawn by a common coin: one rank draws the work alone; all draw as much each (weak); all
share it (strong). The ranks of a round are the same processes, so a round is a pair with itself. Where efficiency is
lost is told in three factors whose product it is: a rank is slower beside others, ranks wait for the slowest, and they
take time to come together.
"""

import argparse
import math
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from bench import environment, store
from bench.options import OUT
from bench.store import write_atomically
from bench.students_t import Interval, ratio_interval
from sampler import strict_json
from sampler.asked import fitting_guidance, path_of
from sampler.errors import UsageError
from sampler.files import writable_folder
from sampler.lacks import check_device, lacks_told
from sampler.model_check import check, tell
from sampler.models import load_model
from sampler.own_models import HOW
from sampler.sets.draw import Source
from sampler.sets.identity import identify
from sampler.sets.ranks import Ranks, ranks
from sampler.variants import variant

ALONE, WEAK, STRONG = "alone", "weak", "strong"
FORESEEN = (8, 64)  # numbers of ranks for which the waiting is foreseen
DRAWS = 2000  # of which a foreseen figure is the mean


def add_to(commands) -> None:
    parser = commands.add_parser("scaling", help="what several ranks draw together; started by torchrun")
    given = "(%(default)s)"
    parser.add_argument("--model", default="fashion-mnist", help=f"a shipped model, or your own: {HOW} {given}")
    parser.add_argument("--device", default="cpu", help=f"cpu or cuda {given}")
    parser.add_argument("--threads", type=int, default=1, help=f"CPU threads of a rank {given}")
    parser.add_argument("--steps", type=int, default=20, help=f"steps of DDIM a group {given}")
    parser.add_argument("--network-batch", type=int, default=32, metavar="N", help=f"samples a group {given}")
    parser.add_argument("--groups", type=int, metavar="N", help="groups of samples in a round's work (two a rank)")
    parser.add_argument("--rounds", type=int, default=8, help=given)
    parser.add_argument("--seed", type=int, default=0, help=f"of the order of a round's parts {given}")
    parser.add_argument("--variant", default="batched-cfg", help=given)
    parser.add_argument("--out", **OUT)
    parser.set_defaults(do=run)


@dataclass(frozen=True)
class Part:
    """One part of a round: seconds until all ranks had come together, and each rank's own (0 for one that waited)."""

    groups: int
    total_s: float
    own_s: list[float]

    @property
    def worked_s(self) -> list[float]:
        return [s for s in self.own_s if s > 0]


@dataclass(frozen=True)
class Scaling:
    """What was measured: rounds of parts by name."""

    world: int
    samples: int  # a group
    rounds: list[dict[str, Part]]

    def images_per_s(self, name: str) -> Interval:
        """Images a second of all ranks together."""
        return ratio_interval([math.log(r[name].groups * self.samples / r[name].total_s) for r in self.rounds])

    def speedup(self, name: str) -> Interval:
        """Images a second over those of a rank alone, round by round."""
        return ratio_interval([
            math.log(r[name].groups / r[name].total_s / (r[ALONE].groups / r[ALONE].total_s)) for r in self.rounds
        ])  # fmt: skip

    def lost(self, name: str) -> dict[str, Interval]:
        """The factors of the efficiency of a part."""

        def of(factor) -> Interval:
            return ratio_interval([math.log(factor(r[ALONE], r[name])) for r in self.rounds])

        return {
            "a rank beside others, over alone": of(
                lambda alone, part: (alone.total_s / alone.groups) / (fmean(part.worked_s) * self.world / part.groups)
            ),
            "waiting for the slowest": of(lambda alone, part: fmean(part.worked_s) / max(part.worked_s)),
            "coming together": of(lambda alone, part: max(part.worked_s) / part.total_s),
        }

    def foreseen(self, world: int, seed: int = 0) -> float:
        """The factor that waiting for the slowest would be with so many ranks, if each were as unsteady as these."""
        own = [s / fmean(r[WEAK].worked_s) for r in self.rounds for s in r[WEAK].worked_s]
        rng = random.Random(seed)
        return fmean(1 / max(rng.choices(own, k=world)) for _ in range(DRAWS)) * fmean(own)

    def json(self) -> dict[str, Any]:
        rounds = [{name: vars(part) for name, part in one.items()} for one in self.rounds]
        return {"world": self.world, "samples_a_group": self.samples, "rounds": rounds}


def run(arguments: argparse.Namespace) -> int:
    for name in ("threads", "steps", "network_batch", "rounds"):
        if getattr(arguments, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} {getattr(arguments, name)} is below 1")
    torch.set_num_threads(arguments.threads)
    with ranks() as place:
        if place.world < 2:
            raise UsageError("there is one rank alone; start several: torchrun --nproc-per-node 2 -m bench scaling")
        if place.rank == 0:  # refused before the work, not after it
            writable_folder(_folder(arguments, environment.machine(arguments.device)))
        groups = arguments.groups or 2 * place.world
        if groups % place.world:
            raise UsageError(f"--groups {groups} cannot be shared equally by {place.world} ranks")
        source = _source(arguments, place)
        with lacks_told(source.variant):
            source.group(0)  # a first call may compile
        measured = measure(source, place, groups, arguments.rounds, arguments.seed)
        if place.rank == 0:
            found = environment.fingerprint(arguments.device)
            page = markdown(measured, arguments, found)
            print(page)
            print("\n".join(map(str, keep(measured, page, arguments, found))))
        place.wait()
    return 0


def _source(arguments: argparse.Namespace, place: Ranks) -> Source:
    way, device = variant(arguments.variant), place.device(arguments.device)
    check_device(way, device)
    model = load_model(arguments.model, device)
    path = path_of(model, "ddim", arguments.steps)
    facts = check(model)
    if place.rank == 0:
        tell(facts)
    return Source(model, path, way, identify(
        arguments.model, model, path, way, guidance=fitting_guidance(model, None), seed=0,
        labels=tuple(range(model.classes)), network_batch=arguments.network_batch,
    ))  # fmt: skip


def measure(source: Source, place: Ranks, groups: int, rounds: int, seed: int) -> Scaling:
    """Rounds of the three parts; every rank knows the whole result."""
    coin, found = random.Random(seed), []  # the same coin in every rank
    for i in range(rounds):
        one: dict[str, Part] = {}
        parts = [ALONE, WEAK, STRONG]
        coin.shuffle(parts)
        for name in parts:
            mine = groups if name == WEAK else groups // place.world
            if name == ALONE:
                mine = groups if place.rank == i % place.world else 0
            one[name] = _part(source, place, mine)
        found.append(one)
        if place.rank == 0:
            print(f"round {i + 1} of {rounds}", file=sys.stderr, flush=True)
    return Scaling(place.world, source.identity.network_batch, found)


def _part(source: Source, place: Ranks, mine: int) -> Part:
    place.wait()
    start = time.perf_counter()
    for number in range(mine):
        source.group(number)
    own_s = time.perf_counter() - start if mine else 0.0
    place.wait()
    total_s = time.perf_counter() - start
    heard = place.gathered((mine, own_s, total_s))
    return Part(sum(n for n, _, _ in heard), max(s for _, _, s in heard), [s for _, s, _ in heard])


def markdown(measured: Scaling, arguments: argparse.Namespace, found: dict[str, Any]) -> str:
    """found: the environment's fingerprint, which is stored beside what was measured."""
    n = measured.world
    lines = [
        f"**{n} ranks of {arguments.threads} thread{'s' * (arguments.threads > 1)}.** {arguments.model}, DDIM with "
        f"{arguments.steps} steps, {measured.samples} samples a network call, variant {arguments.variant}; "
        f"{found.get('gpu', found['cpu'])}, {found['usable_cpus']} usable CPUs; PyTorch {found['torch']}; commit "
        f"{found['commit']}{'-dirty' * found['dirty']}; {len(measured.rounds)} rounds of one launch, intervals over "
        "rounds.",
        "",
        "| ranks | work | images/s [95 %] | over one rank [95 %] | efficiency |",
        "| ---: | --- | ---: | ---: | ---: |",
        f"| 1 | alone | {_shown(measured.images_per_s(ALONE))} | 1 | 1 |",
    ]
    for name, what in ((WEAK, "as much a rank (weak)"), (STRONG, "shared (strong)")):
        speedup = measured.speedup(name)
        lines.append(f"| {n} | {what} | {_shown(measured.images_per_s(name))} | {_shown(speedup)} | "
                     f"{speedup.value / n:.1%} |")  # fmt: skip
    lines += ["", "| where it is lost | weak | strong |", "| --- | ---: | ---: |"]
    weak, strong = measured.lost(WEAK), measured.lost(STRONG)
    lines += [f"| {factor} | {_shown(weak[factor])} | {_shown(strong[factor])} |" for factor in weak]
    ahead = ", ".join(f"{world} ranks {measured.foreseen(world):.1%}" for world in FORESEEN)
    lines += [
        "",
        "Foreseen, not measured: were every rank a machine of its own and as unsteady as these, waiting for the "
        f"slowest would leave of equal shares: {ahead}. Nothing is exchanged while samples are drawn.",
    ]
    return "\n".join(lines)


def _folder(arguments: argparse.Namespace, machine: str) -> Path:
    return (arguments.out or store.of_model(arguments.model)) / machine / "scaling"


def keep(measured: Scaling, page: str, arguments: argparse.Namespace, found: dict[str, Any]) -> list[Path]:
    """Write results/<machine>/scaling/ranks-N.json and .md; returns the paths."""
    folder = writable_folder(_folder(arguments, found["machine"]))
    made = folder / f"ranks-{measured.world}.json", folder / f"ranks-{measured.world}.md"
    stored = {"environment": found, "command": " ".join(sys.argv[1:]), **measured.json()}
    write_atomically(made[0], strict_json.dumps(stored))
    write_atomically(made[1], page + "\n")
    return list(made)


def _shown(interval: Interval) -> str:
    return f"{interval.value:.3g} [{interval.low:.3g}, {interval.high:.3g}]"
