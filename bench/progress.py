"""What is shown while a job runs: on a terminal a table that fills row by row, elsewhere a line every few seconds.

The table is drawn anew every `REFRESH_S` seconds at most and by this process, never by one that is timed: it costs
some hundredth of one core.
"""

import os
import sys
import time
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

if TYPE_CHECKING:
    from bench.measurement import Measurement

QUIET_S = 10.0  # between lines where the output is no terminal
REFRESH_S = 2.0  # between two drawings of the table


class Progress:
    """`say(text)` shows what is being measured and how long it has taken; `watch(job)`, what has come of it so far."""

    def __init__(self, stream=None):
        self.stream = sys.stderr if stream is None else stream
        self.console = Console(file=self.stream, highlight=False)
        self.job: Measurement | None = None
        self.start = time.monotonic()
        self.timing_since: float | None = None
        self.last, self.drawn = -QUIET_S, -REFRESH_S
        terminal = self.stream.isatty() and os.environ.get("TERM") != "dumb"
        self.live = Live(console=self.console, auto_refresh=False, transient=True) if terminal else None

    def __enter__(self) -> "Progress":
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *exception) -> None:
        if self.live:
            self.live.stop()

    def watch(self, job: "Measurement") -> None:
        """Show this measurement from now on, as its events come in."""
        self.job = job

    def say(self, text: str) -> None:
        elapsed_s = time.monotonic() - self.start
        line = f"[{clock(elapsed_s)}] {text}"
        lasting = " failed: " in text or "ended early" in text or text.startswith("dropped ")
        if self.live is None:
            if lasting or elapsed_s - self.last >= QUIET_S:
                self.stream.write(line + "\n")
                self.stream.flush()
                self.last = elapsed_s
            return
        if lasting:
            self.console.print(Text(line), soft_wrap=True)
        if self.job is None or elapsed_s - self.drawn >= REFRESH_S:
            self.live.update(self._drawing(text, elapsed_s), refresh=True)
            self.drawn = elapsed_s

    def _drawing(self, text: str, elapsed_s: float) -> RenderableType:
        left_s = self.left_s(elapsed_s)
        left = "" if left_s is None else f", {clock(left_s)} left at most"
        line = Text(f"[{clock(elapsed_s)}{left}] {text}", no_wrap=True, overflow="ellipsis")
        if self.job is None or not self.job.events:
            return line
        from bench.report import terminal

        return Group(terminal.table(self.job, self.console.width), Text(""), line)

    def left_s(self, elapsed_s: float) -> float | None:
        """Seconds until the job is done, at most: its timing budget, and the looks at rows that are still to come."""
        if self.job is None:
            return None
        if self.job.of("pair"):
            self.timing_since = elapsed_s if self.timing_since is None else self.timing_since
            given = self.job.of("budget")  # a group of processes each; those to come may have all that is theirs
            short_s = sum(e["short_s"] for e in given)
            return max(0.0, self.job.workload.budget_s - short_s - (elapsed_s - self.timing_since))
        able = len(self.job.rows) - len(self.job.of("unavailable"))
        seen = len({e["row"] for e in self.job.of("first_call")})
        return elapsed_s / seen * (able - seen) + self.job.workload.budget_s if seen else None


def clock(seconds: float) -> str:
    """Seconds as minutes:seconds."""
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}"
