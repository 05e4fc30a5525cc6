"""The space that is searched: every combination of the seams' values that fits together, each a contender.

A combination is named by what differs from the reference, `batched+frozen+bf16`; `CONTENDERS` lists them all, so that
`python -m bench run --contenders bench.tune.space --rows NAME` measures any of them as it does a shipped row.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from bench import contenders, evidence
from bench.contenders import BF16, FLOAT32, FP16, ONE_GRAPH, OUR_KERNEL, OUR_NOISE, Contender, Path_, shown_by
from bench.evidence import (
    Pattern,
    called,
    compiled,
    contains,
    keeps_channels_last,
    launches,
    once_doubled,
    replayed,
    replayed_over,
    twice,
)
from bench.evidence import in_tensorfloat32 as in_tf32
from sampler import graphs, runtime, variants
from sampler.errors import UsageError, unknown
from sampler.models import Model
from sampler.trajectory import Trajectory, ancestral, spaced
from sampler.variants import VARIANTS, Variant

Choice = tuple[str, ...]  # a value's label for each of SEAMS; '' where it is the reference's


@dataclass(frozen=True)
class Value:
    """One way to fill a seam. variant: the fields that it sets. lossless: it changes no picture beyond rounding.

    proofs: what shows that it engaged, where that depends on this seam alone. calls: how the network is called, and
    shown: how that is seen. share, path: which part of the steps it takes, and on which path.
    """

    variant: dict[str, Any] = field(default_factory=dict)
    lossless: bool = True
    needs: str = ""
    proofs: tuple[evidence.Proof, ...] = ()
    calls: Pattern = twice
    shown: Callable[[Pattern], tuple[evidence.Proof, ...]] = lambda calls: (called(calls),)
    share: float = 1.0
    path: Path_ = contenders.full_path


def ancestral_path(share: float) -> Path_:
    """The reference's sampler with a share of its steps."""

    def path(model: Model, steps: int) -> Trajectory:
        fewer = spaced(model.schedule, max(1, round(steps * share)))
        return ancestral(model.schedule, fewer, prediction=model.prediction, clip=model.clip)

    return path


def _like(name: str, seam: str, **how: Any) -> Value:
    """The value that a shipped variant has at a seam."""
    return Value({seam: getattr(VARIANTS[name], seam)}, **how)


def _graph(*first: evidence.Proof) -> Callable[[Pattern], tuple[evidence.Proof, ...]]:
    return lambda calls: (*first, contains(calls))


def _fewer(kind: Callable[[float], Path_], divisors: tuple[int, ...], name: str) -> dict[str, Value]:
    return {f"{name}/{n}": Value(lossless=False, share=1 / n, path=kind(1 / n)) for n in divisors}


