"""What is seen while a job runs: a table that fills on a terminal, plain lines elsewhere."""

import io
import re
from types import SimpleNamespace

import pytest

from bench import progress
from bench.progress import Progress
from bench.report import terminal
from tests.bench.synthetic import everything, first_call, measurement, pairs

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COLOURED = re.compile(r"\x1b\[[0-9;]*3[0-7]m")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def ticking(monkeypatch):
    """Time that passes by a second with every look at it."""
    now = iter(range(100_000))
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: float(next(now))))


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def screens(width: int, monkeypatch, job=None) -> list[str]:
    """What a terminal of this width is given, one text a refresh."""
    monkeypatch.setenv("COLUMNS", str(width))
    stream = Terminal()
    seen = []
    job = job or measurement(["reference", "batched-cfg", "ddim"], [])
    with Progress(stream) as shown:
        shown.watch(job)
        for events in ([first_call("reference", 1000)], pairs("batched-cfg", {0: [0.8]}),
                       pairs("batched-cfg", {1: [0.9]}), pairs("batched-cfg", {2: [0.8], 3: [0.8]})):  # fmt: skip
            job.events += events
            shown.say("round 1")
            shown.say("round 2")
            seen.append(stream.getvalue())
            stream.truncate(0)
            stream.seek(0)
    return seen


def test_a_pipe_gets_plain_lines_and_not_too_many(ticking) -> None:
    stream = io.StringIO()
    with Progress(stream) as shown:
        shown.watch(everything())
        for i in range(25):
            shown.say(f"round {i}")
        shown.say("ddim failed: broke")
    lines = stream.getvalue().splitlines()
    assert 2 <= len(lines) <= 5
    assert lines[0].endswith("round 0")
    assert lines[-1].endswith("ddim failed: broke")
    assert "\x1b" not in stream.getvalue()


def test_the_table_fills_and_its_intervals_narrow(ticking, monkeypatch) -> None:
    seen = [ESCAPE.sub("", text) for text in screens(120, monkeypatch)]
    line = [next(l for l in reversed(text.splitlines()) if "batched-cfg" in l) for text in seen]
    assert "1.2" not in line[0]  # nothing is known yet
    assert "1.25" in line[1]
    assert "%" not in line[1]  # one process gives no interval
    wide, narrow = (float(re.search(r"([\d.]+)%", text)[1]) for text in line[2:])  # type: ignore[index]
    assert wide > narrow
    assert all("ddim" in text for text in seen)


def test_the_time_left_is_said(ticking, monkeypatch) -> None:
    seen = [ESCAPE.sub("", text) for text in screens(120, monkeypatch)]
    left = [re.findall(r"(\d+):(\d\d) left at most", text)[-1] for text in seen]
    seconds = [60 * int(minutes) + int(rest) for minutes, rest in left]
    assert seconds == sorted(seconds, reverse=True)
    assert 0 < seconds[-1] < 200  # the budget of what is timed


@pytest.mark.parametrize("width", [30, 40, 60, 90, 130])
def test_it_fits_a_terminal_of_any_width(ticking, monkeypatch, width: int) -> None:
    for text in screens(width, monkeypatch, measurement(["reference", "batched-cfg", "a-very-long-name-of-a-row"], [])):
        assert max(len(line) for line in ESCAPE.sub("", text).splitlines()) <= width
        assert "batched-cfg" in text


def test_colours_are_honoured_and_left_out(ticking, monkeypatch) -> None:
    assert COLOURED.search("".join(screens(120, monkeypatch)))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not COLOURED.search("".join(screens(120, monkeypatch)))


def test_what_failed_stays_on_the_screen(ticking) -> None:
    stream = Terminal()
    with Progress(stream) as shown:
        shown.watch(everything())
        shown.say("compiled failed: it broke")
        shown.say("round 2")
    assert ESCAPE.sub("", stream.getvalue()).count("compiled failed: it broke") >= 2  # above the table, and in it


def test_a_terminal_that_can_do_nothing_gets_lines(ticking, monkeypatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    with Progress(stream) as shown:
        shown.say("round 1")
    assert stream.getvalue() == "[0:01] round 1\n"


def test_the_signs_say_what_the_colours_say() -> None:
    made = everything()
    signs = {name: terminal.look(made.row(name))[1] for name in ("reference", "batched-cfg", "compiled", "textbook")}
    assert signs == {"reference": "·", "batched-cfg": "+", "compiled": "✗", "textbook": "-"}


def test_a_finished_table_is_plain_where_it_is_piped(capsys) -> None:
    terminal.show(everything())
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "batched-cfg" in said
