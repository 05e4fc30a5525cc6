"""Pictures rated by eye, blind: shuffled sheets and a key, the grades read back, and how often a set has a fault.

Every sheet shows pictures of one label, of all sets mixed. Whoever rates sees no more than the sheets; `key.json` says
afterwards which picture is whose.
"""

import csv
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import comb
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.quality.classifier import WEIGHTS, Accuracy
from bench.store import write_atomically
from sampler import strict_json
from sampler.errors import UsageError
from sampler.figures import save_grid
from sampler.files import writable_folder

SOUND, DOUBTFUL, BROKEN = range(3)
MEANING = {
    SOUND: "sound",
    DOUBTFUL: "doubtful: a part is missing or too many, an edge is ragged, a piece is detached",
    BROKEN: "broken: torn, dissolved, or not to be recognised as what it should be",
}
SHEET, COLUMNS, ENLARGE = 50, 10, 4  # pictures a sheet, in rows of ten, each pixel four wide
RATED = WEIGHTS / "grades.csv"  # what ships: two raters' grades
KEY, GRADES, HEAD = "key.json", "grades.csv", ("sheet", "place", "grade")
Picture = tuple[str, int]  # its set, and its place there


@dataclass(frozen=True)
class ByEye:
    """How raters graded one set: pictures, and how many of all grades were faulty (doubtful or broken) or broken.

    grades: pictures × raters. worse, better: pictures whose grades of all raters together are worse or better than
    those of the reference's picture of the same seed and label; None of the reference itself.
    """

    pictures: int
    raters: int
    grades: int
    faulty: int
    broken: int
    worse: int | None = None
    better: int | None = None

    @property
    def faults(self) -> Accuracy:
        """The share of pictures with a fault; raters' grades are averaged first, so that none counts as a picture."""
        return Accuracy(round(self.faulty / self.raters), self.pictures)

    @property
    def broken_share(self) -> Accuracy:
        return Accuracy(round(self.broken / self.raters), self.pictures)

    @property
    def p(self) -> float | None:
        """The chance of so many worse pairs, or more, if neither set were the worse (exact sign test, one-sided)."""
        if self.worse is None or self.better is None:
            return None
        n = self.worse + self.better
        return sum(comb(n, k) for k in range(self.worse, n + 1)) / 2**n

    def json(self) -> dict[str, Any]:
        return asdict(self)


