"""How a command begins and ends, whatever starts it: a terminal, nohup, cron, a pipe, a service without a terminal.

Nothing slow is imported here: what a command imports after `begin` takes seconds, and Ctrl-C may come during them.
"""

import _thread
import codecs
import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130  # what a shell says of a program that Ctrl-C has ended: 128 + SIGINT
LATER_S = 0.05  # until a Ctrl-C that could not be raised is raised again
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


def loading(stopped: str) -> None:
    """From here on Ctrl-C ends the process with this sentence: nothing is there yet that would have to be undone."""
    on_ctrl_c(lambda number, frame: _stop(stopped))


def loading_in_pytest() -> None:
    """The same in a conftest.py: pytest then says what it has caught of the error stream, and leaves."""
    on_ctrl_c(_leave)


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
        again = threading.Timer(LATER_S, _thread.interrupt_main)
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(unraisable)


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
