"""Memory, evidence and the whole cost of a row, as tables; what only a GPU can fill is marked so."""

from bench.cost import Cost, best_uncompiled
from bench.measurement import Measurement
from bench.memory import PHASES, human
from bench.report.table import _table, images, pays_from, shown
from bench.roof import WINOGRAD

NEEDS_CUDA = "needs CUDA"
MEMORY = (
    "row", *(f"{phase}: live / held" for phase in PHASES), "CUDA-graph pools", "driver's count",
    "fixed + an image + a step", "largest batch foreseen", "steady: weights, state, activations, workspace",
)  # fmt: skip
COST = (
    "row", "load s", "first call s", "of it compile s", "autotune s", "graph capture s", "pays over reference from",
    "pays over best uncompiled from", "what was seen",
)  # fmt: skip
TIME = (
    "row", "most of a step is", "update's share", "a free update would give", "launches a step", "host-caused gaps",
    "GFLOP an image", "share of the roof", "energy an image", "disturbed slices", "flag",
)  # fmt: skip


def markdown(measurement: Measurement) -> str:
    """The memory table and the tables of costs and of reasons; '' where no row was inspected."""
    if not any(cost.phase("steady") for cost in _costs(measurement)):
        return ""
    parts = [memory_markdown(measurement), cost_markdown(measurement), time_markdown(measurement)]
    return "\n".join([*parts, roof_line(measurement)]) + "\n"


def _costs(measurement: Measurement) -> list[Cost]:
    return [Cost(measurement.row(name)) for name in measurement.rows]


def cost_markdown(measurement: Measurement) -> str:
    """What each row costs once, and how it is known to have engaged."""
    lines = ["**What it costs, and how it is known to have engaged**", ""]
    lines += _table(COST, [cost_cells(cost) for cost in _costs(measurement)])
    lines += ["", f"Imports are not counted. 'pays from': images from which on the row is the cheaper, its first call "
              f"included; the best that compiles nothing is `{best_uncompiled(measurement).name}`."]  # fmt: skip
    return "\n".join(lines) + "\n"


def time_markdown(measurement: Measurement) -> str:
    """Where each row's time goes, and how near it is to the device's roof."""
    lines = ["**Why a row is fast**", "", *_table(TIME, [time_cells(cost) for cost in _costs(measurement)])]
    return "\n".join(lines) + "\n"


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
        return [name, *["–"] * (len(MEMORY) - 2), cost.row.reason or "not inspected"]
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
        return [row.name, *["–"] * (len(COST) - 2), row.reason or "not inspected"]
    seconds = {part: f"{value:.2f}" for part, value in parts.items()}
    first = row.first_call_s
    gpu = on_gpu(row.measurement)
    return [
        row.name, seconds["load_s"], "–" if first is None else f"{first[0]:.2f}", seconds["compile_s"],
        seconds["autotune_s"] if gpu else NEEDS_CUDA, seconds["capture_s"] if gpu else NEEDS_CUDA,
        pays_from(cost),
        "itself" if row.name == best_uncompiled(row.measurement).name else images(cost.break_even_over_uncompiled),
        cost.evidence,
    ]  # fmt: skip


def time_cells(cost: Cost) -> list[str]:
    """A line of the table of reasons, in the order of TIME."""
    row, kinds = cost.row, cost.kinds_ms
    if not kinds:
        return [row.name, *["–"] * (len(TIME) - 2), row.reason or "not profiled"]
    total, gpu = sum(kinds.values()), on_gpu(row.measurement)
    most = sorted(kinds.items(), key=lambda kind: -kind[1])[:3]
    share, disturbed = cost.update_share, cost.disturbed
    energy, calls = cost.energy_an_image_j, cost.launches_a_step or 0.0
    return [
        row.name, ", ".join(f"{kind} {ms / total:.0%}" for kind, ms in most),
        "inside the compiled step" if share is None else f"{share:.1%}",
        "–" if share is None else f"at most {1 / (1 - share):.3f}×",  # Amdahl 1967
        format(calls, ".0f" if calls >= 10 else ".2g"),
        NEEDS_CUDA if not gpu else "–" if cost.gap_share is None else f"{cost.gap_share:.1%}",
        "–" if cost.flop_an_image is None else f"{cost.flop_an_image / 1e9:.3g}",
        "–" if cost.roof_share is None else f"{cost.roof_share:.0%} of {cost.number_format}",
        NEEDS_CUDA if not gpu else "–" if energy is None else f"{shown(energy)} J",
        "not recorded" if disturbed is None else f"{disturbed[0]:,} of {disturbed[1]:,}", cost.implausible,
    ]  # fmt: skip


def roof_line(measurement: Measurement) -> str:
    """What the roof is made of, in a few sentences."""
    for event in measurement.of("roof"):
        rates = ", ".join(f"{rate / 1e9:,.0f} GFLOP/s in {name}" for name, rate in event["matrix_flop_per_s"].items())
        return " ".join((
            "Launches: kernels and graphs launched from the host, or on a CPU operators called. Host-caused gaps: the",
            "device had nothing to do, and what came next was not launched yet. The roof, measured in this run: a",
            f"copy of 256 MiB at {event['copy_bytes_per_s'] / 1e9:.1f} GB/s (read and written), matrix products of",
            f"{rates}; the cheapest operator's call takes {event['call_us']:.2f} µs. One network call of one image:",
            f"{event['flop_an_image'] / 1e6:,.1f} MFLOP as the definition counts them, and",
            f"{event['unfused_bytes_an_image'] / 2**20:,.1f} MiB moved if nothing were fused or cached. Above",
            f"{WINOGRAD} times the matrix rate, or below the time of its launches, a row is flagged as implausible.",
        ))  # fmt: skip
    return "The roof was not measured in this run."
