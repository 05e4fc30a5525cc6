"""A command begins and ends in order whatever starts it, and whoever reads it or does not."""

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from sampler import start
from tests.patience import PATIENCE_S

ROOT = Path(__file__).resolve().parents[1]


def program(text: str, **more) -> subprocess.Popen:
    """A Python program that stands in the checkout and hears signals, whatever these tests were started by."""
    with start.heard(signal.SIGINT):
        return subprocess.Popen([sys.executable, "-c", textwrap.dedent(text)], cwd=ROOT, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)  # fmt: skip


def shell(command: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["sh", "-c", command, "sh", sys.executable, *arguments], cwd=ROOT, capture_output=True,
                          text=True, timeout=PATIENCE_S)  # fmt: skip


def ended(process: subprocess.Popen) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out, err


SLEEPS = """
    import sys, time
    from sampler import start
    start.begin("__main__", "stopped")
    {before}
    def main():
        print("in main", flush=True)
        {inside}
        return 0
    start.finish(main, "stopped")
"""
AFTER = """
    import atexit, time
    from sampler import start
    start.begin("__main__", "stopped")
    atexit.register(lambda: (print("at exit", flush=True), time.sleep(100)))
    start.finish(lambda: 0, "stopped")
"""
LOST = """
    import time
    from sampler import start
    class Finalized:
        def __del__(self):
            print("finalizing", flush=True)
            try:
                time.sleep(100)
            except KeyboardInterrupt as error:
                raise KeyboardInterrupt from error
    start.begin("__main__", "stopped")
    def main():
        Finalized()
        time.sleep(100_000)
    start.finish(main, "stopped")
"""
SAYS = 'print("ready", flush=True); time.sleep(100)'


MOMENTS = {
    "during its imports": SLEEPS.format(before=SAYS, inside="pass"),
    "during its work": SLEEPS.format(before="", inside="time.sleep(100)"),
    "while the interpreter ends": AFTER,
    "where nothing can be raised": LOST,
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_at_any_moment_is_one_sentence(moment: str) -> None:
    process = program(MOMENTS[moment])
    assert process.stdout.readline()
    process.send_signal(signal.SIGINT)
    code, _, err = ended(process)
    assert (code, err) == (130, "stopped\n")


def importing(process: subprocess.Popen) -> bool:
    """Wait until a process has begun to load PyTorch."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until and process.poll() is None:
        if "libtorch" in Path(f"/proc/{process.pid}/maps").read_text():
            return True
        time.sleep(0.01)
    return False


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks at what a process has loaded")
@pytest.mark.parametrize(("command", "said"), [
    (["bench", "list"], "stopped\n"), (["sampler", "models"], "\npython -m sampler: interrupted\n"),
    (["bench.quality.trial"], "stopped\n"),
    (["pytest", "bench", "--collect-only", "-p", "no:cacheprovider"], "stopped\n"),
    (["pytest", "tests/kernels", "--collect-only", "-p", "no:cacheprovider"], "stopped\n"),
])  # fmt: skip
def test_ctrl_c_while_pytorch_is_imported(command: list[str], said: str) -> None:
    with start.heard(signal.SIGINT):
        process = subprocess.Popen([sys.executable, "-m", *command], cwd=ROOT, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    assert importing(process)
    process.send_signal(signal.SIGINT)
    code, out, err = ended(process)
    assert (code, out, err) == (130, "", said)


def test_a_background_job_goes_on_ignoring_ctrl_c_and_what_it_must_interrupt_hears() -> None:
    """nohup and a shell's & begin a program with signals ignored, and it passes that on to its own children."""
    text = """
        import signal, subprocess, sys
        from sampler import start
        start.begin("__main__", "stopped")
        ASKS = [sys.executable, "-c", "import signal; print(signal.getsignal(2) == signal.SIG_IGN)"]
        def main():
            signal.raise_signal(signal.SIGINT)
            print("went on", flush=True)
            with start.heard(signal.SIGINT, signal.SIGHUP):
                signal.raise_signal(signal.SIGINT)
                subprocess.run(ASKS)
            subprocess.run(ASKS)
            return 0
        start.finish(main, "stopped")
    """
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(text)], cwd=ROOT, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended(process) == (0, "went on\nFalse\nTrue\n", "")


