"""The certificate: sums, bounds, what it covers, and a calibration that goes on where it was stopped."""

import json
from pathlib import Path

import pytest

from bench.gate import calibrate, certificate, certificate_report, fixed_limit
from bench.gate.calibrate import KINDS, PLAN
from bench.gate.proportion import lower_bound, upper_bound
from bench.sequential_test import FAIL, PASS
from sampler.errors import UsageError
from tests.bench.committed import assert_same_tables
from tests.bench.gate.fakes import BASE, CALL_S, THIS, FakeMachine, FakeWorker

HEADER = {"schema": 1, "workers": 4, "fresh_workers": 3, "batch": 3, "tolerated": 0.02, "must_detect": 0.05,
          "missed": 0.005, "threads": 1, "unit": 0.0025, "call_s": 0.012, "commit": "0123456789",
          "environment": {"machine": "made-up"}}  # fmt: skip
DESIGN = {name: HEADER[name] for name in certificate.COVERS}


def decision(kind: str, verdict: str, condition: str = "quiet", seconds: float = 0.5, d: float = 0.0) -> dict:
    return {"condition": condition, "kind": kind, "verdict": verdict, "provisional": verdict, "first_s": seconds,
            "seconds": 2 * seconds, "pairs": 20, "fresh_pairs": 0, "d": [d] * 3, "d_wall": [d] * 3}  # fmt: skip


def launch(*decisions: dict, **more) -> dict:
    return {
        "conditions": ["quiet"],
        "at": "2026-01-02T03:04:05Z",
        "load_1min": 0.5,
        "decisions": list(decisions),
        **more,
    }


LAUNCHES = [
    launch(*[decision("same", PASS)] * 9, decision("same", FAIL), *[decision("plus5", FAIL, d=0.05)] * 4,
           fixed={"same": [1, 4], "plus5": [1, 2], "plus10": [2, 2]}),
    launch(*[decision("same", PASS)] * 10, *[decision("plus5", FAIL, d=0.05)] * 3, decision("plus5", "UNSURE", d=0.05)),
]  # fmt: skip


@pytest.fixture
def state(tmp_path):
    path = tmp_path / "made-up" / "gate-calibration.jsonl"
    path.parent.mkdir()
    path.write_text("\n".join(json.dumps(line) for line in [HEADER, *LAUNCHES]) + "\n")
    return path


def test_counts_and_bounds_by_decision_and_by_launch() -> None:
    found = certificate.summarise(LAUNCHES)
    same, five = found["quiet/same"], found["quiet/plus5"]
    assert (same["decisions"], same["FAIL"], same["PASS"], same["launches"]) == (20, 1, 19, 2)
    assert same["fail_at_most"] == upper_bound(1, 20)
    assert same["launch_fail_at_most"] == upper_bound(1, 2)
    assert (five["FAIL"], five["UNSURE"], five["launches_all_FAIL"]) == (7, 1, 1)
    assert five["fail_at_least"] == lower_bound(7, 8)
    assert five["measured_slowdown"] == pytest.approx(0.0513, abs=1e-3)
    assert (five["median_first_s"], five["median_s"]) == (0.5, 1.0)


def test_what_is_written_comes_from_the_state_alone(state) -> None:
    paths = certificate.write(state)
    assert [p.name for p in paths] == ["gate-certificate.json", "gate-certificate.md", "gate-power.png"]
    text = paths[1].read_text()
    assert "| quiet | nothing | +0.0% | 20 (2) | 1 | 19 | 0 | 5.0% [≤ " in text
    assert "| `--benchmark-compare-fail=mean:5%` | 1 of 4 (25.0%) | 1 of 2 (50.0%) | 2 of 2 (100.0%) |" in text
    assert "| `python -m bench gate` | 1 of 10 (10.0%) | 4 of 4 (100.0%) | – |" in text
    assert paths[2].read_bytes().startswith(b"\x89PNG")


def test_every_kind_has_a_title_and_every_condition_a_plan() -> None:
    assert set(certificate_report.PLANTED) == set(KINDS)
    assert set(certificate_report.CONDITIONS) == set(PLAN)
    assert all(kind in KINDS for plan in PLAN.values() for kind in plan)
    thirty = {kind: calibrate.LAUNCHES * count for kind, count in PLAN["quiet"].items()}
    assert (thirty["same"], thirty["plus5"], thirty["plus10"]) >= (500, 200, 100)


