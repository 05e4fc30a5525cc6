"""A user's commands change no tracked file and leave no new one, and every JSON file they write is strict."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench import store
from bench.environment import ROOT
from bench.gate import certificate
from bench.quality import judged
from bench.report.command import COMPARED
from bench.tune.command import SCRATCH
from bench.workload import Workload
from tests.bench.test_strict_files import strictly

needs_git = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no git here to say what is tracked")
ROWS = "reference,native-update"
COMMANDS = [
    ["bench", "run", "--preset", "smoke", "--budget", "3", "--rows", ROWS],
    ["bench", "run", "--model", "my_model.py:make", "--preset", "quick", "--budget", "3", "--rows", ROWS],
    ["bench", "report"],
    ["bench", "doctor"],
    ["bench", "history", "--machine", "amd-epyc-avx512-2cpu"],
    ["bench", "memory", "--model", "my_model.py:make"],
    ["bench", "walk", "--model", "my_model.py:make"],
    ["bench", "divergence", "--model", "my_model.py:make", "--rows", "reference,native-update", "--steps", "5"],
    ["bench", "update", "--budget", "2", "--step-budget", "0", "--largest", "0.2"],
    ["sampler", "grid", "--labels", "0-1", "--sampler", "ddim", "--steps", "2", "--out", "grid.png"],
    ["sampler", "generate", "--count", "2", "--out", "set", "--sampler", "ddim", "--steps", "2"],
    ["pytest", "bench", "--benchmark-only", "--preset", "smoke", "--budget", "3", "-k", "reference or native-update",
     "--benchmark-json", "set/o.json"],
]  # fmt: skip
MODEL = """
from torch import nn
from sampler import Model, linear
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(1, 1, 3, padding=1)
    def forward(self, x, t):
        return self.a(x) * (1 + t / 20).to(x.dtype)[:, None, None, None]
def make():
    return Model("m", Net(), shape=(1, 8, 8), schedule=linear(20))
"""


@needs_git
def test_every_place_that_a_command_writes_to_is_ignored() -> None:
    places = [store.home(Workload()), store.home(Workload(preset="smoke")), store.of_model("fashion-mnist-32"),
              store.PAGES, certificate.path("m"), judged.STORE, COMPARED, SCRATCH]  # fmt: skip
    for place in places:
        done = subprocess.run(["git", "-C", str(ROOT), "check-ignore", "-q", str(place / "x")], check=False)
        assert done.returncode == 0, place
    kept = store.kept(store.RESULTS / "m" / "2.json.gz")
    assert subprocess.run(["git", "-C", str(ROOT), "check-ignore", "-q", str(kept)], check=False).returncode == 1


@needs_git
@pytest.mark.long
def test_git_status_is_clean_after_every_command(tmp_path: Path) -> None:
    def git(*words: str, where: Path = tmp_path) -> str:
        return subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", "-C", str(where), *words],
                              check=True, capture_output=True, text=True).stdout  # fmt: skip

    for name in git("ls-files", "-co", "--exclude-standard", where=ROOT).splitlines():
        if (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, tmp_path / name)
    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "as it stands")
    (tmp_path / "my_model.py").write_text(MODEL)
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for module, *words in COMMANDS:
        done = subprocess.run([sys.executable, "-m", module, *words], cwd=tmp_path, env=environ, capture_output=True,
                              text=True, check=False)  # fmt: skip
        assert done.returncode == 0, (module, words, done.stdout[-500:], done.stderr[-1500:])
        assert git("status", "--porcelain") == "", (module, words)
    written = [p for p in tmp_path.rglob("*") if {".json", ".jsonl"} & {*p.suffixes} and ".git" not in p.parts]
    kinds = {p.relative_to(tmp_path).parts[:2] for p in written}
    assert {("results", "local"), ("set", "manifest.json"), ("set", "o.json")} <= kinds
    assert all(strictly(path) for path in written)
    assert (tmp_path / "results" / "pages" / "amd-epyc-avx512-2cpu" / "report.html").is_file()
    (folder,) = (tmp_path / "results" / "local" / "models").iterdir()
    assert folder.name.startswith("my_model.py-make-")
    done = subprocess.run([sys.executable, "-m", "bench", "keep", *map(str, folder.glob("*/2*.json"))], cwd=tmp_path,
                          env=environ, capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    changed = git("status", "--porcelain", "-uall").splitlines()
    assert 0 < len(changed) <= 8
    assert all(line.startswith("?? results/models/my_model.py-make-") for line in changed)
