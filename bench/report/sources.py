"""What lies beside a stored result, made by other commands: the page shows it, or says which command makes it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import store
from bench import walk as walks
from bench.gate import certificate as certificates
from bench.gate import certificate_report
from bench.quality import record as qualities
from bench.quality.record import Quality
from bench.tune import record as tunings
from bench.tune.record import Tuning
from bench.update import record as updates
from bench.update.record import UpdateCost
from bench.walk import Walk
from sampler.errors import UsageError


@dataclass(frozen=True)
class Beside:
    """What was found beside a result; None where the command has not run on that machine.

    broken: a sentence for each file that cannot be read; a run's own result is shown all the same.
    """

    walk: Walk | None = None
    update: UpdateCost | None = None
    quality: Quality | None = None
    certificate: dict[str, Any] | None = None
    tunings: tuple[Tuning, ...] = ()
    broken: tuple[str, ...] = ()


def beside(folder: Path) -> Beside:
    """Everything in the folder of a machine's results; what the user lacks is taken from what is kept."""
    folder = Path(folder)

    def reader(load: Callable[[Path], Any], name: str) -> Callable[[], Any]:
        path = store.stored(folder / name)
        return lambda: load(path) if path.exists() else None

    readers: dict[str, Callable[[], Any]] = {
        "walk": reader(walks.load, "walk/walk.json"),
        "update": reader(updates.load, "update/update.json"),
        "quality": reader(qualities.load, "quality/quality.json"),
        "certificate": lambda: _certificate(folder),
        "tunings": lambda: tuple(map(tunings.load, tunings.answers(_tunings(folder)))),
    }
    found: dict[str, Any] = {}
    broken = []
    for name, read in readers.items():
        try:
            found[name] = read()
        except UsageError as error:
            broken.append(str(error))
            found.pop(name, None)
    return Beside(**found, broken=tuple(broken))


def _certificate(folder: Path) -> dict[str, Any] | None:
    """The gate's certificate, if all of it is there that is shown."""
    made = certificates.load(folder.name, folder.parent)
    try:
        if made is not None:
            certificate_report.table(made)
    except (KeyError, TypeError, AttributeError) as error:
        where = certificates.path(folder.name, folder.parent)
        raise UsageError(f"{where} is no whole certificate ({type(error).__name__}: {error})") from None
    return made


def _tunings(folder: Path) -> Path:
    """The user's answers, or those that are kept; never some of each."""
    own = folder / "tune"
    return own if tunings.answers(own) else store.kept(own)
