"""Each fault is named, and none where the base does the same."""

from dataclasses import replace

import pytest

from bench.sequential_test import FAIL, PASS
from tests.bench.gate.made_up import LIMITS, noisy, row

MIB = 2**20


def with_pairs(**more):
    return row(first=noisy(0.0, 60, **more))


def with_inspected(this: dict, base: dict, built=None, limits=LIMITS):
    plain = {"peak_bytes": MIB, "resident_bytes": MIB, "heavy": {"float": 44}}
    found = row(first=noisy(0.0, 60), limits=limits)
    found.inspected = {"this": {**plain, **this}, "base": {**plain, **base}}
    found.built = built or {side: {"steps": 1000, "graphs": 1} for side in ("this", "base")}
    return found


def one_fault(found) -> str:
    assert found.verdict == FAIL
    (fault,) = found.faults
    return fault


def test_a_row_without_a_fault_passes() -> None:
    assert with_inspected({}, {}).verdict == PASS
    assert with_inspected({}, {}).note == ""


def test_other_pictures_on_the_same_noise() -> None:
    assert one_fault(with_pairs(difference=0.01)).startswith("other pictures: on the same noise its outputs differ by")
    assert with_pairs(difference=0.003).verdict == PASS
    assert "differ by nan" in one_fault(with_pairs(difference=float("nan")))


def test_one_pair_of_sixty_with_another_picture_is_enough() -> None:
    found = row(first=[*noisy(0.0, 59), *noisy(0.0, 1, difference=0.5)])
    assert "differ by 0.5" in one_fault(found)


def test_answers_from_a_cache_are_named() -> None:
    assert "answers from a cache: 60 of 60" in one_fault(with_pairs(difference=1.0, this_repeated=True))
    both = with_pairs(difference=1.0, this_repeated=True, base_repeated=True)
    assert "cache" not in one_fault(both)


def test_skipped_work_is_named_where_the_pictures_differ() -> None:
    found = row(first=noisy(0.0, 60, difference=0.3))
    found.inspected = with_inspected({"heavy": {"float": 22}}, {}).inspected
    assert "it skips work: 22 convolutions and matrix products a call, the base 44" in one_fault(found)
    assert with_inspected({"heavy": {"float": 22}}, {}).verdict == PASS  # the same pictures with less work: welcome


def test_memory_beyond_the_tolerance_and_the_floor() -> None:
    assert one_fault(with_inspected({"peak_bytes": 2 * MIB}, {})) == "peak memory up by 50.0% (1.00 MiB)"
    assert with_inspected({"peak_bytes": MIB + 2**14}, {}).verdict == PASS  # 0.8 %
    small = {"peak_bytes": 2**12, "resident_bytes": 0}
    assert with_inspected({**small, "peak_bytes": 2**13}, small).verdict == PASS  # twice nothing


def test_work_after_the_return() -> None:
    assert "works on after it has returned: 40% of" in one_fault(with_pairs(this_idle=0.4))
    assert with_pairs(this_idle=0.4, base_idle=0.4).verdict == PASS
    assert with_pairs(this_idle=0.05).verdict == PASS


def test_changed_inputs() -> None:
    assert one_fault(with_pairs(this_mutated=True)) == "changes its inputs in place"
    assert with_pairs(this_mutated=True, base_mutated=True).verdict == PASS


BUILT = {"steps": 1000, "graphs": 1}


@pytest.mark.parametrize(("this", "this_built", "said"), [
    ({}, {"steps": 250}, "takes 250 steps where the base takes 1000"),
    ({}, {"graphs": 0}, "falls back to eager: nothing was compiled, the base compiled"),
    ({"heavy": {"c10::BFloat16": 40, "float": 4}}, {},
     "computes in another type: 40 convolutions and matrix products in bfloat16, the base's in float32"),
])  # fmt: skip
def test_another_kind_of_work_is_a_fault_unless_it_is_explained(this: dict, this_built: dict, said: str) -> None:
    built = {"this": BUILT | this_built, "base": BUILT}
    assert one_fault(with_inspected(this, {}, built)) == said
    explained = replace(LIMITS, explained="it is meant")
    assert with_inspected(this, {}, built, explained).verdict == PASS


def test_more_precise_or_as_precise_is_no_fault() -> None:
    assert with_inspected({"heavy": {"double": 44}}, {}).verdict == PASS
    half = {"heavy": {"c10::Half": 40, "float": 4}}
    assert with_inspected(half, half).verdict == PASS
