"""The process that forks an inspection for each row: what it must not have done before it does."""

import subprocess
import sys

from bench import environment

PROGRAM = """
import os, sys
import torch

asked = []

def recorded(name):
    def ask(*arguments, **options):
        asked.append(name)
        return 0
    return ask

for name in ("is_available", "device_count", "_lazy_init", "current_device", "init"):
    setattr(torch.cuda, name, recorded(name))
import bench.nursery
import torch._dynamo
import torch._inductor.compile_fx
assert os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] == "1"
print(sorted(set(asked) - {"is_available", "device_count"}))
"""


def test_no_device_is_touched_before_the_fork() -> None:
    """CUDA cannot be used in a fork of a process that has used it: every row would be red.

    To ask whether there is one, or how many, is harmless where NVML answers, as the variable has PyTorch ask it.
    """
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=environment.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
