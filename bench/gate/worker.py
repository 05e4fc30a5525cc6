"""The harness's end of a worker: a fresh process in a tree, asked line by line, pinned, and never left behind."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.process import Gone, Process, printable
from sampler import strict_json as json

SCRIPT = Path(__file__).with_name("worker_script.py")
PROTOCOL = 1
ANSWER_S = 60.0  # a slice takes milliseconds; a worker that is silent for so long hangs, unless it is known to be slow
TIMES = 20  # how many times what it is known to take
BUILD_S = 900.0  # a cold compile of a large model


class WorkerFault(Exception):
    """The tree's code raised; the message is the worker's one sentence."""


class WorkerLost(Exception):
    """The process is gone or hangs; the message says which, how and during what."""


@dataclass(frozen=True)
class Side:
    """A revision as it is judged: its name in messages, the tree it stands in, and what runs it."""

    name: str  # 'base' or 'this'
    tree: Path
    python: str
    label: str = ""  # how the revision is shown

    def start(self, task: dict[str, Any]) -> "Worker":
        return Worker(self, task)


class Worker(Process):
    """One process of one side. `hello` waits until it has imported everything."""

    def __init__(self, side: Side, task: dict[str, Any]):
        environ = {**os.environ, "OMP_NUM_THREADS": str(task["threads"]), "PYTHONUNBUFFERED": "1"}
        environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # no pool of compilers that might outlive the worker
        environ.pop("PYTHONPATH", None)  # the tree's own packages, and no other's
        if environ.pop("PYTHONDONTWRITEBYTECODE", None):  # else each worker would compile all of PyTorch's source
            environ["PYTHONPYCACHEPREFIX"] = str(_cache() / "pycache")
        super().__init__([side.python, str(SCRIPT), json.dumps({**task, "tree": str(side.tree)})], environ, side.tree)
        self.side = side
        self.rows: dict[str, str] = {}  # name: why it cannot run, or ""
        self.built: dict[str, dict[str, Any]] = {}  # name: what building it told
        self._doing = "starting"

    def hello(self) -> None:
        """Wait for the first line: the protocol and the rows that this tree has."""
        answer = self.answer(BUILD_S)
        if answer.get("protocol") != PROTOCOL:
            raise WorkerFault(f"its worker speaks protocol {answer.get('protocol')}, the harness {PROTOCOL}")
        self.rows = answer["rows"]

    def send(self, **request: Any) -> None:
        """Send a request whose answer is read later, so that several workers can work at once."""
        self._doing = " ".join(str(request[k]) for k in ("do", "row") if k in request)
        self.write(request)

    def ask(self, timeout_s: float = ANSWER_S, **request: Any) -> dict[str, Any]:
        self.send(**request)
        return self.answer(timeout_s)

    def answer(self, timeout_s: float = ANSWER_S) -> dict[str, Any]:
        """The answer to the last request; WorkerFault where the tree's code raised, WorkerLost where none comes."""
        try:
            answer = self.line(timeout_s)
        except Gone as gone:
            how = f"was killed by signal {gone.signal}" if gone.signal else f"ended with {gone}"
            said = f"; its last words: {gone.words}" if gone.words else ""
            raise WorkerLost(
                f"a worker of {self.side.name} (process {self.process.pid}) {how} while {self._doing}{said}"
            ) from None
        if answer is None:
            stopped = " (a signal had stopped it)" if self.is_stopped else ""
            self.end()
            raise WorkerLost(
                f"a worker of {self.side.name} said nothing for {timeout_s:.0f} s while {self._doing}{stopped}"
            )
        if "error" in answer:
            raise WorkerFault(printable(answer["error"]))
        return answer


def due_s(worker: Worker, row: str, calls: int, least_s: float = ANSWER_S) -> float:
    """Within what so many calls of a row that was built are answered."""
    return max(least_s, TIMES * calls * worker.built.get(row, {}).get("call_s", 0.0))


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ddpm-bench"


def start_all(sides: Sequence[Side], task: dict[str, Any], each: int) -> list[list[Worker]]:
    """`each` workers a side, started side by side; all or none."""
    started: list[list[Worker]] = []
    try:
        for side in sides:
            started.append([])
            for _ in range(each):
                started[-1].append(side.start(task))
        for worker in (w for workers in started for w in workers):
            try:
                worker.hello()
            except WorkerFault as fault:
                raise WorkerFault(f"{worker.side.name}: {fault}") from None
    except BaseException:
        stop_all(started)
        raise
    return started


def stop_all(started: list[list[Worker]]) -> None:
    for worker in (w for workers in started for w in workers):
        worker.end()
