"""The tuner: prunes, races, holds the finals and decides; Ctrl-C gives the best so far, the same command goes on."""

import math
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from bench import environment
from bench.contenders import CONTENDERS, REFERENCE
from bench.fitting import unfit
from bench.journal import Journal
from bench.planted import planted
from bench.quality import judged
from bench.tune import allowed as may
from bench.tune import batch
from bench.tune.asked import LOSSLESS, Asked
from bench.tune.contest import Contest
from bench.tune.finals import Finals, ranking
from bench.tune.quality import Judge, picture_step_s
from bench.tune.race import Standing
from bench.tune.record import Tuning
from bench.tune.search import Search
from bench.tune.space import BY_NAME, contender, name_of
from sampler.errors import UsageError

RACE_SHARE = 0.6  # of the budget; the rest is for the finals
ROUNDS = 4  # by each process in a turn
LEAST_ROUNDS, MOST_ROUNDS = 12, 48  # of a row in one generation, all processes together
BUILD_S, ROW_S = 20.0, 3.0  # foreseen of a row that compiles, until one was seen; of racing a row
Say = Callable[[str], None]


def tune(asked: Asked, results: Path, journal: Journal, say: Say, command: str) -> Tuning:
    """Search for the fastest variant within the budgets. journal: may hold a search that was broken off."""
    tuning = Tuning(asked, environment.fingerprint(asked.workload.device), _now(), command)
    try:
        _tune(tuning, results, journal, say)
    except KeyboardInterrupt:
        tuning.interrupted = True
    tuning.events = journal.events
    tuning.took_s = round(journal.spent_s, 1)
    return tuning


def _tune(tuning: Tuning, results: Path, journal: Journal, say: Say) -> None:
    asked = tuning.asked = _fitted(tuning, journal, say)
    judge = Judge(asked, results, picture_step_s=_picture_step_s(asked, journal))
    allowed, tuning.left_out = may.labels(asked)
    forbidden = may.forbidden(allowed, judge, asked.budget_s * (1 - RACE_SHARE))
    tuning.left_out |= {name_of(choice): why for choice, why in forbidden.items()}
    extra = _further(asked, judge, tuning.left_out)
    tuning.space = len(may.product(allowed)) - len(forbidden) + len(extra)
    finals = Finals(asked, journal, judge, say, tuning.command)
    tuning.finals, tuning.judged = finals.job, finals.judged

    contest = Contest(asked, journal, say)
    steps_alone = {**allowed, may.PATHS: ("",)}  # a step costs the same on every path: `ranking` puts it on each
    try:
        while True:
            _race_all(tuning, contest, lambda now: Search(steps_alone, now, frozenset(forbidden)), extra, journal, say)
            contest.end()
            standing = _standing(tuning, journal)
            if not standing.times and journal.spent_s > asked.budget_s * RACE_SHARE:
                raise UsageError(_too_short(asked, journal))
            tuning.finalists = finals.choose(
                ranking(standing, allowed[may.PATHS]), lambda: asked.budget_s - journal.spent_s
            )
            # whoever was dropped because of one that now failed is in the race again
            fallen = [name for name in finals.faulty if name in standing.times and name in standing.rows]
            again = _disqualify(fallen, standing, finals, journal)
            if not again or journal.spent_s > asked.budget_s * RACE_SHARE:
                break
            tuning.finalists = []
    finally:
        contest.end()
    if tuning.finalists:
        finals.time(tuning.finalists, asked.budget_s - journal.spent_s)


def _race_all(tuning: Tuning, contest: Contest, search: Callable[[Standing], Search], extra: list[str],
              journal: Journal, say: Say) -> None:  # fmt: skip
    """Generation after generation, until none is left or the time for the race is up."""
    until_s = tuning.asked.budget_s * RACE_SHARE
    while journal.spent_s < until_s:
        standing = _standing(tuning, journal)
        entered = [row for e in journal.of("generation") for row in e["rows"]]
        rows = [*extra, *(name_of(choice) for choice in search(standing).next_rows())]
        rows = [row for row in rows if row not in entered]
        able = _affordable(rows, journal, until_s - journal.spent_s, contest.processes)
        if able:
            journal.add({"event": "generation", "rows": able})
            say(f"building {', '.join(able)}")
        waiting = [row for row in (*entered, *able) if row not in standing.times and row not in standing.disqualified]
        if waiting or standing.undecided:
            contest.enter([*standing.alive, *waiting])
            _race(tuning, contest, journal, until_s, say)
        if not able:
            tuning.left_out |= dict.fromkeys(rows, "no time was left to build it")
            break
    standing = _standing(tuning, journal)
    unraced = [row for row in standing.rows if row != REFERENCE and row not in standing.times]
    tuning.left_out |= dict.fromkeys(unraced, "it was built, but no time was left to race it")


