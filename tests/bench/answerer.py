"""A process that answers as it is told, without importing anything that takes time: `python -m bench.child` runs it.

An order's `answers` are given as they are, but for `{"act": ...}`, which is done.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time

from bench import child

ACTS = {
    "nap": lambda: time.sleep(2.5),
    "sleep": lambda: time.sleep(3600),
    "compute": lambda: ctypes.PyDLL(None).sleep(3600),  # in C, and no other thread of this process runs meanwhile
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda: sys.exit("last words"),
    "close": lambda: os.closerange(1, 64),
    "complain": lambda: sys.stderr.write("x" * (1 << 20) + "\n\x1b[1mmuch\n\n"),
    "print": lambda: print("no answer"),
    "start": lambda: say(event="started", pid=subprocess.Popen(["sleep", "3600"]).pid),
}

if __name__ == "__main__":
    say, orders = child.answers(), child.orders()
    while True:
        for answer in orders.get()["answers"]:
            if "act" in answer:
                ACTS[answer["act"]]()
            else:
                say(**answer)
