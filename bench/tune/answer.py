"""The answer in words: what to turn on, what it gains and costs, what came next, and why the others are out."""

import math

from bench.contenders import REFERENCE
from bench.cost import Cost
from bench.measurement import Row
from bench.memory import human
from bench.report.table import shown
from bench.students_t import Interval
from bench.tune.record import Tuning


def lines(tuning: Tuning) -> list[str]:
    """The answer in Markdown, a sentence or a list entry each."""
    asked, choice = tuning.asked, tuning.choice
    w = asked.workload
    found = [f"**{choice}**" + (f" at a batch of {w.batch}" if asked.batch or tuning.notes else "")
             + (f": **{shown(tuning.speedup)} times** as fast as the reference." if choice != REFERENCE
                else ": nothing is shown to be faster within the budgets.")]  # fmt: skip
    if not tuning.confirmed:
        found.append("Not confirmed in fresh processes: " + ("the search was interrupted; this is the best so far."
                     if tuning.interrupted else "no finalist came through, or no time was left."))  # fmt: skip
    found += tuning.notes
    if choice in tuning.judged:
        found.append(f"Quality ({asked.quality}): {tuning.judged[choice].text}.")
    if (size := tuning.memory_bytes) is not None:
        found.append(f"Memory: {human(size)} at most"
                     + (f", of a budget of {human(asked.memory_bytes)}." if asked.memory_bytes else "."))  # fmt: skip
    if tuning.first_call_s is not None:
        seconds, compiled = tuning.first_call_s
        found.append(f"First call: {seconds:.1f} s{' (compiled)' if compiled else ''}; {_pays(tuning)}.")
    if tuning.runner_up is not None:
        found.append(_runner_up(tuning))
    if (over_s := tuning.took_s - asked.budget_s) > 0:
        found.append(f"It took {tuning.took_s:.0f} s, {max(1.0, over_s):.0f} s more than its budget.")
    found += [f"Advice: {sentence}" for sentence in advice(tuning)]
    return found


def _pays(tuning: Tuning) -> str:
    count = tuning.break_even
    if tuning.choice == REFERENCE or count is None:
        return "the reference has nothing to pay back"
    if math.isinf(count):
        return "it never pays"
    return "it pays from the first image on" if count < 1 else f"it pays from {math.ceil(count):,} images on"


def _runner_up(tuning: Tuning) -> str:
    other, by = tuning.runner_up, tuning.runner_up_lost_by
    assert other is not None
    if by is None:
        return f"Runner-up: {other.name}."
    told = " (the interval holds 1: the two cannot be told apart)" if tuning.tied else ""
    return f"Runner-up: {other.name}; **{tuning.choice}** is {shown(by)} times as fast{told}{_in_total(tuning, other)}."


def _in_total(tuning: Tuning, other: Row) -> str:
    """What decided, where so many images are wanted that the first call counts."""
    images, batches = tuning.asked.images, tuning.asked.batches
    if images is None or batches is None or tuning.row is None:
        return ""
    mine, theirs = (tuning.total_s(row) * batches for row in (tuning.row, other))
    return f"; {images:,} images take {mine:.0f} s with it and {theirs:.0f} s with the other, first calls included"


def advice(tuning: Tuning) -> list[str]:
    """What follows from measured figures alone."""
    finals, found = tuning.finals, list[str]()
    if finals is None or not tuning.ordered:
        return found
    for row in tuning.ordered:
        start, pays = tuning.start(row), tuning.break_even_of(row)
        if row.name in (REFERENCE, tuning.choice) or start is None or not start[1]:
            continue
        if pays is not None and math.isfinite(pays):
            found.append(f"{row.name} compiles for {start[0]:.0f} s and pays from {max(1, math.ceil(pays)):,} "
                         "images on.")  # fmt: skip
    reference = Cost(finals.row(REFERENCE))
    if reference.gap_share is not None and reference.gap_share > 0.25:
        found.append(f"at this batch the device waits for launches {reference.gap_share:.0%} of the reference's loop: "
                     "graphs, or a larger batch, are what to turn on.")  # fmt: skip
    best = Cost(tuning.ordered[0])
    if best.roof_share is not None and best.roof_share > 0.7:
        # convolutions by Winograd's method come out above the rate that multiplying all would take
        share = "all" if best.roof_share > 1 else f"{best.roof_share:.0%}"
        found.append(f"{best.row.name} gets {share} of the matrix rate measured here in {best.number_format}: a "
                     "narrower number format or fewer steps are what is left.")  # fmt: skip
    return found


def dropped(tuning: Tuning) -> list[tuple[str, str]]:
    """Every row that is out, with the reason; those that failed first."""
    found = dict(tuning.rejected)
    for row, event in tuning.standing.beaten.items():
        if row == REFERENCE:
            continue
        value, low, high = event["slower"]
        known = Interval(value, low, high)
        slower, dearer = f"a step is {percent(known)} slower", "costs more, its first call included"
        found.setdefault(row, f"{slower if low > 0 and math.isfinite(low) else dearer}, against {event['by']}")
    for row, why in tuning.left_out.items():
        found.setdefault(row, why)
    return list(found.items())


def percent(slower: Interval) -> str:
    high = f"{slower.high:.1%}" if math.isfinite(slower.high) else "∞"
    return f"{slower.value:.1%} [{slower.low:.1%}, {high}]"


def terminal(tuning: Tuning) -> str:
    """The answer and who is out, for a terminal."""
    plain = [line.replace("**", "") for line in lines(tuning)]
    raced = len(tuning.standing.times)
    text = [*plain, "", f"{raced} of {tuning.space} combinations raced in {tuning.took_s:.0f} s; out:"]
    width = max((len(row) for row, _ in dropped(tuning)), default=0)
    return "\n".join([*text, *(f"  {row:<{width}}  {why}" for row, why in dropped(tuning))])
