"""A reader that leaves, as `| head` does, ends a command without a traceback."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("package", ["bench", "sampler"])
def test_reader_gone(package: str) -> None:
    command = [sys.executable, "-m", package, {"bench": "list", "sampler": "variants"}[package]]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    started.stdout.close()  # before a line was written
    errors = started.stderr.read()
    assert started.wait() == 141
    assert errors == ""