def test_a_run_says_which_certificate_covers_it_or_that_none_does(state) -> None:
    results = state.parents[1]
    assert "no certificate covers this gate on made-up" in certificate.sentence("made-up", DESIGN, results)
    certificate.write(state)
    said = certificate.sentence("made-up", DESIGN, results)
    assert "certificate of 2026-01-02 (0123456789) for made-up; quiet: 1 false alarms in 20 decisions" in said
    other = certificate.sentence("made-up", {**DESIGN, "workers": 2}, results)
    assert other == "no certificate covers this run: that of made-up was made with workers = 4, here it is 2"
    older = json.loads((results / "made-up" / certificate.NAME).read_text())
    del older["design"]["missed"]
    (results / "made-up" / certificate.NAME).write_text(json.dumps(older))
    assert "made with missed = not recorded, here it is 0.005" in certificate.sentence("made-up", DESIGN, results)
    (results / "made-up" / certificate.NAME).write_text("{")
    with pytest.raises(UsageError, match="is no certificate"):
        certificate.sentence("made-up", DESIGN, results)


def test_a_state_without_a_finished_launch_makes_no_certificate(tmp_path) -> None:
    path = tmp_path / "state.jsonl"
    path.write_text(json.dumps(HEADER) + "\n")
    with pytest.raises(UsageError, match="no finished launch"):
        certificate.write(path)
    with pytest.raises(UsageError, match="holds no calibration"):
        certificate.write(tmp_path / "none.jsonl")


def test_a_calibration_goes_on_where_it_was_stopped_and_refuses_another_design(monkeypatch, state) -> None:
    made = []

    def one(header, conditions, with_fixed, rng, over, say):
        made.append((list(conditions), with_fixed))
        return launch(decision("same", PASS), conditions=list(conditions))

    monkeypatch.setattr(calibrate, "_launch", one)
    calibrate.calibrate(state, ["quiet", "one burner"], launches=3, minutes=5, beside=1)
    assert made == [(["quiet", "one burner"], False), (["one burner"], False), (["one burner"], False)]
    assert len(state.read_text().splitlines()) == 1 + 5
    state.write_text(json.dumps({**HEADER, "workers": 9}) + "\n")
    with pytest.raises(UsageError, match="begun with workers = 9, now it is 4"):
        calibrate.calibrate(state, ["quiet"], launches=1, minutes=1)


@pytest.mark.parametrize(("kind", "cost", "verdict"), [
    ("same", 1.0, PASS), ("plus5", 1.05, FAIL), ("plus10", 1.10, FAIL), ("sharp-plus3", 1.03, FAIL),
])  # fmt: skip
def test_a_decision_is_taken_as_the_gate_takes_it(kind: str, cost: float, verdict: str) -> None:
    import random

    machine = FakeMachine()
    rows = {"same": CALL_S, kind: CALL_S * cost}
    sides = [[FakeWorker(side, machine, rows) for _ in range(2)] for side in (BASE, THIS)]
    found = calibrate.decide(kind, sides, sides, [], random.Random(1), CALL_S)
    assert found["verdict"] == verdict
    assert bool(found["fresh_pairs"]) == (verdict == FAIL)
    assert len(found["d"]) == found["pairs"] + found["fresh_pairs"]


def test_what_is_planted_costs_what_it_says() -> None:
    planted = calibrate.planted(HEADER)
    assert planted["plus5"] == {"units": 20, "sleep_s": 0.0}
    assert planted["same"] == {"units": 0, "sleep_s": 0.0}
    assert planted["sleep10"] == {"units": 0, "sleep_s": pytest.approx(0.0012)}


REPORT = """
ERROR: Performance has regressed:
\ttest_step[same-0] (0001_base) - Field 'mean' has failed PercentageRegressionCheck: 7.100000000 > 5.000000000
\ttest_step[plus10-1] (0001_base) - Field 'mean' has failed PercentageRegressionCheck: 12.000000000 > 5.000000000
8 passed in 9.00s
"""


def test_what_pytest_benchmark_reports_is_read(monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(fixed_limit, "_pytest", lambda storage, inject, batch, *options: asked.append(inject) or REPORT)
    found = fixed_limit.judge(calibrate.planted(HEADER), 3)
    assert found == {"same": [1, 4], "plus5": [0, 2], "plus10": [1, 2]}
    assert all(row["units"] == 0 for row in asked[0].values())
    assert asked[1]["plus10"]["units"] == 40


def test_the_readme_quotes_the_certificate_that_is_committed() -> None:
    root = Path(__file__).resolve().parents[3]
    said = (root / "README.md").read_text()
    said = said[said.index("### How often is the gate wrong?") : said.index("## Read it in four files")]
    rows = [line for line in said.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    (shown,) = (root / "results").glob(f"*/{certificate.NAME}")
    table = certificate_report.table(json.loads(shown.read_text()))
    assert len(rows) > 8
    assert set(rows) <= set(table.splitlines())
    assert_same_tables(shown.with_suffix(".md").read_text(), table)
