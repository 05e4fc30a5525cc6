"""`python -m bench keep`: put what was measured where it can be committed; nothing else changes a tracked file.

Of a run its raw events are kept, compressed, and the few files that can be looked at in the repository; `make report`
makes the page and all other figures from them.
"""

import argparse
from pathlib import Path

from bench import environment, report, store
from bench.gate import certificate
from bench.report import sources
from bench.store import write_atomically
from sampler import strict_json
from sampler.errors import UsageError
from sampler.files import writable_folder

OUTPUTS = ("report.md", "rows.csv", "figures/speedup.png", "figures/pictures.png")  # beside a run that is kept
RAW = (".json", ".jsonl")


def add_to(commands) -> None:
    """Add the command to the parser's."""
    parser = commands.add_parser(
        "keep", help="put a result where it can be committed, results/<machine> in the checkout, compressed"
    )
    parser.add_argument("path", type=Path, nargs="*", help="a run, or what another command left, such as "
                        "results/local/<machine>/memory (default: this machine's newest run)")  # fmt: skip
    parser.set_defaults(do=run)


def run(arguments: argparse.Namespace) -> int:
    if store.KEPT == store.RESULTS:
        raise UsageError("there is no checkout around this package in which a result could be committed")
    given = arguments.path or [store.newest(store.RESULTS, environment.machine("cpu"))]
    print("\n".join(str(path) for one in given for path in keep(one, store.RESULTS, store.KEPT)))
    return 0


def keep(path: Path, results: Path, kept: Path) -> list[Path]:
    """Keep a run, or a file or folder that another command left below `results`; returns what was written."""
    path, results = Path(path).resolve(), results.resolve()
    if not path.exists():
        raise UsageError(f"there is no {path}")
    if path.is_relative_to(results / "scratch"):
        raise UsageError(f"{path} is of a trial (preset smoke), whose figures say nothing; it is not kept")
    runs = store.runs(path) if path.is_dir() else []
    if runs and path.name == _machine(runs[-1]):
        raise UsageError(f"{path} holds runs; name the one to keep, or a folder beside them, such as {path}/memory")
    if path.is_file() and path.name.startswith("2") and not path.parent.is_relative_to(results):
        return _run(path, kept)
    if path.is_file() and path in store.runs(path.parent) and path.parent.name == _machine(path):
        return _run(path, kept)
    if not path.is_relative_to(results):
        raise UsageError(f"{path} does not lie below {results}; name a run, or what a command left there")
    return [_other(one, kept / one.relative_to(results)) for one in _files(path)]


def _machine(path: Path) -> str:
    return store.load(path).environment["machine"]


def _run(path: Path, kept: Path) -> list[Path]:
    """Its raw events, and what is shown of them beside what is kept of the machine."""
    measurement = store.load(path)
    if measurement.workload.preset == "smoke":
        raise UsageError(f"{path} is of a trial (preset smoke), whose figures say nothing; it is not kept")
    folder = writable_folder(store.folder(measurement, store.home(measurement.workload, kept)))
    raw = folder / f"{store.name_of(measurement)}.gz"
    store.write_text(raw, strict_json.compact(store.read(path), "event"))  # of an older version, as it said it
    made = report.contents(measurement, sources.beside(folder))
    return [raw, *report.keep({name: made[name] for name in OUTPUTS if name in made}, folder)]


def _files(path: Path) -> list[Path]:
    found = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return [p for p in found if not p.name.startswith(".") and p.suffix != ".html"]


def _other(path: Path, target: Path) -> Path:
    """A file as it is; raw events compressed, but for the certificate, which is short."""
    writable_folder(target.parent)
    if path.suffix in RAW and path.name != certificate.NAME:
        target = target.with_name(f"{target.name}.gz")
        store.write_text(target, store.read_text(path))
    else:
        write_atomically(target, path.read_bytes())
    return target
