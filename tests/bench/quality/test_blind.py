"""Pictures rated by eye: what is rated is blind, what is read is whole, and the metric agrees with the eye."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from scipy import stats

from bench.quality import blind, trial
from bench.quality.blind import BROKEN, DOUBTFUL, SOUND
from sampler.errors import UsageError

NAMES = ("T-shirt", "ankle boot")
SETS = {"reference": 60, "row": 50}


def sheets(folder: Path) -> dict[str, torch.Tensor]:
    """Pictures that carry their set and place in their pixels, written as sheets."""
    sets = {name: torch.full((count, 1, 28, 28), -1.0) for name, count in SETS.items()}
    for at, images in enumerate(sets.values()):
        images[:, 0, 0, 0] = at
        images[:, 0, 1, 1] = torch.arange(len(images)) / 100
    blind.write(sets, torch.arange(60) % 2, NAMES, folder, seed=3)
    return sets


def fill(folder: Path, grade) -> Path:
    """Grade by a function of (set, place in it), as somebody who knew the key."""
    key = json.loads((folder / "key.json").read_text())
    lines = (folder / "grades.csv").read_text().splitlines()
    filled = [lines[0]]
    for line in lines[1:]:
        sheet, place, nothing = line.split(",")
        assert nothing == ""
        filled.append(f"{sheet},{place},{grade(*key[sheet][int(place)])}")
    (folder / "mine.csv").write_text("\n".join(filled) + "\n")
    return folder / "mine.csv"


def test_every_picture_is_on_one_sheet_of_its_label_and_the_sheet_does_not_tell_whose_it_is(tmp_path: Path) -> None:
    sheets(tmp_path)
    key = json.loads((tmp_path / "key.json").read_text())
    assert list(key) == ["0-0-t-shirt", "0-1-t-shirt", "1-0-ankle-boot", "1-1-ankle-boot"]
    everyone = [(of, i) for those in key.values() for of, i in those]
    assert sorted(everyone) == sorted((of, i) for of, count in SETS.items() for i in range(count))
    for sheet, those in key.items():
        assert {i % 2 for _, i in those} == {int(sheet[0])}
        assert len({of for of, _ in those}) == 2 or len(those) < 10  # mixed, not one set after the other
        with Image.open(tmp_path / f"{sheet}.png") as picture:
            assert picture.height >= 28 * 4 * -(-len(those) // 10)
        assert not any(name in (tmp_path / f"{sheet}.png").name for name in SETS)
    with pytest.raises(UsageError, match=r"holds grades\.csv already"):
        sheets(tmp_path)


def test_grades_come_back_to_their_pictures(tmp_path: Path) -> None:
    sheets(tmp_path)
    path = fill(tmp_path, lambda of, i: BROKEN if (of, i) == ("row", 7) else DOUBTFUL if of == "row" and i < 5 else 0)
    found = blind.read(path, tmp_path / "key.json")
    assert len(found) == 110
    assert {at for at, grade in found.items() if grade} == {("row", i) for i in (0, 1, 2, 3, 4, 7)}
    by_eye = blind.summed([found, found], "reference")
    row = by_eye["row"]
    assert (row.pictures, row.raters, row.faults.correct, row.broken_share.correct) == (50, 2, 6, 1)
    assert (row.worse, row.better) == (6, 0)
    assert by_eye["reference"].p is None


def test_the_sign_test_counts_no_picture_twice_for_two_raters() -> None:
    """Raters who agree are no more pairs than one: what they grade is summed before pairs are compared."""
    one = {("reference", i): 0 for i in range(20)} | {("row", i): int(i < 6) for i in range(20)}
    alone, both = (blind.summed([one] * n, "reference")["row"] for n in (1, 2))
    assert alone.p == pytest.approx(stats.binomtest(6, 6, alternative="greater").pvalue)
    assert both.p == pytest.approx(alone.p)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda text: text.replace("0-0-t-shirt,0,0", "0-0-t-shirt,0,"), "the grade is ''; it must be 0, 1 or 2"),
        (lambda text: text.replace("0-0-t-shirt,0,0", "0-0-t-shirt,0,3"), "the grade is '3'"),
        (lambda text: text.replace("0-0-t-shirt,0,0\n", ""), "1 of 110 pictures have no grade"),
        (lambda text: text.replace("0-0-t-shirt,0,0", "elsewhere,0,0"), "knows no picture 0 on the sheet 'elsewhere'"),
        (lambda text: text.replace("sheet,place,grade", "a,b"), "needs sheet, place, grade"),
    ],
)
def test_a_table_that_is_not_whole_is_a_sentence(tmp_path: Path, spoil, reason: str) -> None:
    sheets(tmp_path)
    path = fill(tmp_path, lambda of, i: SOUND)
    path.write_text(spoil(path.read_text()))
    with pytest.raises(UsageError, match=reason):
        blind.read(path, tmp_path / "key.json")


def test_kappa_and_auc_are_those_of_the_textbooks() -> None:
    one = dict(zip([("a", i) for i in range(10)], [1, 1, 1, 1, 0, 0, 0, 0, 0, 0], strict=True))
    other = dict(zip(one, [1, 1, 1, 0, 1, 0, 0, 0, 0, 0], strict=True))
    assert blind.agreement(one, one) == 1
    assert blind.agreement(one, other) == pytest.approx((0.8 - 0.52) / 0.48)
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 6, (80,), generator=generator).double()
    faulty = torch.rand(80, generator=generator) < 0.3
    expected = stats.mannwhitneyu(scores[faulty], scores[~faulty]).statistic / (faulty.sum() * (~faulty).sum())
    assert blind.auc(scores, faulty) == pytest.approx(float(expected))


@pytest.fixture(scope="module")
def rated() -> tuple[list[dict[blind.Picture, int]], torch.Tensor]:
    """The grades that ship, and how strange the metric finds each of those pictures."""
    raters = blind.shipped()
    return raters, torch.stack([trial.shipped(of).set.strange[i] for of, i in raters[0]])


def test_the_metric_agrees_with_the_eye(rated) -> None:
    raters, strange = rated
    both = torch.tensor([all(rater[at] > SOUND for rater in raters) for at in raters[0]])
    broken = torch.tensor([any(rater[at] == BROKEN for rater in raters) for at in raters[0]])
    assert (len(strange), int(both.sum()), int(broken.sum())) == (1300, 212, 36)
    assert blind.auc(strange, both) > 0.8
    assert blind.auc(strange, broken) > 0.9
    assert blind.agreement(*raters) > 0.7


def test_the_eye_orders_the_sets_as_the_verdicts_do(rated) -> None:
    by_eye = blind.summed(rated[0], "reference")
    bad, good = by_eye["limited DDIM"], by_eye["limited, 50 steps"]
    assert bad.p is not None
    assert good.p is not None
    assert bad.p < 1e-3 < good.p
    assert bad.faults.interval[0] > by_eye["reference"].faults.interval[1] > good.faults.value
    assert by_eye["other seeds"].p > 0.1