@pytest.mark.parametrize("closed", ["<&-", "<&- 2>&-", "<&- >&- 2>&-", "2>&- >&-"])
def test_closed_streams_are_nowhere_and_no_file_takes_their_place(closed: str, tmp_path: Path) -> None:
    text = """
        import os, subprocess, sys
        from sampler import start
        start.begin("__main__", "stopped")
        def main():
            kept = open(sys.argv[1], "w")
            assert kept.fileno() > 2
            print("out"); print("err", file=sys.stderr); subprocess.run("cat; echo out; echo err >&2", shell=True)
            kept.write("done " + sys.stdin.read() + " ".join(os.readlink(f"/proc/self/fd/{n}") for n in range(3)))
            return 0
        start.finish(main, "stopped")
    """
    file = tmp_path / "file"
    done = shell(f'exec "$1" -c "$2" "$3" {closed}', textwrap.dedent(text), str(file))
    assert done.returncode == 0
    assert done.stdout == ("" if ">&-" in closed.replace("2>&-", "") else "out\nout\n")
    assert done.stderr == ("" if "2>&-" in closed else "err\nerr\n")
    said, *streams = file.read_text().split()
    assert said == "done"
    assert [stream == "/dev/null" for stream in streams][1:] == [done.stdout == "", done.stderr == ""]


def test_what_a_locale_cannot_write_is_no_fault() -> None:
    text = """
        from sampler import start
        start.begin("__main__", "stopped")
        start.finish(lambda: print("3\\u00d728 \\u2026") or 0, "stopped")
    """
    environ = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    assert ended(program(text, env=environ)) == (0, "3?28 ?\n", "")


@pytest.mark.parametrize(("command", "code", "said"), [
    ("variants >/dev/full", 3, "python -m sampler: the disk is full\n"),
    ("--help | head -0; exit ${PIPESTATUS[0]}", 141, ""),
    ("nonsense 2> >(true)", 3, ""),
])  # fmt: skip
def test_output_that_goes_nowhere_leaves_no_traceback(command: str, code: int, said: str) -> None:
    done = subprocess.run(["bash", "-c", f"{sys.executable} -m sampler {command}"], cwd=ROOT, capture_output=True,
                          text=True, timeout=PATIENCE_S)  # fmt: skip
    assert (done.returncode, done.stderr) == (code, said)


def test_a_temporary_folder_that_is_of_no_use_is_told_and_replaced(tmp_path: Path, monkeypatch) -> None:
    usable = {"TMPDIR": str(tmp_path), "HOME": str(tmp_path)}
    kept = dict(usable)
    assert start.make_room(usable) == []
    assert usable == kept
    for useless, why in ((str(tmp_path / "none"), "does not exist"), ("/proc/self", "cannot be written to"),
                         ("/dev/full", "does not exist")):  # fmt: skip
        environ = {"TMPDIR": useless, "HOME": str(tmp_path)}
        if why == "cannot be written to" and start.why_useless(useless) != why:
            continue  # the superuser may write anywhere
        assert start.make_room(environ) == [f"note: TMPDIR={useless} {why}; /tmp is used"]
        assert environ["TMPDIR"] == "/tmp"
    monkeypatch.setattr(start, "LEAST_MIB", 1 << 40)
    environ = {"TMPDIR": str(tmp_path)}
    (note,) = start.make_room(environ)
    assert "MiB free, too few to compile in; nor is there another" in note
    assert environ == {"TMPDIR": str(tmp_path)}


def test_without_a_home_caches_go_to_a_folder_that_is_the_users_alone(tmp_path: Path) -> None:
    environ = {"TMPDIR": str(tmp_path), "HOME": "/nonexistent", "MPLCONFIGDIR": "/asked/for"}
    assert start.make_room(environ) == []
    (own,) = tmp_path.iterdir()
    assert own.stat().st_mode & 0o777 == 0o700
    assert environ["DDPM_BENCH_CACHE"] == environ["XDG_CACHE_HOME"] == str(own)
    assert environ["MPLCONFIGDIR"] == "/asked/for"
    own.chmod(0o777)  # what somebody else may have put there is not loaded
    environ = {"TMPDIR": str(tmp_path), "HOME": "/nonexistent"}
    start.make_room(environ)
    assert "DDPM_BENCH_CACHE" not in environ
