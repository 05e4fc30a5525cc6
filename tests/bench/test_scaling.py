"""Scaling: rates, where efficiency is lost and what is foreseen, from made-up rounds and from two ranks in turn."""

import argparse
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench import scaling, store
from bench.scaling import ALONE, STRONG, WEAK, Part, Scaling
from sampler.errors import UsageError
from sampler.sets.ranks import Ranks
from tests.bench.synthetic import ENVIRONMENT
from tests.patience import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
FOUND = {**ENVIRONMENT, "usable_cpus": 2}
COMMITTED = sorted(ROOT.glob("results/*/scaling/ranks-*.json.gz"))


def made(slower=1.25, slowest=1.1, meeting=0.05, rounds=4):
    """Two ranks: 4 groups of 10 samples take 4 s alone; beside one another each is slower, one of them still more."""
    own = [4 * slower, 4 * slower * slowest]
    one = {
        ALONE: Part(4, 4.0, [4.0, 0.0]),
        WEAK: Part(8, max(own) + meeting, own),
        STRONG: Part(4, max(own) / 2 + meeting, [s / 2 for s in own]),
    }
    return Scaling(2, 10, [one] * rounds)


def test_rates_and_speedups():
    found = made(slower=1.0, slowest=1.0, meeting=0.0)
    assert found.images_per_s(ALONE).value == pytest.approx(10)
    assert found.images_per_s(WEAK).value == pytest.approx(20)
    assert found.speedup(WEAK).value == found.speedup(STRONG).value == pytest.approx(2)
    assert found.speedup(WEAK).low == pytest.approx(2)


@pytest.mark.parametrize("name", [WEAK, STRONG])
def test_the_factors_are_what_is_lost_and_multiply_to_the_efficiency(name):
    found = made(slower=1.25, slowest=1.1, meeting=0.1)
    lost = {factor: interval.value for factor, interval in found.lost(name).items()}
    assert math.prod(lost.values()) == pytest.approx(found.speedup(name).value / 2)
    assert lost["waiting for the slowest"] == pytest.approx(1.05 / 1.1)
    assert lost["a rank beside others, over alone"] == pytest.approx(1 / 1.25 / 1.05)
    assert lost["coming together"] < 1


def test_steady_ranks_wait_for_nobody_and_more_ranks_wait_longer():
    assert made(slowest=1.0).foreseen(64) == pytest.approx(1)
    unsteady = made(slowest=1.2)
    assert unsteady.foreseen(64) < unsteady.foreseen(8) < unsteady.foreseen(1) + 1e-9
    assert unsteady.foreseen(64) == pytest.approx(1.1 / 1.2, rel=1e-3)


def test_a_page_says_what_was_measured_and_what_was_not():
    asked = argparse.Namespace(threads=1, model="m", steps=5, variant="v", device="cpu")
    page = scaling.markdown(made(), asked, FOUND)
    assert "Made-up CPU, 2 usable CPUs; PyTorch 2.11.0; commit 0123456789; 4 rounds" in page
    assert "| 2 | as much a rank (weak) |" in page
    assert "Foreseen, not measured" in page
    assert "commit 0123456789-dirty" in scaling.markdown(made(), asked, {**FOUND, "dirty": True})


@pytest.mark.parametrize(("model", "home"), [("fashion-mnist", "."), ("fashion-mnist-32", "models/fashion-mnist-32")])
def test_the_page_is_kept_with_its_environment_beside_other_results_of_the_model(tmp_path, monkeypatch, model, home):
    monkeypatch.setattr(store, "RESULTS", tmp_path)
    kept = scaling.keep(made(), "page", argparse.Namespace(model=model, out=None), FOUND)
    assert {path.parent for path in kept} == {tmp_path / home / "made-up-cpu" / "scaling"}
    assert json.loads(kept[0].read_text())["environment"] == FOUND
    assert kept[1].read_text() == "page\n"


@pytest.mark.parametrize("stored", COMMITTED, ids=lambda path: path.parts[-3])
def test_what_is_committed_names_the_commit_that_was_measured(stored):
    found = store.read(stored)
    commit = found.get("environment", found)["commit"]
    page = stored.with_name(stored.name.replace(".json.gz", ".md")).read_text()
    assert f"; commit {commit}; {len(found['rounds'])} rounds of one launch" in page


def test_one_rank_alone_is_refused(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    asked = argparse.Namespace(threads=1, steps=1, network_batch=1, rounds=1)
    with pytest.raises(UsageError, match="torchrun --nproc-per-node 2"):
        scaling.run(asked)


@pytest.mark.parametrize(
    ("factory", "reason"), [("random_inside", "the second time"), ("mixes_the_batch", "the others of its batch")]
)
def test_a_model_is_looked_at_before_it_is_timed(factory, reason):
    model = f"{ROOT / 'tests' / 'sampler' / 'hostile_models.py'}:{factory}"
    asked = argparse.Namespace(model=model, device="cpu", variant="batched-cfg", steps=2, network_batch=2)
    with pytest.raises(UsageError, match=reason):
        scaling._source(asked, Ranks(1, 2, 1, lambda: None))


@pytest.mark.long
def test_two_ranks_started_by_torchrun(tmp_path):
    model = f"{ROOT / 'tests' / 'sampler' / 'hostile_models.py'}:good"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "bench", "scaling",
               "--model", model, "--steps", "2", "--rounds", "3", "--out", str(tmp_path)]  # fmt: skip
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(r"\| 2 \| shared \(strong\) \| [\d.e+]+ \[", done.stdout)
    assert len(list(tmp_path.glob("*/scaling/ranks-2.*"))) == 2
