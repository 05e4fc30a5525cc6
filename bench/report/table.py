"""The speed-up table: as a frame, as CSV, as Markdown and on the terminal. Rounding happens here."""

import math
from typing import Any

import pandas as pd

from bench import strict_csv
from bench.cost import FIRST_CALL_PARTS, Cost
from bench.measurement import Measurement, Row
from bench.memory import PARTS
from bench.quality.equivalence import LOSSES, Loss
from bench.students_t import Interval


def frame(measurement: Measurement) -> pd.DataFrame:
    """One row a contender, numbers at full precision, units in the names."""
    return pd.DataFrame([_record(measurement.row(name)) for name in measurement.rows])


def csv(measurement: Measurement) -> str:
    return strict_csv.dumps(frame(measurement))


def _record(row: Row) -> dict[str, Any]:
    first = row.first_call_s
    workload, environment = row.measurement.workload, row.measurement.environment
    return {
        "row": row.name,
        "status": row.status,
        "lossless": row.lossless,
        "steps": row.steps,
        "step_ms": row.step_ms,
        "whole_run_s": row.whole_run_s,
        "whole_run_is": "timed" if row.whole_run_timed_s is not None else "extrapolated" if row.step_ms else None,
        "images_per_s": row.images_per_s,
        **_interval("speedup", row.speedup),
        **_interval("speedup_wall", row.wall_speedup),
        **_interval("speedup_over_textbook", row.speedup_over_textbook),
        **_interval("speedup_over_best_lossless", row.speedup_over_best_lossless),
        "half_width_percent": None if row.speedup is None else row.speedup.half_width * 100,
        "needs_longer": row.status == "ok" and row.needs_longer,
        "slices_against_whole_percent": None if row.slices_against_whole is None else row.slices_against_whole * 100,
        "first_call_s": None if first is None else first[0],
        "first_call_is": None if first is None else "compiled" if first[1] else "cached or eager",
        "same_noise_error": row.probe_error,
        **_quality(row),
        **_cost(Cost(row)),
        "pairs": len(row.pairs),
        "processes": len(row.log_ratios()) if row.status == "ok" else 0,
        "threads": workload.threads,
        "batch": workload.batch,
        "clock": "CUDA events" if "gpu" in environment else "process CPU time",
        "machine": environment["machine"],
        "commit": environment["commit"] + ("-dirty" if environment["dirty"] else ""),
        "reason": row.reason,
        "changes": row.changes,
    }


def _quality(row: Row) -> dict[str, Any]:
    """Layer 1: the largest share of its bound; layer 2: verdict, pictures, and what they lose, with budgets."""
    d, f = row.divergence, row.figures
    losses = {} if f is None else f.losses
    budget = row.budget
    found: dict[str, Any] = {
        "same_noise_share_of_bound": None if d is None else d.nearest,
        "same_bits": None if d is None else d.same_bits,
        "quality": row.verdict[0], "quality_pictures": None if f is None else f.pictures,
        "label_accuracy": None if f is None else f.accuracy.value,
    }  # fmt: skip
    for name in LOSSES:
        low, high = losses[name].interval if name in losses else (None, None)
        found |= {f"{name}_lost": losses[name].value if name in losses else None, f"{name}_lost_low": low,
                  f"{name}_lost_high": high, f"{name}_budget": budget and getattr(budget, name)}  # fmt: skip
    return found


def quality_in_short(row: Row) -> str:
    """What the row does to the pictures, in a cell."""
    if row.lossless:
        if row.divergence is None:
            return "–"
        return "same bits" if row.divergence.same_bits else "same"
    verdict = row.verdict[0].lower() or "reported"
    if row.figures is None or "kernel" not in row.figures.losses:
        return "reported only" if not row.verdict[0] else verdict
    return f"{verdict}: {lost_in_short(row.figures.losses)}"


def lost_in_short(losses: dict[str, Loss]) -> str:
    """The kernel distance lost, with its interval, and how much stranger the pictures are, where that is known."""
    loss = losses["kernel"]
    low, high = loss.interval
    stranger = f", strange {losses['strangeness'].value:+.2f}" if "strangeness" in losses else ""
    return f"{loss.value:.3f} [{low:.3f}, {high:.3f}]{stranger}"


