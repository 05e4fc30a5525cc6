"""The same answers however tests and commands are started: a part of the tests, and commands, in each way."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench import store
from tests.patience import PATIENCE_S

ROOT = Path(__file__).resolve().parents[1]
# what sends signals, writes pictures, compiles, asks git, starts workers
PART = [
    "tests/test_start.py", "tests/test_reader_gone.py", "tests/kernels/test_native_build.py",
    "tests/sampler_cli/test_train_command.py", "tests/bench/test_gpu.py", "tests/bench/gate/test_command.py",
    "tests/bench/gate/test_trees.py", "tests/bench/test_store.py", "tests/bench/test_cli.py",
]  # fmt: skip
ANOTHER_USER = (
    "setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps -all,+dac_read_search "
    '--ambient-caps -all,+dac_read_search --bounding-set -all,+dac_read_search "$@"'
)
BURNT = (
    'for i in $(seq $(nproc)); do sh -c "while :; do :; done" & burn="$burn $!"; done; '
    '"$@"; code=$?; kill $burn; exit $code'
)
WAYS = {
    "a background job under nohup": 'nohup "$@" & wait $!',
    "no terminal": 'setsid -w "$@" </dev/null',
    "standard input closed": '"$@" <&-',
    "standard output a pipe that is closed early": 'set -o pipefail; "$@" | head -c 1 >/dev/null',
    "LANG=C": 'LC_ALL=C LANG=C "$@"',
    "no home": 'HOME=/nonexistent "$@"',
    "no temporary folder": 'TMPDIR=/nonexistent "$@"',
    "256 open files": 'ulimit -n 256; "$@"',
    "one core": 'taskset -c 0 "$@"',
    "no bytecode": 'PYTHONDONTWRITEBYTECODE=1 "$@"',
    "beside what burns every core": BURNT,
    "another user who may only read": f"HOME=/nonexistent {ANOTHER_USER}",
}


def started(way: str, *command: str) -> subprocess.CompletedProcess:
    if "setpriv" in WAYS[way] and (os.geteuid() or shutil.which("setpriv") is None):
        pytest.skip("to become another user, one must be root")
    return subprocess.run(["bash", "-c", WAYS[way], "bash", sys.executable, "-m", *command], cwd=ROOT, text=True,
                          capture_output=True, timeout=6 * PATIENCE_S)  # fmt: skip


@pytest.fixture
def anybodys(tmp_path_factory) -> Path:
    """A folder that every user can write to."""
    folder = tmp_path_factory.mktemp("anybodys")
    for place in (folder, *folder.parents):
        if place != Path(place.anchor) and place.is_relative_to("/tmp") and place.owner() == folder.owner():
            place.chmod(0o777 if place != Path("/tmp") else place.stat().st_mode)
    return folder


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
def test_a_part_of_the_tests(way: str, anybodys: Path) -> None:
    done = started(way, "pytest", *PART, "-q", "-m", "not slow and not long and not gpu and not extra",
                   "-p", "no:cacheprovider", "--basetemp", str(anybodys / "made"))  # fmt: skip
    if "closed early" in way:  # pytest itself may say so by its status; no test has failed before
        assert "Traceback" not in done.stderr
    else:
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
def test_a_run(way: str, anybodys: Path) -> None:
    rows = "batched-cfg,compiled-update,native-update,ddim"
    done = started(way, "bench", "run", "--preset", "smoke", "--rows", rows, "--out", str(anybodys / "out"))
    assert done.returncode == (141 if "closed early" in way else 0), done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    job = store.load(store.newest(anybodys / "out"))
    assert {name: job.row(name).status for name in job.rows} == dict.fromkeys(["reference", *rows.split(",")], "ok")


@pytest.mark.slow
def test_who_may_only_read_the_checkout_is_told_to_name_a_folder_before_the_work(anybodys: Path) -> None:
    way = "another user who may only read"
    for command in (["bench", "run"], ["bench", "memory"], ["bench", "tune"], ["bench", "calibrate"],
                    ["pytest", "bench", "--benchmark-only", "-k", "ddim", "-p", "no:cacheprovider"]):  # fmt: skip
        done = started(way, *command)
        assert done.returncode == 3, done.stdout + done.stderr
        said = (done.stdout + done.stderr).strip().splitlines()
        assert "name another (--" in said[-1]
        assert len(said) == 1 or command[0] == "pytest"
    done = started(way, "bench", "gate", "--against", "HEAD")
    assert done.returncode == 3
    assert "run it in a clone of your own" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_ctrl_c_at_a_background_job_is_not_heard(tmp_path: Path) -> None:
    """As after nohup: the run goes on to its end, and its workers too."""
    command = [sys.executable, "-m", "bench", "run", "--preset", "smoke", "--rows", "ddim", "--out", str(tmp_path)]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                   start_new_session=True)  # fmt: skip
    finally:
        signal.signal(signal.SIGINT, before)
    said = process.stderr.readline()
    os.killpg(process.pid, signal.SIGINT)
    assert said
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
