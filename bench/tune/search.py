"""Which combinations to race next: each value alone, then what was faster together, and from there one change a time.

A value that loses is tried again where it might not: a compiler or a number format changes what every other seam is
worth. It is left out where it lost in the same company, or where it lost by more than any company makes up for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from bench.sequential_test import FAIL
from bench.tune.race import Standing
from bench.tune.space import AT, BY_NAME, REFERENCE, SEAMS, Choice, contender, differing, name_of, with_value

# Slower by more than this, a value is not tried in other company. The largest change of worth that was seen: bfloat16,
# 0.91 of the reference's speed alone, and 1.31 on top of a compiled step with batched guidance, 1.44 times as much.
HOPELESS = 0.5
# A smaller gain (a logarithm) is not taken for granted in other company, where a compiler may undo it: channels-last,
# 1.09 times as fast alone, made a compiled step slower. Such a value is tried by itself.
LEAP = 0.1
# seams that change what a seam is worth: a loss counts only where these were the same
COMPANY = {
    "layout": ("precision", "runtime"), "precision": ("layout", "runtime"), "guide": ("runtime",),
    "update": ("runtime",), "runtime": ("layout", "precision", "guide", "update"), "guided_between": (), "path": (),
}  # fmt: skip


@dataclass(frozen=True)
class Search:
    """What may be combined, and what the race has shown. allowed: labels of each seam, the reference's among them."""

    allowed: dict[str, tuple[str, ...]]
    standing: Standing
    forbidden: frozenset[Choice] = frozenset()  # combinations whose pictures are known to lose too much

    def next_rows(self) -> list[Choice]:
        """The combinations to race next, the most promising first; none: the search is over."""
        if not self.raced:
            return self._fresh(self.neighbours(REFERENCE))
        leap = self.leap(self.best)
        base = leap if leap not in self.raced else self.best  # a leap that led nowhere is not gone on from
        kept = [c for c in self.neighbours(base) if not self.lost(base, *self._change(base, c))]
        return sorted(self._fresh([base, *kept]), key=self.foreseen)

    @cached_property
    def raced(self) -> list[Choice]:
        """The combinations of the space that were built, whatever became of them."""
        built = dict.fromkeys([*self.standing.ready_s, *self.standing.disqualified])
        return [choice for name in built if (choice := BY_NAME.get(name, REFERENCE)) != REFERENCE]

    @cached_property
    def best(self) -> Choice:
        """The fastest combination of the space that is in the race."""
        standing = self.standing
        timed = [c for c in self.raced if name_of(c) in standing.alive and name_of(c) in standing.times]
        return min([REFERENCE, *timed], key=lambda c: standing.cost_s(name_of(c)))

    def legal(self, choice: Choice) -> bool:
        return (
            choice not in self.forbidden
            and all(label in self.allowed[seam] for seam, label in zip(SEAMS, choice, strict=True))
            and contender(choice) is not None
        )

    def neighbours(self, choice: Choice) -> list[Choice]:
        """Every combination one value away that fits together."""
        around = (with_value(choice, seam, label) for seam in SEAMS for label in self.allowed[seam])
        return [c for c in around if c != choice and c != REFERENCE and self.legal(c)]

    def leap(self, choice: Choice) -> Choice:
        """The combination, with every value put in that one change of it clearly showed, or promises, to be faster."""
        gains = sorted(
            (gain, seam, label)
            for seam in SEAMS for label in self.allowed[seam]
            if label != choice[AT[seam]] and (gain := self.worth(choice, seam, label)) is not None and gain < -LEAP
        )  # fmt: skip
        taken: set[str] = set()
        for _, seam, label in gains:
            changed = with_value(choice, seam, label)
            if seam not in taken and self.legal(changed) and not self.lost(choice, seam, label):
                choice = changed
                taken.add(seam)
        return choice

    def foreseen(self, choice: Choice) -> float:
        """ln of its cost against the best's, were the seams independent: what the most promising is found by."""
        worths = (self.worth(self.best, seam, choice[AT[seam]]) for seam in differing(choice, self.best))
        return sum(worth if worth is not None else 0.0 for worth in worths)

    def worth(self, choice: Choice, seam: str, label: str) -> float | None:
        """ln(slower) that this change of the combination brings, where it was seen, nearest company first."""
        seen = self._seen(seam, choice[AT[seam]], label)
        if not seen:
            return None
        nearest = min(seen, key=lambda pair: (len(differing(pair[0], choice)), name_of(pair[0])))
        return self.standing.log_ratio(name_of(nearest[1])) - self.standing.log_ratio(name_of(nearest[0]))

    def lost(self, choice: Choice, seam: str, label: str) -> bool:
        """Whether this change is known to lose: clearly in the same company, or hopelessly in any."""
        company = [AT[other] for other in COMPANY[seam]]
        for before, after in self._seen(seam, choice[AT[seam]], label):
            one, two = name_of(after), name_of(before)
            if self.standing.slower(one, two)[1] > HOPELESS:
                return True
            same = all(before[i] == choice[i] for i in company)
            if same and self.standing.verdict(one, two) == FAIL:
                return True
        return False

    def _seen(self, seam: str, old: str, new: str) -> list[tuple[Choice, Choice]]:
        """Pairs of raced combinations that differ in this one change."""
        timed = [REFERENCE, *(c for c in self.raced if name_of(c) in self.standing.times)]
        return [(c, after) for c in timed if c[AT[seam]] == old and (after := with_value(c, seam, new)) in timed]

    def _change(self, before: Choice, after: Choice) -> tuple[str, str]:
        (seam,) = differing(before, after)
        return seam, after[AT[seam]]

    def _fresh(self, choices: Sequence[Choice]) -> list[Choice]:
        """Those that were not raced yet."""
        return [choice for choice in dict.fromkeys(choices) if choice not in (*self.raced, REFERENCE)]