def _race(tuning: Tuning, contest: Contest, journal: Journal, until_s: float, say: Say) -> None:
    """Rounds, until every row in the race is dropped, or shown to be as good as the best, or seen often enough."""
    rounds = 0
    while rounds < MOST_ROUNDS:
        # what was built at great cost is raced a little even where that took longer than was foreseen
        if journal.spent_s >= (until_s if rounds >= LEAST_ROUNDS else tuning.asked.budget_s):
            break
        standing = _standing(tuning, journal)
        for lost in standing.losers():
            journal.add(lost)
            if lost["row"] != REFERENCE:
                low, high = lost["slower"][1:]
                slower = f"a step is {low:.0%} to {high:.0%} slower than {lost['by']}'s"
                dearer = f"it costs more than {lost['by']}, its first call included"
                say(f"dropped {lost['row']}: {slower if low > 0 and math.isfinite(high) else dearer}")
        standing = _standing(tuning, journal)
        racing = [row for row in standing.alive if row != REFERENCE]
        if not racing or (rounds >= LEAST_ROUNDS and not standing.undecided):
            break
        best, left_s = standing.best, max(0.0, tuning.asked.budget_s - journal.spent_s)
        say(f"{len(racing)} in the race, ahead: {best}, a step {math.exp(-standing.log_ratio(best)):.2f} times as fast "
            f"as the reference's; {left_s:.0f} s left")  # fmt: skip
        contest.race(racing, ROUNDS)
        rounds += ROUNDS * contest.processes
    for lost in _standing(tuning, journal).losers():
        journal.add(lost)


def _affordable(rows: list[str], journal: Journal, left_s: float, lanes: int) -> list[str]:
    """As many rows, the most promising first, as can be built and raced in what is left."""
    calls = journal.of("first_call")
    seen: dict[str, list[float]] = {e["row"]: [] for e in calls if e.get("compiled_now")}  # of each row that compiled
    for e in calls:
        if e["row"] in seen:
            seen[e["row"]].append(e["seconds"])
    build_s = max((sum(sorted(seconds)[-lanes:]) for seconds in seen.values()), default=BUILD_S)
    found: list[str] = []
    for row in rows:
        made = contender(BY_NAME[row]) if row in BY_NAME else None
        cost_s = (build_s / lanes if made is not None and made.compiles > 1 else 0.0) + ROW_S
        if cost_s <= left_s or not (seen or found):
            found.append(row)
            left_s -= cost_s
    return found


def _further(asked: Asked, judge: Judge, left_out: dict[str, str]) -> list[str]:
    """Rows of other modules that may race: they can run here, and their pictures are not known to lose too much."""
    found: list[str] = []
    for row in planted(asked.contenders):
        if row.name in BY_NAME or row.name in CONTENDERS:
            kind = "combination of the seams" if row.name in BY_NAME else "shipped row"
            raise UsageError(f"--contenders {asked.contenders}: {row.name!r} is the name of a {kind}; "
                             "give the row another")  # fmt: skip
        known = judge.known(row)
        why = row.unavailable(asked.workload.device) or unfit(row, asked.workload)
        if not why and known is not None and not known.passes:
            why = f"quality {asked.quality}: {known.text}"
        if why:
            left_out[row.name] = why
        else:
            found.append(row.name)
    return found


def _disqualify(names: list[str], standing: Standing, finals: Finals, journal: Journal) -> bool:
    """Take rows that failed in the finals out of the race, and whom they beat back in; whether that changes it."""
    for name in names:
        journal.add({"event": "disqualified", "row": name, "why": finals.failed[name]})
    return standing.best in names or any(e["by"] in names for e in journal.of("dropped"))


def _fitted(tuning: Tuning, journal: Journal, say: Say) -> Asked:
    """The question with a batch that fits the memory; what was changed is noted."""
    asked = tuning.asked
    known = journal.of("batch")
    if known:
        tuning.notes += known[0]["notes"]
        return asked.at(known[0]["batch"])
    if asked.batch == "latency":
        asked = asked.at(1)
    if asked.batch == "throughput":
        say("timing the reference at several batches")
        asked = asked.at(batch.of_most_throughput(asked))
    if asked.memory_bytes is not None or asked.batch == "max":
        say("metering the reference's memory")
        fit = batch.foreseen(asked)
        most = batch.largest_batch(asked, fit)
        if asked.batch == "max":
            asked = asked.at(most)
        elif most < asked.workload.batch:
            tuning.notes.append(f"batch {asked.workload.batch} would take more than the memory budget with the "
                                f"reference; {most} is the largest that does not")  # fmt: skip
            asked = asked.at(most)
    journal.add({"event": "batch", "batch": asked.workload.batch, "notes": tuning.notes})
    return asked


def _picture_step_s(asked: Asked, journal: Journal) -> float:
    """As it was timed when the search began; where no picture would be drawn, it is not."""
    if asked.quality == LOSSLESS or judged.judgeable(asked.workload):
        return judged.PICTURE_STEP_S
    if not journal.of("picture_step"):
        journal.add({"event": "picture_step", "seconds": picture_step_s(asked.workload.device)})
    return journal.of("picture_step")[0]["seconds"]


def _standing(tuning: Tuning, journal: Journal) -> Standing:
    asked = tuning.asked
    return Standing(tuple(journal.events), asked.workload.steps, asked.batches, tuning.space)


def _too_short(asked: Asked, journal: Journal) -> str:
    over = journal.spent_s - asked.budget_s * RACE_SHARE
    return (f"the time budget of {asked.budget_s:g} s cannot be met: {journal.spent_s:.0f} s went into building before "
            f"anything was timed, {max(1.0, over):.0f} s more than the race may take of it")  # fmt: skip


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
