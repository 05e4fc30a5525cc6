"""What each row may lose, read from one reviewed file in which every entry has a reason."""

import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path

from bench.sequential_test import Rule
from sampler.errors import UsageError

TEXTS = ("reason", "explained")
FILE = Path(__file__).with_name("thresholds.toml")


@dataclass(frozen=True)
class Limits:
    """The thresholds of one row, in the units of thresholds.toml."""

    tolerated: float
    must_detect: float
    floor_us: float
    memory: float
    memory_floor_kib: float
    picture: float
    reason: str
    explained: str = ""  # why this row's work may change in kind, or become faster under a ratchet

    def rule(self, rows: int, base_call_s: float) -> Rule:
        """The time test for this row, one of `rows`, of which a call takes the base so many seconds."""
        rule = Rule(self.tolerated, self.must_detect, max(Rule.wall_must_detect, self.must_detect), rows=rows)
        return rule.with_floor(base_call_s, self.floor_us / 1e6)


@dataclass(frozen=True)
class Thresholds:
    default: Limits
    rows: dict[str, Limits]

    def of(self, row: str) -> Limits:
        return self.rows.get(row, self.default)


def load(path: Path = FILE) -> Thresholds:
    """Read a thresholds file; refuses unknown entries, senseless numbers and an entry without a reason."""
    try:
        stored = tomllib.loads(Path(path).read_text())
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{path} is not TOML: {error}") from None
    unknown_ = stored.keys() - {"default", "rows"}
    if unknown_:
        raise UsageError(f"{path}: unknown section {sorted(unknown_)[0]!r}; known: default, rows")
    shipped = load().default if Path(path) != FILE else None
    default = _limits(path, "default", stored.get("default"), shipped)
    entries = stored.get("rows", {})
    if not isinstance(entries, dict):
        raise UsageError(f"{path}: rows is {entries!r}; sections like [rows.ddim] are needed")
    rows = {name: _limits(path, name, entry, default) for name, entry in entries.items()}
    return Thresholds(default, rows)


def _limits(path: Path, name: str, entry: dict | None, base: Limits | None) -> Limits:
    if entry is None and base is not None:
        return base
    entry = {} if entry is None else entry
    if not isinstance(entry, dict):
        raise UsageError(f"{path}: {name} is {entry!r}; a section of its own is needed, like [default] or [rows.ddim]")
    known = {f.name for f in fields(Limits)}
    for key, value in entry.items():
        if key not in known:
            raise UsageError(f"{path}: {name} has an unknown entry {key!r}; known: {', '.join(sorted(known))}")
        if key in TEXTS:
            if not str(value).strip():
                raise UsageError(f"{path}: {name} has an empty {key!r}; leave it out, or say why")
        elif isinstance(value, bool) or not (isinstance(value, int | float) and value >= 0):
            raise UsageError(f"{path}: {name} has {key} = {value!r}; a number of at least 0 is needed")
    if not str(entry.get("reason", "")).strip():
        raise UsageError(f"{path}: {name} gives no reason; every threshold needs one")
    if base is None:
        if lacking := known - entry.keys() - {"explained"}:
            raise UsageError(f"{path}: {name} lacks {sorted(lacking)[0]!r}")
        made = Limits(**entry)
    else:
        made = replace(base, **entry)
    if not made.tolerated < made.must_detect:
        raise UsageError(f"{path}: {name} tolerates {made.tolerated:g} but must detect {made.must_detect:g}, no more")
    return made
