"""The usual gate, to compare ours with: `pytest --benchmark-compare-fail=mean:5%` on the same planted slowdowns.

Used as its users use it: one process measures the base, another the change, with the plugin's own defaults.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench import environment
from bench.gate.injected import INJECT
from sampler import strict_json

ROWS = Path(__file__).with_name("fixed_limit_rows.py")
LIMIT = "mean:5%"
CASES = {"same": 4, "plus5": 2, "plus10": 2}  # benchmarks of each kind in a run
BATCH = "DDPM_BENCH_FIXED_LIMIT_BATCH"
# as pytest-benchmark reports: test_step[plus5-1] (0001_base) - Field 'mean' has failed PercentageRegressionCheck: …
REGRESSED = re.compile(r"test_step\[(\w+)-\d+\].*has failed PercentageRegressionCheck")


def judge(planted: dict[str, dict[str, float]], batch: int) -> dict[str, list[int]]:
    """{kind: [regressions reported, benchmarks]} of one base run and one run with the slowdowns planted."""
    with TemporaryDirectory() as storage:
        nothing = {kind: {"units": 0, "sleep_s": 0.0} for kind in CASES}
        _pytest(storage, nothing, batch, "--benchmark-save=base")
        text = _pytest(storage, {k: planted[k] for k in CASES}, batch, "--benchmark-compare",
                       f"--benchmark-compare-fail={LIMIT}")  # fmt: skip
    regressed = REGRESSED.findall(text)
    return {kind: [regressed.count(kind), count] for kind, count in CASES.items()}


def _pytest(storage: str, inject: dict[str, Any], batch: int, *options: str) -> str:
    environ = {**os.environ, INJECT: strict_json.dumps(inject), BATCH: str(batch), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(ROWS), "--benchmark-only", f"--benchmark-storage=file://{storage}",
         "-p", "no:cacheprovider", *options],
        cwd=environment.ROOT, env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    text = done.stdout + done.stderr
    # where something regressed, the plugin ends before pytest counts what passed
    counted = f"{sum(CASES.values())} passed" in text or "Performance has regressed" in text
    if not counted or "FAILED" in text:
        raise RuntimeError(f"pytest-benchmark ended with {done.returncode}: {text[-600:]}")
    return text
