"""The textbook's table of techniques: its claim, what was measured here, and when to use it, derived from that."""

from dataclasses import dataclass

import numpy as np
import torch

from bench.measurement import Measurement, Row
from bench.quality.classifier import Accuracy, label_accuracy
from bench.report.pictures import drawn
from bench.report.table import _table, shown


@dataclass(frozen=True)
class Claim:
    """What the textbook says of a technique; '' where it gives no figure. row: the row that tests it."""

    technique: str
    row: str
    speedup: str
    quality: str


CLAIMS = (
    Claim("full 1,000 steps", "textbook", "1×", "best"),
    Claim("250 strided steps", "textbook-strided", "~4×", "noticeable degradation"),
    Claim("250 strided steps, ours", "strided", "", ""),
    Claim("DDIM, 50 steps", "ddim", "~20×", "minimal"),
    Claim("torch.compile", "compiled", "1.2–2×", "none"),
    Claim("half precision (bfloat16)", "autocast-bf16", "1.5–2×", "minimal"),
    Claim("half precision (float16)", "autocast-fp16", "1.5–2×", "minimal"),
    Claim("batched guidance", "batched-cfg", "", ""),
)
HEAD = (
    "technique", "row", "claimed speed-up", "measured, over textbook [95 %]", "claimed quality loss",
    "RMS distance to the reference's pictures", "label accuracy [95 %]", "when to use",
)  # fmt: skip


def markdown(measurement: Measurement) -> str:
    lines = ["**The textbook's table, measured**", ""]
    lines += _table(HEAD, [_line(measurement, claim) for claim in CLAIMS] + _extra(measurement))
    samples = {e["samples"] for e in measurement.of("judged")} or {measurement.workload.batch}
    lines += [
        "",
        f"Quality from {max(samples)} pictures a row, the same starting noise and labels as the reference's; "
        "judged by the shipped classifier. RMS distance in units of the pictures' range [-1, 1]; two unrelated "
        "draws of the same labels are far apart too, so for rows with another path it says 'another picture', "
        "not 'a worse one'. Rows that change no picture inherit the reference's accuracy.",
    ]
    return "\n".join(lines) + "\n"


def _line(measurement: Measurement, claim: Claim) -> list[str]:
    if claim.row not in measurement.rows:
        return [claim.technique, claim.row, claim.speedup, "not asked for", claim.quality, "–", "–", "–"]
    row = measurement.row(claim.row)
    if row.status != "ok":
        reason = row.reason or "not measured"
        return [claim.technique, claim.row, claim.speedup, reason, claim.quality, "–", "–", "–"]
    distance, accuracy = quality(measurement, claim.row)
    return [
        claim.technique, claim.row, claim.speedup or "no figure",
        "1 (baseline)" if claim.row == "textbook" else shown(row.speedup_over_textbook),
        claim.quality or "no figure", distance, accuracy, when_to_use(row),
    ]  # fmt: skip


def quality(measurement: Measurement, name: str) -> tuple[str, str]:
    """RMS distance to the reference's pictures and label accuracy, as text."""
    row = measurement.row(name)
    judged = {e["row"]: e for e in measurement.of("judged")}
    if row.lossless and row.probe_error is not None:
        source = "reference"
        distance = f"same pictures ({row.probe_error:.0e})"
    else:
        source, distance = name, "not drawn in this preset"
    if source in judged:
        event = judged[source]
        if source == name:
            distance = f"{event['rms']:.3f}"
        return distance, _accuracy(Accuracy(event["correct"], event["samples"]))
    pictures = drawn(measurement)
    if source not in pictures or pictures[source].shape[1:] != (1, 28, 28):
        return distance, "–"
    if source == name and "reference" in pictures:
        difference = (pictures[name].astype(np.float64) - pictures["reference"]) / 127.5
        distance = f"{np.sqrt(np.mean(difference**2)):.3f}"
    images = torch.from_numpy(pictures[source].astype(np.float32) / 127.5 - 1)
    return distance, _accuracy(label_accuracy(images, torch.arange(len(images)) % 10))


def _accuracy(accuracy: Accuracy) -> str:
    low, high = accuracy.interval
    return f"{accuracy.correct} of {accuracy.total} [{low:.0%}, {high:.0%}]"


def when_to_use(row: Row) -> str:
    """A sentence from the measured figures alone."""
    if row.name == "textbook":
        return "as the baseline only"
    speedup = row.speedup_over_textbook
    if speedup is None:
        return "–"
    if speedup.low != speedup.low:
        return "one process: no interval, no advice"
    if speedup.high < 1:
        return f"not here: {1 / speedup.value:.2g}× slower on this machine"
    if speedup.low <= 1:
        return "no effect that can be told from noise here"
    pays = _break_even(row)
    if row.lossless:
        return pays if pays else f"always{pays}"
    return "when other pictures are acceptable: " + ("check quality" if row.steps > 100 else "drafts, previews")


def _break_even(row: Row) -> str:
    first, workload = row.first_call_s, row.measurement.workload
    base = row.measurement.row("textbook").whole_run_s
    if first is None or first[0] < 1 or base is None or row.whole_run_s is None or base <= row.whole_run_s:
        return ""
    saved_s = (base - row.whole_run_s) / workload.batch
    return f"from about {first[0] / saved_s:.0f} images on (first call {first[0]:.0f} s)"


def _extra(measurement: Measurement) -> list[list[str]]:
    """Batching, and emptying the cache between batches."""
    best: dict[int, float] = {}
    for event in measurement.of("axis", "reference"):
        ordered = sorted(event["step_s"])
        best[event["batch"]] = event["batch"] / ordered[len(ordered) // 2]
    lines = []
    if len(best) > 1:
        small, large = min(best), max(best)
        gain = best[large] / best[small]
        advice = f"batch {max(best, key=lambda b: best[b])} for throughput; batch {small} for latency"
        lines.append([
            "batching", "reference", "no figure", f"{gain:.2f} (images/s, batch {large} over {small}; no interval)",
            "no figure", "same pictures up to rounding", "–", advice,
        ])  # fmt: skip
    for event in measurement.of("empty_cache"):
        lines.append([
            "emptying the cache between batches", "reference", "no figure", event["text"], "none", "same pictures",
            "–", event["advice"],
        ])  # fmt: skip
    return lines
