"""`python -m bench gpu`, held without a GPU: its plan, its limits, and what it does where there is no device."""

import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bench import environment, gpu, gpu_plan, report, store
from bench.__main__ import main
from bench.contenders import CONTENDERS
from bench.gpu import run_stages
from bench.gpu_plan import PARTS, Asked, Stage
from bench.update.figure import fused_row
from bench.workload import workload
from tests.bench.synthetic import ENVIRONMENT, everything, measurement, pairs


def stage(name: str, seconds: float, program: str) -> Stage:
    return Stage(name, seconds, lambda given: [sys.executable, "-u", "-c", program])


def script(name: str, seconds: float, program: str) -> Stage:
    """Of the shell, which listens to signals within milliseconds of its start, however busy the machine."""
    return Stage(name, seconds, lambda given: ["sh", "-c", program])


def test_a_machine_without_a_device_is_told_so(capsys) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a device")
    assert main(["gpu"]) == 3
    assert "has no PyTorch that sees a CUDA device" in capsys.readouterr().err


def asked_for(name: str, out: Path, minutes: float | None = None) -> Asked:
    part = PARTS[name]
    return Asked(minutes or part.minutes, out, ENVIRONMENT["machine"], part.batch, list(part.rows))


def option(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


@pytest.mark.parametrize("name", PARTS)
def test_the_commands_are_accepted_and_keep_to_the_minutes(name: str, tmp_path: Path) -> None:
    """Each option is one that the program it is given to knows, in every part."""
    from bench.__main__ import _parser

    asked = asked_for(name, tmp_path)
    plan = PARTS[name].stages(asked)
    assert sum(s.seconds for s in plan) == pytest.approx(60 * asked.minutes)
    for planned in plan:
        command = list(planned.command(planned.seconds))
        if command[3:4] != ["bench"]:
            continue
        given = _parser().parse_args(command[4:])
        if command[4] == "run" and planned.name == "the table":
            assert given.out == tmp_path
            assert (given.batch, given.rows.split(",")) == (asked.batch, asked.rows)
            assert given.model == ("cifar10-size" if name == "large" else None)
            assert workload(given.preset).batch == asked.batch
            assert 0.2 * planned.seconds < given.budget < 0.5 * planned.seconds


def test_two_parts_fit_a_sitting_of_a_quarter_of_an_hour() -> None:
    """Two minutes of which a machine may take to start."""
    for parts in (("first", "rest"), ("formats", "large"), ("others",)):
        assert sum(PARTS[name].minutes for name in parts) <= 13


def test_what_nobody_has_measured_comes_before_what_can_be_repeated(tmp_path: Path) -> None:
    plan = PARTS["first"].stages(asked_for("first", tmp_path))
    programs = [command[4] if command[3] == "bench" else command[3]
                for command in (list(s.command(s.seconds)) for s in plan) if command]  # fmt: skip
    assert programs == ["doctor", "run", "update", "run", "pytest"]
    trial, update = plan[1].command(60), plan[2].command(60)
    assert option(trial, "--rows") in gpu_plan.ROWS
    assert not Path(option(trial, "--out")).is_relative_to(tmp_path)  # nothing of a trial comes back
    assert option(update, "--step-budget") == "0"


def test_a_row_whose_trial_fails_is_left_out_of_the_table_and_the_others_are_measured(tmp_path: Path) -> None:
    plan = PARTS["first"].stages(asked_for("first", tmp_path))
    trial, table = plan[1], plan[3]
    rows = option(table.command(100), "--rows").split(",")
    assert gpu_plan.RISKIEST in rows
    assert "is left out of the table" in trial.failed()
    assert option(table.command(100), "--rows").split(",") == [row for row in rows if row != gpu_plan.RISKIEST]
    assert trial.failed() == ""


def test_the_update_gets_its_step_from_the_table_of_this_sitting_alone(tmp_path: Path) -> None:
    """Not where the table was cut short, nor from a table that lay there before."""
    done = measurement(["reference", "fused-drawn"], pairs("fused-drawn", {0: [0.9], 1: [0.9]}))
    asked = asked_for("first", tmp_path)
    step = PARTS["first"].stages(asked)[4]
    (tmp_path / asked.machine / "update").mkdir(parents=True)
    (tmp_path / asked.machine / "update" / "update.json").write_text("{}")
    assert step.command(9) == []
    store.save(everything(), tmp_path)  # holds no row of the fused update
    assert step.command(9) == []
    newest = store.save(done, tmp_path)
    for path in newest.parent.glob("2*.json"):
        if path != newest:
            path.unlink()
    assert option(list(step.command(9)), "--step-from") == str(newest)
    os.utime(newest, (asked.began - 60, asked.began - 60))
    assert step.command(9) == []


def test_every_row_that_runs_on_a_device_is_in_a_part() -> None:
    rows = {row for part in PARTS.values() for row in part.rows} | {"reference"}
    here = {name for name, contender in CONTENDERS.items() if not contender.unavailable("cuda")}
    assert rows == here - {"textbook-strided"}  # the textbook's other loop: told of, not looked at again


@pytest.fixture
def device(monkeypatch) -> list[list[Stage]]:
    """A made-up one, on which no stage is run; the plans that it was given."""
    seen: list[list[Stage]] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(environment, "machine", lambda device: "made-up-gpu")
    monkeypatch.setattr(gpu, "run_stages", lambda plan, log, after: seen.append(plan) or [])
    return seen


def test_a_folder_is_used_as_it_is_given_so_that_nothing_lies_deeper_than_two_folders(device, tmp_path, capsys) -> None:
    """What is brought back from a borrowed machine lies no deeper; without one, each part has a folder of its own."""
    for name in PARTS:
        assert main(["gpu", "--part", name, "--rows", "textbook", "--out", str(tmp_path)]) == 0
        assert (tmp_path / "made-up-gpu" / "gpu.log").is_file()
        table = next(s for s in device[-1] if s.name == "the table").command(9)
        assert (option(table, "--out"), option(table, "--rows")) == (str(tmp_path), "textbook")
    with pytest.raises(SystemExit):
        main(["gpu", "--part", "nonsense"])
    assert "invalid choice" in capsys.readouterr().err


def test_parts_are_kept_apart(device, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(store, "RESULTS", tmp_path)
    for name in PARTS:
        assert gpu.main(SimpleNamespace(part=name, minutes=None, batch=None, rows=None, out=None)) == 0
        home = tmp_path if name == "first" else tmp_path / name
        assert (home / "made-up-gpu" / "gpu.log").is_file()


def test_what_is_too_much_is_left_out_behind_each_stage(device, tmp_path, monkeypatch) -> None:
    """A sitting may end at any moment, and what then lies there is what comes back."""

    def run(plan, log, after):
        folder = tmp_path / "made-up-gpu"
        kept = {"gpu.log", "a.json", "report.html", "rows.csv", "slices.csv", "update.json", "update.png"}
        (folder / "figures").mkdir()
        for name in (kept - {"gpu.log"}) | {"figures/update.png", "figures/speedup.png"}:
            (folder / name).write_text("")
        after()
        found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        assert len(found) == gpu.MOST_FILES
        assert kept < found  # figures go first, whatever they are called
        return ["a stage: exit code 1"]

    monkeypatch.setattr(gpu, "run_stages", run)
    assert main(["gpu", "--out", str(tmp_path)]) == 1
    assert "FAILED a stage: exit code 1" in (tmp_path / "made-up-gpu" / "gpu.log").read_text()


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
        assert {p.suffix for p in left_out} <= {".png", ".csv"}
        assert not {"report", "rows", "update"} & {p.stem for p in left_out if p.parent.name != gpu.FIGURES}


def test_the_rows_of_the_table_exist_and_run_on_a_device() -> None:
    for part in PARTS.values():
        assert all(CONTENDERS[name].unavailable("cuda") == "" for name in part.rows)
        assert "textbook" in part.rows  # over which the aims are stated
    assert fused_row("cuda") in gpu_plan.ROWS


def test_a_stage_that_runs_over_is_interrupted_and_the_next_one_runs(capsys) -> None:
    keeps = "trap 'echo kept what there was; exit' INT; while :; do sleep 0.05; done"
    log = io.StringIO()
    failed = run_stages([script("slow", 1.0, keeps), stage("quick", 60, "print('done')")], log)
    assert failed == ["slow: interrupted after 1 s"]
    assert "kept what there was" in log.getvalue()
    assert "done" in log.getvalue()
    assert capsys.readouterr().out == log.getvalue()


def test_a_stage_that_does_not_listen_is_ended(monkeypatch) -> None:
    monkeypatch.setattr(gpu, "KILL_AFTER_S", 0.3)
    log = io.StringIO()
    deaf = "trap '' INT; echo deaf; while :; do sleep 0.05; done"
    assert run_stages([script("deaf", 0.8, deaf)], log) == ["deaf: interrupted after 1 s"]
    assert "deaf\n" in log.getvalue()


def test_the_devices_tests_are_collected_without_the_packages_that_only_other_tests_need() -> None:
    """A GPU machine may have neither of these; one file that cannot be imported would fail the whole stage."""
    program = """
import sys
from importlib.machinery import PathFinder
class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        missing = name.split(".")[0] in ("hypothesis", "scipy", "diffusers", "ruptures", "yaml")
        return None if missing else super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Without
import pytest
sys.exit(pytest.main([*sys.argv[1:], *"-m gpu --collect-only -q -p no:cacheprovider -p no:hypothesispytest".split()]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, *gpu_plan.TESTS], cwd=environment.ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert {line.split("::")[0] for line in done.stdout.splitlines() if "::" in line} == {
        "tests/kernels/test_fused_posterior.py", "tests/sampler/test_generate.py", "tests/sampler/test_models.py",
        "tests/sampler/test_runtime.py", "tests/sampler/test_variants.py",
    }  # fmt: skip
    marked = {path for path in (environment.ROOT / "tests").rglob("*.py") if "mark." + "gpu" in path.read_text()}
    assert {path.relative_to(environment.ROOT).parent.as_posix() for path in marked} == set(gpu_plan.TESTS)


def test_a_failure_is_named_and_does_not_stop_the_others() -> None:
    log = io.StringIO()
    assert run_stages([stage("bad", 60, "raise SystemExit(4)"), stage("good", 60, "print('ran')")], log) == [
        "bad: exit code 4"
    ]
    assert "ran" in log.getvalue()


def test_time_left_over_goes_to_the_later_stages() -> None:
    now = iter([0.0, 0.0, 0.0, 2.0, 2.0, 2.0, 3.0, 3.0, 3.0])
    given = []

    def note(seconds: float) -> list[str]:
        given.append(seconds)
        return [sys.executable, "-c", "pass"]

    assert run_stages([Stage("first", 10, note), Stage("second", 5, note)], io.StringIO(), lambda: next(now)) == []
    assert given == [10, 13]


def test_a_fault_in_making_a_command_or_none_to_make_costs_no_other_stage_its_turn() -> None:
    def broken(seconds: float) -> list[str]:
        raise ValueError("no such file")

    told: list[str] = []
    log = io.StringIO()
    plan = [
        Stage("broken", 5, broken, lambda: "something follows"), Stage("nothing", 5, lambda seconds: []),
        stage("good", 60, "print('ran')"),
    ]  # fmt: skip
    assert run_stages(plan, log, after=lambda: told.append("after")) == ["broken: ValueError: no such file"]
    assert told == ["after"] * 3
    text = log.getvalue()
    assert "something follows" in text
    assert "ran\n" in text
    assert [line.split()[0] for line in text.partition("what came of it ===\n")[2].splitlines()] == [
        "broken", "nothing", "good",
    ]  # fmt: skip


def test_a_sitting_that_is_interrupted_ends_what_it_began(monkeypatch) -> None:
    """The program has a process group of its own, which no Ctrl-C reaches."""
    begun: list[subprocess.Popen] = []
    real = subprocess.Popen

    class Interrupted(real):  # type: ignore[misc,valid-type]
        def wait(self, timeout=None):
            if not begun:
                begun.append(self)
                raise KeyboardInterrupt
            return super().wait(timeout)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_stages([stage("slow", 60, "import time; time.sleep(60)")], io.StringIO())
    assert begun[0].poll() is not None
