"""How a command begins and ends, whatever starts it: a terminal, nohup, cron, a pipe, a service without a terminal.

Nothing slow is imported here: what a command imports after `begin` takes seconds, and Ctrl-C may come during them.
"""

import _thread
import codecs
import contextlib
import io
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator, MutableMapping
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130  # what a shell says of a program that Ctrl-C has ended: 128 + SIGINT
LATER_S = 0.05  # until a Ctrl-C that could not be raised is raised again
LEAST_MIB = 64  # of a temporary folder: some of what a compiler writes there is as large
CACHES = ("XDG_CACHE_HOME", "MPLCONFIGDIR", "DDPM_BENCH_CACHE", "TRITON_HOME")
STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))  # of the descriptors 0, 1 and 2


def begin(name: str, stopped: str) -> None:
    """The first statement of a command's module, with its `__name__`: nothing happens where it is merely imported.

    Closed standard streams are opened on /dev/null, and Ctrl-C ends the process with this sentence, until `finish`.
    """
    if name == "__mp_main__":  # a process of a pool, which imports its parent's command again: the parent speaks
        on_ctrl_c(signal.SIG_DFL)
    if name == "__main__":
        open_streams()
        loading(stopped)
        for note in make_room(os.environ):
            say(note)


def loading(stopped: str) -> None:
    """From here on Ctrl-C ends the process with this sentence: nothing is there yet that would have to be undone."""
    on_ctrl_c(lambda number, frame: _stop(stopped))


def loading_in_pytest() -> None:
    """The same in a conftest.py: pytest then says what it has caught of the error stream, and leaves."""
    on_ctrl_c(_leave)
    for note in make_room(os.environ):
        say(note)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    say("stopped")
    raise SystemExit(INTERRUPTED)


def loaded() -> None:
    """From here on Ctrl-C is a KeyboardInterrupt again."""
    on_ctrl_c(signal.default_int_handler)


def finish(main: Callable[[], int], stopped: str) -> NoReturn:
    """The last statement of a command's module: run it, and leave with its status; Ctrl-C is a KeyboardInterrupt."""
    try:
        sys.unraisablehook = _once_more
        loaded()
        status = main()
        loading(stopped)  # also while the interpreter ends
    except KeyboardInterrupt:
        _stop(stopped)
    sys.exit(status)


def _stop(sentence: str) -> NoReturn:
    """End at once: whatever would be unwound or waited for could say more than one sentence."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        os.write(2, f"{sentence}\n".encode())
    os._exit(INTERRUPTED)


def _once_more(unraisable: "sys.UnraisableHookArgs") -> None:
    """A Ctrl-C that came where nothing can be raised (in a finalizer, in a callback) is heard a moment later."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        again = threading.Timer(LATER_S, _interrupt)
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(unraisable)


def _interrupt() -> None:
    """A real signal, which ends a wait too: `interrupt_main` is seen only when the main thread runs again."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        _thread.interrupt_main()


def say(sentence: str) -> None:
    """Write a line to the error stream, if anybody reads it."""
    with contextlib.suppress(OSError):
        print(sentence, file=sys.stderr, flush=True)


def on_ctrl_c(handler: Callable[[int, FrameType | None], object] | signal.Handlers) -> None:
    """Set what Ctrl-C does, unless this process was begun to ignore it, as a shell's background jobs are."""
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, handler)


def open_streams() -> None:
    """Open closed standard streams on /dev/null: else the next file or pipe to be opened would become one of them."""
    for number, (name, mode) in enumerate(STREAMS):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)  # the lowest that is free, so this one: those below are open
            assert null == number
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and codecs.lookup(stream.encoding).name != "utf-8":
            stream.reconfigure(errors="replace")  # '?' stands for what the locale cannot write


def make_room(environ: MutableMapping[str, str]) -> list[str]:
    """Point the variables of this process and its children to folders that can be used; what to tell of it.

    Python looks for another folder where TMPDIR is of no use, a C++ compiler does not. Where the home folder cannot be
    written to, caches (matplotlib's, Triton's, ours) go below the temporary folder, to one that is this user's alone.
    """
    notes, asked = [], environ.get("TMPDIR")
    places = [*filter(None, [asked]), "/tmp", "/var/tmp"]
    found = next((place for place in places if why_useless(place) is None), None)
    if asked and found != asked:
        instead = f"{found} is used" if found else "nor is there another"
        notes.append(f"note: TMPDIR={asked} {why_useless(asked)}; {instead}")
        environ["TMPDIR"] = found or asked
    home = environ.get("HOME") or os.path.expanduser("~")
    if found and not os.access(home, os.W_OK | os.X_OK):
        caches = _own_folder(os.path.join(found, f"ddpm-bench-{os.getuid()}"))
        if caches:
            for name in CACHES:
                environ.setdefault(name, caches)
    return notes


def why_useless(folder: str) -> str | None:
    """Why a temporary folder cannot be used, None where it can."""
    if not os.path.isdir(folder):
        return "does not exist"
    if not os.access(folder, os.W_OK | os.X_OK):
        return "cannot be written to"
    free_mib = (disk := os.statvfs(folder)).f_bavail * disk.f_frsize / 2**20
    return f"has {free_mib:.0f} MiB free, too few to compile in" if free_mib < LEAST_MIB else None


def _own_folder(path: str) -> str | None:
    """A folder that nobody else can write to, where what is loaded again may be kept; None where that cannot be."""
    with contextlib.suppress(OSError):
        os.mkdir(path, 0o700)
    with contextlib.suppress(OSError):
        found = os.lstat(path)
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022:
            return path
    return None


@contextlib.contextmanager
def heard(*numbers: int) -> Iterator[None]:
    """Processes begun inside hear these signals, although this one, and so its children, was begun to ignore them.

    A program inherits that a signal is ignored, but not how it is handled: inside, a handler does the ignoring.
    """
    ignored = [number for number in numbers if signal.getsignal(number) == signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, lambda number, frame: None)
    try:
        yield
    finally:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)
