"""A search that was broken off is gone on with, if it is the same question; never with a line that was cut."""

from bench.tune.journal import Journal

HEAD = {"asked": {"batch": 4}, "environment": {"torch": "2"}}


def test_events_survive_and_time_goes_on(tmp_path):
    path = tmp_path / "a.jsonl"
    first = Journal(path, HEAD)
    first.add({"event": "pair", "row": "x", "at": 0})
    first.events[-1]["at"] = 100.0
    first._write({"event": "later", "at": 100.0})
    first.close(finished=False)
    again = Journal(path, HEAD)
    assert [e["event"] for e in again.events] == ["pair", "later"]
    assert again.spent_s >= 100.0


def test_another_question_starts_anew(tmp_path):
    path = tmp_path / "a.jsonl"
    first = Journal(path, HEAD)
    first.add({"event": "pair"})
    first.close(finished=False)
    assert Journal(path, {**HEAD, "asked": {"batch": 8}}).events == []


def test_a_line_that_was_cut_is_left_out(tmp_path):
    path = tmp_path / "a.jsonl"
    first = Journal(path, HEAD)
    first.add({"event": "pair"})
    first.close(finished=False)
    path.write_text(path.read_text() + '{"event":"pa')
    assert [e["event"] for e in Journal(path, HEAD).events] == ["pair"]


def test_an_answered_question_leaves_no_journal(tmp_path):
    path = tmp_path / "a.jsonl"
    journal = Journal(path, HEAD)
    journal.add({"event": "pair"})
    journal.close(finished=True)
    assert not path.exists()