def _cost(cost: Cost) -> dict[str, Any]:
    """Memory in MiB, seconds of the first call's parts, images to the break-even, and what was seen."""
    steady, first = cost.phase("steady") or {}, cost.phase("first call") or {}
    fit = cost.fit
    return {
        "steady_live_mib": _mib(steady.get("live_peak")), "steady_held_mib": _mib(steady.get("held")),
        "first_call_live_mib": _mib(first.get("live_peak")), "first_call_held_mib": _mib(first.get("held")),
        "graph_pools_mib": _mib(steady.get("graph_pools")), "driver_mib": _mib(steady.get("driver")),
        **{f"steady_{part.replace(' ', '_')}_mib": _mib(steady.get("parts", {}).get(part)) for part in PARTS},
        "memory_fixed_mib": None if fit is None else _mib(fit.fixed),
        "memory_an_image_mib": None if fit is None else _mib(fit.per_image),
        "memory_a_step_bytes": cost.per_step_bytes,
        "largest_batch_foreseen": cost.largest_batch,
        **{part: cost.first_call.get(part) for part in FIRST_CALL_PARTS},
        **_break_even("over_reference", cost.break_even_over_reference),
        **_break_even("over_best_uncompiled", cost.break_even_over_uncompiled),
        "launches_a_step": cost.launches_a_step,
        "update_share": cost.update_share,
        "gflop_an_image": None if cost.flop_an_image is None else cost.flop_an_image / 1e9,
        "roof_share": cost.roof_share,
        **_interval("energy_an_image_j", cost.energy_an_image_j),
        "disturbed_slices": None if cost.disturbed is None else cost.disturbed[0],
        "implausible": cost.implausible,
        "evidence": cost.evidence,
    }  # fmt: skip


def _break_even(over: str, images: float | None) -> dict[str, Any]:
    """From how many images on; of a row that never pays the number is empty, and its neighbour says why."""
    reached = None if images is None else "reached" if math.isfinite(images) else "never reached"
    return {f"break_even_images_{over}": images, f"break_even_{over}_is": reached}


def _mib(size: float | None) -> float | None:
    return None if size is None else size / 2**20


def _interval(name: str, interval: Interval | None) -> dict[str, float | None]:
    if interval is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def heading(measurement: Measurement) -> str:
    """One line: what was measured, where, at which commit."""
    w, e = measurement.workload, measurement.environment
    where = e.get("gpu", f"{e['cpu']} ({e['cpu_capability']}, {e['cpus']} CPUs)")
    dirty = " with uncommitted changes" if e["dirty"] else ""
    stopped = "; INTERRUPTED, some rows are missing" if measurement.interrupted else ""
    return (
        f"{w.model}, batch {w.batch}, {w.steps} steps, guidance {w.guidance:g}, {w.threads} thread(s); {where}; "
        f"PyTorch {e['torch']}; commit {e['commit']}{dirty}; {measurement.started}; preset {w.preset}{stopped}"
    )


COLUMNS = (
    "row", "ms/step", "steps", "whole run s", "images/s", "speed-up [95 %]", "over textbook", "over best lossless",
    "quality", "first call s", "pays from", "memory MiB", "same-noise error", "notes",
)  # fmt: skip


NOT_ON_THE_TERMINAL = ("images/s", "over textbook", "over best lossless", "pays from", "memory MiB", "same-noise error")


def cells(row: Row) -> list[str]:
    """What the table shows of a row, in the order of COLUMNS."""
    if row.status in ("grey", "missing"):
        return [row.name, *["–"] * (len(COLUMNS) - 2), row.absence]
    if row.status == "red":
        return [row.name, *["–"] * (len(COLUMNS) - 2), f"FAILED: {row.reason}"]
    notes = [] if row.lossless else ["other pictures"]
    if row.name == row.measurement.best_lossless:
        notes.append("best lossless")
    if row.needs_longer:
        notes.append("interval needs a longer run")
    cost = Cost(row)
    if implausible := cost.implausible:
        notes.append(implausible)
    first = row.first_call_s
    return [
        row.name,
        _number(row.step_ms, ".2f"),
        f"{row.steps:,}",
        ("" if row.whole_run_timed_s is not None else "~") + _number(row.whole_run_s, ".2f"),
        _number(row.images_per_s, ".3g"),
        "1 (reference)" if row.name == "reference" else shown(row.speedup),
        shown(row.speedup_over_textbook),
        shown(row.speedup_over_best_lossless),
        quality_in_short(row),
        "–" if first is None else f"{first[0]:.2f}" + (" (compiled)" if first[1] else ""),
        pays_from(cost),
        _number(_mib((cost.phase("steady") or {}).get("live_peak")), ".1f"),
        "–" if row.probe_error is None else f"{row.probe_error:.1e}",
        "; ".join(notes),
    ]


def markdown(measurement: Measurement) -> str:
    """The table for a README or a pull request, with what its signs mean."""
    lines = [f"**Speed-up.** {safe(heading(measurement))}", ""]
    lines += _table(COLUMNS, [cells(measurement.row(name)) for name in measurement.rows])
    lines += ["", *LEGEND, "", "**Batch size**", "", *_batch_axis(measurement)]
    return "\n".join(lines) + "\n"


