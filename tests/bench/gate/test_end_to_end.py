"""The whole gate on real commits: of a repository that knows nothing of this harness, and of this house itself."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sampler import start
from tests.bench.gate.test_trees import git, worktrees
from tests.patience import PATIENCE_S

ROOT = Path(__file__).resolve().parents[3]
MODEL = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(50))

    def forward(self, x):
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x


def make():
    return Net()
"""
RENAMED = MODEL.replace("layer in self.layers", "conv in self.layers").replace("layer(x)", "conv(x)")
SLOWER = MODEL.replace(
    "        return x\n", "        for layer in self.layers[:3]:\n            torch.tanh(layer(x))\n        return x\n"
)
OTHER = MODEL.replace("torch.tanh(layer(x))", "torch.tanh(layer(x)) * 1.01")
GONE = MODEL.replace("def make", "def made")


@pytest.fixture
def repository(tmp_path) -> Path:
    folder = tmp_path / "theirs"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / ".gitignore").write_text("__pycache__/\n")
    git(folder, "add", ".gitignore")
    commit(folder, MODEL)
    return folder


def commit(folder: Path, text: str) -> None:
    (folder / "net.py").write_text(text)
    git(folder, "add", "net.py")
    git(folder, "commit", "-qm", "A model")


def environ() -> dict[str, str]:
    return {**{k: v for k, v in os.environ.items() if not k.startswith("GITHUB_")}, "PYTHONPATH": str(ROOT)}


def gate(folder: Path, *more: str, module: str = "net", against: str = "HEAD~1") -> subprocess.Popen:
    with start.heard(signal.SIGHUP, signal.SIGINT):  # under nohup too
        return subprocess.Popen(
            [sys.executable, "-m", "bench", "gate", "--against", against, "--model", f"{module}:make",
             "--shape", "8,32,32", "--json", str(folder.parent / "gate.json"), *more],
            cwd=folder, env=environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip


def judged(folder: Path, *more: str) -> tuple[int, dict]:
    process = gate(folder, *more)
    out, err = process.communicate(timeout=PATIENCE_S)
    found = folder.parent / "gate.json"
    assert found.exists(), out + err
    return process.returncode, json.loads(found.read_text())


def at_most_one_error(expected_code: int, judge) -> tuple:
    """judge()'s (exit code, …). By design one verdict in a hundred is wrong: two in a row are a fault."""
    found = judge()
    return found if found[0] == expected_code else judge()


@pytest.mark.slow
def test_a_third_partys_slower_model_fails_and_a_renamed_variable_passes(repository) -> None:
    commit(repository, RENAMED)
    code, found = at_most_one_error(0, lambda: judged(repository))
    assert (code, found["rows"][0]["verdict"]) == (0, "PASS"), found["rows"][0]["note"]
    commit(repository, MODEL)
    commit(repository, SLOWER)
    code, found = at_most_one_error(1, lambda: judged(repository))
    assert (code, found["rows"][0]["verdict"]) == (1, "FAIL"), found["headline"]
    assert found["rows"][0]["note"].startswith("slower by")
    assert worktrees(repository) == 1
    assert git(repository, "status", "--porcelain") == ""


@pytest.mark.slow
def test_a_third_partys_other_outputs_and_a_missing_factory(repository) -> None:
    (repository / "net.py").write_text(OTHER)  # not committed: this side is the tree as it stands
    code, found = judged(repository, "--workers", "1", "--budget", "3", "--against", "HEAD")
    assert code == 1
    assert "other pictures" in found["rows"][0]["note"]
    assert "uncommitted changes" in found["this"]
    (repository / "net.py").write_text(GONE)
    process = gate(repository, "--workers", "1", against="HEAD")
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 3
    assert "the gate cannot start: this tree: AttributeError" in err
    assert "has no attribute 'make'" in err
    assert "Traceback" not in err


@pytest.fixture
def clone(tmp_path) -> Path:
    """This house as it stands here, committed or not, as the last commit of a clone."""
    folder = tmp_path / "clone"
    git(tmp_path, "clone", "-q", "--no-hardlinks", str(ROOT), str(folder))
    for package in ("bench", "sampler", "kernels"):
        shutil.copytree(ROOT / package, folder / package, dirs_exist_ok=True,
                        ignore=shutil.ignore_patterns("__pycache__"))  # fmt: skip
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "--allow-empty", "-m", "As it stands")
    return folder


@pytest.mark.slow
def test_the_same_gate_inside_pytest(clone, tmp_path) -> None:
    git(clone, "commit", "-q", "--allow-empty", "-m", "Nothing")
    out = tmp_path / "benchmarks.json"

    def judge_clone() -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "bench", "--benchmark-only", "-k", "ddim", "--gate-against", "HEAD~1",
             "--budget", "60", f"--benchmark-json={out}", "-p", "no:cacheprovider"],
            cwd=clone, env={**environ(), "PYTHONPATH": str(clone)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    code, said = at_most_one_error(0, judge_clone)
    assert code == 0, said
    assert "1 PASS" in said
    assert "1 passed" in said
    (judged_row,) = json.loads(out.read_text())["benchmarks"]
    assert judged_row["extra_info"]["verdict"] == "PASS"


@pytest.mark.slow
def test_this_house_a_docstring_passes_and_a_slower_seam_fails_only_the_rows_that_use_it(clone, tmp_path) -> None:
    guidance = clone / "sampler" / "guidance.py"
    text = guidance.read_text()

    def judge_clone(budget: str) -> tuple[int, dict[str, str], dict]:
        out = tmp_path / "gate.json"
        done = subprocess.run(
            [sys.executable, "-m", "bench", "gate", "--against", "HEAD~1", "--rows", "reference,batched-cfg,ddim",
             "--budget", budget, "--json", str(out)],
            cwd=clone, env={**environ(), "PYTHONPATH": str(clone)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert out.exists(), done.stdout + done.stderr
        found = json.loads(out.read_text())
        return done.returncode, {row["row"]: row["verdict"] for row in found["rows"]}, found

    guidance.write_text(text.replace('"""', '"""(A word more.) ', 1))
    git(clone, "commit", "-qam", "Say a word more")
    code, verdicts, found = at_most_one_error(0, lambda: judge_clone("90"))
    assert (code, set(verdicts.values())) == (0, {"PASS"}), found["headline"]
    guidance.write_text(slower_batched(text))
    git(clone, "commit", "-qam", "Call the batched seam with more work")
    code, verdicts, found = at_most_one_error(1, lambda: judge_clone("90"))
    assert verdicts == {"reference": "PASS", "batched-cfg": "FAIL", "ddim": "PASS"}, found["headline"]
    assert code == 1


SEAM = "        conditional, unconditional = network(twice,"
EXTRA = """        more = twice.float().mean() * torch.ones(1, 32, 14, 14)
        for _ in range(8):  # some six per cent of the shipped network's batched call, for nothing
            more = torch.nn.functional.conv2d(more, torch.ones(32, 32, 3, 3), padding=1).clamp(-1, 1)
        twice = twice + (more.sum() * 1e-30).to(twice.dtype)  # else a compiler would see that it is for nothing
"""


def slower_batched(text: str) -> str:
    """guidance.py with more work in the batched seam."""
    assert text.count(SEAM) == 1, "the batched seam has another shape now: move the planted work"
    return text.replace(SEAM, EXTRA + SEAM)
