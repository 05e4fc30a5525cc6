"""`python -m bench compare` and `history`: what the stored results say, without measuring anything."""

import argparse
from pathlib import Path

from bench import environment, store
from bench.gate import compare, history, thresholds
from bench.sequential_test import FAIL, MISSING, UNSURE
from sampler.errors import UsageError


def add_parsers(commands) -> None:
    two = commands.add_parser("compare", help="two stored results side by side, with intervals and verdicts")
    two.add_argument("before", type=Path, metavar="A", help="a stored result, .json or .json.gz")
    two.add_argument("after", type=Path, metavar="B", help="another")
    two.add_argument("--strict", action="store_true", help="UNSURE is exit 2")
    two.set_defaults(do=_compare)

    past = commands.add_parser("history", help="each row's speed-up over the stored results, and where it changes")
    past.add_argument("--machine", help="a folder of the results (default: this machine's)")
    past.add_argument("--results", type=Path, metavar="DIR", help="results folder (default: your runs; what is kept "
                      "in the checkout where you have none of that machine)")  # fmt: skip
    past.set_defaults(do=_history)


def _compare(arguments: argparse.Namespace) -> int:
    """Exit codes as the gate's, but 0 where the two were not measured on the same class of machine."""
    before, after = store.load(arguments.before), store.load(arguments.after)
    found = compare.changes(before, after, thresholds.load())
    print(f"A  {before.environment['commit']}, {before.started}\nB  {after.environment['commit']}, {after.started}\n")
    print(compare.table(found))
    verdicts = {change.verdict for change in found}
    if differs := compare.foreign(before, after):
        print(f"\nFor information only: measured on different things ({differs}).")
        return 0
    if FAIL in verdicts:
        return 1
    unjudged = MISSING in verdicts or not verdicts - {"skipped", "new"}
    return 2 if unjudged or (arguments.strict and UNSURE in verdicts) else 0


def _history(arguments: argparse.Namespace) -> int:
    machine, places = arguments.machine or environment.machine("cpu"), store.places(arguments.results)
    paths = next(filter(None, (store.runs(place / machine) for place in places)), [])  # never a history of two places
    if not paths:
        known = sorted({p.name for place in places for p in place.glob("*") if store.runs(p)})
        raise UsageError(f"no results in {' or '.join(str(place / machine) for place in places)}"
                         + (f"; machines with results: {', '.join(known)}" if known else ""))  # fmt: skip
    print(history.text(history.series([store.load(path) for path in paths])))
    return 0
