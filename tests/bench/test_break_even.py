"""From how many images on a row pays: the arithmetic, and the command by what its processes would say."""

import json
from pathlib import Path

import pytest

from bench import break_even
from bench.__main__ import main
from bench.break_even import Start, batches
from bench.workload import workload


def test_totals_meet_at_the_printed_count() -> None:
    row, reference = Start(ready_s=21.0, batch_s=2.0), Start(ready_s=1.0, batch_s=6.0)
    count = batches(row, reference)
    assert count == 5
    assert row.ready_s + count * row.batch_s == reference.ready_s + count * reference.batch_s
    assert batches(Start(0.5, 2.0), reference) == 0
    assert batches(Start(21.0, 6.0), reference) is None
    assert batches(Start(21.0, 7.0), reference) is None


def processes(monkeypatch, row_s: float, step_s: float = 0.002) -> list[tuple]:
    """What the command's processes would say; returns what they are asked."""
    asked: list[tuple] = []

    def events(workload, row, look, cold, patience, **task):
        asked.append((row, look, cold, task))
        if look == "draw":
            return {"seconds": row_s if row == "compiled" else 30.0}
        ready_s, step = (21.5, step_s) if row == "compiled" else (1.0, 0.006)
        return {"ready_s": ready_s, "step_s": step, "steps": 1000}

    monkeypatch.setattr(break_even, "_events", events)
    return asked


@pytest.mark.parametrize(("row_s", "code"), [(30.0, 0), (36.0, 1), (24.0, 1), (34.0, 0)])
def test_the_command_draws_as_many_as_it_prints_and_compares(monkeypatch, capsys, tmp_path, row_s, code) -> None:
    asked = processes(monkeypatch, row_s)
    assert main(["break-even", "compiled", "--out", str(tmp_path)]) == code
    out = capsys.readouterr().out
    assert "compiled pays from 21 images on: ready after 21.5 s with empty caches" in out  # 20.5, rounded up
    assert "21 images drawn with each" in out
    assert asked[-1] == ("compiled", "draw", True, {"batches": 21 / 4})
    assert {cold for _, _, cold, _ in asked} == {True}
    (path,) = tmp_path.glob("*/break-even/compiled.json")
    stored = json.loads(path.read_text())
    assert (stored["images"], stored["row_s"], stored["cold"]) == (21, row_s, True)
    assert stored["off"] == pytest.approx(row_s / 30 - 1)


def test_a_row_that_never_pays_says_so(monkeypatch, capsys, tmp_path) -> None:
    asked = processes(monkeypatch, 1.0, step_s=0.01)
    assert main(["break-even", "compiled", "--warm", "--out", str(tmp_path)]) == 0
    assert "never pays" in capsys.readouterr().out
    assert {cold for _, _, cold, _ in asked} == {False}


def test_each_process_starts_with_empty_caches_of_its_own(monkeypatch) -> None:
    seen = []

    class Nursery:
        def __init__(self, task, number, module, environ, patience):
            seen.append({name: Path(folder) for name, folder in environ.items()})
            assert all(folder.parent.is_dir() and not folder.exists() for folder in seen[-1].values())

        def obey(self, order):
            yield {"event": "doing"}
            yield {"event": "drawn", "seconds": 2.0}

        def end(self):
            pass

    monkeypatch.setattr(break_even, "Worker", Nursery)
    for cold in (True, True, False):
        assert break_even.drawn(workload("quick"), "compiled", 1.0, cold) == 2.0
    assert set(seen[0]) == {"TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "DDPM_BENCH_CACHE"}
    assert not set(seen[0].values()) & set(seen[1].values())
    assert seen[2] == {}
    assert not any(folder.parent.exists() for folder in seen[0].values())  # and leaves none behind


@pytest.mark.slow
def test_a_real_process_says_when_it_is_ready_and_draws() -> None:
    asked = workload("smoke", steps=20, batch=1)
    ready = break_even.start(asked, "native-update", cold=True)
    assert 0 < ready.batch_s < ready.ready_s  # a C++ compiler ran
    assert break_even.drawn(asked, "reference", 1.5, cold=False) > 0


@pytest.mark.parametrize(("row", "said"), [("nonsense", "unknown row"), ("tf32", "cannot run here: needs CUDA")])
def test_the_command_refuses(capsys, row: str, said: str) -> None:
    assert main(["break-even", row]) == 3
    assert said in capsys.readouterr().err
