"""The Triton kernel against its definition: interpreted on a CPU, and on a GPU where there is one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kernels import fused_posterior

HERE = Path(__file__).parent
TRITON_MISSING = fused_posterior.available(torch.device("cuda"))
needs_triton = pytest.mark.skipif(TRITON_MISSING is not None, reason=str(TRITON_MISSING))


def run_cases(file: str, **environment: str) -> None:
    """Run a file of cases in a fresh process: how Triton runs a kernel is decided when it is imported."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / file)]
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | environment
    done = subprocess.run(command, cwd=HERE.parents[1], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


FILES = ["fused_cases.py", "normal_cases.py"]


@needs_triton
@pytest.mark.parametrize("file", FILES)
def test_interpreted(file):
    run_cases(file, TRITON_INTERPRET="1")


@needs_triton
@pytest.mark.gpu
@pytest.mark.parametrize("file", FILES)
def test_on_the_gpu(file):
    run_cases(file)


def test_it_imports_without_triton():
    program = """
import sys
sys.modules["triton"] = None  # now importing it raises ImportError
import torch
from kernels import fused_posterior
x = torch.zeros(1, 4)
try:
    fused_posterior.fused_posterior(x, x, x, torch.zeros(6))
except RuntimeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=HERE.parents[1], capture_output=True, text=True)
    assert done.stdout.strip() == "the Triton kernel needs Triton: pip install triton", done.stderr


@needs_triton
def test_a_cpu_is_refused():
    x = torch.zeros(1, 4)
    with pytest.raises(RuntimeError, match="needs a GPU, not cpu"):
        fused_posterior.fused_posterior(x, x, x, torch.zeros(6))
