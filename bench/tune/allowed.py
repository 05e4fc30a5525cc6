"""What may be combined at all: which values of each seam can run here, fit the model and the quality that is asked."""

import itertools
import os
import shutil

from bench.contenders import REFERENCE
from bench.quality import judged
from bench.tune.asked import LOSSLESS, Asked
from bench.tune.quality import Judge
from bench.tune.space import REFERENCE as PLAIN
from bench.tune.space import SEAMS, Choice, contender, name_of, with_value

COMPILERS = ("compiled-update", "compiled", "frozen")
PATHS = "path"


def labels(asked: Asked) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """For each seam what may be combined, the reference's value first, and why each of the others may not."""
    allowed: dict[str, tuple[str, ...]] = {}
    left_out: dict[str, str] = {}
    for seam, known in SEAMS.items():
        reasons = {label: _why_not(asked, seam, label) for label in known if label}
        left_out |= {label: why for label, why in reasons.items() if why}
        allowed[seam] = ("", *(label for label, why in reasons.items() if not why))
    return allowed, left_out


def _why_not(asked: Asked, seam: str, label: str) -> str:
    """Why a value can not be part of the answer, or ''."""
    workload, value = asked.workload, SEAMS[seam][label]
    if "cuda" in value.needs and workload.device == "cpu":
        return "needs CUDA"
    row = contender(with_value(PLAIN, seam, label))
    if row is not None and (why := row.unavailable(workload.device)):
        return why
    if workload.device == "cpu" and label in COMPILERS and shutil.which(os.environ.get("CXX", "g++")) is None:
        return "there is no C++ compiler"
    if workload.guidance == 1 and seam in ("guide", "guided_between"):
        return "guidance is 1: there is nothing to guide"
    if label == "channels-last" and workload.own is not None and not workload.own.convolutions:
        return "the network has no convolution to lay out channels-last"
    if not value.lossless and asked.quality == LOSSLESS:
        return f"changes pictures; the quality budget is {LOSSLESS}"
    if seam == PATHS and asked.quality == "equal-steps":
        return "takes fewer steps; the quality budget is equal-steps"
    if not value.lossless and (why := judged.judgeable(workload)):
        return f"changes pictures, which cannot be judged: {why}"
    return ""


def product(allowed: dict[str, tuple[str, ...]], paths: tuple[str, ...] = ("",)) -> list[Choice]:
    """Every combination of these values that fits together, on these paths; the reference is not among them."""
    seams = [allowed[seam] if seam != PATHS else paths for seam in SEAMS]
    return [c for c in itertools.product(*seams) if name_of(c) != REFERENCE and contender(c) is not None]


def forbidden(allowed: dict[str, tuple[str, ...]], judge: Judge, seconds: float) -> dict[Choice, str]:
    """Combinations, of those on the reference's own path, that cannot win on any: they are known to lose too much, or
    their pictures would take more than these seconds to draw; with the reason."""
    found: dict[Choice, str] = {}
    for choice in product(allowed):
        verdicts = [judge.foreseen(row, seconds) for path in allowed[PATHS]
                    if (row := contender(with_value(choice, PATHS, path))) is not None]  # fmt: skip
        known = [verdict for verdict in verdicts if verdict is not None]
        if len(known) == len(verdicts) and not any(verdict.passes for verdict in known):
            found[choice] = f"quality: {known[0].text}"
    return found
