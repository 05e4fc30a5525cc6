"""What is shown while the job runs: one live line on a terminal, a line every few seconds elsewhere."""

import sys
import time

QUIET_S = 10.0  # between lines where the output is no terminal


class Progress:
    """`say(text)` shows what is being measured and how long it has taken."""

    def __init__(self, stream=None):
        self.stream = sys.stderr if stream is None else stream
        self.live = self.stream.isatty()
        self.start = time.monotonic()
        self.last, self.said = -QUIET_S, ""

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception) -> None:
        if self.live:
            self.stream.write("\r\x1b[K")
            self.stream.flush()

    def say(self, text: str) -> None:
        elapsed_s = time.monotonic() - self.start
        line = f"[{int(elapsed_s // 60)}:{int(elapsed_s % 60):02d}] {text}"
        lasting = " failed: " in text or "ended early" in text
        if self.live:
            self.stream.write(f"\r\x1b[K{line[:118]}" + ("\n" if lasting else ""))
        elif lasting or elapsed_s - self.last >= QUIET_S:
            self.stream.write(line + "\n")
            self.last = elapsed_s
        self.stream.flush()
