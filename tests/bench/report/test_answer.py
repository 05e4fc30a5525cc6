"""The answer in two sentences says what the data say, and nothing else."""

from types import SimpleNamespace

import pytest

from bench.quality.equivalence import EQUIVALENT, NO_WORSE, UNSURE, WORSE
from bench.report import answer
from bench.report.sources import Beside
from tests.bench.synthetic import first_call, measurement, pairs, segments


def made(**ratios: float):
    """Rows by name, each so many times the reference's time in three processes."""
    events = [event for name, ratio in ratios.items()
              for event in pairs(name.replace("_", "-"), {p: [ratio * (1 + p / 1000)] for p in range(3)})]  # fmt: skip
    return measurement(["reference", *(name.replace("_", "-") for name in ratios)], events)


def judged(fresh: tuple[str, ...] = (), **verdicts: str) -> Beside:
    """A quality run beside the result that came to these verdicts; fresh: rows that fresh seeds confirm."""
    by_row = {name.replace("_", "-"): verdict for name, verdict in verdicts.items()}
    quality = SimpleNamespace(judged={"a point": 1}, verdict=lambda row: (by_row.get(row, ""), "because"),
                              confirmed=lambda row: row in fresh,
                              pictures_of=lambda row: "400 pictures of seed 0, and by 400 of seed 1")  # fmt: skip
    return Beside(quality=quality)  # type: ignore[arg-type]


def test_the_fastest_that_changes_nothing_is_named_with_its_interval() -> None:
    said, _ = answer.sentences(made(batched_cfg=0.8, compiled=0.5, ddim=0.9), Beside())
    assert said.startswith("**compiled** changes no picture and is **2.00 [")
    assert "batched-cfg" not in said


@pytest.mark.parametrize("ratios", [{}, {"batched_cfg": 1.1}])
def test_where_nothing_pays_it_says_so(ratios: dict[str, float]) -> None:
    said, other = answer.sentences(made(**ratios), Beside())
    assert said == "**Nothing that changes no picture beats the reference here.**"
    assert other == "No row that draws other pictures was measured."


def test_what_was_not_judged_is_not_recommended() -> None:
    _, said = answer.sentences(made(compiled=0.5, ddim=0.9, strided=0.7), Beside())
    assert "is not judged yet (`python -m bench quality` does)" in said
    assert "the fastest of them, **strided**" in said


def test_the_fastest_within_its_budget_is_named_and_no_faster_one_outside() -> None:
    result = made(ddim=0.9, all_half=0.3, all_equal_steps=0.5)
    inside = {"all_half": WORSE, "all_equal_steps": EQUIVALENT, "ddim": NO_WORSE}
    _, said = answer.sentences(result, judged(fresh=("all-equal-steps", "ddim"), **inside))
    assert said.startswith("Within its quality budget, **all-equal-steps** is the fastest")
    assert "400 of seed 1" in said
    _, said = answer.sentences(result, judged(fresh=("ddim",), **inside))
    assert said.startswith("Within its quality budget, **ddim** is the fastest")
    assert "not confirmed on fresh seeds: all-equal-steps" in said
    _, said = answer.sentences(result, judged(**inside))
    assert said.startswith("**all-equal-steps**")
    assert "have not confirmed" in said
    _, said = answer.sentences(result, judged(all_half=WORSE, all_equal_steps=UNSURE, ddim=UNSURE))
    assert said.startswith("No row that draws other pictures is shown to stay within its quality budget")
    assert "**all-half**" in said


def test_pictures_of_another_model_judge_nothing() -> None:
    result = made(ddim=0.9)
    result.workload = SimpleNamespace(model="another", guidance=3.0, steps=1000, batch=4)  # type: ignore[assignment]
    assert not answer.judged(judged(ddim=EQUIVALENT), result)


def test_memory_and_break_even_end_the_sentence() -> None:
    result = made(compiled=0.5)
    result.events += [first_call("reference", 1000, 0.1), first_call("compiled", 1000, 19.9, compiled_now=True),
                      *segments("reference", 1000, 10.0)]  # fmt: skip
    parts = {"weights": 1, "state and noise": 1, "activations": 1, "workspace": 1}
    result.events.append({"event": "memory", "row": "compiled", "phase": "steady", "live_peak": 3 * 2**20, "held": 0,
                          "parts": parts})  # fmt: skip
    said = answer.unchanged(result)
    assert said.endswith(", 3.0 MiB of live tensors at its steady peak, cheaper from 16 images on.")
