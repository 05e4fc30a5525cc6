"""How long a row may say nothing: what is known of it decides, and what nobody knows is given much time."""

import pytest

from bench.contenders import CONTENDERS, Contender
from bench.patience import LEAST_S, UNKNOWN_S, Patience
from bench.workload import workload
from sampler.variants import Variant


def doing(phase: str, row: str | None = "compiled", **more) -> dict:
    return {"event": "doing", "text": f"{phase} of {row}", "row": row, "phase": phase, **more}


def told(row: str, seconds: float, **more) -> dict:
    return {"event": "first_call", "row": row, "seconds": seconds, **more}


def test_what_nobody_knows_is_given_much_time() -> None:
    fresh = Patience(workload("quick"))
    assert fresh.seconds(None) == fresh.seconds(doing("first_call")) == fresh.seconds(doing("slice")) == UNKNOWN_S


def test_a_first_call_says_how_long_the_rest_may_take() -> None:
    patience = Patience(workload("quick"))
    patience.heard(told("compiled", 40.0, load_s=2.0))
    patience.heard(told("compiled", 1.0))  # from a cache: the longest counts
    assert patience.seconds(doing("first_call")) == patience.seconds(doing("slice")) == 20 * 42
    assert patience.seconds(doing("look")) == 100 * 42
    patience.heard(told("ddim", 0.1))
    assert patience.seconds(doing("slice", "ddim")) == LEAST_S


def test_a_row_that_compiles_nothing_is_known_by_the_reference() -> None:
    extra = Contender("mine", "", Variant("mine"))
    patience = Patience(workload("quick"), [extra])
    patience.heard(told("reference", 10.0))
    for name in ("mine", *(c.name for c in CONTENDERS.values() if not c.compiles)):
        assert patience.seconds(doing("first_call", name)) == 200.0
    assert patience.seconds(doing("first_call", "compiled")) == UNKNOWN_S
    assert patience.seconds(doing("first_call", "a stranger")) == UNKNOWN_S


def test_a_larger_batch_takes_longer() -> None:
    patience = Patience(workload("quick", batch=4))
    patience.heard(told("reference", 10.0))
    assert patience.seconds(doing("batch", None, batch=16)) == 800.0
    assert patience.seconds(doing("batch", None, batch=1)) == 200.0


def test_drawing_pictures_may_take_what_it_was_given_many_times() -> None:
    assert Patience(workload("quick")).seconds(doing("judging")) == UNKNOWN_S
    assert Patience(workload("full", quality_s=600.0)).seconds(doing("judging")) == 6000.0


def test_who_says_how_long_decides_over_what_a_row_does() -> None:
    patience = Patience(workload("quick", patience_s=3.0))
    patience.heard(told("compiled", 40.0))
    assert {patience.seconds(doing(p)) for p in ("order", "first_call", "slice", "part")} == {3.0}
    assert patience.seconds(doing("look")) == 15.0
    assert patience.seconds(None) == patience.seconds(doing("judging")) == patience.seconds(doing("roof")) == UNKNOWN_S


def test_the_sentence_says_how_long_and_during_what() -> None:
    patience = Patience(workload("quick"))
    patience.heard(told("reference", 0.1))
    said = {phase: patience.sentence(doing(phase, "ddim"), False) for phase in ("first_call", "slice", "part", "look")}
    assert said["first_call"] == "no answer in 120 s during its first call"
    assert said["slice"] == "no answer in 120 s during a timed slice"
    assert said["part"] == "no answer in 120 s during a whole run"
    assert said["look"] == "no answer in 120 s during 'look of ddim'"
    assert patience.sentence(doing("slice", "ddim"), True).endswith("a timed slice; a signal had stopped it")
    assert patience.sentence(None, False) == "no answer in 900 s during its start"


@pytest.mark.parametrize("seconds", [0, -1.0])
def test_no_patience_at_all_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="it must be positive"):
        workload("quick", patience_s=seconds)
