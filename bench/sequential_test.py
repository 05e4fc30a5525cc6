"""Decides, pair by pair and valid at any stopping time, whether one arm is slower than another.

Two e-processes over d = ln(t_new / t_base), one pair after another, each the mean over a grid of (λ, γ) of

    against "at most θ0 slower":   Π_i (1 + γ·tanh(λ·(d_i − ln(1+θ0))))
    against "at least θ1 slower":  Π_i (1 + γ·tanh(λ·(ln(1+θ1) − d_i)))

The order inside a pair is a fair coin, so an unchanged contender makes d sign-symmetric whatever the drift, the
tails or the autocorrelation; every factor then has mean at most 1 given the past, and by Ville's inequality the
chance that the product ever reaches 1/α is at most α (Vovk & Wang 2022, "Efficiency of nonparametric e-tests",
arXiv 2208.08925, e-tests of symmetry; Ramdas et al. 2020, arXiv 2009.03167). Exact for an unchanged contender; at
θ0 and θ1 themselves it also takes noise that is symmetric on the log scale. |γ·tanh| < 1 bounds each factor
on both sides: one preempted slice neither decides nor destroys.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike

PASS, FAIL, UNSURE, MISSING = "PASS", "FAIL", "UNSURE", "MISSING"

_SHARPNESS, _STAKE = np.meshgrid([3.0, 10.0, 30.0, 100.0, 300.0], [0.5, 0.9], indexing="ij")
SHARPNESS, STAKE = _SHARPNESS.ravel(), _STAKE.ravel()  # λ and γ, [10] each


@dataclass(frozen=True)
class Rule:
    """What is tolerated, what must be found, and how often either may go wrong.

    tolerated, must_detect: slowdowns θ0 and θ1 by the deciding clock; wall_must_detect: θ1 by the wall clock.
    false_alarm (α): for all `rows` together (Bonferroni); missed (β): for each row, how often θ1 may pass;
    wall_missed: by the wall clock, which guards what CPU time cannot see and is the noisier.
    wall_share: the weight of the wall clock in the evidence for a FAIL; it sees what CPU time cannot (sleeping,
    locks, subprocesses), and is the noisier of the two.
    confirm: the evidence that fresh processes must reach by themselves before a FAIL stands.
    """

    tolerated: float = 0.02
    must_detect: float = 0.05
    wall_must_detect: float = 0.10
    false_alarm: float = 0.01
    missed: float = 0.005
    wall_missed: float = 0.02
    rows: int = 1
    wall_share: float = 0.1
    confirm: float = 20.0

    def __post_init__(self):
        if not -1 < self.tolerated < self.must_detect <= self.wall_must_detect:
            raise ValueError(
                f"tolerated {self.tolerated:g}, must_detect {self.must_detect:g} and wall_must_detect "
                f"{self.wall_must_detect:g} must ascend"
            )
        rates = (self.false_alarm, self.missed, self.wall_missed)
        if not (all(0 < rate < 1 for rate in rates) and self.rows >= 1 and 0 <= self.wall_share < 1):
            raise ValueError(f"{self} holds a rate outside 0…1, or no row")

    @property
    def fail_at(self) -> float:
        """Evidence from which a row fails."""
        return self.rows / self.false_alarm

    @property
    def pass_at(self) -> float:
        """Evidence from which it passes."""
        return 1 / self.missed

    @property
    def wall_pass_at(self) -> float:
        return 1 / self.wall_missed

    def with_floor(self, base_s: float, floor_s: float) -> "Rule":
        """The rule for a call of `base_s` seconds of which `floor_s` do not matter: 2 % of nothing is nothing."""
        tolerated = max(self.tolerated, floor_s / base_s)
        wider = tolerated - self.tolerated
        return replace(
            self, tolerated=tolerated, must_detect=self.must_detect + wider,
            wall_must_detect=self.wall_must_detect + wider,
        )  # fmt: skip


def log_factors(excess: np.ndarray) -> np.ndarray:
    """ln(1 + γ·tanh(λ·excess)) for each (λ, γ): [...] to [..., 10]."""
    return np.log1p(STAKE * np.tanh(SHARPNESS * np.asarray(excess, float)[..., None]))


def log_mean_exp(log_products: np.ndarray) -> np.ndarray:
    """ln of the mean over the grid of products given by their logarithms: [..., 10] to [...]."""
    largest = log_products.max(axis=-1, keepdims=True)
    return (largest + np.log(np.exp(log_products - largest).mean(axis=-1, keepdims=True)))[..., 0]


def log_evidence(d: ArrayLike, limit: float, sign: int = 1) -> np.ndarray:
    """ln E after each pair, [..., pairs], against 'at most `limit` slower' (sign 1) or 'at least' (sign -1)."""
    return log_mean_exp(np.cumsum(log_factors(sign * (np.asarray(d, float) - math.log1p(limit))), axis=-2))


@dataclass
class SequentialTest:
    """One row under one rule, fed pair by pair; `verdict` may be looked at whenever one likes.

    A number that is no number is refused: an error in measuring must never look like a pass.
    """

    rule: Rule
    d: list[float] = field(default_factory=list)  # by the deciding clock
    d_wall: list[float] = field(default_factory=list)
    _logs: np.ndarray = field(default_factory=lambda: np.zeros((4, len(SHARPNESS))), repr=False)

    def add(self, d: float, d_wall: float) -> None:
        """Take in ln(t_new / t_base) of one pair by both clocks."""
        if not (math.isfinite(d) and math.isfinite(d_wall)):
            raise ValueError(f"a pair gave ln-ratios {d} and {d_wall}, which are no finite numbers")
        rule = self.rule
        excess = [
            d - math.log1p(rule.tolerated), math.log1p(rule.must_detect) - d,
            d_wall - math.log1p(rule.tolerated), math.log1p(rule.wall_must_detect) - d_wall,
        ]  # fmt: skip
        self._logs += log_factors(np.array(excess))
        self.d.append(d)
        self.d_wall.append(d_wall)

    @property
    def log_evidences(self) -> tuple[float, float, float, float]:
        """ln E for: slower and not slower by the deciding clock, slower and not slower by the wall clock."""
        slower, not_slower, wall_slower, wall_not_slower = log_mean_exp(self._logs)
        return float(slower), float(not_slower), float(wall_slower), float(wall_not_slower)

    @property
    def log_fail(self) -> float:
        """ln of the evidence for a FAIL: both clocks' weighted mean, which is an e-process too."""
        slower, _, wall_slower, _ = self.log_evidences
        share = self.rule.wall_share
        if share == 0:
            return slower
        return float(np.logaddexp(slower + math.log(1 - share), wall_slower + math.log(share)))

    @property
    def verdict(self) -> str:
        """MISSING (no data), FAIL, PASS (by both clocks, and with no evidence for a slowdown), or UNSURE (not yet)."""
        if not self.d:
            return MISSING
        if self.log_fail >= math.log(self.rule.fail_at):
            return FAIL
        _, not_slower, _, wall_not_slower = self.log_evidences
        by_both = not_slower >= math.log(self.rule.pass_at) and wall_not_slower >= math.log(self.rule.wall_pass_at)
        leans = self.log_fail > 0  # the same pairs speak for more than is tolerated: no ground to pass, so go on
        if by_both and not leans:
            return PASS
        return UNSURE

    @property
    def confirms(self) -> bool:
        """Whether these pairs, taken in fresh processes, reach what confirms a FAIL."""
        return self.log_fail >= math.log(self.rule.confirm)


