"""`python -m bench gate`: what it refuses, what it writes, and its exit codes."""

import contextlib
import json
import math
import os
import signal
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from bench.__main__ import main
from bench.gate import command
from sampler.errors import UsageError
from tests.bench.gate.made_up import failing, noisy, passing, result, row
from tests.bench.gate.test_trees import git


@pytest.fixture
def given(monkeypatch):
    """Let the command find this result instead of measuring."""

    def let(found):
        def against(arguments, say):
            if isinstance(found, BaseException):
                raise found
            return found

        monkeypatch.setattr(command, "against", against)

    return let


@pytest.mark.parametrize(("found", "code"), [
    (result([passing()]), 0), (result([failing()]), 1), (result([row("x", problem="gone")]), 2),
    (ZeroDivisionError("a fault of the gate itself"), 3), (KeyboardInterrupt(), 130),
])  # fmt: skip
def test_the_exit_code_is_the_results_own_and_a_crash_is_no_regression(given, capsys, found, code: int) -> None:
    given(found)
    assert main(["gate", "--against", "HEAD~1"]) == code


@pytest.mark.parametrize(("arguments", "said"), [
    (["gate"], "one of the arguments --against --baseline is required"),
    (["gate", "--against", "a", "--baseline", "b"], "not allowed with argument"),
    (["gate", "--against", "a", "--budget", "much"], "invalid float value: 'much'"),
    (["nonsense"], "invalid choice: 'nonsense'"),
])  # fmt: skip
def test_a_word_that_is_not_understood_is_3_for_2_means_not_judged(capsys, arguments, said: str) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 3
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "said"), [
    (["--against", "no-such-revision"], "unknown revision 'no-such-revision'"),
    (["--against", "HEAD", "--budget", "0"], "must be positive"),
    (["--against", "HEAD", "--device", "nonsense"], "unknown device"),
    (["--against", "HEAD", "--model", "package"], "names no factory; write package.module:factory"),
    (["--against", "HEAD", "--model", "a:b", "--shape", "3,x"], "no list of integers"),
    (["--against", "HEAD", "--thresholds", "none.toml"], "cannot read none.toml"),
    (["--against", "HEAD", "--base-python", "/no/python"], "--base-python /no/python is nothing that can be run"),
    (["--against", "HEAD", "--rows", " ,"], "names no row"),
    (["--baseline", "none.json"], "cannot read none.json"),
    (["--baseline", "none.json", "--ratchet"], "--ratchet needs --against"),
    (["--baseline", "none.json", "--model", "a:b"], "--model needs --against"),
    (["--baseline", "none.json", "--budget", "5"], "--budget needs --against"),
    (["--baseline", "none.json", "--json", "/"], "/ is a folder; name a file"),
    (["--against", "HEAD", "--markdown", "/"], "/ is a folder; name a file"),
])  # fmt: skip
def test_a_mistake_is_one_sentence_and_exit_3(capsys, arguments: list[str], said: str) -> None:
    assert main(["gate", *arguments]) == 3
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err


def test_an_installed_harness_says_that_it_needs_a_model(tmp_path) -> None:
    with pytest.raises(UsageError, match="name it: --model package"):
        command._checkout(tmp_path)  # in no repository
    git(tmp_path, "init", "-q")
    inside = tmp_path / "venv" / "site-packages"
    inside.mkdir(parents=True)
    with pytest.raises(UsageError, match="name it: --model package"):
        command._checkout(inside)  # in one that is not its own
    assert command._checkout(tmp_path) == tmp_path


def test_everything_that_is_asked_for_is_written(given, tmp_path, capsys) -> None:
    given(result([failing()]))
    names = ("markdown", "json", "junit")
    options = [part for name in names for part in (f"--{name}", str(tmp_path / name))]
    assert main(["gate", "--against", "HEAD", *options]) == 1
    assert (tmp_path / "markdown").read_text().startswith("### ❌")
    assert json.loads((tmp_path / "json").read_text())["exit_code"] == 1
    assert (tmp_path / "junit").read_text().startswith("<?xml")
    assert "compiled" in capsys.readouterr().out


def test_a_file_that_cannot_be_written_afterwards_is_no_regression(given, monkeypatch, tmp_path, capsys) -> None:
    given(result([passing()]))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "none" / "summary.md"))
    assert main(["gate", "--against", "HEAD"]) == 3
    assert "FileNotFoundError" in capsys.readouterr().err


def test_what_is_written_can_be_read_whatever_a_row_says(given, tmp_path) -> None:
    """Strict JSON knows no NaN, and XML no colours of a terminal."""
    other = row("other", [replace(one, difference=math.nan) for one in noisy(0.0, 60)])
    given(result([other, row("red", problem="RuntimeError: \x1b[31mred\x1b[0m \ud800")]))
    found, xml = tmp_path / "gate.json", tmp_path / "gate.xml"
    assert main(["gate", "--against", "HEAD", "--json", str(found), "--junit", str(xml)]) == 1
    read = json.loads(found.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert read["rows"][0]["difference"] is None
    assert read["rows"][0]["verdict"] == "FAIL"
    (error,) = ElementTree.parse(xml).iterfind("testcase/error")
    assert "[31mred" in error.get("message")


def test_nohup_is_heeded_and_a_closed_terminal_ends_the_run_otherwise() -> None:
    for before, ends in ((signal.SIG_IGN, False), (signal.SIG_DFL, True)):
        kept = signal.signal(signal.SIGHUP, before)
        try:
            with pytest.raises(KeyboardInterrupt) if ends else contextlib.nullcontext(), command._ends_in_order():
                signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) == before
        finally:
            signal.signal(signal.SIGHUP, kept)


def test_the_command_shown_repeats_what_was_judged() -> None:
    words = ["--against", "HEAD", "--model", "a b:make", "--device", "cuda", "--batch", "16", "--budget", "60"]
    shown = command._command(command.parsed(words), "0123456789abcdef")
    assert shown == (
        "python -m bench gate --against 0123456789ab --model 'a b:make' --batch 16 --device cuda --budget 60"
    )


def test_on_github_the_page_gets_annotations_and_the_summary(given, monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    given(result([failing()]))
    assert main(["gate", "--against", "HEAD"]) == 1
    assert "::error title=compiled regressed::slower by" in capsys.readouterr().out
    assert "Speed gate: 1 FAIL" in (tmp_path / "summary.md").read_text()
    monkeypatch.delenv("GITHUB_ACTIONS")
    assert main(["gate", "--against", "HEAD"]) == 1
    assert "::error" not in capsys.readouterr().out


def test_calibrate_refuses_what_it_does_not_know(capsys, tmp_path) -> None:
    state = ["--state", str(tmp_path / "s.jsonl")]
    assert main(["calibrate", "--conditions", "quit", *state]) == 3
    assert "did you mean 'quiet'" in capsys.readouterr().err
    assert main(["calibrate", "--minutes", "0", *state]) == 3
    assert not os.listdir(tmp_path)


def test_the_help_names_the_exit_codes(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["gate", "--help"])
    assert "2 could not be judged" in " ".join(capsys.readouterr().out.split())
