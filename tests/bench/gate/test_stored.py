"""compare, history and --baseline, from stored results whose figures are known."""

import json
from dataclasses import replace

import pytest

from bench import store
from bench.__main__ import main
from bench.gate import baseline, compare, history, thresholds
from bench.gate.compare import changes
from bench.sequential_test import FAIL, MISSING, PASS, UNSURE
from tests.bench.synthetic import measurement, pairs

ROWS = ["reference", "ddim"]


def stored(ratio: float, spread: float = 0.002, rows=ROWS, commit: str = "0123456789", **more):
    """A result in which ddim takes this multiple of the reference, in five processes."""
    values = {p: [ratio * (1 + spread * (p - 2))] * 3 for p in range(5)}
    made = measurement(rows, pairs("ddim", values), **more)
    made.environment["commit"] = commit
    return made


def verdict(before, after, **more) -> str:
    (change,) = changes(before, after, thresholds.load(), **more)
    return change.verdict


def test_four_verdicts() -> None:
    assert verdict(stored(1.0), stored(1.0)) == PASS
    assert verdict(stored(1.0), stored(1.08)) == FAIL
    assert verdict(stored(1.0), stored(1.08, 0.05)) == UNSURE
    assert verdict(stored(1.0), measurement(["reference"], [])) == MISSING
    assert verdict(stored(1.0), measurement(ROWS, [])) == MISSING


def test_the_spread_between_sessions_widens_the_limit() -> None:
    assert verdict(stored(1.0), stored(1.06)) == FAIL
    assert verdict(stored(1.0), stored(1.06), between_sessions=0.02) == UNSURE
    assert verdict(stored(1.0), stored(1.5), between_sessions=0.02) == FAIL


def test_the_spread_is_found_from_sessions_of_one_commit() -> None:
    spread, differences = compare.between_sessions([stored(1.0), stored(1.02), stored(1.01), stored(2.0, commit="b")])
    assert differences == 2
    assert spread == pytest.approx(0.01, rel=0.05)
    assert compare.between_sessions([stored(1.0)]) == (0.0, 0)


def test_baseline_judges_here_and_only_informs_elsewhere() -> None:
    limits = thresholds.load()
    assert baseline.judged(stored(1.0), stored(1.0), limits, 0.001)[0] == 0
    assert baseline.judged(stored(1.0), stored(1.2), limits, 0.001)[0] == 1
    assert baseline.judged(stored(1.0), measurement(["reference"], []), limits, 0.001)[0] == 2
    assert baseline.judged(stored(1.0), stored(1.2), limits, 0.05)[0] == 0
    assert baseline.judged(stored(1.0), stored(1.2), limits, 0.05, strict=True)[0] == 2
    loose = replace(limits.default, tolerated=0.3, must_detect=0.6)
    assert baseline.judged(stored(1.0), stored(1.2), replace(limits, rows={"ddim": loose}), 0.001)[0] == 0
    other = stored(1.2)
    other.environment["machine"] = "another"
    code, text, _ = baseline.judged(stored(1.0), other, limits, 0.001)
    assert code == 0
    assert "nothing is blocked: measured elsewhere (machine made-up-cpu against another)" in text


