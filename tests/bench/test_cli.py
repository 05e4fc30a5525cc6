"""`python -m bench` and `pytest bench`: what they accept, what they refuse and how."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import __main__ as cli
from bench import environment, store
from bench.__main__ import main
from bench.contenders import CONTENDERS
from bench.options import OPTIONS
from tests.bench.synthetic import everything, measurement, pairs
from tests.patience import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
VALUES = {"device": "cpu", "preset": "smoke", "model": "fashion-mnist"}


def shell(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE_S,
        env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip


def refused(capsys, *arguments: str) -> str:
    """The one sentence with which a command is refused."""
    assert main(list(arguments)) == 3
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_run_refuses_an_unknown_row_with_the_nearest(capsys, tmp_path) -> None:
    done = shell("bench", "run", "--rows", "nonsense", "--out", str(tmp_path))
    assert done.returncode == 3
    assert done.stderr.startswith("error: unknown row 'nonsense'")
    assert done.stderr.count("\n") == 1
    assert "did you mean 'batched-cfg'?" in refused(capsys, "run", "--rows", "bached-cfg", "--out", str(tmp_path))


@pytest.mark.parametrize(("arguments", "said"), [
    (["run", "--steps", "0"], "steps = 0 is outside 1…1000"),
    (["run", "--batch", "0"], "batch = 0"),
    (["run", "--threads", "-1"], "threads = -1"),
    (["run", "--threads", "100000"], "threads = 100000 is more than"),
    (["run", "--budget", "0"], "budget = 0"),
    (["run", "--budget", "nan"], "budget = nan"),
    (["run", "--guidance", "nan"], "guidance = nan"),
    (["run", "--guidance", "inf"], "guidance = inf"),
    (["run", "--model", "fashion-mnis"], "did you mean 'fashion-mnist'"),
    (["run", "--device", "nonsense"], "unknown device 'nonsense'"),
    (["run", "--rows", "reference"], "nothing to be compared with"),
    (["run", "--rows", "ddim", "--out", "FILE"], "cannot make the folder"),
    (["list", "--device", "nonsense"], "unknown device 'nonsense'"),
    (["doctor", "--device", "nonsense"], "unknown device 'nonsense'"),
    (["report", "none.json"], "cannot read none.json"),
    (["report", "FILE"], "is not a whole result file"),
])  # fmt: skip
def test_a_mistake_is_one_sentence_and_exit_3(capsys, monkeypatch, tmp_path, arguments: list[str], said: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("no result")
    out = [] if arguments[0] != "run" or "--out" in arguments else ["--out", str(tmp_path)]
    assert said in refused(capsys, *arguments, *out)


def test_run_help_names_every_option_with_its_help(capsys) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["run", "--help"])
    assert exit_.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for name, how in OPTIONS.items():
        assert f"--{name}" in text
        assert " ".join(how["help"].split()).replace("%%", "%")[:30] in text
    assert "--rows" in text
    assert "--out" in text


def test_doctor_names_the_machine_and_what_it_finds(capsys) -> None:
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    gap = lines.index("")
    facts = dict(line.split(None, 1) for line in lines[:gap])
    assert {"machine", "cpu", "torch", "commit", "dirty"} <= set(facts)
    assert {line.split()[0] for line in lines[gap + 1 :]} <= {"ok", "note", "warn"}
    assert any("clock: process CPU time" in line for line in lines)


def test_doctor_sees_a_quota_heat_and_threads(monkeypatch) -> None:
    told = {"/sys/fs/cgroup/cpu.max": "150000 100000\n", "/sys/fs/cgroup/cpu.stat": "usage_usec 5\nnr_throttled 12\n"}
    heat = environment.THROTTLED.replace("*", "0")
    monkeypatch.setattr(environment, "_read", lambda path: told.get(path, "3" if path.endswith(heat) else ""))
    monkeypatch.setattr(environment.Path, "glob", lambda self, pattern: [self / heat] if "thermal" in pattern else [])
    monkeypatch.setattr(environment.os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    warned = {sentence for level, sentence in environment.advice("cpu") if level in ("warn", "note")}
    assert any("may use 1.5 CPUs, and was stopped 12 times" in sentence for sentence in warned)
    assert any("heat slowed the CPU down 3 times" in sentence for sentence in warned)
    assert any("OMP_NUM_THREADS=8 is overruled" in sentence for sentence in warned)
    assert environment.cpu_quota("max 100000\n") is None
    assert environment.cpu_quota("") is None


def test_report_rebuilds_the_outputs_from_a_stored_result(capsys, tmp_path) -> None:
    path = store.save(everything(), tmp_path / "results")
    assert main(["report", str(path)]) == 0
    written = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert {p.name for p in written} >= {"report.html", "report.md", "rows.csv", "slices.csv", "speedup.png"}
    assert {p.parent for p in written} == {path.parent, path.parent / "figures"}
    assert main(["report", str(path), "--out", str(tmp_path / "elsewhere")]) == 0
    for p in written:
        assert (tmp_path / "elsewhere" / p.relative_to(path.parent)).read_bytes() == p.read_bytes()


OK = (["reference", "ddim"], pairs("ddim", {0: [0.5], 1: [0.51]}))
MISSING = (["reference", "ddim", "strided"], OK[1])


def test_a_list_of_no_rows_is_refused(capsys) -> None:
    assert main(["run", "--rows", ""]) == 3
    assert "--rows '' names no row" in capsys.readouterr().err


@pytest.mark.parametrize(("made", "more", "code"), [
    (OK, {}, 0), (MISSING, {}, 1), (MISSING, {"interrupted": True}, 130),
])  # fmt: skip
def test_run_stores_and_exits_by_what_was_measured(capsys, monkeypatch, tmp_path, made, more, code) -> None:
    asked = []

    def measure(workload, rows, say, command, plant, watch):
        asked.append((workload, rows, command))
        return measurement(*made, **more)

    monkeypatch.setattr(cli, "measure", measure)
    out = tmp_path / "results"
    assert main(["run", "--rows", "ddim,strided", "--preset", "smoke", "--batch", "2", "--out", str(out)]) == code
    ((workload, rows, _command),) = asked
    assert (workload.preset, workload.batch, workload.steps) == ("smoke", 2, 20)
    assert rows == ["ddim", "strided"]
    captured = capsys.readouterr()
    assert store.newest(out).exists()
    assert "ddim" in captured.out
    if code == 1:
        assert "FAILED strided: not measured" in captured.err
    if code == 130:
        assert "interrupted" in captured.err


def test_pytest_bench_accepts_every_option() -> None:
    given = [f"--{name}={VALUES.get(name, 2)}" for name in OPTIONS]
    done = shell("pytest", "bench", "--collect-only", "-q", "-p", "no:cacheprovider", *given)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in CONTENDERS:
        assert f"test_step[{name}]" in done.stdout


def test_pytest_bench_refuses_a_mistake_before_it_starts() -> None:
    done = shell("pytest", "bench", "--collect-only", "-p", "no:cacheprovider", "--steps", "0")
    assert done.returncode == 4  # pytest's usage error
    assert "steps = 0 is outside 1…1000" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_the_gate_inside_pytest_is_collected_where_a_revision_is_named_and_then_alone() -> None:
    plain = shell("pytest", "bench", "--collect-only", "-q", "-p", "no:cacheprovider")
    gated = shell("pytest", "bench", "--collect-only", "-q", "-p", "no:cacheprovider", "--gate-against", "HEAD")
    assert "test_gate[" not in plain.stdout
    assert "test_step[reference]" in plain.stdout
    for name in CONTENDERS:
        assert f"test_gate[{name}]" in gated.stdout
    assert "test_step[" not in gated.stdout


@pytest.mark.slow
def test_the_gate_inside_pytest_refuses_a_revision_that_does_not_exist() -> None:
    done = shell("pytest", "bench", "--benchmark-only", "-p", "no:cacheprovider", "-k", "reference",
                 "--gate-against", "no-such-revision")  # fmt: skip
    assert done.returncode == 3
    assert "unknown revision 'no-such-revision'" in done.stdout + done.stderr
