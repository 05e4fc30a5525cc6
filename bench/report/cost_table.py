"""Memory, evidence and the whole cost of a row, as tables; what only a GPU can fill is marked so."""

import math

from bench.cost import Cost, best_uncompiled
from bench.measurement import Measurement
from bench.memory import PHASES, human
from bench.report.table import _table

NEEDS_CUDA = "needs CUDA"
MEMORY = (
    "row", *(f"{phase}: live / held" for phase in PHASES), "CUDA-graph pools", "driver's count",
    "fixed + an image + a step", "largest batch foreseen", "steady: weights, state, activations, workspace",
)  # fmt: skip
COST = (
    "row", "load s", "first call s", "of it compile s", "autotune s", "graph capture s", "pays over reference from",
    "pays over best uncompiled from", "what was seen",
)  # fmt: skip


def markdown(measurement: Measurement) -> str:
    """The memory table and the table of costs and evidence."""
    costs = [Cost(measurement.row(name)) for name in measurement.rows]
    if not any(cost.phase("steady") for cost in costs):
        return ""
    lines = ["**What it costs, and how it is known to have engaged**", ""]
    lines += _table(COST, [cost_cells(cost) for cost in costs])
    lines += ["", f"Imports are not counted. 'pays from': images from which on the row is the cheaper, its first call "
              f"included; the best that compiles nothing is `{best_uncompiled(measurement).name}`."]  # fmt: skip
    return memory_markdown(measurement) + "\n" + "\n".join(lines) + "\n"


def memory_markdown(measurement: Measurement) -> str:
    """The memory table with what its words mean."""
    lines = ["**Memory**, each row alone in a process of its own", ""]
    lines += _table(MEMORY, [memory_cells(Cost(measurement.row(name))) for name in measurement.rows])
    held = "reserved by the allocator" if on_gpu(measurement) else "resident above the process's imports"
    lines += ["", f"live: peak of live tensors; held: peak {held}; workspace: held beyond live tensors."]
    return "\n".join(lines) + "\n"


def on_gpu(measurement: Measurement) -> bool:
    return "gpu" in measurement.environment


def memory_cells(cost: Cost) -> list[str]:
    """A line of the memory table, in the order of MEMORY."""
    name, phases = cost.row.name, [cost.phase(phase) for phase in PHASES]
    if not any(phases):
        return [name, *["–"] * 6, cost.row.reason or "not inspected"]
    steady = next(event for event in reversed(phases) if event)
    gpu = on_gpu(cost.row.measurement)
    fit, a_step = cost.fit, cost.per_step_bytes
    growth = "–"
    if fit is not None:
        growth = f"{human(fit.fixed)} + {human(fit.per_image)} + {fit.per_step:.0f} B (within {fit.error:.1%})"
    elif a_step is not None:
        growth = f"a step {a_step:.0f} B; each batch compiles anew"
    return [
        name,
        *("–" if e is None else f"{human(e['live_peak'])} / {human(e['held'])}" for e in phases),
        human(steady["graph_pools"]) if gpu else NEEDS_CUDA,
        human(steady["driver"]) if gpu else NEEDS_CUDA,
        growth, "–" if cost.largest_batch is None else f"{cost.largest_batch:,}",
        ", ".join(human(size) for size in steady["parts"].values()),
    ]  # fmt: skip


def cost_cells(cost: Cost) -> list[str]:
    """A line of the cost table, in the order of COST."""
    row, parts = cost.row, cost.first_call
    if not parts:
        return [row.name, *["–"] * 7, row.reason or "not inspected"]
    seconds = {part: f"{value:.2f}" for part, value in parts.items()}
    first = row.first_call_s
    gpu = on_gpu(row.measurement)
    return [
        row.name, seconds["load_s"], "–" if first is None else f"{first[0]:.2f}", seconds["compile_s"],
        seconds["autotune_s"] if gpu else NEEDS_CUDA, seconds["capture_s"] if gpu else NEEDS_CUDA,
        images(cost.break_even_over_reference, row.name == "reference"),
        images(cost.break_even_over_uncompiled, row.name == best_uncompiled(row.measurement).name),
        cost.evidence,
    ]  # fmt: skip


def images(count: float | None, itself: bool = False) -> str:
    """A break-even count in words."""
    if itself:
        return "itself"
    if count is None:
        return "–"
    if math.isinf(count):
        return "never"
    return "the first image" if count <= 1 else f"{math.ceil(count):,} images"
