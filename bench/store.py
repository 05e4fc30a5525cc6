"""Where results are kept: one JSON file a run, written atomically, from which everything else is made.

What a user measures goes to `RESULTS`, which git ignores; what is committed lies in `KEPT`, where `bench keep` puts it.
Whoever reads looks among the user's runs first. Installed without a checkout around it, both are ./results.
"""

import gzip
import hashlib
import os
import re
import zlib
from pathlib import Path
from typing import Any

from bench import schema
from bench.environment import ROOT
from bench.measurement import SCHEMA, Measurement
from bench.workload import Workload
from sampler import strict_json
from sampler.errors import UsageError
from sampler.own_models import is_own, origin


def kept_in(root: Path) -> Path:
    """The folder of results: a checkout's own, or the one below which the caller stands where there is no checkout."""
    return root / "results" if (root / "pyproject.toml").is_file() else Path.cwd() / "results"


KEPT = kept_in(ROOT)  # what is committed: <machine>/, models/<model>/<machine>/
RESULTS = KEPT / "local" if KEPT.parent == ROOT else KEPT  # a user's own, in the same shape
SCRATCH = KEPT / "scratch"  # what may be lost: pictures drawn to be judged, searches broken off
PAGES = KEPT / "pages"  # made of what is kept, where no run of the user's takes its place


def home(workload: Workload, results: Path | None = None) -> Path:
    """The results folder of a run: a machine's own page shows the main job, and no trial run or other model takes it.

    A trial (preset smoke) goes to <results>/scratch; another model to <results>/models/<model>.
    """
    results = RESULTS if results is None else results
    if workload.preset == "smoke":
        return results / "scratch"
    return of_model(workload.model, results)


def of_model(model: str, results: Path | None = None) -> Path:
    """The results folder of a model: results itself of the main job's, results/models/<model> of another."""
    results = RESULTS if results is None else results
    return results if model == Workload.model else results / "models" / named(model)


def named(model: str) -> str:
    """A model's name as a file's: two own models have two, though their files be called alike in two folders."""
    if not is_own(model):
        return re.sub(r"[^\w.]+", "-", model)
    return f"{re.sub(r'[^A-Za-z0-9_.]+', '-', Path(model).name).strip('-')}-{digest(origin(model))}"


def digest(text: str) -> str:
    """Short, for a file's name."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def folder(measurement: Measurement, results: Path | None = None) -> Path:
    return Path(RESULTS if results is None else results) / measurement.environment["machine"]


def name_of(measurement: Measurement) -> str:
    """Of its file: <date>-<commit>[-dirty].json."""
    stamp = measurement.started.replace(":", "").replace("+0000", "Z")
    dirty = "-dirty" if measurement.environment["dirty"] else ""
    return f"{stamp}-{measurement.environment['commit']}{dirty}.json"


def save(measurement: Measurement, results: Path | None = None, below: str = "") -> Path:
    """Write <results>/<machine>/[below/]<date>-<commit>[-dirty].json and return its path."""
    path = folder(measurement, results) / below / name_of(measurement)
    write_atomically(path, strict_json.compact(measurement.json(), "event"))
    return path


def read_text(path: Path) -> str:
    """The text of a file, compressed (.gz) or not; ValueError where it is cut."""
    raw = Path(path).read_bytes()
    if Path(path).suffix != ".gz":
        return raw.decode()
    try:
        return gzip.decompress(raw).decode()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"it is cut, or not compressed by gzip: {error}") from None


def read(path: Path) -> Any:
    """What a stored JSON file holds, compressed or not, of this version or an older one."""
    return strict_json.loads_older(read_text(path))


def write_text(path: Path, text: str) -> None:
    """As `write_atomically`; compressed where the name ends in .gz, the same text to the same bytes."""
    write_atomically(path, gzip.compress(text.encode(), mtime=0) if Path(path).suffix == ".gz" else text)


def load(path: Path) -> Measurement:
    """Read a result; refuses a file that is truncated, of another kind or of another schema."""
    try:
        stored = read(path)
        if stored["schema"] != SCHEMA:
            found = str(stored["schema"])[:20]
            raise UsageError(f"{path} has schema {found}, this version reads {SCHEMA}; measure again")
        schema.check(stored, path)
        return Measurement.from_json(stored)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{path} is not a whole result file ({type(error).__name__}: {error})") from None


def runs(folder: Path) -> list[Path]:
    """The results in a machine's folder, compressed or not, the oldest first: they are named by their date."""
    found = {path.name.removesuffix(".gz"): path for path in sorted(Path(folder).glob("2*.json*"), reverse=True)
             if path.name.endswith((".json", ".json.gz"))}  # fmt: skip
    return [found[name] for name in sorted(found)]


def stored(path: Path) -> Path:
    """A file as it lies among the user's runs, else as it is kept, compressed or not; the path itself if nowhere."""
    places = (Path(path), kept(path))
    return next((p for place in places for p in (place, place.with_name(f"{place.name}.gz")) if p.exists()), path)


def kept(path: Path) -> Path:
    """Where a file of the user's would be kept; any other as it is."""
    return KEPT / Path(path).relative_to(RESULTS) if Path(path).is_relative_to(RESULTS) else Path(path)


def page_of(run: Path) -> Path:
    """The folder for what is made of a run: its own; of one that is kept, a folder below `PAGES`, which git ignores."""
    own, kept_, *others = (path.resolve() for path in (Path(run).parent, KEPT, RESULTS, SCRATCH, PAGES))
    if not own.is_relative_to(kept_) or any(own.is_relative_to(other) for other in others):
        return Path(run).parent
    return PAGES / own.relative_to(kept_)


def newest(results: Path | None = None, machine: str = "*") -> Path:
    """The newest stored result of a machine, or of any: of the user's runs, and of what is kept where there is none."""
    for place in places(results):
        found = [run for folder in Path(place).glob(machine) for run in runs(folder)]
        if found:
            return max(found, key=lambda path: path.name)
    raise UsageError(f"no results in {' or '.join(map(str, places(results)))}; "
                     "run `python -m bench run` or `make bench` first")  # fmt: skip


def newest_of_each(results: Path | None = None) -> list[Path]:
    """The newest stored result of every machine; of what is kept only where the user has none of that machine."""
    newest(results)  # says so where there is none
    machines = {path.name for place in places(results) for path in Path(place).glob("*") if runs(path)}
    return [newest(results, machine) for machine in sorted(machines)]


def places(results: Path | None = None) -> list[Path]:
    """Where to look for results, one after the other: the folder named, or the user's runs and what is kept."""
    return list(dict.fromkeys((RESULTS, KEPT))) if results is None else [results]


def write_atomically(path: Path, content: str | bytes) -> None:
    """A reader sees the old file or the new one, never a part."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        if isinstance(content, str):
            partial.write_text(content, encoding="utf-8")
        else:
            partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
