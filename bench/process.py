"""One process that answers JSON lines: fresh, in a group of its own, never waited for without end, never left behind.

What it is asked is for its owners to say: `crew` orders and hears events, the gate asks and reads answers. It dies with
its parent, however that ends: Linux kills it (see `bench.child`), and everywhere it ends when its input does.
"""

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sampler import strict_json

KEPT_BYTES = 1 << 14  # of what it wrote to standard error: its last words are among them
WORDS_S = 2.0  # in which what an ended process wrote is read
END_S = 30.0  # in which a process that closed its output, or was killed, is gone


class Gone(Exception):
    """The process has ended; signal: that ended it, or 0. The message says how, in words that follow its name."""

    def __init__(self, message: str, signal: int, words: str):
        super().__init__(message)
        self.signal, self.words = signal, words


class Process:
    """A process that is written and read line by line. Its input holds what a pipe does: one order at a time."""

    def __init__(self, command: Sequence[str], environ: dict[str, str], cwd: Path | None = None):
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("a process is started by the main thread: Linux kills it when the thread ends that did")
        self.process = subprocess.Popen(
            command, env=environ, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches the parent alone, which then ends what it started
        )  # fmt: skip
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._output = self.process.stdout.fileno()
        self._unread, self._stderr = b"", b""
        self._core: int | None = None
        self._ended = False
        self._overhearing = threading.Thread(target=self._overhear, args=(self.process.stderr.fileno(),), daemon=True)
        self._overhearing.start()

    def fileno(self) -> int:
        """For `select`: where its answers come from."""
        return self._output

    def _overhear(self, descriptor: int) -> None:
        with contextlib.suppress(OSError):  # closed by `end`
            while part := os.read(descriptor, 1 << 16):
                self._stderr = (self._stderr + part)[-KEPT_BYTES:]

    def write(self, message: dict[str, Any]) -> None:
        """Write a line; that nobody reads it any more is found by who waits for the answer."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # it has ended, or was ended
            self.process.stdin.write(strict_json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()

    def line(self, within_s: float) -> dict[str, Any] | None:
        """Its next answer; None where none comes within these seconds; Gone where none can come any more."""
        until = time.monotonic() + within_s
        while True:
            while b"\n" in self._unread:
                line, _, self._unread = self._unread.partition(b"\n")
                with contextlib.suppress(ValueError):
                    return strict_json.loads_older(line)  # a tree of any age, and Python's own codec, say NaN
            if not wait_for([self], max(0.0, until - time.monotonic())):
                return None
            part = b"" if self._ended else os.read(self._output, 1 << 20)
            if not part:  # what was begun and not ended with a line is no answer
                raise self.gone()
            self._unread += part

    def gone(self) -> Gone:
        """How it ended, with its last words; a process that only closed its output is ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=END_S)
        self.end()
        code = self.process.returncode
        how = "cannot be ended" if code is None else f"signal {-code}" if code < 0 else f"exit code {code}"
        return Gone(how, max(0, -(code or 0)), self.words)

    @property
    def words(self) -> str:
        """The last line that it wrote to standard error, or ''."""
        if self._ended:
            self._overhearing.join(timeout=WORDS_S)
        lines = [line for line in self._stderr.decode(errors="replace").splitlines() if line.strip()]
        return printable(lines[-1]).strip() if lines else ""

    @property
    def is_stopped(self) -> bool:
        """Whether a signal (SIGSTOP and its kin) keeps it from running, where the system tells."""
        try:
            return Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
        except (OSError, IndexError):
            return False

    def pin(self, core: int | None) -> None:
        """Move every thread of the process to one core."""
        if core is None or core == self._core:
            return
        for thread in os.listdir(f"/proc/{self.process.pid}/task") if self.process.poll() is None else []:
            with contextlib.suppress(ProcessLookupError):  # a thread that has just ended
                os.sched_setaffinity(int(thread), {core})
        self._core = core

    def end(self) -> None:
        """End the process and whatever it has started, and take it off the system's table."""
        if self._ended:
            return
        self._ended = True
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # one that waits for a dead disk or driver
            self.process.wait(timeout=END_S)
        self._overhearing.join(timeout=WORDS_S)
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        if not self._overhearing.is_alive() and self.process.stderr is not None:  # else a stranger holds it open
            self.process.stderr.close()


def wait_for(processes: Sequence[Process], within_s: float) -> list[Process]:
    """Those of which something can be read, or was and is not taken yet, or that have ended; once there are any."""
    if ready := [process for process in processes if process._ended or b"\n" in process._unread]:
        return ready
    poll, by_descriptor = select.poll(), {process.fileno(): process for process in processes}
    for descriptor in by_descriptor:
        poll.register(descriptor, select.POLLIN)
    return [by_descriptor[descriptor] for descriptor, _ in poll.poll(within_s * 1000)]


def printable(text: str) -> str:
    """Without what no file or terminal should be given: colours, other control characters, halves of characters."""
    return "".join(c if c.isprintable() else " " for c in text)
