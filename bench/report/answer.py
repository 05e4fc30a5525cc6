"""The answer in two sentences, made from the data: without changing a picture, and within the quality budget."""

from bench.contenders import REFERENCE
from bench.cost import Cost
from bench.measurement import Measurement, Row
from bench.quality import plan
from bench.quality.equivalence import NOT_JUDGED, PASSES, WORSE
from bench.report.ladder import drawable
from bench.report.sources import Beside
from bench.report.table import pays_from, shown

JUDGE = "`python -m bench quality`"


def sentences(measurement: Measurement, beside: Beside) -> tuple[str, str]:
    """Both sentences, in Markdown."""
    return unchanged(measurement), within_budget(measurement, beside)


def unchanged(measurement: Measurement) -> str:
    best = measurement.row(measurement.best_lossless)
    if best.name == REFERENCE or best.speedup is None or not best.speedup.value > 1:
        return "**Nothing that changes no picture beats the reference here.**"
    return (f"**{best.name}** changes no picture and is **{shown(best.speedup)} times as fast** as the reference"
            f"{cost(best)}.")  # fmt: skip


def within_budget(measurement: Measurement, beside: Beside) -> str:
    rows = [measurement.row(name) for name in measurement.rows]
    lossy = sorted((r for r in rows if not r.lossless and drawable(r)), key=lambda r: -r.speedup.value)  # type: ignore[union-attr]
    if not lossy:
        return "No row that draws other pictures was measured."
    found = {row.name: verdict(row, beside)[0] for row in lossy}
    inside = [row for row in lossy if found[row.name] in PASSES]
    sure = next((row for row in inside if confirmed(row, beside)), None)
    if sure is not None:
        return (f"Within its quality budget, **{sure.name}** is the fastest: **{shown(sure.speedup)} times as "
                f"fast**{cost(sure)}; {by_pictures(sure, beside)}{_faster(inside, sure)}.")  # fmt: skip
    if inside:
        return (f"**{inside[0].name}**, {shown(inside[0].speedup)} times as fast, is within its quality budget, which "
                f"pictures of fresh seeds have not confirmed ({JUDGE} draws them).")  # fmt: skip
    fastest = f"the fastest of them, **{lossy[0].name}**, is {shown(lossy[0].speedup)} times as fast"
    if not set(found.values()) & {*PASSES, WORSE} and not judged(beside, measurement):
        return (f"Whether rows that draw other pictures stay within their quality budget is not judged yet ({JUDGE} "
                f"does); {fastest}.")  # fmt: skip
    return f"No row that draws other pictures is shown to stay within its quality budget; {fastest}."


def confirmed(row: Row, beside: Beside) -> bool:
    """Whether pictures of fresh seeds, on which nothing was chosen, give a verdict that passes too."""
    return judged(beside, row.measurement) and beside.quality is not None and beside.quality.confirmed(row.name)


def by_pictures(row: Row, beside: Beside) -> str:
    """How many pictures, of which seeds, the verdict stands on."""
    assert beside.quality is not None
    return f"no worse by {beside.quality.pictures_of(row.name)}"


def _faster(inside: list[Row], sure: Row) -> str:
    """Rows that are faster and inside their budget, but not at fresh seeds."""
    faster = [row.name for row in inside[: inside.index(sure)]]
    return f". Faster, but not confirmed on fresh seeds: {', '.join(faster)}" if faster else ""


def verdict(row: Row, beside: Beside) -> tuple[str, str]:
    """What is known of the row's pictures: from this run, else from the quality run beside it."""
    mine = row.verdict
    if mine[0] in ("", *PASSES, WORSE) or not judged(beside, row.measurement):
        return mine
    assert beside.quality is not None
    other = beside.quality.verdict(row.name)
    return other if other[0] else (NOT_JUDGED, mine[1])


def judged(beside: Beside, measurement: Measurement) -> bool:
    """Whether pictures of the very model and guidance of this measurement were judged."""
    asked = (measurement.workload.model, measurement.workload.guidance)
    return beside.quality is not None and bool(beside.quality.judged) and asked == (plan.MODEL, plan.SCALE)


def cost(row: Row) -> str:
    """Its memory and its break-even, as the end of a sentence."""
    known = Cost(row)
    steady, pays = known.phase("steady"), pays_from(known)
    parts = []
    if steady:
        parts.append(f"{steady['live_peak'] / 2**20:.1f} MiB of live tensors at its steady peak")
    if pays not in ("–", "no gain shown"):
        parts.append("cheaper from the first image on" if pays == "the first image" else f"cheaper from {pays} on"
                     if pays != "never" else "never cheaper, its first call included")  # fmt: skip
    return "".join(f", {part}" for part in parts)


def where(measurement: Measurement) -> list[tuple[str, str]]:
    """On what the answer holds: (what, which)."""
    w, e = measurement.workload, measurement.environment
    device = e.get("gpu", f"{e['cpu']}, {e['cpu_capability']}, {e['cpus']} CPUs")
    return [
        ("machine", str(device)), ("model", str(w.model)), ("batch", f"{w.batch}"), ("steps", f"{w.steps:,}"),
        ("guidance", f"{w.guidance:g}"), ("threads", f"{w.threads}"), ("PyTorch", str(e["torch"])),
        ("commit", f"{e['commit']}{' + uncommitted changes' if e['dirty'] else ''}"),
        ("measured", measurement.started + (", INTERRUPTED: some rows are missing" if measurement.interrupted else "")),
        ("preset", f"{w.preset}, {w.processes} fresh process{'es' * (w.processes != 1)}"),
    ]  # fmt: skip