def write(sets: Mapping[str, Tensor], labels: Tensor, names: Sequence[str], folder: Path, seed: int = 0) -> list[Path]:
    """Write the sheets, a table to fill in and the key; sets: images [n, 1, H, W] in [-1, 1] of the first n labels [N].

    names: what the labels are called, for the sheets' names. Refuses a folder that holds grades already.
    """
    writable_folder(folder)
    if (folder / GRADES).exists():
        raise UsageError(f"{folder} holds {GRADES} already; name another folder, or remove it")
    if short := [name for name, images in sets.items() if len(images) > len(labels)]:
        raise UsageError(f"{', '.join(short)}: more pictures than the {len(labels)} labels")
    dice, key, written = random.Random(seed), dict[str, list[Picture]](), list[Path]()
    for label, name in enumerate(names):
        mixed = [(of, i) for of, images in sets.items() for i in range(len(images)) if int(labels[i]) == label]
        dice.shuffle(mixed)
        for start in range(0, len(mixed), SHEET):
            those = mixed[start : start + SHEET]
            sheet = f"{label}-{start // SHEET}-{name.lower().replace('/', '-').replace(' ', '-')}"
            path = folder / f"{sheet}.png"
            rows = [str(row * COLUMNS) for row in range(-(-len(those) // COLUMNS))]
            save_grid(torch.stack([sets[of][i] for of, i in those]), path, COLUMNS, rows, ENLARGE)
            key[sheet] = those
            written.append(path)
    table = [HEAD, *((sheet, str(place), "") for sheet, those in key.items() for place in range(len(those)))]
    write_atomically(folder / GRADES, "".join(",".join(line) + "\n" for line in table))
    write_atomically(folder / KEY, strict_json.dumps(key))
    return [*written, folder / GRADES, folder / KEY]


def read(grades: Path, key: Path) -> dict[Picture, int]:
    """One rater's grades of every picture; refuses a table with gaps, or with other grades than 0, 1 and 2."""
    try:
        pictures = {(sheet, place): (of, i) for sheet, those in strict_json.loads(key.read_text()).items()
                    for place, (of, i) in enumerate(those)}  # fmt: skip
        with open(grades, newline="") as file:
            lines = list(csv.DictReader(file))
    except OSError as error:
        raise UsageError(f"cannot read {error.filename}: {error.strerror}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"{key} is no key of blind sheets ({error})") from None
    found = dict[Picture, int]()
    for number, line in enumerate(lines, 2):
        try:
            place, grade = (line["sheet"], int(line["place"])), line["grade"].strip()
        except (KeyError, ValueError, TypeError, AttributeError):
            raise UsageError(f"{grades}, line {number}: needs {', '.join(HEAD)}") from None
        if place not in pictures:
            raise UsageError(f"{grades}, line {number}: {key} knows no picture {place[1]} on the sheet {place[0]!r}")
        if grade not in {str(g) for g in MEANING}:
            raise UsageError(f"{grades}, line {number}: the grade is {grade!r}; it must be 0, 1 or 2")
        found[pictures[place]] = int(grade)
    if gaps := len(pictures) - len(found):
        raise UsageError(f"{grades}: {gaps} of {len(pictures)} pictures have no grade")
    return found


def shipped(path: Path = RATED) -> list[dict[Picture, int]]:
    """The grades that ship, of pictures of `trial.npz` by the names of its sets, one mapping a rater."""
    try:
        with open(path, newline="") as file:
            head, *lines = csv.reader(file)
        return [{(of, int(i)): int(grades[rater]) for of, i, *grades in lines} for rater in range(len(head) - 2)]
    except (OSError, ValueError, IndexError) as problem:
        raise UsageError(f"cannot read the grades in {path}: {problem}") from None


def summed(raters: Sequence[Mapping[Picture, int]], reference: str) -> dict[str, ByEye]:
    """How each set was graded by all raters, and beside the reference's pictures where those were graded too."""
    if not raters or any(set(rater) != set(raters[0]) for rater in raters):
        raise UsageError("the raters graded different pictures: give grades of the same sheets")
    found = {}
    for name in dict.fromkeys(of for of, _ in raters[0]):
        mine = [(rater, at) for rater in raters for at in rater if at[0] == name]
        total = {at: sum(rater[at] for rater in raters) for at in raters[0]}
        pairs = [(grade, total[reference, at[1]]) for at, grade in total.items()
                 if at[0] == name != reference and (reference, at[1]) in total]  # fmt: skip
        found[name] = ByEye(
            pictures=len(mine) // len(raters),
            raters=len(raters),
            grades=len(mine),
            faulty=sum(rater[at] > SOUND for rater, at in mine),
            broken=sum(rater[at] == BROKEN for rater, at in mine),
            worse=sum(a > b for a, b in pairs) if pairs else None,
            better=sum(a < b for a, b in pairs) if pairs else None,
        )
    return found


def agreement(one: Mapping[Picture, int], other: Mapping[Picture, int]) -> float:
    """Cohen's kappa of two raters on 'has a fault' (Cohen 1960): 1 for the same grades, 0 for as many by chance."""
    both = [(one[at] > SOUND, other[at] > SOUND) for at in one]
    same = sum(a == b for a, b in both) / len(both)
    first, second = (sum(pair[i] for pair in both) / len(both) for i in (0, 1))
    chance = first * second + (1 - first) * (1 - second)
    return 1.0 if chance == 1 else (same - chance) / (1 - chance)


def auc(scores: Tensor, faulty: Tensor) -> float:
    """The chance that a faulty picture has the higher score [N] than a sound one, ties half; faulty [N] bool.

    The area under the ROC curve, by ranks (Mann & Whitney 1947).
    """
    bad, good = scores[faulty].double(), scores[~faulty].double().sort().values
    if not len(bad) or not len(good):
        raise UsageError("an AUC needs pictures of both kinds")
    below = torch.searchsorted(good, bad.contiguous()).double()
    upto = torch.searchsorted(good, bad.contiguous(), right=True).double()
    return float((below + upto).sum() / (2 * len(bad) * len(good)))
