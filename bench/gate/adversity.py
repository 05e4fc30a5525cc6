"""What may disturb a gate while it is calibrated: processes that burn a core, all the time or in bursts."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# each ends by itself when its parent is gone; bursts and rests last 20 to 300 ms, drawn afresh each time
BURNER = """
import os, random, sys, time
parent, share = os.getppid(), float(sys.argv[1])
while os.getppid() == parent:
    until = time.monotonic() + random.uniform(0.02, 0.3)
    while time.monotonic() < until:
        sum(range(20000))
    if share < 1:
        time.sleep(random.uniform(0.02, 0.3) * (1 - share) / share)
"""

CONDITIONS: dict[str, list[float]] = {
    "quiet": [],
    "shared": [],
    "one burner": [1.0],
    "two burners": [1.0, 1.0],
    "bursts": [0.4],
}


@contextmanager
def burning(condition: str) -> Iterator[None]:
    """Let the condition's processes run meanwhile, wherever the system puts them."""
    burners = [subprocess.Popen([sys.executable, "-c", BURNER, str(share)]) for share in CONDITIONS[condition]]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()
