"""What is written line by line outlives its writer; a line that was cut is none; there is one writer at a time."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench import environment, journal
from bench.journal import Journal
from sampler.errors import UsageError

HEAD = {"asked": {"batch": 4}, "environment": {"torch": "2"}}


def test_events_survive_and_time_goes_on(tmp_path):
    path = tmp_path / "a.jsonl"
    first = Journal(path, HEAD)
    first.add({"event": "pair", "row": "x", "at": 0})
    first._write({"event": "later", "at": 100.0})
    first.close(finished=False)
    again = Journal(path, HEAD)
    assert [e["event"] for e in again.events] == ["pair", "later"]
    assert again.spent_s >= 100.0
    again.add({"event": "third"})
    again.close(finished=False)
    assert [e["event"] for e in journal.read(path)[1]] == ["pair", "later", "third"]


def test_another_question_starts_anew(tmp_path):
    path = tmp_path / "a.jsonl"
    first = Journal(path, HEAD)
    first.add({"event": "pair"})
    first.close(finished=False)
    other = {**HEAD, "asked": {"batch": 8}}
    Journal(path, other).close(finished=False)
    assert journal.read(path)[:2] == (other, [])


@pytest.mark.parametrize("cut", ['{"event":"pa', '{"event":"pair"}', '[1]\n{"event":"pair"}\n', "\0\0\0\0\n"])
def test_a_line_that_was_cut_is_left_out_and_written_over(tmp_path, cut):
    """A last line without its end too: how much of it is missing nobody can tell."""
    path = tmp_path / "a.jsonl"
    first = Journal(path, HEAD)
    first.add({"event": "first"})
    first.close(finished=False)
    with path.open("a") as file:
        file.write(cut)
    again = Journal(path, HEAD)
    assert [e["event"] for e in again.events] == ["first"]
    again.add({"event": "second"})
    again.close(finished=False)
    assert [e["event"] for e in journal.read(path)[1]] == ["first", "second"]


@pytest.mark.parametrize("text", ["", '{"head"', "no JSON\n", '{"event": "pair"}\n'])
def test_one_without_a_head_holds_nothing(tmp_path, text):
    path = tmp_path / "a.jsonl"
    path.write_text(text)
    assert journal.read(path) == (None, [], 0)
    assert Journal(path, HEAD).events == []


def test_an_answered_question_leaves_no_journal(tmp_path):
    path = tmp_path / "a.jsonl"
    made = Journal(path, HEAD)
    made.add({"event": "pair"})
    made.close(finished=True)
    made.close(finished=True)
    assert not path.exists()


def test_what_comes_while_nothing_is_timed_is_on_the_disk_at_once_and_the_rest_when_asked(tmp_path, monkeypatch):
    synced: list[int] = []
    monkeypatch.setattr(journal.os, "fsync", synced.append)
    made = Journal(tmp_path / "a.jsonl", HEAD)
    synced.clear()
    for kind in ("pair", "segment", "evidence", "died"):
        made.add({"event": kind})
    assert len(synced) == 1
    made.sync()
    assert len(synced) == 2


def test_a_disk_that_is_full_is_said_in_a_sentence(tmp_path, monkeypatch):
    made = Journal(tmp_path / "a.jsonl", HEAD)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal.os, "write", full)
    with pytest.raises(UsageError, match=r"a\.jsonl cannot be written: No space left on device"):
        made.add({"event": "pair"})


WRITER = """
import sys, time
from pathlib import Path
from bench.journal import Journal
made = Journal(Path(sys.argv[1]), {"asked": {"batch": 4}, "environment": {"torch": "2"}})
for i in range(1000):
    made.add({"event": "pair", "i": i})
print("written", flush=True)
time.sleep(3600)
"""


def test_a_writer_that_is_killed_loses_nothing_and_while_it_lives_nobody_else_writes(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], env=environment.for_fresh_processes(),
                              stdout=subprocess.PIPE, text=True)  # fmt: skip
    try:
        assert writer.stdout.readline() == "written\n"
        assert journal.is_written(path)
        with pytest.raises(UsageError, match="another process writes"):
            Journal(path, HEAD)
        os.kill(writer.pid, signal.SIGKILL)
    finally:
        writer.kill()
        writer.communicate()
    assert not journal.is_written(path)
    again = Journal(path, HEAD)
    assert [e["i"] for e in again.events] == list(range(1000))
    again.close(finished=False)
