"""The harness's end of a worker: a fresh process in a tree, asked line by line, pinned, and never left behind."""

import contextlib
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sampler import strict_json as json

SCRIPT = Path(__file__).with_name("worker_script.py")
PROTOCOL = 1
ANSWER_S = 60.0  # a slice takes milliseconds; a worker that is silent for so long hangs
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


@dataclass
class Worker:
    """One process of one side. `hello` waits until it has imported everything."""

    side: Side
    task: dict[str, Any]
    rows: dict[str, str] = field(default_factory=dict)  # name: why it cannot run, or ""
    built: dict[str, dict[str, Any]] = field(default_factory=dict)  # name: what building it told

    def __post_init__(self):
        environ = {**os.environ, "OMP_NUM_THREADS": str(self.task["threads"]), "PYTHONUNBUFFERED": "1"}
        environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # no pool of compilers that might outlive the worker
        environ.pop("PYTHONPATH", None)  # the tree's own packages, and no other's
        if environ.pop("PYTHONDONTWRITEBYTECODE", None):  # else each worker would compile all of PyTorch's source
            environ["PYTHONPYCACHEPREFIX"] = str(_cache() / "pycache")
        self.complaints = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `stop`
        self.process = subprocess.Popen(
            [self.side.python, str(SCRIPT), json.dumps({**self.task, "tree": str(self.side.tree)})],
            cwd=self.side.tree, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.complaints,
            start_new_session=True,  # Ctrl-C reaches the harness alone, which then ends its workers in order
        )  # fmt: skip
        self._unread = b""
        self._core: int | None = None

    def hello(self) -> None:
        """Wait for the first line: the protocol and the rows that this tree has."""
        answer = self._answer(BUILD_S, "starting")
        if answer.get("protocol") != PROTOCOL:
            raise WorkerFault(f"its worker speaks protocol {answer.get('protocol')}, the harness {PROTOCOL}")
        self.rows = answer["rows"]

    def send(self, **request: Any) -> None:
        """Send a request whose answer is read later, so that several workers can work at once."""
        assert self.process.stdin is not None
        self._doing = " ".join(str(request[k]) for k in ("do", "row") if k in request)
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        except (BrokenPipeError, OSError):
            raise self._lost(self._doing) from None

    def answer(self, timeout_s: float = ANSWER_S) -> dict[str, Any]:
        return self._answer(timeout_s, self._doing)

    def ask(self, timeout_s: float = ANSWER_S, **request: Any) -> dict[str, Any]:
        self.send(**request)
        return self.answer(timeout_s)

    def pin(self, core: int | None) -> None:
        """Move every thread of the process to one core."""
        if core is None or core == self._core:
            return
        for thread in os.listdir(f"/proc/{self.process.pid}/task") if self.process.poll() is None else []:
            with contextlib.suppress(ProcessLookupError):  # a thread that has just ended
                os.sched_setaffinity(int(thread), {core})
        self._core = core

    def stop(self) -> None:
        """End the process and whatever it has started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(BrokenPipeError):
                if pipe is not None:
                    pipe.close()
        self.complaints.close()

    def _answer(self, timeout_s: float, doing: str) -> dict[str, Any]:
        assert self.process.stdout is not None
        until, descriptor = time.monotonic() + timeout_s, self.process.stdout.fileno()
        while b"\n" not in self._unread:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise WorkerLost(f"a worker of {self.side.name} said nothing for {timeout_s:.0f} s while {doing}")
            part = os.read(descriptor, 1 << 20)
            if not part:
                raise self._lost(doing)
            self._unread += part
        line, _, self._unread = self._unread.partition(b"\n")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerFault(printable(answer["error"]))
        return answer

    def _lost(self, doing: str) -> WorkerLost:
        code = self.process.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        self.complaints.seek(0)
        last = [line for line in self.complaints.read().decode(errors="replace").splitlines() if line.strip()][-1:]
        said = f"; its last words: {printable(last[0].strip())}" if last else ""
        return WorkerLost(f"a worker of {self.side.name} (process {self.process.pid}) {how} while {doing}{said}")


def printable(text: str) -> str:
    """Without what no file or terminal should be given: colours, other control characters, halves of characters."""
    return "".join(c if c.isprintable() else " " for c in text)


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
        worker.stop()