def test_baseline_measures_as_the_stored_result_was_and_writes_what_is_asked(monkeypatch, tmp_path, capsys) -> None:
    before = stored(1.0, rows=[*ROWS, "a-row-of-old"])
    before.events += pairs("a-row-of-old", {0: [1.0], 1: [1.0]})
    path, asked = store.save(before, tmp_path), []

    def measure(workload, rows, say, command):
        asked.append((workload, rows))
        return stored(1.3)

    monkeypatch.setattr(baseline, "measure", measure)
    monkeypatch.setattr(baseline, "spread_of_machine", lambda like: (0.02, 0))
    files = {name: tmp_path / f"gate.{name}" for name in ("markdown", "json", "junit")}
    options = [part for name, file in files.items() for part in (f"--{name}", str(file))]
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    assert main(["gate", "--baseline", str(path), *options]) == 1
    ((workload, rows),) = asked
    assert workload == before.workload
    assert set(rows) == set(ROWS)
    out = capsys.readouterr().out
    assert "| a-row-of-old | MISSING |" in out
    assert "assumed; too few stored sessions" in out
    assert "no certificate covers a comparison with a stored result" in out
    assert "::error title=ddim regressed::" in out
    assert "::warning title=a-row-of-old MISSING::it has disappeared" in out
    assert "| a-row-of-old | MISSING |" in (tmp_path / "summary.md").read_text()
    assert "FAIL" in files["markdown"].read_text()
    assert json.loads(files["json"].read_text())["rows"]
    assert 'failures="1" errors="1"' in files["junit"].read_text()


def test_compare_command(tmp_path, capsys) -> None:
    one = store.save(stored(1.0), tmp_path)
    two = store.save(replace(stored(1.1), started="2026-01-03T03:04:05Z"), tmp_path)
    assert main(["compare", str(one), str(two)]) == 1
    assert "| ddim | FAIL | +10." in capsys.readouterr().out
    assert main(["compare", str(one), str(one)]) == 0
    assert main(["compare", str(two), str(one)]) == 0
    other = stored(1.1)
    other.environment["machine"] = "another"
    assert main(["compare", str(one), str(store.save(other, tmp_path))]) == 0
    assert "For information only" in capsys.readouterr().out


def many(levels: list[float]):
    return [
        stored(ratio, commit=f"{i:010d}", started=f"2026-01-{i + 1:02d}T00:00:00Z") for i, ratio in enumerate(levels)
    ]  # fmt: skip


def test_history_finds_the_step_and_no_other() -> None:
    wobble = [1 + 0.002 * (-1) ** i for i in range(16)]
    (steady,) = history.series(many(wobble))
    assert steady.change_points == []
    (stepped,) = history.series(many([w * (1.06 if i >= 9 else 1) for i, w in enumerate(wobble)]))
    assert stepped.change_points == [9]
    ((start, step),) = stepped.changes
    assert start == 9
    assert step == pytest.approx(-0.058, abs=0.01)
    text = history.text([stepped])
    assert "slower by 5.9%" in text
    assert "commit 0000000009" in text


def test_other_work_is_no_change_of_level_and_no_regression(tmp_path, capsys) -> None:
    """A result of another batch size says nothing about a commit."""
    mixed = many([1.0] * 5 + [1.3] * 5)
    for one in mixed[5:]:
        one.workload = replace(one.workload, batch=16)
    found = history.series(mixed)
    assert [one.row.split(",")[1].strip() for one in found] == ["batch 4", "batch 16"]
    assert [one.changes for one in found] == [[], []]
    paths = [str(store.save(one, tmp_path)) for one in (mixed[0], mixed[-1])]
    assert main(["compare", *paths]) == 0
    assert "batch 4 against 16" in capsys.readouterr().out


def test_two_results_of_which_no_row_could_be_judged_are_no_pass(tmp_path) -> None:
    one = store.save(measurement(["reference"], []), tmp_path)
    assert main(["compare", str(one), str(one)]) == 2


def test_history_of_few_results_says_so_and_creep_is_told(tmp_path, capsys) -> None:
    for one in many([1.0, 1.01, 1.03]):
        store.save(one, tmp_path)
    (tmp_path / "made-up-cpu" / "gate-certificate.json").write_text("{}")  # no result
    assert main(["history", "--machine", "made-up-cpu", "--results", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "ddim: 3 results" in out
    assert "(+3.0% time)" in out
    assert "too few to look for changes" in out
    assert main(["history", "--machine", "none", "--results", str(tmp_path)]) == 3
    assert "machines with results: made-up-cpu" in capsys.readouterr().err
