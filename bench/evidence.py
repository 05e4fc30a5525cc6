"""How a row is known to have done what it claims: facts seen of its calls, and the proofs a contender names.

A proof looks at what was seen and finds for or against the row, in words; None where these facts cannot tell.
Some facts are counted on the very calls that are timed (`tally`), the others in a profiled run of their own.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from bench.kinds import in_tf32
from bench.tally import CALLS

COMPILED_GRAPH = "compiled graph"  # the name under which runs of Inductor's graphs are counted among the kernels


@dataclass(frozen=True)
class Seen:
    """Facts about some calls of one row; what was not looked for is None.

    batch: images at once. counts: of a `Tally`: steps, guided steps, network calls by batch, replays, compilations.
    asked_steps: the workload's; timesteps: of the model's schedule; path_steps: on the row's own path; loop_steps:
    steps its loop really took; guided_steps: where guidance is limited, those of the path where it is on.
    products: convolutions and matrix products that ran, as (kind, number format, batch, how often).
    convolutions: of the network, a call; pointwise: those of them that are 1×1. kernels: device kernels by name.
    nhwc: convolution outputs that were channels-last, and all. In the loop: copies, between host and device; launches,
    of kernels from the host, and graph_launches. kept_bytes: memory kept a step; table_bytes: what the coefficient
    table takes of it.
    """

    batch: int
    counts: dict[str, int]
    asked_steps: int | None = None
    timesteps: int = 1000
    path_steps: int | None = None
    loop_steps: int | None = None
    guided_steps: int | None = None
    products: list[list[Any]] | None = None
    convolutions: int = 0
    pointwise: int = 0
    kernels: dict[str, int] | None = None
    nhwc: tuple[int, int] | None = None
    copies: int | None = None
    launches: int | None = None
    graph_launches: int = 0
    kept_bytes: float | None = None
    table_bytes: int = 0
    cuda: bool = False

    @property
    def steps(self) -> int:
        return self.counts.get("steps", 0)

    @property
    def calls(self) -> dict[int, int]:
        """Network calls made from Python, by batch."""
        found = {int(k.removeprefix(CALLS)): n for k, n in self.counts.items() if k.startswith(CALLS)}
        return {batch: n for batch, n in found.items() if n}

    def json(self) -> dict[str, Any]:
        return {k: v for k, v in asdict(self).items() if v not in (None, {}, 0, False)}


class Finding(NamedTuple):
    """For (True) or against (False) a row, and what was seen."""

    ok: bool
    text: str


Proof = Callable[[Seen], Finding | None]
Steps = Callable[[int, int], int]  # (steps asked for, timesteps of the model's schedule) -> steps of a run
Pattern = Callable[[Seen], dict[int, int]]  # network calls by batch that the steps should take


def judge(proofs: Sequence[Proof], seen: Seen) -> list[Finding]:
    """What each proof finds, where it finds anything."""
    return [finding for proof in proofs if (finding := proof(seen)) is not None]


def twice(seen: Seen) -> dict[int, int]:
    """Two calls of B a guided step, one of B otherwise."""
    guided = seen.counts.get("guided", 0)
    return _nonzero({seen.batch: seen.steps + guided})


def once_doubled(seen: Seen) -> dict[int, int]:
    """One call of 2B a guided step, one of B otherwise."""
    guided = seen.counts.get("guided", 0)
    return _nonzero({2 * seen.batch: guided, seen.batch: seen.steps - guided})


def called(pattern: Pattern) -> Proof:
    """The network was called from Python exactly as the pattern says."""

    def proof(seen: Seen) -> Finding:
        wanted = pattern(seen)
        text = f"{_calls(seen.calls)} in {seen.steps:,} steps"
        return Finding(True, text) if seen.calls == wanted else Finding(False, f"{text}, not {_calls(wanted)}")

    return proof


def contains(pattern: Pattern) -> Proof:
    """The convolutions that ran are those of the pattern's network calls, though Python made none.

    Of those that are 1×1, a compiler may have made matrix products: of the same in every call, but guided steps are
    a graph of their own.
    """

    def proof(seen: Seen) -> Finding | None:
        if seen.products is None or not seen.convolutions:
            return None
        ran: Counter[int] = Counter()
        for kind, _, batch, count in seen.products:
            ran[batch] += count * (kind == "convolution")
        shown, wanted = _nonzero(ran), pattern(seen)
        text = f"convolutions of {_calls({b: -(-n // seen.convolutions) for b, n in shown.items()})}"
        text += f" in {seen.steps:,} steps"
        each = range(seen.convolutions - seen.pointwise, seen.convolutions + 1)
        kinds = [pattern(kind) for kind in _kinds_of_steps(seen)]
        right = shown.keys() == wanted.keys() and all(
            _made_of(shown[b], [kind[b] for kind in kinds if b in kind], each) for b in wanted
        )
        return Finding(True, text) if right else Finding(False, f"{text}, not {_calls(wanted)}")

    return proof


def _kinds_of_steps(seen: Seen) -> list[Seen]:
    """What was seen, as if of its guided steps alone and of the others."""
    guided = seen.counts.get("guided", 0)
    each = ((guided, guided), (seen.steps - guided, 0))
    return [replace(seen, counts={"steps": steps, "guided": of_them}) for steps, of_them in each]


def _made_of(total: int, calls: Sequence[int], each: range) -> bool:
    """Whether so many calls of each kind, those of a kind alike, can come to the total."""
    if not calls:
        return total == 0
    return any(_made_of(total - calls[0] * n, calls[1:], each) for n in each)


def compiled(seen: Seen) -> Finding:
    """The steps ran as compiled graphs: no network call from Python, no break, nothing compiled anew."""
    faults = [f"{n:,} {name}" for name in ("graph breaks", "compilations", "graphs skipped")
              if (n := seen.counts.get(name, 0))]  # fmt: skip
    if seen.calls:
        faults.append(f"the network ran eagerly, {_calls(seen.calls)}")
    graphs = None if seen.cuda or seen.kernels is None else seen.kernels.get(COMPILED_GRAPH, 0)
    if graphs is not None and graphs < seen.steps:
        faults.append(f"compiled graphs ran {graphs:,} times")
    if faults:
        return Finding(False, f"in {seen.steps:,} steps that should run compiled: {', '.join(faults)}")
    return Finding(True, f"{seen.steps:,} steps in compiled graphs, no break, no recompilation")


def replayed_over(steps: int) -> Proof:
    """On CUDA, captured graphs of up to so many steps took every step, and Python never called the network.

    What is left of a stretch that is no whole number of them is taken one by one, so their number has a range.
    """

    def proof(seen: Seen) -> Finding | None:
        if not seen.cuda:
            return None
        replays, calls = seen.counts.get("replays", 0), sum(seen.calls.values())
        fewest = -(-seen.steps // steps)
        many = steps > 1 and seen.steps > 2 * steps  # enough to tell that not every step was a graph of its own
        taken = fewest <= replays <= (seen.steps - 1 if many else seen.steps)
        text = f"{replays:,} graph replays in {seen.steps:,} steps, {calls:,} network calls from Python"
        return Finding(taken and not calls, text)

    return proof


replayed = replayed_over(1)


def launches_graphs_alone(seen: Seen) -> Finding | None:
    """On CUDA, the host launches no kernel in the loop, and no more graphs than it replays."""
    if not seen.cuda or seen.launches is None:
        return None
    text = f"{seen.launches:,} kernels and {seen.graph_launches:,} graphs launched from the host in the loop"
    return Finding(not seen.launches and 0 < seen.graph_launches <= seen.counts.get("replays", 0), text)


def computes_in(*formats: str) -> Proof:
    """Every convolution ran in one of the number formats (matrix products are told of; without convolutions, they)."""

    def proof(seen: Seen) -> Finding | None:
        if seen.products is None:
            return None
        ran: dict[str, Counter[str]] = {"convolution": Counter(), "matrix product": Counter()}
        for kind, number_format, _, count in seen.products:
            ran[kind][number_format] += count
        kind = "convolution" if ran["convolution"] else "matrix product"  # of a network of linear layers alone
        total, right = (sum(n for f, n in ran[kind].items() if f in wanted) for wanted in (set(ran[kind]), formats))
        other = {f for f in ran[kind] if f not in formats}
        products = ran["matrix product"]
        named = "/".join(formats)
        text = f"{named} in {right:,} of {total:,} {kind}s"
        if products and kind == "convolution":
            text += f" and {sum(products[f] for f in formats):,} of {sum(products.values()):,} matrix products"
        text += f" (the others in {', '.join(sorted(other))})" if other else ""
        return Finding(right == total > 0, text)

    return proof


def in_float32(seen: Seen) -> Finding | None:
    """Every convolution takes float32, and on CUDA no kernel multiplies it in TensorFloat-32."""
    found = computes_in("float32")(seen)
    if found is None or not seen.cuda or seen.kernels is None:
        return found
    fast = in_tf32(seen.kernels)
    return Finding(found.ok and not fast, f"{found.text}, {fast:,} kernels in TensorFloat-32")


def in_tensorfloat32(seen: Seen) -> Finding | None:
    """Every convolution takes float32, and in each network call some kernel multiplies it in TensorFloat-32."""
    found = computes_in("float32")(seen)
    if found is None or seen.kernels is None:
        return None
    fast, calls = in_tf32(seen.kernels), sum(seen.calls.values())
    text = f"{found.text}, {fast:,} kernels in TensorFloat-32 in {calls:,} network calls"
    return Finding(found.ok and fast >= calls > 0, text)


def takes(steps: Steps) -> Proof:
    """A whole run takes exactly the steps that it should: steps(asked for, timesteps of the model's schedule)."""

    def proof(seen: Seen) -> Finding | None:
        if seen.asked_steps is None:
            return None
        wanted = steps(seen.asked_steps, seen.timesteps)
        text = f"{seen.loop_steps:,} step{'s' * (seen.loop_steps != 1)} a run"
        if wanted == seen.path_steps == seen.loop_steps:
            return Finding(True, text)
        return Finding(False, f"{text} on a path of {seen.path_steps:,}, not {wanted:,}")

    return proof


def launches(kernel: str) -> Proof:
    """Kernels with this in their name were seen running, once a step or more."""

    def proof(seen: Seen) -> Finding | None:
        if seen.kernels is None:
            return None
        count = sum(n for name, n in seen.kernels.items() if kernel in name)
        return Finding(count >= seen.steps, f"{kernel} ran {count:,} times in {seen.steps:,} steps")

    return proof


def keeps_channels_last(seen: Seen) -> Finding | None:
    """Every convolution gave channels-last; in a step that is compiled or captured, few had their layout changed.

    There only kernels are seen, and cuDNN may change the layout inside a convolution or two of few channels.
    """
    if seen.nhwc is not None and seen.nhwc[1]:
        kept, outputs = seen.nhwc
        return Finding(kept == outputs, f"channels-last out of {kept:,} of {outputs:,} convolutions")
    if seen.kernels:
        changed = sum(n for name, n in seen.kernels.items() if "nchwToNhwc" in name or "nhwcToNchw" in name)
        ran = sum(count for kind, _, _, count in seen.products or () if kind == "convolution")
        return Finding(not changed or 2 * changed < ran, f"{changed:,} changes of layout in {ran:,} convolutions")
    return None


def stays_on_the_device(seen: Seen) -> Finding | None:
    """No copy between host and device in the loop (where there is a device)."""
    if not seen.cuda or seen.copies is None:
        return None
    return Finding(seen.copies == 0, f"{seen.copies:,} host-device copies in the loop")


def settled(seen: Seen) -> Finding | None:
    """Nothing is compiled any more, whatever the row compiled at first."""
    anew = seen.counts.get("compilations", 0)
    return Finding(False, f"{anew:,} compilations in {seen.steps:,} steps after the first") if anew else None


def keeps_nothing(seen: Seen) -> Finding | None:
    """A step leaves nothing in memory beyond its line of the coefficient table: no leak, no hidden cache."""
    if seen.kept_bytes is None:
        return None
    text = f"keeps {seen.kept_bytes:,.0f} B a step"
    if seen.kept_bytes <= seen.table_bytes:
        return Finding(True, text)
    return Finding(False, f"{text}; the coefficient table takes {seen.table_bytes:,} B of that")


def guides(seen: Seen) -> Finding | None:
    """Where guidance is limited to some noise levels, some step of the row lies there."""
    if seen.guided_steps is None:
        return None
    if not seen.guided_steps:
        return Finding(False, f"guides no step of {seen.path_steps:,}")
    return Finding(True, f"guides {seen.guided_steps:,} of {seen.path_steps:,} steps")


def every_step(asked: int, timesteps: int) -> int:
    return asked


def _calls(by_batch: dict[int, int]) -> str:
    if not by_batch:
        return "no network call"
    return " + ".join(f"{n:,} network call{'s' * (n != 1)} of {b}" for b, n in sorted(by_batch.items()))


def _nonzero(counts: dict[int, int]) -> dict[int, int]:
    return {key: n for key, n in counts.items() if n}


# what each way to run must show; a contender names what differs from PLAIN
ALWAYS: tuple[Proof, ...] = (keeps_nothing, stays_on_the_device, settled, guides)
PLAIN: tuple[Proof, ...] = (takes(every_step), called(twice), in_float32, *ALWAYS)
