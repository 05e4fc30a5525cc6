"""Strict JSON: what is written every parser takes, what is read is what was written, and older files can be read."""

import io
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampler import strict_json


def refused(name: str):
    raise AssertionError(f"{name} in a file that must be strict JSON")


def by_a_strict_parser(text: str):
    return json.loads(text, parse_constant=refused)


def test_what_is_not_finite_is_null_and_its_neighbour_says_which() -> None:
    text = strict_json.dumps({"a": math.nan, "b": [1.5, math.inf, [-math.inf]], "c": 2.0})
    assert by_a_strict_parser(text) == {
        "a": None, "a_not_finite": "NaN", "b": [1.5, None, [None]],
        "b_not_finite": {"1": "Infinity", "2.0": "-Infinity"}, "c": 2.0,
    }  # fmt: skip


def test_a_number_in_no_table_is_null() -> None:
    assert strict_json.dumps([math.nan, 1]) == "[null, 1]"
    assert strict_json.dumps(math.inf) == "null"


NUMBERS = st.floats() | st.integers() | st.none() | st.booleans() | st.text(max_size=3)
VALUES = st.recursive(NUMBERS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner))


@settings(max_examples=40)
@given(st.dictionaries(st.text(max_size=4), VALUES, max_size=4))
def test_what_is_read_is_what_was_written(value: dict) -> None:
    for text in (strict_json.dumps(value), strict_json.dumps(value, indent=1), strict_json.compact(value)):
        by_a_strict_parser(text)
        # by repr, for NaN is not NaN
        assert repr(strict_json.loads(text)) == repr(strict_json.loads(text.encode())) == repr(value)


def test_every_event_of_a_list_keeps_its_own_numbers() -> None:
    events = [{"row": "a", "largest": math.nan}, {"row": "b", "largest": 0.1, "by": {"x": math.inf}}]
    text = strict_json.compact({"events": events}, "row")
    by_a_strict_parser(text)
    assert text.count("\n") == 2
    assert repr(strict_json.loads(text)["events"]) == repr(events)


def test_somebody_elses_key_of_that_name_is_left_alone() -> None:
    for value in ({"a_not_finite": "NaN"}, {"a": 1, "a_not_finite": "NaN"}, {"a": None, "a_not_finite": "a lot"},
                  {"a": [1], "a_not_finite": {"7": "NaN"}}, {"a": None, "a_not_finite": 3}):  # fmt: skip
        assert strict_json.loads(json.dumps(value)) == value


def test_a_key_that_is_taken_is_not_replaced() -> None:
    assert by_a_strict_parser(strict_json.dumps({"a": math.nan, "a_not_finite": 1})) == {"a": None, "a_not_finite": 1}


@pytest.mark.parametrize("text", ['{"a": NaN}', "[Infinity]", "-Infinity"])
def test_what_is_no_json_is_refused_in_one_sentence_and_read_where_older_files_are(text: str) -> None:
    with pytest.raises(ValueError, match=r"^it holds -?(NaN|Infinity), which is no number of JSON \(RFC 8259\)$"):
        strict_json.loads(text)
    assert repr(strict_json.loads_older(text)) == repr(json.loads(text))


def test_what_is_cut_is_refused() -> None:
    for read in (strict_json.loads, strict_json.loads_older):
        with pytest.raises(ValueError, match="line 1"):
            read('{"a": [1, 2')


def test_dump_writes_the_same() -> None:
    file = io.StringIO()
    strict_json.dump({"a": math.nan}, file)
    assert file.getvalue() == strict_json.dumps({"a": math.nan})


def test_an_object_that_json_does_not_know_is_still_an_error() -> None:
    with pytest.raises(TypeError):
        strict_json.dumps({"a": object(), "b": math.nan})
