"""The textbook's table of techniques: its claim, what was measured here, and when to use it, derived from that."""

from dataclasses import dataclass

from bench.contenders import REFERENCE
from bench.measurement import Measurement, Row
from bench.quality.classifier import Accuracy
from bench.quality.equivalence import EQUIVALENT, NO_WORSE, NOT_JUDGED, UNSURE, WORSE
from bench.quality.judging import judge, noise, real_test
from bench.quality.tables import shown as kernel_shown
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
# when a row that draws other pictures is of use, by what is known of them
ACCEPTABLE = {
    EQUIVALENT: "where other pictures of the same quality will do",
    NO_WORSE: "where other pictures that are no worse will do",
    UNSURE: "where pictures that are not shown to be as good will do",
    NOT_JUDGED: "where pictures that nobody has judged will do",
    WORSE: "where pictures that are shown to be worse will do",
    "": "where its loss is acceptable",
}
HEAD = (
    "technique", "row", "claimed speed-up", "measured, over textbook [95 %]", "claimed quality loss",
    "measured: kernel distance lost [95 %]", "label accuracy [95 %]", "when to use",
)  # fmt: skip


def markdown(measurement: Measurement) -> str:
    lines = ["**The textbook's table, measured**", ""]
    lines += _table(HEAD, [_line(measurement, claim) for claim in CLAIMS] + _extra(measurement))
    return "\n".join([*lines, "", _anchors(measurement)]) + "\n"


def _anchors(measurement: Measurement) -> str:
    """What gives the quality figures a meaning: how many pictures, floor and ceiling."""
    judged = [row.figures for name in measurement.rows if (row := measurement.row(name)).figures]
    if not judged:
        return "No pictures were judged in this run; `python -m bench quality` draws and judges them."
    n = max(figures.pictures for figures in judged)
    floor, ceiling = (kernel_shown(judge(seen).kernel) for seen in (real_test(min(n, 1000)), noise(n)))
    return (
        f"Quality from up to {n} pictures a row, at the same seeds and labels as the reference's, in the features of "
        f"the shipped classifier: what of the kernel distance to real pictures is lost against the reference. Floor, "
        f"real test pictures: {floor}; ceiling, noise: {ceiling}. Rows that change no picture inherit the reference's "
        "accuracy. Curves, controls, budgets and the metric's own trial: `quality/quality.md`."
    )


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
    """What is lost of the kernel distance, with the verdict, and label accuracy, as text."""
    row, reference = measurement.row(name), measurement.row(REFERENCE)
    if row.lossless:
        accuracy = "–" if reference.figures is None else _accuracy(reference.figures.accuracy)
        if row.divergence is None or not row.divergence.error:
            return "same pictures", accuracy
        drawn = ""
        if row.figures is not None and row.figures.losses and name != REFERENCE:
            drawn = f"{kernel_shown(row.figures.losses['kernel'])}, N = {row.figures.pictures}; "
        return f"none: {drawn}same pictures ({row.divergence.error[-1]:.0e} off a float64 run)", accuracy
    if row.figures is None or not row.figures.losses:
        return "not judged in this run", "–"
    verdict = row.verdict[0] or "no budget stated"
    lost = f"{kernel_shown(row.figures.losses['kernel'])}, N = {row.figures.pictures}: {verdict}"
    return lost, _accuracy(row.figures.accuracy)


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
        return pays or "always"
    return "; ".join(filter(None, (ACCEPTABLE[row.verdict[0]], pays)))


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
