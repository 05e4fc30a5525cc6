"""A gate's result as it is shown: a table on the screen, Markdown for a pull request, JUnit XML, annotations."""

import os
from xml.etree import ElementTree

from bench.gate.verdict import GateResult, RowResult, shown_percent
from bench.gate.worker import printable
from bench.sequential_test import FAIL, MISSING, PASS, UNSURE

HEAD = ("row", "verdict", "base ms", "slowdown [95 %]", "by the wall", "pairs", "evidence", "memory", "note")
MEANING = (
    "PASS: not slower by what must be found, by both clocks, no heavier, same pictures. FAIL: broken, and for time "
    "fresh processes agree. UNSURE: the budget did not suffice. MISSING: could not be judged, which is not a pass."
)


def cells(row: RowResult) -> list[str]:
    """What the table shows of a row, in the order of HEAD."""
    if row.skipped:
        return [row.name, "skipped", "", "", "", "", "", "", row.skipped]
    if not row.pairs:
        return [row.name, row.verdict, "", "", "", "", "", "", row.note]
    first, fresh = row.evidences
    rise = row.memory_rise
    return [
        row.name, row.verdict, f"{row.base_ms:.2f}", _interval(row.slowdown), shown_percent(row.wall_slowdown[0]),
        f"{len(row.pairs)}" + (f"+{len(row.confirming)}" if row.confirming else ""),
        f"10^{first:.1f}" + (f", fresh 10^{fresh:.1f}" if row.confirming else ""),
        "" if rise is None else "same" if rise == 0 else f"{rise:+.2%}", row.note,
    ]  # fmt: skip


def _interval(slowdown: tuple[float, float, float]) -> str:
    value, low, high = slowdown
    return f"{shown_percent(value)} [{shown_percent(low)}, {shown_percent(high)}]"


def terminal(result: GateResult) -> str:
    """The table in plain text, notes on lines of their own."""
    rows = [cells(row) for row in _shown(result)]
    widths = [max(len(r[i]) for r in [list(HEAD), *rows]) for i in range(len(HEAD) - 1)]
    lines = [f"base  {result.base}", f"this  {result.this}", ""]
    for r in [list(HEAD[:-1]), ["-" * w for w in widths], *rows]:
        fixed = [c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths, strict=False))]
        lines.append("  ".join(fixed).rstrip())
        if len(r) == len(HEAD) and r[-1]:
            lines.append(f"    {r[-1]}")
    return "\n".join([*lines, "", result.headline, *_extras(result)])


def markdown(result: GateResult) -> str:
    """Fit for a pull request: what got slower, by how much, how sure, and how to see it oneself."""
    emoji = {0: "✅", 1: "❌", 2: "⚠️"}[result.exit_code]
    lines = [f"### {emoji} Speed gate: {_clean(result.headline)}", "",
             f"`{_clean(result.this)}` against `{_clean(result.base)}`", ""]  # fmt: skip
    bad = [row for row in result.rows if not row.skipped and row.verdict != PASS]
    lines += [f"- **{_clean(row.name)}** {row.verdict}: {_clean(row.note)}" for row in bad]
    lines += [""] if bad else []
    lines += ["| " + " | ".join(HEAD[:-1]) + " |", "| --- | --- |" + " ---: |" * (len(HEAD) - 3)]
    lines += ["| " + " | ".join(_clean(c) for c in cells(row)[:-1]) + " |" for row in _shown(result)]
    lines += ["", MEANING, "", *_extras(result), "", f"See it yourself: `{_clean(result.command)}`"]
    return "\n".join(lines) + "\n"


def _shown(result: GateResult) -> list[RowResult]:
    order = [FAIL, MISSING, UNSURE, PASS]
    rows = sorted(result.rows, key=lambda row: (bool(row.skipped), order.index(row.verdict)))
    return rows + ([result.control] if result.control is not None and result.control.pairs else [])


def _extras(result: GateResult) -> list[str]:
    lines = [f"{row.name} became faster: {shown_percent(row.slowdown[0])}"
             + ("; say why, and move the baseline" if result.ratchet else "") for row in result.improved]  # fmt: skip
    lines += [*result.remarks, result.certificate]
    lines.append(_spent(result.phases_s) + f"seed {result.seed}")
    return [line for line in lines if line]


