"""Where results are kept: one JSON file a run, written atomically, from which everything else is made."""

import gzip
import os
import re
import zlib
from pathlib import Path

from bench import schema
from bench.environment import ROOT
from bench.measurement import SCHEMA, Measurement
from bench.workload import Workload
from sampler import strict_json
from sampler.errors import UsageError

RESULTS = ROOT / "results"


def home(workload: Workload, results: Path | None = None) -> Path:
    """The results folder of a run: a machine's own page shows the main job, and no trial run or other model takes it.

    A trial (preset smoke) is kept under results/scratch, which git ignores; another model under results/models/<model>.
    """
    results = RESULTS if results is None else results
    if workload.preset == "smoke":
        return results / "scratch"
    return of_model(workload.model, results)


def of_model(model: str, results: Path | None = None) -> Path:
    """The results folder of a model: results itself of the main job's, results/models/<model> of another."""
    results = RESULTS if results is None else results
    if model == Workload.model:
        return results
    return results / "models" / re.sub(r"[^\w.]+", "-", Path(model).name)


def folder(measurement: Measurement, results: Path = RESULTS) -> Path:
    return Path(results) / measurement.environment["machine"]


def save(measurement: Measurement, results: Path = RESULTS, below: str = "") -> Path:
    """Write results/<machine>/[below/]<date>-<commit>[-dirty].json and return its path."""
    environment = measurement.environment
    stamp = measurement.started.replace(":", "").replace("+0000", "Z")
    dirty = "-dirty" if environment["dirty"] else ""
    path = folder(measurement, results) / below / f"{stamp}-{environment['commit']}{dirty}.json"
    write_atomically(path, strict_json.compact(measurement.json(), "event"))
    return path


def load(path: Path) -> Measurement:
    """Read a result; refuses a file that is truncated, of another kind or of another schema."""
    try:
        raw = Path(path).read_bytes()
        stored = strict_json.loads_older(gzip.decompress(raw) if Path(path).suffix == ".gz" else raw)
        if stored["schema"] != SCHEMA:
            found = str(stored["schema"])[:20]
            raise UsageError(f"{path} has schema {found}, this version reads {SCHEMA}; measure again")
        schema.check(stored, path)
        return Measurement.from_json(stored)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, EOFError, zlib.error) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{path} is not a whole result file ({type(error).__name__}: {error})") from None


def newest(results: Path = RESULTS, machine: str = "*") -> Path:
    """The newest stored result of a machine, or of any; results are named by their date."""
    found = sorted(Path(results).glob(f"{machine}/2*.json"), key=lambda path: path.name)
    if not found:
        raise UsageError(f"no results in {results}; run `python -m bench run` or `make bench` first")
    return found[-1]


def newest_of_each(results: Path = RESULTS) -> list[Path]:
    """The newest stored result of every machine."""
    newest(results)  # says so where there is none
    machines = sorted({path.parent.name for path in Path(results).glob("*/2*.json")})
    return [newest(results, machine) for machine in machines]


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