_COMPILED = _graph(compiled, replayed)
SEAMS: dict[str, dict[str, Value]] = {
    "layout": {"": Value(), "channels-last": _like("channels-last", "layout", proofs=(keeps_channels_last,))},
    "precision": {
        "": Value(proofs=(FLOAT32,)),
        "tf32": _like("tf32", "precision", lossless=False, needs="cuda", proofs=(in_tf32,)),
        "autocast-bf16": _like("autocast-bf16", "precision", lossless=False, needs="half", proofs=(BF16,)),
        "bf16": _like("cast-bf16", "precision", lossless=False, needs="half", proofs=(BF16,)),
        "autocast-fp16": _like("autocast-fp16", "precision", lossless=False, needs="cuda", proofs=(FP16,)),
        "fp16": _like("cast-fp16", "precision", lossless=False, needs="cuda", proofs=(FP16,)),
    },
    "guide": {"": Value(), "batched": _like("batched-cfg", "guide", calls=once_doubled)},
    "update": {
        "": Value(),
        "compiled-update": _like("compiled-update", "update", proofs=(launches("compiled graph"),)),
        "native": _like("native-update", "update", needs="cpu", proofs=(launches("native_posterior_drawn"),)),
        "fused": _like("fused-guided", "update", needs="cuda", proofs=(OUR_KERNEL,)),
        "fused-drawn": _like("fused-drawn", "update", needs="cuda", proofs=(OUR_KERNEL,)),
        "fused-fed": _like("fused-fed", "update", needs="cuda", proofs=(OUR_KERNEL,)),
        "kernel-noise": _like("cuda-graph", "update", needs="cuda", proofs=(OUR_NOISE,)),
    },
    "runtime": {
        "": Value(),
        "compiled": _like("compiled", "runtime", shown=_COMPILED),
        "frozen": _like("all-lossless", "runtime", needs="cpu", shown=_COMPILED),
        "graph": _like("cuda-graph", "runtime", needs="cuda", shown=_graph(*ONE_GRAPH)),
        "graph-5": _like("cuda-graph-5", "runtime", needs="cuda",
                         shown=_graph(replayed_over(5), evidence.launches_graphs_alone)),
        "compiled-graph": _like("compiled-graph", "runtime", needs="cuda", shown=_graph(compiled, *ONE_GRAPH)),
    },
    "guided_between": {"": Value(), "limited": _like("limited-guidance", "guided_between", lossless=False)},
    "path": {
        "": Value(),
        **_fewer(contenders.ddim_path, (2, 4, 10, 20, 40), "ddim"),
        **_fewer(ancestral_path, (2, 4, 10, 20), "ancestral"),
        **_fewer(contenders.strided_path, (4,), "strided"),
    },
}  # fmt: skip
REFERENCE: Choice = ("",) * len(SEAMS)
AT = {seam: i for i, seam in enumerate(SEAMS)}
WHOLE_STEP = (runtime.compiled, runtime.compiled_frozen)  # runtimes that compile the update with the step


def name_of(choice: Choice) -> str:
    return "+".join(filter(None, choice)) or contenders.REFERENCE


def choice_of(name: str) -> Choice:
    """The combination with this name."""
    if name not in BY_NAME:
        raise unknown("combination", name, BY_NAME)
    return BY_NAME[name]


def values(choice: Choice) -> list[Value]:
    return [known[label] for known, label in zip(SEAMS.values(), choice, strict=True)]


def differing(choice: Choice, other: Choice) -> list[str]:
    """The seams in which two combinations differ."""
    return [seam for seam, i in AT.items() if choice[i] != other[i]]


def with_value(choice: Choice, seam: str, label: str) -> Choice:
    return (*choice[: AT[seam]], label, *choice[AT[seam] + 1 :])


@cache
def contender(choice: Choice) -> Contender | None:
    """The combination as a row, or None where its values do not fit together (or two of them do one thing)."""
    found = values(choice)
    needs = {value.needs for value in found if value.needs}
    if {"cpu", "cuda"} <= needs:
        return None
    fields = {name: made for value in found for name, made in value.variant.items()}
    update, way = fields.get("update", variants.plain_update), fields.get("runtime", runtime.eager)
    if way in WHOLE_STEP and update is not variants.plain_update:
        return None  # the whole step is compiled, its update too
    if update is variants.kernel_noise_update and way.__module__ != graphs.__name__:
        return None  # it is for graphs; elsewhere the plain update does the same
    try:
        # named without its path: rows that differ in the path alone share what is built
        variant = Variant(name_of(with_value(choice, "path", "")), needs=next(iter(needs - {"half"}), ""), **fields)
    except UsageError:
        return None
    guide, path, way_shown = found[AT["guide"]], found[AT["path"]], found[AT["runtime"]]
    proofs = [*way_shown.shown(guide.calls), *(proof for value in found for proof in value.proofs)]
    return Contender(
        name_of(choice), ", ".join(filter(None, choice)) or "nothing", variant, path.path,
        lossless=all(value.lossless for value in found), needs="half" if "half" in needs else "",
        engaged=shown_by(*proofs, steps=contenders.share_of_steps(path.share)),
    )  # fmt: skip


BY_NAME = {name_of(choice): choice for choice in itertools.product(*SEAMS.values())}
CONTENDERS = [made for choice in BY_NAME.values() if choice != REFERENCE and (made := contender(choice)) is not None]