IN_SHORT = ("row", "ms/step", "steps", "speed-up [95 %]", "over textbook", "quality", "first call s", "memory MiB")


def in_short(measurement: Measurement) -> str:
    """The rows that have figures, with the columns that a README has room for."""
    picked = [COLUMNS.index(name) for name in IN_SHORT]
    rows = [row for name in measurement.rows if (row := measurement.row(name)).status == "ok"]
    lines = [[cells(row)[i] for i in picked] for row in rows]
    return "\n".join(_table(IN_SHORT, lines))


LEGEND = (
    "Speed-up: of a whole run, over `reference`, from interleaved pairs of slices; in brackets the 95 % interval "
    "over fresh processes. `~`: extrapolated from the median step, not timed whole. Same-noise error: largest "
    "difference from the reference after a 20-step path on the same noise, pictures in [-1, 1]. Quality: 'same' is "
    "within its bound of a float64 run on the same noise; else the kernel distance lost against the reference's "
    "pictures, and whether every loss is inside the row's budget ('unsure' where it cannot be said). Pays from: images "
    "from which on the row beats the reference, its first call included. Memory: live tensors at the steady peak.",
)


def terminal(measurement: Measurement) -> str:
    """The same rows in plain text, aligned; narrow enough for 120 columns."""
    picked = [i for i, name in enumerate(COLUMNS) if name not in NOT_ON_THE_TERMINAL]
    rows = [[cells(measurement.row(name))[i] for i in picked] for name in measurement.rows]
    head = [COLUMNS[i] for i in picked]
    widths = [max(len(r[i]) for r in [head, *rows]) for i in range(len(head) - 1)]
    lines = [heading(measurement), ""]
    for r in [head, ["-" * w for w in widths] + ["-" * 5], *rows]:
        fixed = "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths, strict=False)))
        lines.append(f"{fixed}  {r[-1]}".rstrip())
    return "\n".join(lines)


def _batch_axis(measurement: Measurement) -> list[str]:
    records = []
    for event in measurement.of("axis"):
        ordered = sorted(event["step_s"])
        step_s = ordered[len(ordered) // 2]
        run_s = step_s * event["steps"]
        spread = (ordered[-1] - ordered[0]) / step_s * 100
        records.append([
            event["row"], str(event["batch"]), f"{step_s * 1e3:.2f}", f"{spread:.0f} %", f"{run_s:.2f}",
            f"{event['batch'] / run_s:.3g}",
        ])  # fmt: skip
    for event in measurement.of("axis_error"):
        records.append([event["row"], str(event["batch"]), "–", "–", "–", f"FAILED: {event['message']}"])
    head = ("row", "batch", "ms/step", "spread of slices", "latency of a run s", "images/s")
    return _table(head, records) if records else ["not measured in this run"]


def _table(head, rows) -> list[str]:
    clean = [[safe(cell).replace("|", "\\|") for cell in row] for row in rows]
    columns = list(zip(*clean)) or [()] * len(head)
    return [
        "| " + " | ".join(head) + " |",
        "|" + "|".join(" ---: " if i and _numbers(column) else " --- " for i, column in enumerate(columns)) + "|",
        *("| " + " | ".join(row) + " |" for row in clean),
    ]


def _numbers(cells) -> bool:
    """Whether a column holds figures, which stand to the right, one's digits below the other's."""
    return all(cell[:1] in "~–-0123456789" for cell in cells)


def safe(text: str) -> str:
    """A text of a stored file in Markdown: one line, and no element of HTML."""
    return " ".join(text.split()).replace("<", "&lt;")


def shown(interval: Interval | None) -> str:
    """A ratio with its interval, to three digits."""
    if interval is None:
        return "–"
    if interval.low == interval.high == 1:
        return "1"  # over itself
    if interval.low != interval.low:
        return f"{three(interval.value)} [no interval: one process]"
    return f"{three(interval.value)} [{three(interval.low)}, {three(interval.high)}]"


def three(ratio: float) -> str:
    """Three digits, zeros at the end too: `1.00` does not look as if it were exact."""
    if math.isinf(ratio):
        return "∞"
    return f"{ratio:,.0f}" if ratio >= 999.5 else f"{ratio:#.3g}".rstrip(".")


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def pays_from(cost: Cost) -> str:
    """From how many images on a row beats the reference; nothing is said where no gain or loss is shown."""
    speedup = cost.row.speedup
    if cost.row.name == "reference":
        return "–"
    if speedup is not None and speedup.low <= 1 <= speedup.high:
        return "no gain shown"
    return images(cost.break_even_over_reference)


def images(count: float | None) -> str:
    """A break-even count in words."""
    if count is None:
        return "–"
    if math.isinf(count):
        return "never"
    return "the first image" if count <= 1 else f"{math.ceil(count):,} images"