def _spent(phases_s: dict[str, float]) -> str:
    """Where the time went, with the compilers' apart."""
    if not phases_s:
        return ""
    apart = phases_s.get("building", 0.0)
    others = ", ".join(f"{phase} {seconds:.0f} s" for phase, seconds in phases_s.items() if phase != "building")
    return f"took {sum(phases_s.values()) - apart:.0f} s ({others}), and building (compiling) {apart:.0f} s; "


def junit(result: GateResult) -> str:
    """JUnit XML: a FAIL is a failure, MISSING and UNSURE (under --strict) are errors, skipped rows are skipped."""
    suite = ElementTree.Element("testsuite", name="ddpm-bench gate", tests=str(len(result.rows)))
    counts = {"failures": 0, "errors": 0, "skipped": 0}
    for row in result.rows:
        seconds = sum(p.base_wall_s + p.this_wall_s for p in row.pairs + row.confirming) * row.calls
        case = ElementTree.SubElement(suite, "testcase", classname="gate", name=row.name, time=f"{seconds:.3f}")
        kind = _junit_kind(row, result)
        if kind:
            tag, count = kind
            counts[count] += 1
            ElementTree.SubElement(case, tag, message=row.skipped or row.note or row.verdict, type=row.verdict)
    if result.contaminated:
        counts["errors"] += 1
        case = ElementTree.SubElement(suite, "testcase", classname="gate", name="control arm")
        ElementTree.SubElement(case, "error", message=result.headline, type="CONTAMINATED")
        suite.set("tests", str(len(result.rows) + 1))
    for counted, number in counts.items():
        suite.set(counted, str(number))
    return _xml(suite)


def junit_of(rows: list[tuple[str, str, str]]) -> str:
    """JUnit XML of (row, verdict, note), where there is no more to tell."""
    suite = ElementTree.Element("testsuite", name="ddpm-bench gate", tests=str(len(rows)))
    tags = {FAIL: "failure", MISSING: "error", "skipped": "skipped", "new": "skipped"}
    for name, verdict, note in rows:
        case = ElementTree.SubElement(suite, "testcase", classname="gate", name=name)
        if verdict in tags:
            ElementTree.SubElement(case, tags[verdict], message=note or verdict, type=verdict)
    for counted, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(counted, str(len(suite.findall(f"testcase/{tag}"))))
    return _xml(suite)


def _xml(suite: ElementTree.Element) -> str:
    """As text; a message may hold what XML cannot (the colours of a terminal), which is left out."""
    for element in suite.iter():
        for name, value in element.items():
            element.set(name, printable(value))
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"


def _junit_kind(row: RowResult, result: GateResult) -> tuple[str, str] | None:
    if row.skipped:
        return "skipped", "skipped"
    if row.verdict == FAIL:
        return "failure", "failures"
    if row.verdict == MISSING or (row.verdict == UNSURE and result.strict):
        return "error", "errors"
    return None


def annotations(result: GateResult) -> list[str]:
    """GitHub's workflow commands: errors and warnings that show on the run's page."""
    if result.contaminated:
        return [_annotation("warning", "speed gate", result.headline)]
    return annotations_of([(row.name, row.verdict, row.note) for row in result.rows if not row.skipped])


def annotations_of(rows: list[tuple[str, str, str]]) -> list[str]:
    """Of (row, verdict, note), where there is no more to tell."""
    lines = []
    for name, verdict, note in rows:
        if verdict == FAIL:
            lines.append(_annotation("error", f"{name} regressed", note))
        elif verdict in (MISSING, UNSURE):
            lines.append(_annotation("warning", f"{name} {verdict}", note))
    return lines


def on_github(annotated: list[str], summary: str) -> None:
    """Where GitHub Actions runs this: annotations, and Markdown on the job's page."""
    if not os.environ.get("GITHUB_ACTIONS"):
        return
    for line in annotated:
        print(line)
    if page := os.environ.get("GITHUB_STEP_SUMMARY"):
        with open(page, "a") as file:
            file.write(summary)


def _annotation(level: str, title: str, message: str) -> str:
    def escaped(text: str) -> str:
        return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")

    title = escaped(title).replace(":", "%3A").replace(",", "%2C")
    return f"::{level} title={title}::{escaped(message)}"


def _clean(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
