"""`gate --baseline FILE`: this tree measured now against a stored result of the same class of machine.

Weaker than two revisions here and now: sessions differ, so the limit includes how much they do; and on another
machine it informs and refuses to block.
"""

import argparse
from pathlib import Path

from bench import store
from bench.contenders import CONTENDERS
from bench.gate import compare, outputs, thresholds
from bench.gate.command import names_in, parsed
from bench.gate.compare import Change
from bench.gate.thresholds import Thresholds
from bench.measurement import Measurement
from bench.progress import Progress
from bench.run import measure
from bench.sequential_test import FAIL, MISSING, UNSURE
from bench.store import write_atomically
from sampler import strict_json
from sampler.errors import UsageError

ASSUMED_SPREAD = 0.02  # between sessions, where too few stored results say how large it is
FEWEST = 10  # differences between sessions of one commit that say it
# the rest is as the stored result was measured
NEEDS_ANOTHER_REVISION = ("model", "shape", "ratchet", "base_python", "batch", "device", "threads", "budget", "workers",
                          "seed")  # fmt: skip
OK_EXIT, REGRESSION_EXIT, UNJUDGED_EXIT = 0, 1, 2


def run(arguments: argparse.Namespace) -> tuple[int, str]:
    """Measure as the stored result was measured, and judge the ratios: the exit code, and what to print."""
    unasked = parsed(["--baseline", str(arguments.baseline)])
    for name in NEEDS_ANOTHER_REVISION:
        if getattr(arguments, name) != getattr(unasked, name):
            raise UsageError(
                f"--{name.replace('_', '-')} needs --against; a stored result says itself how and what to measure"
            )
    limits = thresholds.load(arguments.thresholds or thresholds.FILE)
    before = store.load(arguments.baseline)
    # a row that this tree no longer has is not measured, and so MISSING
    rows = names_in(arguments.rows) or [n for n in before.rows if n in CONTENDERS]
    with Progress() as progress:
        now = measure(before.workload, rows, progress.say, f"python -m bench gate --baseline {arguments.baseline}")
    if arguments.rows:
        before = Measurement.from_json({**before.json(), "rows": [n for n in before.rows if n in now.rows]})
    spread, known = spread_of_machine(before)
    code, text, found = judged(before, now, limits, spread, arguments.strict)
    source = f"from {known} differences of stored sessions" if known >= FEWEST else "assumed; too few stored sessions"
    text += (
        f"\n\nthe limit includes a spread between sessions of {spread:.1%} ({source}); "
        "no certificate covers a comparison with a stored result\n"
    )
    if arguments.markdown:
        write_atomically(arguments.markdown, text)
    if arguments.json:
        write_atomically(arguments.json, strict_json.dumps(now.json()))
    if arguments.junit:
        write_atomically(arguments.junit, outputs.junit_of([(c.row, c.verdict, c.note) for c in found]))
    # on another machine it informs: nothing there is an error
    told = [] if compare.foreign(before, now) else [(c.row, c.verdict, c.note) for c in found]
    outputs.on_github(outputs.annotations_of(told), text)
    return code, text


def judged(
    before: Measurement, now: Measurement, limits: Thresholds, spread: float, strict: bool = False
) -> tuple[int, str, list[Change]]:
    """The exit code, the text and the rows: each row's limits, widened by the spread between sessions."""
    found = compare.changes(before, now, limits, spread)
    text = compare.table(found)
    verdicts = {change.verdict for change in found}
    differs = compare.foreign(before, now)
    if differs:
        return OK_EXIT, f"{text}\n\nFor information only, nothing is blocked: measured elsewhere ({differs}).", found
    if now.interrupted:
        return UNJUDGED_EXIT, f"{text}\n\ninterrupted: not judged", found
    if FAIL in verdicts:
        return REGRESSION_EXIT, text, found
    if MISSING in verdicts or (strict and UNSURE in verdicts) or not verdicts - {"skipped", "new"}:
        return UNJUDGED_EXIT, text, found
    return OK_EXIT, text, found


def spread_of_machine(like: Measurement, results: Path | None = None) -> tuple[float, int]:
    """How far a row's log ratio moves between sessions of one commit, and from how many differences that is known."""
    found = (store.runs(store.folder(like, place)) for place in store.places(results))
    stored = [store.load(path) for path in next(filter(None, found), [])]
    spread, known = compare.between_sessions(stored)
    return (spread, known) if known >= FEWEST else (max(spread, ASSUMED_SPREAD), known)
