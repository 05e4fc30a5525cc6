"""How it was measured, in facts of this very run: clock, order, disturbance, and slices held against whole runs."""

from statistics import median

from bench.interleave import MOST_STRETCH_STEPS, STRETCH_S
from bench.measurement import Measurement


def facts(measurement: Measurement) -> list[tuple[str, str]]:
    """(what, what was found); only what this result holds."""
    pairs, workload = measurement.of("pair"), measurement.workload
    rows = [row for name in measurement.rows if (row := measurement.row(name)).pairs]
    gpu = "gpu" in measurement.environment
    found = [("deciding clock", "CUDA events" if gpu else "process CPU time; wall time is kept beside it")]
    if not pairs:
        return found
    first = [p["reference_first"] for p in pairs if "reference_first" in p]
    timed = f"{workload.slice_steps} timed step{'s' * (workload.slice_steps > 1)} (five where guidance is limited)"
    if gpu:
        timed = f"as many timed steps of a kind as take {STRETCH_S * 1e3:g} ms, {MOST_STRETCH_STEPS} at most"
    found += [
        ("slice", f"{timed}, after some that are not"),
        ("pairs", f"{len(pairs):,}, of {len(rows)} rows in {len({p['process'] for p in pairs})} fresh processes"),
    ]
    given = measurement.of("budget")
    if sum(e["short_s"] for e in given) > 1:
        found.append(("timing", f"{sum(e['seconds'] for e in given):.0f} s of the preset's {workload.budget_s:.0f}, "
                      f"for building took {sum(e['building_s'] for e in given):.0f} s"))  # fmt: skip
    if first:
        found.append(("order", f"by a coin: the reference came first in {sum(first) / len(first):.0%} of the pairs"))
    disturbed = sum(bool(p.get("disturbed")) for p in pairs)
    found.append(("contamination", f"{disturbed:,} of {len(pairs):,} pairs ran beside other work or a throttled clock"
                  if measurement.watched else "not recorded in this result"))  # fmt: skip
    wall = [median(p["row_wall_s"] / p["row_s"] for p in row.pairs) for row in rows]
    found.append(("wall over deciding clock", f"{min(wall):.3f} to {max(wall):.3f} by row, medians of the slices"))
    apart = {row.name: gap for row in rows if (gap := row.slices_against_whole) is not None}
    if apart:
        worst = max(apart, key=lambda name: abs(apart[name]))
        found.append(("slices against whole runs", f"the speed-ups differ by {apart[worst]:+.1%} at most, in {worst}; "
                      f"{len(apart)} rows were timed whole"))  # fmt: skip
    return found
