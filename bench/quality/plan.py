"""What `python -m bench quality` draws: the two curves, the rows that draw other pictures, and the known-bad sets."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache, partial

import torch

from bench.quality.drawing import BATCHED, FROZEN, Point
from bench.quality.equivalence import LEAST
from sampler import cpu, precision
from sampler.errors import UsageError, unknown
from sampler.models import Model, load_model
from sampler.schedule import NoiseSchedule
from sampler.textbook import textbook_strided_timesteps
from sampler.trajectory import Trajectory, ancestral, ddim, spaced, strided
from sampler.variants import LIMITED, VARIANTS, Variant

MODEL, SCALE = "fashion-mnist", 3.0
STEPS = (1000, 500, 250, 100, 50, 25, 10)
GUIDANCE = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0)
GUIDANCE_STEPS = 100  # of the guidance curve: by the steps curve as good as 1,000
REFERENCE, OTHER_SEEDS, DAMAGED = "ancestral-1000", "ancestral-1000-seed1", "ancestral-25"
SHIFTED, EAGER = "shifted-schedule", "eager-1000"
UNGUIDED, FEWER, FEW_LIMITED = "ddim-50-unguided", "ancestral-100", "limited-50"
FEW_LIMITED_DDIM, HALF = "limited-ddim-50", "half-1000"
# what the metric is tried on
ANCHORS = (REFERENCE, OTHER_SEEDS, DAMAGED, SHIFTED, UNGUIDED, FEWER, FEW_LIMITED, FEW_LIMITED_DDIM)
SHIFT = 50  # timesteps by which the network is misled
SAMPLES, SAMPLES_CUDA = 200, 10_000  # pictures of a point
MORE, SHORT = 2, 50  # times as many pictures of the anchors, and of paths as short as that, which cost little
DEAR = 250  # steps; of longer paths that no row takes a quarter of the pictures
FRESH = "-seed1"  # of a point: the same at seeds that no choice was made on, held against the reference's there
SAMPLERS = {"ancestral": ancestral, "strided": strided, "ddim": ddim}  # DDIM(1) is ancestral: the same table


@dataclass(frozen=True)
class Drawn:
    """Which point shows a row's pictures, and which spends about its time on plain steps ('': none of the curve)."""

    point: str
    control: str = ""


# row of the speed table -> its pictures, and its control: the point of the curve of plain ancestral steps that takes
# about the row's time (by the speed-ups in results/amd-epyc-avx512-2cpu)
ROWS = {
    "reference": Drawn(REFERENCE),
    "textbook": Drawn("textbook"),
    "compiled": Drawn(EAGER),  # the other way round: the reference's are drawn by a compiled step, these are not
    "autocast-bf16": Drawn("autocast-1000", REFERENCE),
    "cast-bf16": Drawn(HALF, REFERENCE),
    "all-half": Drawn(HALF, "ancestral-500"),
    "limited-guidance": Drawn("limited-1000", "ancestral-500"),
    "all-equal-steps": Drawn("limited-1000", "ancestral-500"),
    "all-half-limited": Drawn("half-limited-1000", "ancestral-250"),
    "textbook-strided": Drawn("textbook-strided-250", "ancestral-250"),
    "strided": Drawn("strided-250", "ancestral-250"),
    "ddim": Drawn("ddim-50", "ancestral-50"),
    "all-few-steps": Drawn(FEW_LIMITED, "ancestral-25"),
    "all-together": Drawn(FEW_LIMITED_DDIM, "ancestral-25"),
}
ON_CUDA = {
    "tf32": Drawn("tf32-1000"),
    "autocast-fp16": Drawn("autocast-fp16-1000"),
    "cast-fp16": Drawn("cast-fp16-1000"),
    "all-equal-steps-cuda": Drawn(HALF, "ancestral-500"),
    "all-together-cuda": Drawn("half-limited-ddim-50", "ancestral-25"),
}


def rows(device: str) -> dict[str, Drawn]:
    """The rows that are judged on a device."""
    if device == "cpu":
        return ROWS
    on_gpu = {name: drawn for name, drawn in ROWS.items() if not name.startswith("all-")}
    return {**on_gpu, **ON_CUDA}


def curve() -> list[str]:
    """The points of the steps curve."""
    return [f"{name}-{steps}" for name in SAMPLERS for steps in STEPS]


def guidance_point(scale: float) -> str:
    return f"ancestral-{GUIDANCE_STEPS}" if scale == SCALE else f"guidance-{scale:g}"


@cache
def points(device: str = "cpu") -> dict[str, Point]:
    """Every point by its name; those at guidance 3 share one compiled step, the other scales are drawn eagerly."""
    model = load_model(MODEL)
    schedule = model.schedule
    fewer, full = ancestral(schedule, spaced(schedule, GUIDANCE_STEPS)), ancestral(schedule)
    fast = FROZEN if device == "cpu" else VARIANTS["all-lossless-cuda"]
    limited = replace(fast, name=f"{fast.name}, limited", guided_between=LIMITED)
    of_curve = {f"{name}-{steps}": sampler(schedule, spaced(schedule, steps))
                for steps in STEPS for name, sampler in SAMPLERS.items()}  # fmt: skip
    found: list[tuple[str, Trajectory, Variant]] = [
        *((name, path, fast) for name, path in of_curve.items()),
        (EAGER, full, BATCHED),
        ("textbook", ancestral(schedule, variance="beta", clip=None), fast),
        ("textbook-strided-250", textbook_strided_table(model, 250), fast),
        ("limited-1000", full, limited),
        (FEW_LIMITED, of_curve["ancestral-50"], limited),
        (FEW_LIMITED_DDIM, of_curve["ddim-50"], limited),
        (SHIFTED, shifted(schedule, GUIDANCE_STEPS, SHIFT), fast),
        *((guidance_point(s), fewer, BATCHED) for s in GUIDANCE if s != SCALE),
        *((name, of_curve.get(name.removeprefix("half-limited-"), full), variant)
          for name, variant in _halves(device).items()),
    ]  # fmt: skip
    scales = {guidance_point(s): s for s in GUIDANCE}
    made = [Point(name, path, scales.get(name, SCALE), variant=variant, device=device) for name, path, variant in found]
    made.append(Point(UNGUIDED, of_curve["ddim-50"], 1.0, variant=fast, device=device))
    made += [replace(point, name=point.name + FRESH, seed=1) for point in made if point.name in confirmed(device)]
    return {point.name: point for point in made}