def replay(pairs: Iterable[tuple[float, float]], rule: Rule) -> tuple[str, int]:
    """The verdict on recorded pairs (d, d_wall) taken in order, and after how many it fell."""
    test = SequentialTest(rule)
    for d, d_wall in pairs:
        test.add(d, d_wall)
        if test.verdict in (PASS, FAIL):
            break
    return test.verdict, len(test.d)


def slowdown_interval(d: Iterable[float], missed: float = 0.05) -> tuple[float, float, float]:
    """(value, low, high) of the slowdown, as a ratio less 1: the median, and the confidence sequence at 1 - missed.

    The interval holds every θ that neither side of the test rejects at missed / 2, and may be read at any time
    (Howard et al. 2021, arXiv 1810.08240). Infinite where there are too few pairs to bound it.
    """
    values = np.asarray(list(d), float)
    if not len(values):
        return math.nan, -math.inf, math.inf
    needed = math.log(2 / missed)

    def rejected(m: float, sign: int) -> bool:
        return float(log_mean_exp(log_factors(sign * (values - m)).sum(axis=0))) >= needed

    middle, reach = float(np.median(values)), float(np.ptp(values)) + 2.0
    ends = []
    for sign in (1, -1):  # the lower end, then the upper
        outside, inside = middle - sign * reach, middle + sign * reach
        if not rejected(outside, sign):
            ends.append(-sign * math.inf)
            continue
        for _ in range(50):
            half = (outside + inside) / 2
            outside, inside = (half, inside) if rejected(half, sign) else (outside, half)
        ends.append(outside)
    low, high = (math.expm1(end) for end in ends)
    return math.expm1(middle), low, high
