"""`python -m bench gpu`, held without a GPU: its plan, its limits, and what it does where there is no device."""

import io
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from bench import environment, gpu, report, store
from bench.__main__ import main
from bench.contenders import CONTENDERS
from bench.gpu import Stage, run_stages, stages
from bench.update.figure import fused_row
from tests.bench.synthetic import everything, measurement, pairs


def stage(name: str, seconds: float, program: str) -> Stage:
    return Stage(name, seconds, lambda given: [sys.executable, "-u", "-c", program])


def test_a_machine_without_a_device_is_told_so(capsys) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a device")
    assert main(["gpu"]) == 3
    assert "has no PyTorch that sees a CUDA device" in capsys.readouterr().err


@pytest.mark.parametrize("minutes", [9, 3.5])
def test_the_plan_keeps_to_its_minutes(minutes: float, tmp_path: Path) -> None:
    plan = stages(minutes, tmp_path, 16)
    assert sum(s.seconds for s in plan) == pytest.approx(60 * minutes)
    done = measurement(["reference", "fused-drawn"], pairs("fused-drawn", {0: [0.9], 1: [0.9]}))
    newest = store.save(done, tmp_path)
    tests, table, update = (s.command(s.seconds) for s in plan)
    assert tests[tests.index("-m", 3) + 1] == "gpu"
    for command in (table, update):
        assert float(command[command.index("--budget") + 1]) < 0.5 * 60 * minutes
        assert command[command.index("--out") + 1] == str(tmp_path)
    assert update[update.index("--step-from") + 1] == str(newest)


@pytest.mark.parametrize("name", gpu.PARTS)
def test_the_commands_are_accepted(name: str, tmp_path: Path) -> None:
    """Each option is one that the program it is given to knows, in every part, within the part's minutes."""
    from bench.__main__ import _parser

    store.save(everything(), tmp_path)
    part = gpu.PARTS[name]
    plan = part.stages(9, tmp_path, part.batch, part.rows)
    assert sum(s.seconds for s in plan) == pytest.approx(540)
    for planned in plan:
        command = list(planned.command(planned.seconds))
        if command[3] == "bench":
            asked = _parser().parse_args(command[4:])
            assert asked.out == tmp_path
            if command[4] != "update":
                assert (asked.batch, asked.rows.split(",")) == (part.batch, list(part.rows))
                assert asked.model == ("cifar10-size" if name == "large" else None)


def test_every_row_that_runs_on_a_device_is_in_a_part() -> None:
    rows = {row for part in gpu.PARTS.values() for row in part.rows} | {"reference"}
    here = {name for name, contender in CONTENDERS.items() if not contender.unavailable("cuda")}
    assert rows == here - {"textbook-strided"}  # the textbook's other loop: told of, not looked at again


