"""What a stored result must hold so that everything made from it can be made; checked when it is read.

Only what a reader relies on is asked for: older results lack what was recorded later, and newer ones hold more.
"""

import base64
import math
from collections.abc import Callable
from typing import Any

from bench.quality.equivalence import Budget
from bench.quality.judging import Figures
from bench.quality.same_noise import Divergence
from sampler.errors import UsageError

Check = tuple[Callable[[Any], bool], str]  # whether a value will do, and what would


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(_number(v) and v > 0 and math.isfinite(v) for v in value)


def _findings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(f, list) and len(f) == 2 and isinstance(f[1], str) for f in value)


def _by_name(value: Any) -> bool:
    return isinstance(value, dict) and all(_number(v) for v in value.values())


def _points(length: int) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, list)
        and all(isinstance(p, list) and len(p) == length and all(map(_number, p)) for p in value)
    )


def _bytes(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(base64.b64decode(value, validate=True))
    except ValueError:
        return False


TIME: Check = (lambda v: _number(v) and v > 0 and math.isfinite(v), "a positive number of seconds")
SIZE: Check = (lambda v: _number(v) and v >= 0 and math.isfinite(v), "a number that is not negative")
NUMBER: Check = (_number, "a number")
COUNT: Check = (lambda v: isinstance(v, int) and v >= 1, "a whole number of at least 1")
WHOLE: Check = (lambda v: isinstance(v, int), "a whole number")
TEXT: Check = (lambda v: isinstance(v, str), "a text")
SHAPE: Check = (lambda v: isinstance(v, list) and len(v) == 4 and all(isinstance(n, int) and n > 0 for n in v),
                "four positive whole numbers")  # fmt: skip
TIMES: Check = (_numbers, "a list of positive seconds")
SIZES: Check = (_by_name, "numbers by name")
SEEN: Check = (lambda v: isinstance(v, dict), "a table of what was seen")

ENVIRONMENT = ("machine", "cpu", "cpus", "cpu_capability", "torch", "commit", "dirty")
EVENTS: dict[str, dict[str, Check]] = {
    "unavailable": {"message": TEXT}, "error": {"message": TEXT}, "died": {"message": TEXT},
    "first_call": {"steps": COUNT, "seconds": SIZE},
    "pair": {"process": WHOLE, "reference_s": TIME, "row_s": TIME, "reference_wall_s": TIME, "row_wall_s": TIME},
    "budget": {"seconds": SIZE, "short_s": SIZE, "building_s": SIZE},
    "probe": {"largest": NUMBER},
    "segment": {"steps": COUNT, "seconds": SIZE},
    "pictures": {"shape": SHAPE, "uint8_base64": (_bytes, "bytes in base64")},
    "axis": {"batch": COUNT, "steps": COUNT, "step_s": TIMES},
    "axis_error": {"batch": COUNT, "message": TEXT},
    "empty_cache": {"text": TEXT, "advice": TEXT},
    "memory": {"phase": TEXT, "live_peak": SIZE, "held": SIZE, "parts": SIZES},
    "timeline": {"steps": COUNT, "points": (_points(2), "pairs of numbers")},
    "memory_scaling": {"points": (_points(3), "triples of numbers"), "available": SIZE},
    "profile": {"steps": COUNT, "guided": SIZE, "launches": SIZE, "by_kind_us": SIZES},
    "evidence": {"where": TEXT, "seen": SEEN, "findings": (_findings, "pairs of a verdict and a text")},
    "roof": {"copy_bytes_per_s": SIZE, "call_us": SIZE, "flop_an_image": SIZE, "unfused_bytes_an_image": SIZE,
             "matrix_flop_per_s": SIZES},
}  # fmt: skip
# events that are a record of their own: what makes the record again
RECORDS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "divergence": Divergence.from_json, "quality": lambda event: Figures.from_json(event["figures"]),
    "contender": lambda event: event.get("budget") and Budget(**event["budget"]),
}  # fmt: skip


def check(stored: dict[str, Any], where: Any) -> None:
    """Refuse a result of which a part is missing or could not have been measured, in one sentence.

    stored: a result file's contents. where: the file, for the sentence.
    """
    for name in ("started", "command"):
        _check(stored, name, TEXT, f"{where}: ")
    _check(stored, "took_s", SIZE, f"{where}: ")
    for name in ENVIRONMENT:
        if name not in stored["environment"]:
            raise UsageError(f"{where}: the environment does not say {name!r}; measure again")
    rows = stored["rows"]
    if not isinstance(rows, list) or not all(isinstance(row, str) for row in rows):
        raise UsageError(f"{where}: rows = {str(rows)[:60]}; it must be a list of names")
    known = set(rows)
    for i, event in enumerate(stored["events"]):
        if not isinstance(event, dict) or not isinstance(event.get("event"), str):
            raise UsageError(f"{where}: event {i} is {str(event)[:60]}; it must be a table that says its kind")
        kind, at = event["event"], f"{where}: event {i} ({event['event']}): "
        if (row := event.get("row")) is not None and row not in known:
            raise UsageError(f"{at}row = {str(row)[:60]!r} is not among the rows of the result")
        for name, asked in EVENTS.get(kind, {}).items():
            _check(event, name, asked, at)
        if kind in RECORDS:
            try:
                RECORDS[kind](event)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise UsageError(f"{at}it is not whole ({type(error).__name__}: {error})") from None
        if kind == "pictures" and len(base64.b64decode(event["uint8_base64"])) != math.prod(event["shape"]):
            raise UsageError(f"{at}its bytes are not those of the shape {event['shape']}")


def _check(table: dict[str, Any], name: str, asked: Check, at: str) -> None:
    if name not in table:
        raise UsageError(f"{at}{name} is missing; it must be {asked[1]}")
    if not asked[0](table[name]):
        raise UsageError(f"{at}{name} = {str(table[name])[:60]}; it must be {asked[1]}")
