"""The child's end of `bench.process`: how a process that answers JSON lines begins, and how it ends with its parent.

It imports nothing of the house and little of Python: whatever a worker imports for seconds comes after it, and a tree
of any age can be driven with it. `python -m bench.child MODULE TASK` runs a module as `python -m MODULE TASK` would.
"""

import contextlib
import ctypes
import json
import os
import queue
import runpy
import signal
import sys
import threading
from collections.abc import Callable


def die_with_parent() -> None:
    """Ask Linux to kill this process when the one that started it dies, also while it computes or is stopped.

    Elsewhere, and where the parent was gone before this was asked, `orders` notices.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def answers() -> Callable[..., None]:
    """Writes an answer, by keywords, to the real standard output; whatever else prints goes to standard error."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def answer(**event) -> None:
        out.write(json.dumps(event) + "\n")

    return answer


def orders() -> "queue.SimpleQueue[dict]":
    """Orders as they come; the process ends when no more can come, whatever it is doing."""
    waiting: queue.SimpleQueue[dict] = queue.SimpleQueue()

    def listen() -> None:
        begun = b""
        while part := os.read(0, 1 << 16):  # not by `sys.stdin`, whose lock would abort an exit of the main thread
            *lines, begun = (begun + part).split(b"\n")
            for line in lines:
                waiting.put(json.loads(line))
        os._exit(1)

    threading.Thread(target=listen, daemon=True).start()
    return waiting


if __name__ == "__main__":
    die_with_parent()
    module, *sys.argv[1:] = sys.argv[1:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
