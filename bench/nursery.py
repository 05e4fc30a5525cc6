"""A nursery: a process that has imported everything and run nothing, and forks a fresh one for each inspection.

Imports take seconds, a fork milliseconds; and a contender that is killed takes nobody with it. Nothing that a fork
must not inherit (CUDA, thread pools) is touched before it; should a library ask whether there is a device, PyTorch
asks the driver's management library, which leaves a fork able to use it. Orders and answers are those of `crew`:
{"row": name, "looks": [methods of Inspection]}.
"""

import gc
import os
import select
import signal
import sys
import threading
import traceback

os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # before anybody asks

from bench import child, memory
from bench.contenders import CONTENDERS
from bench.inspection import Inspection, Unfit
from bench.planted import planted
from sampler import strict_json as json
from sampler.errors import in_one_line

# what a look takes, as `Patience` knows it; of the others, some hundred steps
PHASES = {"first_call": "first_call", "roof": "roof", "whole": "run", "start": "run", "draw": "run", "attempt": "run"}


def main(task_json: str) -> None:
    task = json.loads(task_json)
    emit = child.answers()
    if task.get("compiles"):
        import torch._dynamo
        import torch._inductor.compile_fx  # noqa: F401  seconds, once for all
    gc.freeze()  # no collection in a child need look at what was imported
    while line := sys.stdin.readline():
        order = json.loads(line)
        had = memory.free_bytes()
        forked = os.fork()
        if not forked:
            _be_a_child(task, order, emit)
        _, status = os.waitpid(forked, 0)
        if status:
            killed = os.waitstatus_to_exitcode(status) == -signal.SIGKILL
            emit(event="error", row=order["row"], message=_how_it_ended(status, task, had), killed=killed)
        emit(event="done")


def _be_a_child(task: dict, order: dict, emit) -> None:
    code = 1
    try:
        child.die_with_parent()
        threading.Thread(target=_end_with_the_parent, daemon=True).start()
        if order.get("core") is not None:
            os.sched_setaffinity(0, {order["core"]})
        _inspect(task, order, emit)
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)  # the parent's clean-up is not the child's to do


def _inspect(task: dict, order: dict, emit) -> None:
    contender = {**CONTENDERS, **{c.name: c for c in planted(task.get("plant"))}}[order["row"]]
    inspection = None
    try:
        inspection = Inspection(task, contender, emit)
        for look in order["looks"]:
            emit(event="doing", text=f"inspecting {contender.name}, {look.replace('_', ' ')}", row=contender.name,
                 phase=PHASES.get(look, "look"))  # fmt: skip
            getattr(inspection, look)()
    except Unfit as why:
        emit(event="unavailable", row=contender.name, message=str(why))
        return
    except Exception as error:  # any fault of a contender is its row's, not the run's
        message, too_large = in_one_line(error), memory.is_out_of_memory(error)
        traceback.clear_frames(error.__traceback__)  # they hold the tensors that were made until then
    else:
        return
    if too_large:
        needed, had = (inspection.needed(), inspection.had) if inspection else (None, None)
        message = memory.out_of_memory(task["workload"]["batch"], needed, had, message)
    emit(event="error", row=contender.name, message=message)


def _how_it_ended(status: int, task: dict, had: int | None) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGKILL:
        return (f"its process was killed (signal 9), as the system does when memory runs out; "
                f"batch {task['workload']['batch']:,}, there was {memory.human(had)}")  # fmt: skip
    return f"its process ended with {f'signal {-code}' if code < 0 else f'exit code {code}'}"


def _end_with_the_parent() -> None:
    """Orders reach the nursery alone; that none can come any more, its child must see too."""
    hang_up = select.poll()
    hang_up.register(0, 0)
    hang_up.poll()
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