def confirmed(device: str) -> set[str]:
    """Points drawn at fresh seeds too: the reference, and every row that takes few steps, which may win by chance."""
    few = {drawn.point for drawn in rows(device).values() if drawn.point.endswith(f"-{SHORT}")}
    return {REFERENCE} | few


def of_device(device: str) -> Callable[[], dict[str, Point]]:
    """`points` of a device, as a function that a drawing process can call too."""
    return partial(points, device)


def _halves(device: str) -> dict[str, Variant]:
    """What draws the rows in other precisions: the rows' own variants, with batched guidance."""

    def batched(name: str) -> Variant:
        return replace(VARIANTS[name], name=f"{name}, batched", guide=BATCHED.guide)

    if device == "cpu":
        half, limited = VARIANTS["all-half"], VARIANTS["all-half-limited"]
        return {HALF: half, "half-limited-1000": limited, "autocast-1000": batched("autocast-bf16")}
    equal = VARIANTS["all-equal-steps-cuda"]
    return {
        HALF: equal, "autocast-1000": batched("autocast-bf16"), "tf32-1000": batched("tf32"),
        "autocast-fp16-1000": batched("autocast-fp16"), "cast-fp16-1000": batched("cast-fp16"),
        "half-limited-ddim-50": equal,
    }  # fmt: skip


def wanted(samples: int, device: str = "cpu") -> list[tuple[str, int]]:
    """Every point with its samples, at least so many: the anchors first, then the rows', then the curves'; but for what
    `left_out` has a reason."""
    known, absent = points(device), left_out(device)
    shown = {p for d in rows(device).values() for p in (d.point, d.control) if p}

    def rank(name: str) -> tuple[bool, bool, int]:
        return name not in ANCHORS, name not in shown, known[name].path.steps

    return [(name, samples if device != "cpu" else _on_a_cpu(known[name], name in shown, samples))
            for name in sorted(known, key=rank) if name not in absent]  # fmt: skip


def of_rows(names: Iterable[str], device: str = "cpu") -> set[str]:
    """The points that judging these rows takes: their pictures, at fresh seeds too, their controls and the anchors."""
    known, asked = points(device), rows(device)
    if unknown_ := [name for name in names if name not in asked]:
        raise UsageError(f"{unknown('row', unknown_[0], asked)}; or it changes no picture, and is not judged by them")
    shown = {point for name in names for point in (asked[name].point, asked[name].control)}
    fresh = {point + FRESH for point in shown}
    return {*ANCHORS, *((shown | fresh) & set(known))}


def left_out(device: str = "cpu") -> dict[str, str]:
    """Points that are not drawn on this machine, and why."""
    if device != "cpu" or cpu.has_bf16():
        return {}
    why = "not drawn: this CPU has no bfloat16 instructions, and emulating them takes eleven times as long"
    return {name: why for name, point in points(device).items() if point.variant.precision is not precision.full}


def _on_a_cpu(point: Point, shown: bool, samples: int) -> int:
    """More of the anchors, which decide what every other figure means, of the row in half precision, and of what costs
    little; fewer of what shows the compiler's rounding alone, and of the curves where they are dear.

    shown: whether a row or a control has it.
    """
    if point.name in ANCHORS or point.name == HALF or point.path.steps <= SHORT:
        return samples * MORE
    dear = point.name == EAGER or (not shown and point.path.steps > DEAR)
    return max(LEAST, samples // 40 * 10) if dear else samples


def textbook_strided_table(model: Model, steps: int) -> Trajectory:
    """`sampler.textbook.textbook_strided` as a table: unclipped, and noise left at the end."""
    visited = textbook_strided_timesteps(model.schedule, steps)
    stride, signal = -visited.step, model.schedule.alphas_cumprod
    now = signal[list(visited)]
    then = signal[[max(t - stride, 0) for t in visited]]
    rows = [1 / now.sqrt(), (1 - now).sqrt() / now.sqrt(), then.sqrt(), torch.zeros_like(now), (1 - then).sqrt()]
    bound = torch.full_like(now, float("inf"))
    levels = model.schedule.noise_levels[visited]
    return Trajectory(
        "textbook-strided", tuple(visited), torch.stack([*rows, bound], dim=1), model.schedule.steps, levels
    )


def shifted(schedule: NoiseSchedule, steps: int, by: int) -> Trajectory:
    """A fault: the table of one set of timesteps, the network told that it is `by` timesteps less noisy."""
    told = [round((i + 1) * (schedule.steps - by) / steps) - 1 for i in reversed(range(steps))]
    rows = ancestral(schedule, [t + by for t in told]).rows
    return Trajectory("shifted", tuple(told), rows, schedule.steps, schedule.noise_levels[told])
