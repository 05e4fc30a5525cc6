"""JSON as RFC 8259 has it, which every parser takes: a number that is not finite is `null`, named beside it.

`{"largest": NaN}` is written as `{"largest": null, "largest_not_finite": "NaN"}`, and `{"error": [1, Infinity]}` as
`{"error": [1, null], "error_not_finite": {"1": "Infinity"}}`. `loads` puts the numbers back, so that what is read is
what was written. Numbers in no table at all become `null` alone.
"""

import json
import math
from collections.abc import Iterator
from typing import IO, Any

BESIDE = "_not_finite"
NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def dumps(value: Any, **options: Any) -> str:
    """As `json.dumps`, in strict JSON."""
    try:
        return json.dumps(value, allow_nan=False, **options)
    except ValueError:  # rare, so that the usual result is not walked through twice
        return json.dumps(strict(value), allow_nan=False, **options)


def dump(value: Any, file: IO[str], **options: Any) -> None:
    """As `json.dump`, in strict JSON."""
    file.write(dumps(value, **options))


def compact(value: Any, *firsts: str, **options: Any) -> str:
    """Without spaces; each table that begins with one of these keys begins a line, so that a difference is a line."""
    text = dumps(value, separators=(",", ":"), **options)
    for key in firsts:
        text = text.replace(f'{{"{key}"', f'\n{{"{key}"')  # inside a string the quotes would be escaped
    return text


def loads(text: str | bytes) -> Any:
    """What was written; ValueError, in one sentence, where it is no strict JSON."""
    return _put_back(json.loads(text, parse_constant=_refused), text)


def loads_older(text: str | bytes) -> Any:
    """As `loads`, and takes NaN and Infinity: other programs write them, and so did earlier versions of this one."""
    return _put_back(json.loads(text), text)


def strict(value: Any) -> Any:
    """A copy in which every number that is not finite is None, and named beside it."""
    if isinstance(value, dict):
        found: dict[Any, Any] = {}
        for key, one in value.items():
            found[key] = strict(one)
            missing = dict(_not_finite(one))
            if missing and f"{key}{BESIDE}" not in value:
                found[f"{key}{BESIDE}"] = missing.get("", missing)
        return found
    if isinstance(value, list | tuple):
        return [strict(one) for one in value]
    return None if _word(value) else value


def _not_finite(value: Any) -> Iterator[tuple[str, str]]:
    """(place, word) of each number in a value or in its lists that is not finite; place: indices, as in '2.0'."""
    if word := _word(value):
        yield "", word
    elif isinstance(value, list | tuple):
        for i, one in enumerate(value):
            for place, word in _not_finite(one):
                yield f"{i}.{place}".rstrip("."), word


def _word(value: Any) -> str:
    if not isinstance(value, float) or math.isfinite(value):
        return ""
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _put_back(value: Any, text: str | bytes) -> Any:
    named = BESIDE in text if isinstance(text, str) else BESIDE.encode() in text
    return _restored(value) if named else value


def _restored(value: Any) -> Any:
    if isinstance(value, list):
        return [_restored(one) for one in value]
    if not isinstance(value, dict):
        return value
    found = {key: _restored(one) for key, one in value.items()}
    for key, words in value.items():
        if not key.endswith(BESIDE):
            continue
        try:
            for place, word in (words if isinstance(words, dict) else {"": words}).items():
                _put(found, key.removesuffix(BESIDE), place, word)
        except (LookupError, TypeError, ValueError):  # somebody else's key of that name
            continue
        del found[key]
    return found


def _put(table: dict[str, Any], name: str, place: str, word: str) -> None:
    """Put a number back where it was."""
    where, key = table, name
    for part in filter(None, place.split(".")):
        where, key = where[key], int(part)  # type: ignore[assignment]
    if where[key] is not None:
        raise LookupError(key)
    where[key] = NUMBERS[word]


def _refused(name: str) -> Any:
    raise ValueError(f"it holds {name}, which is no number of JSON (RFC 8259)")