def test_a_part_has_its_own_folder_and_no_unknown_part_is_taken(monkeypatch, tmp_path, capsys) -> None:
    seen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(environment, "machine", lambda device: "made-up-gpu")
    monkeypatch.setattr(environment, "fingerprint", lambda device: {"gpu": "made up"})
    monkeypatch.setattr(gpu, "run_stages", lambda plan, log: seen.append([s.command(9) for s in plan]) or [])
    assert main(["gpu", "--part", "large", "--rows", "textbook", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "large" / "made-up-gpu" / "gpu.log").is_file()
    for command in seen[0]:
        assert command[command.index("--out") + 1] == str(tmp_path / "large")
        assert command[command.index("--rows") + 1] == "textbook"
        assert command[command.index("--batch") + 1] == "512"
    with pytest.raises(SystemExit):
        main(["gpu", "--part", "nonsense"])
    assert "invalid choice" in capsys.readouterr().err


def test_at_most_eight_files(tmp_path: Path) -> None:
    """Whatever a table leaves, with update.json, update.png and gpu.log beside it: no raw fact is left out."""
    path = store.save(everything(), tmp_path)
    beside = [tmp_path / name for name in ("update.json", "update.png", "gpu.log")]
    table = [path, *report.write(everything(), path.parent)]
    memory = [tmp_path / "memory" / f"memory.{ending}" for ending in ("json", "csv", "md", "png")]
    pictures = [tmp_path / f"{name}.png" for name in ("memory", "profile", "another")]
    for made in ({*table, *beside}, {*table, *beside, *pictures}, {*table, *memory, *pictures[:2], beside[2]}):
        left_out = gpu.superfluous(made)
        assert len(made) - len(left_out) <= gpu.MOST_FILES
        assert len(left_out) == max(0, len(made) - gpu.MOST_FILES)
        assert {p.suffix for p in left_out} <= {".svg", ".png", ".csv"}
        assert not {"report", "rows", "update"} & {p.stem for p in left_out}


def test_the_rows_of_the_table_exist_and_run_on_a_device() -> None:
    for part in gpu.PARTS.values():
        assert all(CONTENDERS[name].unavailable("cuda") == "" for name in part.rows)
        assert "textbook" in part.rows  # over which the aims are stated
    assert fused_row("cuda") in gpu.ROWS


def test_a_stage_that_runs_over_is_interrupted_and_the_next_one_runs(capsys) -> None:
    keeps = "import time\ntry: time.sleep(60)\nexcept KeyboardInterrupt: print('kept what there was')"
    log, began = io.StringIO(), time.monotonic()
    failed = run_stages([stage("slow", 1.0, keeps), stage("quick", 5, "print('done')")], log)
    assert failed == ["slow: interrupted after 1 s"]
    assert time.monotonic() - began < 20
    assert "kept what there was" in log.getvalue()
    assert "done" in log.getvalue()
    assert capsys.readouterr().out == log.getvalue()


def test_a_stage_that_does_not_listen_is_ended(monkeypatch) -> None:
    monkeypatch.setattr(gpu, "KILL_AFTER_S", 0.3)
    deaf = "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('deaf')\ntime.sleep(60)"
    began = time.monotonic()
    assert run_stages([stage("deaf", 0.8, deaf)], io.StringIO()) == ["deaf: interrupted after 1 s"]
    assert time.monotonic() - began < 20


def test_the_devices_tests_are_collected_without_the_packages_that_only_other_tests_need() -> None:
    """A GPU machine may have neither of these; one file that cannot be imported would fail the whole stage."""
    program = """
import sys
from importlib.machinery import PathFinder
class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        missing = name.split(".")[0] in ("hypothesis", "scipy", "diffusers", "ruptures")
        return None if missing else super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Without
import pytest
sys.exit(pytest.main("tests -m gpu --collect-only -q -p no:cacheprovider -p no:hypothesispytest".split()))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=environment.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {line.split("::")[0] for line in done.stdout.splitlines() if "::" in line} == {
        "tests/kernels/test_fused_posterior.py", "tests/sampler/test_generate.py", "tests/sampler/test_models.py",
        "tests/sampler/test_runtime.py", "tests/sampler/test_variants.py",
    }  # fmt: skip


def test_a_failure_is_named_and_does_not_stop_the_others() -> None:
    log = io.StringIO()
    assert run_stages([stage("bad", 5, "raise SystemExit(4)"), stage("good", 5, "print('ran')")], log) == [
        "bad: exit code 4"
    ]
    assert "ran" in log.getvalue()


def test_time_left_over_goes_to_the_later_stages() -> None:
    now = iter([0.0, 0.0, 0.0, 2.0, 2.0, 2.0, 3.0])
    given = []

    def note(seconds: float) -> list[str]:
        given.append(seconds)
        return [sys.executable, "-c", "pass"]

    assert run_stages([Stage("first", 10, note), Stage("second", 5, note)], io.StringIO(), lambda: next(now)) == []
    assert given == [10, 13]


def test_a_table_that_was_cut_short_leaves_the_update_without_its_step(tmp_path: Path) -> None:
    """Its bandwidth is measured all the same."""
    update = stages(9, tmp_path, 16)[2]
    assert update.command(60)[-4:] == ["--step-budget", "0", "--out", str(tmp_path)]
    store.save(everything(), tmp_path)  # holds no row of the fused update
    assert "--step-from" not in update.command(60)
