"""From how many images on a row pays: the arithmetic, and the command by what its processes would say."""

import pytest

from bench import break_even
from bench.__main__ import main
from bench.break_even import Start, batches


def test_totals_meet_at_the_printed_count() -> None:
    row, reference = Start(ready_s=21.0, batch_s=2.0), Start(ready_s=1.0, batch_s=6.0)
    count = batches(row, reference)
    assert count == 5
    assert row.ready_s + count * row.batch_s == reference.ready_s + count * reference.batch_s
    assert batches(Start(0.5, 2.0), reference) == 0
    assert batches(Start(21.0, 6.0), reference) is None
    assert batches(Start(21.0, 7.0), reference) is None


@pytest.mark.parametrize(("row_s", "code"), [(30.0, 0), (36.0, 1), (24.0, 1), (34.0, 0)])
def test_the_command_draws_as_many_and_compares(monkeypatch, capsys, row_s: float, code: int) -> None:
    asked: list[tuple] = []

    def events(workload, row, looks, **task):
        asked.append((row, looks, task))
        if "draw" in looks:
            return {"drawn": {"seconds": row_s if row == "compiled" else 30.0}}
        ready, step = (21.0, 0.002) if row == "compiled" else (1.0, 0.006)
        return {"first_call": {"load_s": 0.5, "seconds": ready - 0.5}, "pace": {"step_s": step, "steps": 1000}}

    monkeypatch.setattr(break_even, "_events", events)
    assert main(["break-even", "compiled"]) == code
    assert asked[-1] == ("compiled", ("draw",), {"batches": 5})
    out = capsys.readouterr().out
    assert "compiled pays from 20 images on" in out
    assert "the steps of 20.0 images" in out


def test_a_row_that_never_pays_says_so(monkeypatch, capsys) -> None:
    monkeypatch.setattr(break_even, "_events", lambda *a, **k: {
        "first_call": {"load_s": 0.5, "seconds": 1.0}, "pace": {"step_s": 0.01, "steps": 1000}
    })  # fmt: skip
    assert main(["break-even", "compiled"]) == 0
    assert "never pays" in capsys.readouterr().out


@pytest.mark.parametrize(("row", "said"), [("nonsense", "unknown row"), ("tf32", "cannot run here: needs CUDA")])
def test_the_command_refuses(capsys, row: str, said: str) -> None:
    assert main(["break-even", row]) == 3
    assert said in capsys.readouterr().err
