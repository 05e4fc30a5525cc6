"""Own models in the harness: looked at in a process of their own, before anything else is done."""

import subprocess
import sys
from functools import lru_cache

from bench.environment import for_fresh_processes
from sampler import strict_json
from sampler.errors import UsageError
from sampler.model_check import Facts

MISTAKE = 3  # the exit status of a command that was asked something wrong


@lru_cache
def facts(model: str, device: str) -> Facts:
    """What `python -m sampler check` finds of a model; UsageError with its reason where it cannot be used.

    In a process of its own, so that nothing of somebody's code, and no device, is ever loaded in this one.
    """
    command = [sys.executable, "-P", "-m", "sampler", "check", "--model", model, "--device", device, "--json"]
    done = subprocess.run(command, env=for_fresh_processes(), capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
    if done.returncode == MISTAKE:
        raise UsageError(said[-1].removeprefix("python -m sampler: "))
    if done.returncode:
        code = done.returncode
        how = f"signal {-code}" if code < 0 else f"exit status {code}"
        raise UsageError(f"--model {model}: the process that looked at it ended with {how}; last words: {said[-1]}")
    found = Facts.from_json(strict_json.loads(done.stdout.splitlines()[-1]))
    for note in found.notes:
        print(f"note: model {model}: {note}", file=sys.stderr)
    return found
